"""Each library behind the same two calls: the mean SSIM of two batches, and its gradient by the first.

All are asked for the same thing: a Gaussian window of 11 pixels, sigma 1.5, data in [0, 1], valid windows, one mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    package: str
    load: Callable[[], Score]  # imports it
    windows: str  # which of an image's windows count

    def score(self) -> Score:
        """Return mean SSIM as a function of (x, y); raises ImportError where the library is missing."""
        return self.load()

    @property
    def version(self) -> str:
        """The installed version, or "not installed"."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "not installed"


def _fastssim() -> Score:
    return import_module("fastssim").ssim  # type: ignore[no-any-return]


def _frame_analytics() -> Score:
    ssim = import_module("frame_analytics").ssim
    return lambda x, y: ssim(x, y, data_range=1.0).mean()


def _pytorch_msssim() -> Score:
    ssim = import_module("pytorch_msssim").ssim
    return lambda x, y: ssim(x, y, data_range=1.0)


PEERS = (
    Peer("fastssim", "fastssim", _fastssim, "valid"),
    Peer("frame-analytics", "frame-analytics", _frame_analytics, "valid"),
    Peer("pytorch-msssim", "pytorch-msssim", _pytorch_msssim, "valid"),
)


def forward(score: Score, x: torch.Tensor, y: torch.Tensor) -> float:
    """Mean SSIM alone, as an evaluation calls it."""
    with torch.no_grad():
        return score(x, y).item()


def gradient(score: Score, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean SSIM and its gradient by x, as a training step calls it."""
    x = x.detach().requires_grad_()
    score(x, y).backward()
    assert x.grad is not None  # noqa: S101  # backward has just filled it
    return x.grad
