"""kornia's ``MS_SSIMLoss``: SSIM by Gaussians of several widths, all at full size, and L1 seen through the widest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from fastssim.compat.images import contrast
from fastssim.functional import multiplied, ssim
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class MS_SSIMLoss(nn.Module):  # noqa: N801  # kornia's name
    """MS-SSIM and L1 of Zhao et al. (2017), zeros beyond the border; parameters as ``kornia.losses.MS_SSIMLoss``.

    Of every pixel, the mean over the channels of ``1 - l_M * cs_1 * ... * cs_M`` and of L1, both of Gaussian windows.

    Raises
    ------
    TypeError, ValueError, RuntimeError, NotImplementedError
        As there: for what is no tensor, for shapes that differ, for complex images, for another reduction; shapes are
        kornia's ``ShapeError`` where kornia is loaded.

    Examples
    --------
    >>> x = torch.rand(2, 3, 24, 24)
    >>> MS_SSIMLoss()(x, x)
    tensor(0.)
    >>> MS_SSIMLoss(reduction="none")(x, torch.rand(2, 3, 24, 24)).shape
    torch.Size([2, 24, 24])
    """

    _like: Tensor  # empty: integers count as what the module is of

    def __init__(
        self,
        sigmas: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        data_range: float = 1.0,
        K: tuple[float, float] = (0.01, 0.03),
        alpha: float = 0.025,
        compensation: float = 200.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        size = 2 * int(2 * sigmas[-1]) + 1
        self.windows = [Gaussian(size, float(sigma)) for sigma in sigmas]
        self.data_range = data_range
        self.K = K
        self.alpha = alpha
        self.compensation = compensation
        self.reduction = reduction
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Return the loss of two batches, one of which may be a single image."""
        _check(img1, img2)
        of_module = self._like.dtype
        first, second = (image.dtype if image.is_floating_point() else of_module for image in (img1, img2))
        result = torch.promote_types(first, second)
        computed = torch.promote_types(torch.promote_types(result, of_module), torch.float32)
        x, y = torch.broadcast_tensors(img1.to(computed), img2.to(computed))
        value = (self.alpha * self._dissimilarity(x, y) + (1 - self.alpha) * self._distance(x, y)) * self.compensation
        if self.reduction not in {"mean", "sum", "none"}:
            raise NotImplementedError(f"Invalid reduction mode: {self.reduction}; give 'mean', 'sum' or 'none'")
        return (value if self.reduction == "none" else getattr(value, self.reduction)()).to(result)

    def _dissimilarity(self, x: Tensor, y: Tensor) -> Tensor:
        """1 - MS-SSIM, the mean of the channels."""
        settings: dict[str, Any] = {
            "data_range": self.data_range, "k1": self.K[0], "k2": self.K[1], "padding": "zeros", "reduction": "none"
        }  # fmt: skip
        contrasts = (contrast(x, y, window=window, **settings) for window in self.windows[:-1])
        return 1 - multiplied([ssim(x, y, window=self.windows[-1], **settings), *contrasts]).mean(1)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """L1 through the last window, the mean of the channels."""
        taps = torch.tensor(self.windows[-1].weights_x, dtype=x.dtype, device=x.device)
        with torch.autocast(x.device.type, enabled=False):  # as there: not rounded
            distance = (x - y).abs().mean(1, keepdim=True)
            down = functional.conv2d(distance, taps.view(1, 1, -1, 1), padding=(len(taps) // 2, 0))
            return functional.conv2d(down, taps.view(1, 1, 1, -1), padding=(0, len(taps) // 2))[:, 0] / self.data_range

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}_g_masks", None)  # older releases of kornia kept their windows there
        super()._load_from_state_dict(state_dict, prefix, *others)


def _check(img1: Tensor, img2: Tensor) -> None:
    for place, image in (("Input", img1), ("Output", img2)):
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"{place} type is not a torch.Tensor. Got {type(image)}")
    for name, image in (("img1", img1), ("img2", img2)):
        if image.ndim != 4:
            raise ValueError(f"Invalid {name} shape, we expect BxCxHxW. Got: {image.shape}")
    if img1.shape[1:] != img2.shape[1:] or (img1.shape[0] != img2.shape[0] and 1 not in {img1.shape[0], img2.shape[0]}):
        error = getattr(sys.modules.get("kornia.core.exceptions"), "ShapeError", ValueError)
        raise error(
            "Input and target must have the same shape, except for a batch size of 1. "
            f"Got: {img1.shape} and {img2.shape}."
        )
    if img1.is_complex() or img2.is_complex():
        raise RuntimeError(f"img1 is of {img1.dtype}, img2 of {img2.dtype}; give images that are not complex")
