"""Structural similarity, the method of Bergmann et al. (2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastssim

if TYPE_CHECKING:
    from torch import Tensor


class SSIM:
    """1 - SSIM (Gaussian window of 11 pixels, data in [0, 1]) as loss and, pixel by pixel, as residual.

    The loss counts the windows that lie wholly in a patch. The residual is as large as the image, whose border is
    mirrored for the windows that reach beyond it. SSIM is computed on the CPU, also of images on a GPU.

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
        return fastssim.ssim_loss(reconstruction.cpu(), batch.cpu(), window=self._window).to(batch.device)

    def residual(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """1 - SSIM of the window about each pixel, mean over channels, (N, 1, H, W)."""
        ssim_map = fastssim.ssim_map(reconstruction.cpu(), image.cpu(), window=self._window, padding="reflect")
        return (1 - ssim_map).mean(dim=1, keepdim=True).to(image.device)
