"""What a network is shown in place of a patch, so that it learns to draw what should be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ae.config import TrainConfig

SQUARE = 16  # pixels of an erased square, down and across


def corrupted(batch: Tensor, config: TrainConfig) -> Tensor:
    """Add noise to patches and erase squares of them, at random (torch's global generator).

    Parameters
    ----------
    batch : Tensor, (N, C, H, W)
        H and W multiples of 16.
    config : TrainConfig
        `noise`: its standard deviation; `erased`: the share of squares of 16 pixels that become the patch's mean.

    Examples
    --------
    >>> from ae.config import TrainConfig
    >>> seen = corrupted(torch.rand(4, 1, 128, 128), TrainConfig(erased=0.5))
    >>> seen.shape
    torch.Size([4, 1, 128, 128])
    """
    seen = batch
    if config.noise:
        seen = seen + config.noise * torch.randn_like(seen)
    if config.erased:
        squares = (len(batch), 1, batch.shape[2] // SQUARE, batch.shape[3] // SQUARE)
        gone = torch.rand(squares, device=batch.device) < config.erased
        gone = gone.repeat_interleave(SQUARE, 2).repeat_interleave(SQUARE, 3)
        seen = torch.where(gone, batch.mean(dim=(2, 3), keepdim=True), seen)
    return seen
