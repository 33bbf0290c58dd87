"""Train an autoencoder on defect-free images (Lightning) and write its run folder."""

from __future__ import annotations

import logging
import math
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from ae.calibration import calibrate
from ae.checkpoints import WholeFiles, prepare
from ae.config import PATCH, TrainConfig
from ae.corruption import corrupted
from ae.data import DataFolder, Patches, digest, good_images, open_folder, split_good
from ae.files import reserved
from ae.methods import make_method
from ae.progress import ProgressBar
from ae.run import Run, kept, save_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHECK_BATCHES = 8  # of held-out patches, the same in every epoch
LOOK_EVERY = 50  # steps from one look at whether the loss is still a number to the next
COLLAPSED = 0.05  # a reconstruction that varies less than this share of its image is constant


def train(
    data: Path | str | DataFolder,
    out: Path | str,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train a model and write a self-contained run folder.

    Good images are divided into those to fit and those held out; early stopping and the threshold use the latter.
    A checkpoint is written at the end of every epoch. Without a time budget, a training that was killed at any point
    and resumed ends with the very weights of an uninterrupted one (on a CPU, with as many threads).

    Parameters
    ----------
    data : Path or DataFolder
        In the layout of MVTec AD, or a plain folder of defect-free images.
    out : Path
        The run folder, made where there is none.
    config : TrainConfig, optional
        The paper's values by default.
    resume : bool
        Continue from the last checkpoint of the same images and configuration in `out`, or begin where there is none.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    ValueError
        If an image cannot be used, `out` holds another training or a damaged checkpoint, or another process trains in
        it.
    RuntimeError
        If the training diverges: the loss is no number any more.
    KeyboardInterrupt
        At Ctrl-C; the last checkpoint stays.

    Examples
    --------
    ::

        from ae import TrainConfig, train
        train("data/grid", "runs/grid", TrainConfig(method="ssim", epochs=20))
    """
    config = config or TrainConfig()
    out = Path(out)
    folder = data if isinstance(data, DataFolder) else open_folder(data)
    images = good_images(folder, config)
    fit, held_out = split_good(images, config.held_out, config.seed, PATCH)
    with reserved(out):
        with _quiet():
            pl.seed_everything(config.seed, verbose=False)
            module = _Training(config)
            module.method.prepare()
            seen = digest(images)
            checkpoint = prepare(out, config, seen, resume=resume)
            clock = _Clock(config)
            trainer = _trainer(out, config, clock, progress=progress)
            batches = config.patches_per_epoch // config.batch_size
            patches = _patches(fit, config, batches, config.augment, config.seed)
            check = _patches(held_out, config, CHECK_BATCHES, "none", config.seed + 1)
            keep_near(patches, trainer.strategy.root_device)
            try:
                trainer.fit(module, _loader(patches), _loader(check), ckpt_path=checkpoint, weights_only=True)
            except SystemExit:  # how Lightning ends after Ctrl-C
                raise KeyboardInterrupt from None
        method = module.method.eval()
        with torch.inference_mode():
            loss, spread, constant_loss = (
                torch.stack(values).mean().item() for values in zip(*map(module.compare, check), strict=True)
            )
        training = {
            "data": folder.root.resolve().name,
            "images_digest": seen,
            "images": {"fit": len(fit), "held_out": len(held_out) if config.held_out else 0},
            "epochs": trainer.current_epoch,
            "patches": trainer.global_step * config.batch_size,
            "seconds": round(clock.seconds, 1),
            "loss": loss,
            "collapsed": not (spread >= COLLAPSED and loss < constant_loss),
        }
        threshold, good = calibrate(method, held_out, config)
        save_run(Run(out, config, method, threshold, training, **kept(good)))
    return out


class _Training(pl.LightningModule):
    """One method with its optimiser and schedule."""

    warm: bool  # the squared error is minimised in place of the method's loss

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.warm = False
        self.method = make_method(config)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as in the paper."""
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay)

    def training_step(self, batch: torch.Tensor, number: int) -> torch.Tensor:
        """Return the loss of one batch."""
        seen = corrupted(batch, self.config)
        loss = (
            relative_squared_error(batch, self.method.reconstruct(seen)) if self.warm else self.method.loss(batch, seen)
        )
        if number % LOOK_EVERY == 0:  # looking waits for the GPU
            self._check(loss)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        """Log what `compare` finds on held-out patches."""
        loss, spread = self.compare(batch)[:2]
        self._check(loss)  # before a checkpoint keeps such weights
        self.log_dict({"held_out_loss": loss, "spread": spread}, prog_bar=True, batch_size=len(batch))

    def _check(self, loss: torch.Tensor) -> None:
        """Stop a training that leads nowhere."""
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the training diverged: its loss is {loss.item()} after {self.global_step} steps; give a lower"
                " --learning-rate, or 1 as --gradient-clip"
            )

    def compare(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, how much a reconstruction varies as a share of its patch, and the loss of a constant."""
        reconstruction = self.method.reconstruct(batch)
        spread = reconstruction.std(dim=(2, 3)).mean() / batch.std(dim=(2, 3)).mean().clamp_min(1e-6)
        constant = batch.mean(dim=(2, 3), keepdim=True).expand_as(batch)
        return self.method.distance(batch, reconstruction), spread, self.method.distance(batch, constant)


def relative_squared_error(batch: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Mean of (x - x_hat)^2 over the batch's variance: about 1 for a constant, so that a change to SSIM is no jump.

    Examples
    --------
    >>> batch = torch.tensor([0.0, 1.0])
    >>> relative_squared_error(batch, torch.full((2,), 0.5)).item()
    1.0
    """
    return torch.nn.functional.mse_loss(reconstruction, batch) / batch.var(correction=0).clamp_min(1e-6)


class _Patience(EarlyStopping):
    """Stop when held-out patches get no better, but not while another loss is minimised."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further after a checkpoint that was the last."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the held-out loss."""
        if not getattr(pl_module, "warm", False):
            super().on_validation_end(trainer, pl_module)


class _Clock(Callback):
    """Count the seconds of training over all its parts, set learning rate and warm-up by them, end at the budget."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._before = 0.0
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + (time.monotonic() - self._start if self._start else 0.0)

    def share(self, trainer: pl.Trainer) -> float:
        """Share of the training that is done, by its steps or, where that is more, by its time and least epochs."""
        epochs = trainer.global_step / trainer.num_training_batches
        share = epochs / self._config.epochs
        if self._config.time_budget is not None:
            spent = self.seconds / self._config.time_budget
            share = max(share, min(spent, epochs / self._config.least_epochs) if self._config.least_epochs else spent)
        return min(share, 1.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._before, self._start = self.seconds, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the patches of this epoch be drawn."""
        loader: Any = trainer.train_dataloader
        loader.dataset.epoch = trainer.current_epoch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Set the loss, the learning rate and the random numbers; end training when the budget is spent.

        Each is a function of the step (and of the time spent, where there is a budget), so that a resumed training
        goes on exactly as it would have.
        """
        seeds = np.random.SeedSequence((self._config.seed, trainer.global_step))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        share = self.share(trainer)
        trainer.should_stop = trainer.should_stop or share >= 1
        training: Any = pl_module
        training.warm = share < self._config.warm_up
        rate = self._config.learning_rate
        if self._config.schedule == "one-cycle":
            rate *= one_cycle(share)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Keep the seconds in the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the checkpoint's seconds."""
        self._before = float(state_dict["seconds"])


def one_cycle(share: float) -> float:
    """Share of the highest learning rate at a share of the training: up to 1 at 0.3, then down, along half cosines.

    Starts at 1/25 and ends at 1/2500 (Smith and Topin, 2018).

    Examples
    --------
    >>> [round(one_cycle(share), 3) for share in (0, 0.3, 1)]
    [0.04, 1.0, 0.0]
    """
    low, high, part = (0.04, 1.0, share / 0.3) if share < 0.3 else (0.0004, 1.0, (1 - share) / 0.7)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def _trainer(out: Path, config: TrainConfig, clock: _Clock, *, progress: bool) -> pl.Trainer:
    """Put Lightning's parts together."""
    callbacks: list[Callback] = [
        clock,
        ModelCheckpoint(
            out / "checkpoints", "last", enable_version_counter=False, save_on_train_epoch_end=True, every_n_epochs=1
        ),
    ]
    if config.patience:
        callbacks.append(_Patience("held_out_loss", patience=config.patience, check_on_train_epoch_end=False))
    if progress:
        callbacks.append(ProgressBar(config.method, clock.share))
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=config.epochs,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        gradient_clip_val=config.gradient_clip or None,
        callbacks=callbacks,
        logger=[CSVLogger(out / "logs", name="csv"), TensorBoardLogger(out / "logs", name="tensorboard")],
        enable_progress_bar=False,
        plugins=[WholeFiles()],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _patches(images: list[NDArray[np.float32]], config: TrainConfig, batches: int, augment: str, seed: int) -> Patches:
    """Random patches of some images."""
    return Patches(images, patch=PATCH, batch_size=config.batch_size, batches=batches, seed=seed, augment=augment)


def keep_near(patches: Patches, device: torch.device) -> None:
    """Keep the images on the GPU that trains, where they take no more than half of its free memory."""
    if device.type == "cuda" and patches.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        patches.to(device)


def _loader(patches: Patches) -> DataLoader[torch.Tensor]:
    """Hand batches on as they are drawn."""
    return DataLoader(patches, batch_size=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints about hardware and loaders from a person who asked for none."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
