"""Per-pixel squared error: the baseline of Bergmann et al. (2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from ae.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor


class L2(Method):
    """Mean squared error as loss; squared error, mean over channels, as residual.

    Examples
    --------
    >>> import torch
    >>> from ae.config import TrainConfig
    >>> L2(TrainConfig()).residual(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5))[0, 0, 0, 0].item()
    0.25
    """

    name = "l2"

    def distance(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """Mean of (x - x_hat)^2."""
        return F.mse_loss(reconstruction, batch)

    def residual(self, tiles: Tensor, reconstruction: Tensor) -> Tensor:
        """(x - x_hat)^2, mean over channels, (N, 1, H, W)."""
        return (tiles - reconstruction).square().mean(dim=1, keepdim=True)
