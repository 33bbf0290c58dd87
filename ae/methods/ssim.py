"""Structural similarity, the method of Bergmann et al. (2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

import fastssim

if TYPE_CHECKING:
    from torch import Tensor


class SSIM:
    """1 - SSIM (Gaussian window of 11 pixels, data in [0, 1]) as loss and, pixel by pixel, as residual.

    The loss counts the windows that lie wholly in a patch. The residual is as large as the image, whose border is
    mirrored for the windows that reach beyond it.

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 1, 32, 32)
    >>> SSIM().residual(image, image).abs().max().item()
    0.0
    """

    name = "ssim"

    def __init__(self) -> None:
        self._window = fastssim.Gaussian(11, 1.5)

    def loss(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """1 - mean SSIM."""
        return fastssim.ssim_loss(reconstruction, batch, window=self._window)

    def residual(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """1 - SSIM of the window about each pixel, mean over channels, (N, 1, H, W)."""
        border = [self._window.shape[0] // 2] * 4
        x, y = (F.pad(images, border, mode="reflect") for images in (image, reconstruction))
        return fastssim.ssim_loss(x, y, window=self._window, reduction="none").mean(dim=1, keepdim=True)
