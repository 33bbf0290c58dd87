"""How far a training is, for a person who watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightning.pytorch as pl


class ProgressBar(Callback):
    """One bar over the whole training: patches or time, losses, time left."""

    def __init__(self, title: str, share: Callable[[pl.Trainer], float]) -> None:
        self._share = share  # of the training that is done
        self._title = title
        times = (TimeElapsedColumn(), "left:", TimeRemainingColumn())
        self._bar = Progress(
            "{task.description}", BarColumn(), TaskProgressColumn(), *times, console=Console(stderr=True)
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._task = self._bar.add_task(self._title, total=1.0)
        self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=self._share(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the losses."""
        found = trainer.callback_metrics
        text = f"{self._title} epoch {trainer.current_epoch + 1}"
        if "held_out_loss" in found:
            text += f", held-out loss {float(found['held_out_loss']):.4f}"
        self._bar.update(self._task, description=text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, whatever ended the training."""
        self._bar.stop()
