"""Structural similarity, the method of Bergmann et al. (2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastssim
from ae.methods.base import Method
from fastssim.cuda import usable
from fastssim.reference import MS_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from ae.config import TrainConfig

SIGMA = 1.5 / 11  # of the Gaussian window, as a share of its size


class SSIM(Method):
    """1 - SSIM (data in [0, 1]) as loss and, pixel by pixel, as residual.

    The configuration decides on SSIM's window and constants; on multi-scale SSIM in the loss (`loss_scales`); and on
    the mean absolute error's part in it (`l1_share`). The loss counts the windows that lie wholly in a patch. The
    residual is as large as the image, whose border is mirrored for the windows that reach beyond it. SSIM is computed
    where the images are, but on the CPU of those on a GPU that CuPy does not find and of those on other devices.

    Examples
    --------
    >>> import torch
    >>> from ae.config import TrainConfig
    >>> image = torch.rand(1, 1, 32, 32)
    >>> SSIM(TrainConfig()).residual(image, image).abs().max().item()
    0.0
    """

    name = "ssim"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        size = config.window_size
        window = fastssim.Uniform(size) if config.ssim_window == "box" else fastssim.Gaussian(size, SIGMA * size)
        #  c = (k L)^2 with L = 1: the literal reading of c1 = 0.01, c2 = 0.03 takes roots
        power = 1.0 if config.constants == "squared" else 0.5
        self._options: dict[str, Any] = {"window": window, "k1": 0.01**power, "k2": 0.03**power}

    def distance(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """1 - mean SSIM, with its share of the mean absolute error."""
        x, y, share = _within_reach(reconstruction), _within_reach(batch), self.config.l1_share
        if self.config.loss_scales > 1:
            weights = MS_WEIGHTS[: self.config.loss_scales]
            powers = [weight / sum(weights) for weight in weights]
            loss = 1 - fastssim.ms_ssim(x, y, weights=powers, **self._options)
            loss = (1 - share) * loss + share * (x - y).abs().mean() if share else loss
        elif share:
            loss = fastssim.l1_ssim_loss(x, y, alpha=share, **self._options)
        else:
            loss = fastssim.ssim_loss(x, y, **self._options)
        return loss.to(batch.device)

    def residual(self, tiles: Tensor, reconstruction: Tensor) -> Tensor:
        """1 - SSIM of the window about each pixel, mean over channels, (N, 1, H, W)."""
        x, y = _within_reach(reconstruction), _within_reach(tiles)
        ssim_map = fastssim.ssim_map(x, y, padding="reflect", **self._options)
        return (1 - ssim_map).mean(dim=1, keepdim=True).to(tiles.device)


def _within_reach(images: Tensor) -> Tensor:
    """Return images where SSIM can be computed: on their GPU, else on the CPU."""
    return images if images.is_cuda and usable() else images.cpu()
