"""Train an autoencoder on defect-free images (Lightning) and write its run folder."""

from __future__ import annotations

import logging
import math
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from ae.config import PATCH, TrainConfig
from ae.data import DataFolder, Patches, load_images, open_folder, split_good
from ae.files import read_json, write_json
from ae.methods import get_method
from ae.models import Autoencoder
from ae.run import save_run
from ae.segmentation import residual_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

CHECK_BATCHES = 8  # of held-out patches, the same in every epoch
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
    A checkpoint is written at the end of every epoch.

    Parameters
    ----------
    data : Path or DataFolder
        In the layout of MVTec AD, or a plain folder of defect-free images.
    out : Path
        The run folder, made where there is none.
    config : TrainConfig, optional
        The paper's values by default.
    resume : bool
        Continue from the last checkpoint of the same configuration in `out`, or begin where there is none.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    ValueError
        If an image cannot be used, or `out` holds another training.
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
    images = load_images(folder.train, channels=config.channels, scale=config.scale, smallest=PATCH)
    fit, held_out = split_good(images, config.held_out, config.seed, PATCH)
    checkpoint = _prepare(out, config, resume=resume)

    with _quiet():
        pl.seed_everything(config.seed, verbose=False)
        module = _Training(config)
        clock = _Clock(config)
        trainer = _trainer(out, config, clock, progress=progress)
        batches = config.patches_per_epoch // config.batch_size
        patches = _patches(fit, config, batches, config.augment, config.seed)
        check = _patches(held_out, config, CHECK_BATCHES, "none", config.seed + 1)
        try:
            trainer.fit(module, _loader(patches), _loader(check), ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # how Lightning ends after Ctrl-C
            raise KeyboardInterrupt from None
    model = module.model.eval()
    with torch.inference_mode():
        loss, spread, constant_loss = (
            torch.stack(values).mean().item() for values in zip(*map(module.compare, check), strict=True)
        )
    training = {
        "data": folder.root.name,
        "images": {"fit": len(fit), "held_out": len(held_out)},
        "epochs": trainer.current_epoch,
        "patches": trainer.global_step * config.batch_size,
        "seconds": round(clock.seconds, 1),
        "loss": loss,
        "collapsed": not (spread >= COLLAPSED and loss < constant_loss),
    }
    save_run(out, config, model, good_threshold(model, held_out, config), training)
    return out


def good_threshold(model: Autoencoder, images: Sequence[NDArray[np.float32]], config: TrainConfig) -> float:
    """Return the residual that a share `config.false_positive_rate` of the pixels of good images exceeds."""
    method = get_method(config.method)
    residuals = [residual_map(model, method, image, config)[1].ravel() for image in images]
    return float(np.quantile(np.concatenate(residuals), 1 - config.false_positive_rate))


class _Training(pl.LightningModule):
    """One model with its loss, optimiser and schedule."""

    warm: bool  # the squared error is minimised in place of the method's loss

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.warm = False
        self.method = get_method(config.method)
        self.model = Autoencoder(config.channels, config.latent).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as in the paper."""
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """Return the loss of one batch."""
        reconstruction = self._reconstruct(batch)
        with torch.set_grad_enabled(not self.warm):
            loss = self.method.loss(batch, reconstruction)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return relative_squared_error(batch, reconstruction) if self.warm else loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        """Log what `compare` finds on held-out patches."""
        loss, spread = self.compare(batch)[:2]
        self.log_dict({"held_out_loss": loss, "spread": spread}, prog_bar=True, batch_size=len(batch))

    def compare(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, how much a reconstruction varies as a share of its patch, and the loss of a constant."""
        reconstruction = self._reconstruct(batch)
        spread = reconstruction.std(dim=(2, 3)).mean() / batch.std(dim=(2, 3)).mean().clamp_min(1e-6)
        constant = batch.mean(dim=(2, 3), keepdim=True).expand_as(batch)
        return self.method.loss(batch, reconstruction), spread, self.method.loss(batch, constant)

    def _reconstruct(self, batch: torch.Tensor) -> torch.Tensor:
        reconstruction: torch.Tensor = self.model(batch.contiguous(memory_format=torch.channels_last))
        return reconstruction.contiguous()


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
        """Set the loss and the learning rate; end training when the budget is spent."""
        share = trainer.global_step / (trainer.num_training_batches * self._config.epochs)
        if self._config.time_budget is not None:
            spent = self.seconds / self._config.time_budget
            share = max(share, spent)
            trainer.should_stop = trainer.should_stop or spent >= 1
        training: Any = pl_module
        training.warm = share < self._config.warm_up
        rate = self._config.learning_rate
        if self._config.schedule == "one-cycle":
            rate *= one_cycle(min(share, 1.0))
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
        callbacks.append(RichProgressBar())
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=config.epochs,
        gradient_clip_val=config.gradient_clip or None,
        callbacks=callbacks,
        logger=[CSVLogger(out / "logs", name="csv"), TensorBoardLogger(out / "logs", name="tensorboard")],
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _prepare(out: Path, config: TrainConfig, *, resume: bool) -> Path | None:
    """Check and mark the run folder; return the checkpoint to go on from."""
    started, checkpoint = out / "started.json", out / "checkpoints" / "last.ckpt"
    content = asdict(config)
    if started.exists() or (out / "config.json").exists():
        if not resume:
            raise ValueError(f"{out} holds a training; resume it (--resume) or name another folder")
        if (out / "config.json").exists():
            raise ValueError(f"{out} holds a finished training; name another folder for a new one")
        if read_json(started) != content:
            raise ValueError(f"{out} was started with other options; give the same ones, or name another folder")
    else:
        write_json(started, content)
    return checkpoint if checkpoint.exists() else None


def _patches(images: list[NDArray[np.float32]], config: TrainConfig, batches: int, augment: str, seed: int) -> Patches:
    """Random patches of some images."""
    return Patches(images, patch=PATCH, batch_size=config.batch_size, batches=batches, seed=seed, augment=augment)


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
