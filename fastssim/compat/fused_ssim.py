"""Drop-in for fused-ssim: ``from fastssim.compat.fused_ssim import fused_ssim``; also on the CPU.

Its conventions: an 11-tap Gaussian of sigma 1.5, values in [0, 1], zeros beyond the border or ("valid") the same map
without the outer 5 pixels, one mean over all, the gradient to the first image alone and only with ``train=True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fastssim.compat.options import FALLBACK, NATIVE, options
from fastssim.functional import l1_ssim_loss, ssim

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FusedSSIMMap", "fused_l1_ssim_loss", "fused_ssim", "fused_ssim3d"]

PACKAGE = "fused_ssim"
REPLACES = {"fused_ssim": ("fused_ssim", "fused_ssim3d", "fused_l1_ssim_loss", "FusedSSIMMap")}
SSIM = "fused_ssim fused_ssim3d FusedSSIMMap"
ALL = f"{SSIM} fused_l1_ssim_loss"
OPTIONS = (
    *options(ALL, NATIVE, "img1 img2", "any float dtype and strides, on the CPU too"),
    *options(SSIM, NATIVE, "padding", '"same" (zeros) and "valid"'),
    *options("fused_l1_ssim_loss", NATIVE, "padding", '"same" (zeros)'),
    *options("fused_l1_ssim_loss", FALLBACK, "padding", '"valid": L1, of the same pixels, apart from SSIM'),
    *options(ALL, NATIVE, "train", "False: no gradient"),
    *options("fused_l1_ssim_loss", NATIVE, "ssim_weight", "L1 and SSIM in one pass"),
    *options("FusedSSIMMap", NATIVE, "C1 C2"),
    *options("FusedSSIMMap", NATIVE, "spatial_dims", "2 and 3; for another number a RuntimeError"),
)
DEFECTS = (
    "Images that are not contiguous are read wrongly, without an error.",
    "Kernels run on the default stream, whatever the current one is.",
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas; clamps hide it where SSIM leaves [-1, 1].",
    "dtypes other than float32 are an error.",
    "Taps rounded to float32 sum to 1 - 3e-8 along each axis, which moves the SSIM of noise by 2e-7.",
)
ALLOWED_PADDING = {"same": "zeros", "valid": "valid"}
_SHAPES = {2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def fused_ssim(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM with its gradient by `img1`; parameters as ``fused_ssim.fused_ssim``.

    Raises
    ------
    AssertionError
        As there, for another padding.

    Examples
    --------
    >>> x = torch.rand(1, 3, 32, 32, requires_grad=True)
    >>> fused_ssim(x, torch.rand(1, 3, 32, 32)).backward()
    """
    return _compared(img1, img2, padding, train, "mean", 2)


def fused_ssim3d(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM of volumes (N, C, D, H, W); parameters as ``fused_ssim.fused_ssim3d``.

    Raises
    ------
    AssertionError
        As there, for another padding.

    Examples
    --------
    >>> x = torch.rand(1, 1, 16, 16, 16, requires_grad=True)
    >>> fused_ssim3d(x, torch.rand(1, 1, 16, 16, 16)).backward()
    """
    return _compared(img1, img2, padding, train, "mean", 3)


def fused_l1_ssim_loss(
    img1: Tensor, img2: Tensor, ssim_weight: float = 0.2, padding: str = "same", train: bool = True
) -> Tensor:
    """Return the mean of ``(1 - ssim_weight) * |img1 - img2| + ssim_weight * (1 - SSIM)``.

    Parameters as ``fused_ssim.fused_l1_ssim_loss``, which some releases have: those that LiteGS and others train with.

    Raises
    ------
    AssertionError
        As there, for another padding.
    ValueError
        For a weight outside [0, 1].

    Examples
    --------
    >>> x = torch.rand(1, 3, 32, 32, requires_grad=True)
    >>> fused_l1_ssim_loss(x, torch.rand(1, 3, 32, 32)).backward()
    """
    _check(img1, img2, padding, 2)
    if not 0 <= ssim_weight <= 1:
        raise ValueError(f"ssim_weight is {ssim_weight}; it must lie in [0, 1]")
    y = img2.detach()
    with torch.set_grad_enabled(torch.is_grad_enabled() and train):
        if padding == "same":
            return l1_ssim_loss(img1, y, alpha=1 - ssim_weight, padding="zeros")
        distance = (img1 - y)[:, :, 5:-5, 5:-5].abs().mean()
        return (1 - ssim_weight) * distance + ssim_weight * (1 - ssim(img1, y, padding="valid"))


class FusedSSIMMap:
    """SSIM of every window: ``FusedSSIMMap.apply(C1, C2, img1, img2, padding, train)``."""

    @staticmethod
    def apply(
        C1: float,
        C2: float,
        img1: Tensor,
        img2: Tensor,
        padding: str = "same",
        train: bool = True,
        spatial_dims: int = 2,
    ) -> Tensor:
        """Return the map, shaped as the images, or without the outer 5 pixels; the constants are C1 and C2 themselves.

        Examples
        --------
        >>> x = torch.rand(1, 3, 32, 32)
        >>> FusedSSIMMap.apply(0.01**2, 0.03**2, x, x, "valid").shape
        torch.Size([1, 3, 22, 22])
        """
        if spatial_dims not in _SHAPES:
            raise RuntimeError(f"spatial_dims is {spatial_dims}; give 2 for images, 3 for volumes")
        return _compared(img1, img2, padding, train, "none", spatial_dims, C1**0.5, C2**0.5)


def _compared(
    img1: Tensor, img2: Tensor, padding: str, train: bool, reduction: str, dims: int, k1: float = 0.01, k2: float = 0.03
) -> Tensor:
    _check(img1, img2, padding, dims)
    return by_first(img1, img2, padding, train, k1=k1, k2=k2, reduction=reduction, dims=dims)


def by_first(img1: Tensor, img2: Tensor, padding: str, train: bool, **settings: Any) -> Tensor:
    """SSIM with a gradient to the first image alone, and only to train."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and train):
        return ssim(img1, img2.detach(), padding=ALLOWED_PADDING[padding], **settings)


def _check(img1: Tensor, img2: Tensor, padding: str, dims: int) -> None:
    if padding not in ALLOWED_PADDING:
        raise AssertionError(f"padding is {padding!r}; give one of {', '.join(map(repr, ALLOWED_PADDING))}")
    for name, image in (("img1", img1), ("img2", img2)):
        if image.ndim != dims + 2 or not image.is_floating_point():
            raise RuntimeError(f"{name} has shape {tuple(image.shape)}, {image.dtype}; give floats {_SHAPES[dims]}")
