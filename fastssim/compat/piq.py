"""Drop-in for piq's SSIM: ``from fastssim.compat.piq import SSIMLoss, multi_scale_ssim, ssim``.

Its conventions: images in [0, data_range], averaged over f x f pixels first with f = round(shorter side / 256), windows
that lie wholly in what is left; from scale to scale the means of 2 x 2 pixels, where a side is odd the first row and
column repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand, assert_values, contrast
from fastssim.compat.options import NATIVE, REFUSED, options
from fastssim.functional import ssim as whole
from fastssim.interop import check_pixels
from fastssim.reference import MS_WEIGHTS
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MultiScaleSSIMLoss", "SSIMLoss", "multi_scale_ssim", "ssim"]

PACKAGE = "piq"
REPLACES = {"piq": ("ssim", "SSIMLoss", "multi_scale_ssim", "MultiScaleSSIMLoss")}
ALL = "ssim SSIMLoss multi_scale_ssim MultiScaleSSIMLoss"
OPTIONS = (
    *options(ALL, NATIVE, "x y kernel_size kernel_sigma data_range reduction k1 k2"),
    *options("ssim", NATIVE, "full", "a second pass"),
    *options("ssim SSIMLoss", NATIVE, "downsample", "averaged by torch beforehand"),
    *options(
        "multi_scale_ssim MultiScaleSSIMLoss",
        NATIVE,
        "scale_weights",
        "divided by their sum where given, and by the module always, as there",
    ),
    *options(ALL, REFUSED, "complex", "(N, C, H, W, 2): NotImplementedError"),
)
DEFECTS = ("E[x^2] - E[x]^2 in float32 loses digits on bright flat areas.",)


def ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Any:
    """SSIM of each image, reduced over the batch, and with ``full=True`` a list with its contrast; parameters as there.

    Raises
    ------
    AssertionError
        As there, for an even window, or images that are no tensors of one size with values in [0, data_range].
    ValueError
        As there, for another reduction, or images smaller than the window.
    NotImplementedError
        For complex images (N, C, H, W, 2).

    Examples
    --------
    >>> x = torch.rand(4, 3, 32, 32)
    >>> ssim(x, x, reduction="none").shape
    torch.Size([4])
    """
    a, b = _images(x, y, kernel_size, data_range)
    factor = max(1, round(min(x.shape[-2:]) / 256))
    if factor > 1 and downsample:
        a, b = (F.avg_pool2d(as_they_stand(image, 1), factor) for image in (a, b))
    #  The gradient of a mean needs no pass of its own to be scaled.
    settings = {
        "reduction": "mean" if reduction == "mean" and not full else "image",
        **_settings(kernel_size, kernel_sigma, data_range, k1, k2),
    }
    compared = [whole(a, b, **settings)] + ([contrast(a, b, **settings)] if full else [])
    values = [_reduced(each, reduction, x.dtype) for each in compared]
    return values if full else values[0]


def multi_scale_ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    scale_weights: Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Multi-scale SSIM of each image, reduced over the batch; parameters as ``piq.multi_scale_ssim``.

    Raises
    ------
    AssertionError, ValueError, NotImplementedError
        As `ssim`; a ValueError also for images too small for the scales.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> multi_scale_ssim(x, x)
    tensor(1.)
    """
    x, y = _images(x, y, kernel_size, data_range)
    weights: tuple[float, ...] = MS_WEIGHTS  # whose sum is 1.0001: divided by it only where they are given
    if scale_weights is not None:
        if scale_weights.ndim == 0 or len(scale_weights) != scale_weights.numel():
            raise ValueError(f"Expected a vector of weights, got {scale_weights.ndim}D tensor")
        weights = scales.powers("scale_weights", scale_weights / scale_weights.sum())
    least = (kernel_size - 1) * 2 ** (len(weights) - 1) + 1
    if min(x.shape[-2:]) < least:
        raise ValueError(f"Invalid size of the input images, expected at least {least}x{least}.")
    settings = _settings(kernel_size, kernel_sigma, data_range, k1, k2)
    x, y = as_they_stand(x, 1), as_they_stand(y, 1)
    each = scales.joint_factors(x, y, len(weights), **settings) or scales.factors(
        x,
        y,
        len(weights),
        shrink=_halved,
        compare=lambda function, a, b: function(a, b, reduction="channel", **settings),
    )
    return _reduced(scales.product(each, weights).mean(1), reduction, x.dtype)


class SSIMLoss(_Loss):
    """The loss 1 - `ssim`; parameters as ``piq.SSIMLoss``.

    Examples
    --------
    >>> x = torch.rand(4, 3, 32, 32)
    >>> SSIMLoss()(x, x)
    tensor(0.)
    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_size(kernel_size)
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.downsample = downsample
        self.reduction = reduction
        self.data_range = data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of two batches of images."""
        score: Tensor = ssim(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction,
            downsample=self.downsample, k1=self.k1, k2=self.k2,
        )  # fmt: skip
        return 1 - score


class MultiScaleSSIMLoss(_Loss):
    """The loss 1 - `multi_scale_ssim`; parameters as ``piq.MultiScaleSSIMLoss``.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> MultiScaleSSIMLoss()(x, x)
    tensor(0.)
    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: Tensor | None = None,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_size(kernel_size)
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.scale_weights: Tensor
        self.register_buffer("scale_weights", torch.tensor(MS_WEIGHTS) if scale_weights is None else scale_weights)
        self.reduction = reduction
        self.data_range = data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of two batches of images."""
        return 1 - multi_scale_ssim(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction, self.scale_weights,
            self.k1, self.k2,
        )  # fmt: skip


def _settings(size: int, sigma: float, data_range: float, k1: float, k2: float) -> dict[str, Any]:
    return {"window": Gaussian(size, float(sigma)), "data_range": float(data_range), "k1": k1, "k2": k2}


def _check_size(kernel_size: int) -> None:
    if kernel_size % 2 != 1:
        raise AssertionError(f"Kernel size must be odd, got [{kernel_size}]")


def _images(x: Tensor, y: Tensor, kernel_size: int, data_range: float) -> tuple[Tensor, Tensor]:
    """Check the images as piq asserts, and return them with integers as they stand."""
    _check_size(kernel_size)
    for image in (x, y):
        if not isinstance(image, torch.Tensor):
            raise AssertionError(f"Expected torch.Tensor, got {type(image)}")  # noqa: TRY004  # what piq raises
        if image.shape != x.shape or image.device != x.device:
            raise AssertionError(
                f"Expected tensors with same size and device, got {image.shape} on {image.device} and {x.shape} on"
                f" {x.device}"
            )
        if not 4 <= image.ndim <= 5:
            raise AssertionError(f"Expected number of dimensions to be between 4 and 5, got {image.ndim}")
        check_pixels(image.shape)
        assert_values(image, data_range)
    if x.ndim == 5:
        raise NotImplementedError(f"x has shape {tuple(x.shape)}; fastssim compares real images (N, C, H, W)")
    return as_they_stand(x, data_range), as_they_stand(y, data_range)


def _halved(image: Tensor) -> Tensor:
    """Mean of every 2 x 2 pixels; where a side is odd the first row and column are repeated beforehand."""
    odd = max(length % 2 for length in image.shape[2:])
    return scales.halved(F.pad(image, [odd, 0, odd, 0], mode="replicate") if odd else image)


def _reduced(each: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    """Reduce over the batch, in the images' dtype."""
    if reduction not in {"none", "mean", "sum"}:
        raise ValueError("Unknown reduction. Expected one of {'none', 'mean', 'sum'}")
    value: Tensor = each if reduction == "none" else getattr(each, reduction)(0)
    return value.to(dtype) if dtype.is_floating_point else value
