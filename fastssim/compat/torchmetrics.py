"""Drop-in for torchmetrics' SSIM: the two functionals, and with torchmetrics installed the two metrics.

>>> from fastssim.compat.torchmetrics import structural_similarity_index_measure

Its conventions: a Gaussian as long as sigma asks for, or a uniform window; the border mirrored about the last pixel
and every pixel's window counted, but in contrasts only windows that lie wholly in the image; the range taken from the
images where none is given; factors of multi-scale SSIM are means of an image.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand, as_value, contrast, each_axis
from fastssim.compat.options import NATIVE, options
from fastssim.functional import multiplied
from fastssim.functional import ssim as whole
from fastssim.reference import MS_WEIGHTS
from fastssim.window import Gaussian, Uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastssim.compat.torchmetrics_metrics import (
        MultiScaleStructuralSimilarityIndexMeasure,
        StructuralSimilarityIndexMeasure,
    )
    from fastssim.window import Window

    Range = float | tuple[float, float] | None

__all__ = [
    "MultiScaleStructuralSimilarityIndexMeasure",
    "StructuralSimilarityIndexMeasure",
    "multiscale_structural_similarity_index_measure",
    "structural_similarity_index_measure",
]

PACKAGE = "torchmetrics"
METRICS = ("StructuralSimilarityIndexMeasure", "MultiScaleStructuralSimilarityIndexMeasure")
FUNCTIONS = ("structural_similarity_index_measure", "multiscale_structural_similarity_index_measure")
REPLACES = {"torchmetrics.functional.image": FUNCTIONS, "torchmetrics.image": METRICS, "torchmetrics": METRICS}
ALL = " ".join(FUNCTIONS + METRICS)
ONE_SCALE = f"{FUNCTIONS[0]} {METRICS[0]}"
SEVERAL = f"{FUNCTIONS[1]} {METRICS[1]}"
OPTIONS = (
    *options(ALL, NATIVE, "preds target gaussian_kernel sigma kernel_size reduction k1 k2"),
    *options(ALL, NATIVE, "data_range", "None: with its part of the gradient, and without waiting for the device"),
    *options(ONE_SCALE, NATIVE, "return_full_image"),
    *options(ONE_SCALE, NATIVE, "return_contrast_sensitivity", "a second pass"),
    *options(SEVERAL, NATIVE, "betas normalize"),
    *options(
        " ".join(METRICS), NATIVE, "kwargs", "the original's class with another `update`: states, reduction, plot"
    ),
    *options(ALL, NATIVE, "volumes", "(N, C, D, H, W), sigma and kernel_size along (D, H, W)"),
)
DEFECTS = (
    "E[x^2] - E[x]^2 in float32 loses digits; clamps at 0 hide negative variances (0 against 0 gave 1.3245).",
    "float16 images are filtered in float16, with taps in float16.",
    "A contrast over a kernel of one pixel is the mean of nothing, NaN.",
    "The last axis of volumes is mirrored as far as kernel_size reaches, whatever Gaussian sigma asks for.",
)


def structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: Range = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
) -> Any:
    """SSIM, reduced over the images; parameters as ``structural_similarity_index_measure`` of torchmetrics.

    Raises
    ------
    RuntimeError, ValueError
        As there, for shapes and options.

    Examples
    --------
    >>> x = torch.rand(3, 3, 64, 64)
    >>> structural_similarity_index_measure(x, x)
    tensor(1.)
    """
    found = similarity(
        preds, target, gaussian_kernel, sigma, kernel_size, data_range, k1, k2, return_full_image,
        return_contrast_sensitivity,
    )  # fmt: skip
    return (_reduced(found[0], reduction), found[1]) if isinstance(found, tuple) else _reduced(found, reduction)


def multiscale_structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: Range = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = MS_WEIGHTS,
    normalize: str | None = "relu",
) -> Tensor:
    """Multi-scale SSIM, reduced over the images; parameters as there.

    Raises
    ------
    RuntimeError, ValueError
        As `structural_similarity_index_measure`.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> multiscale_structural_similarity_index_measure(x, x, data_range=1.0)
    tensor(1.)
    """
    if not isinstance(betas, tuple):
        raise ValueError("Argument `betas` is expected to be of a type tuple.")  # noqa: TRY004  # what it raises
    if not all(isinstance(beta, float) for beta in betas):
        raise ValueError("Argument `betas` is expected to be a tuple of floats.")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError("Argument `normalize` to be expected either `None` or one of 'relu' or 'simple'")
    return _reduced(
        multiscale(preds, target, gaussian_kernel, sigma, kernel_size, data_range, k1, k2, betas, normalize), reduction
    )


def __getattr__(name: str) -> Any:
    """Load the metrics, and torchmetrics with them, when they are asked for."""
    if name in METRICS:
        return getattr(import_module("fastssim.compat.torchmetrics_metrics"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def similarity(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool,
    sigma: float | Sequence[float],
    kernel_size: int | Sequence[int],
    data_range: Range,
    k1: float,
    k2: float,
    return_full_image: bool,
    return_contrast_sensitivity: bool,
) -> Any:
    """SSIM of every image, (N,), alone or with the map, shaped as the images, or the contrast of every image."""
    dtype = _check_images(preds, target)
    dims = preds.ndim - 2
    window = _window(gaussian_kernel, sigma, kernel_size, dims)
    if return_full_image and return_contrast_sensitivity:
        raise ValueError("Arguments `return_full_image` and `return_contrast_sensitivity` are mutually exclusive.")
    x, y, span = _ranged(preds, target, data_range)
    settings: dict[str, Any] = {"data_range": span, "window": window, "k1": k1, "k2": k2, "dims": dims}
    if return_full_image:
        found = whole(x, y, padding="reflect", reduction="none", **settings)
        return found.flatten(1).mean(1).to(dtype), found.to(dtype)
    mean = whole(x, y, padding="reflect", reduction="image", **settings).to(dtype)
    if return_contrast_sensitivity:
        return mean, contrast(x, y, reduction="image", **settings).to(dtype)
    return mean


def multiscale(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool,
    sigma: float | Sequence[float],
    kernel_size: int | Sequence[int],
    data_range: Range,
    k1: float,
    k2: float,
    betas: tuple[float, ...],
    normalize: str | None,
) -> Tensor:
    """Multi-scale SSIM of every image, (N,)."""
    dtype = torch.promote_types(_check_images(preds, target), torch.float32)  # of the powers there
    dims = preds.ndim - 2
    _check_scales(preds.shape, each_axis(kernel_size, dims), len(betas))
    window = _window(gaussian_kernel, sigma, kernel_size, dims)
    x, y = (as_they_stand(image, 1) for image in (preds, target))

    def compare(function: Any, x: Tensor, y: Tensor) -> Tensor:
        padding = "valid" if function is contrast else "reflect"
        x, y, span = _ranged(x, y, data_range)  # of every scale by itself, where none is given
        compared: Tensor = function(
            x, y, data_range=span, window=window, k1=k1, k2=k2, padding=padding, reduction="image", dims=dims
        )
        return compared

    each = scales.factors(x, y, len(betas), shrink=scales.halved, compare=compare)
    if normalize == "relu":
        return scales.product(each, betas).to(dtype)
    if normalize == "simple":
        each = [(factor + 1) / 2 for factor in each]
    return multiplied(factor**beta for factor, beta in zip(each, betas, strict=True)).to(dtype)


def _check_images(preds: Tensor, target: Tensor) -> torch.dtype:
    """Check shapes; return the dtype of results."""
    if preds.shape != target.shape:
        raise RuntimeError(
            f"Predictions and targets are expected to have the same shape, but got {preds.shape} and {target.shape}."
        )
    if preds.ndim not in {4, 5}:
        raise ValueError(
            "Expected `preds` and `target` to have BxCxHxW or BxCxDxHxW shape."
            f" Got preds: {preds.shape} and target: {target.shape}."
        )
    return as_value(preds)


def _check_scales(shape: torch.Size, kernel_size: Sequence[int], scales: int) -> None:
    """Check that images are as large as torchmetrics wants them for its scales."""
    if min(shape[-2:]) < 2**scales:
        raise ValueError(
            f"For a given number of `betas` parameters {scales}, the image height and width dimensions must be"
            f" larger than or equal to {2**scales}."
        )
    divisor = max(1, scales - 1) ** 2
    for side, length, kernel in zip(("height", "width"), shape[-2:], kernel_size, strict=False):
        if length // divisor <= kernel - 1:
            raise ValueError(
                f"For a given number of `betas` parameters {scales} and kernel size {kernel},"
                f" the image {side} must be larger than {(kernel - 1) * divisor}."
            )


def _window(
    gaussian_kernel: bool, sigma: float | Sequence[float], kernel_size: int | Sequence[int], dims: int
) -> Window:
    sigmas, sizes = each_axis(sigma, dims), each_axis(kernel_size, dims)
    if len(sizes) != dims or len(sigmas) != dims:
        message = (  # as there, also where it is sigma that has too few or too many
            f"`kernel_size` has dimension {len(sizes)}, but expected to be two less that target dimensionality,"
            f" which is: {dims + 2}"
        )
        raise ValueError(message if len(sigmas) == dims else f"{message}; `sigma` has dimension {len(sigmas)}")
    if any(size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"Expected `kernel_size` to have odd positive number. Got {sizes}.")
    if any(value <= 0 for value in sigmas):
        raise ValueError(f"Expected `sigma` to have positive number. Got {sigmas}.")
    if not gaussian_kernel:
        return Uniform(tuple(sizes))
    return Gaussian(tuple(map(_length, sigmas)), tuple(sigmas))


def _length(sigma: float) -> int:
    """How many pixels torchmetrics gives a Gaussian."""
    return int(3.5 * sigma + 0.5) * 2 + 1


def _ranged(preds: Tensor, target: Tensor, data_range: Range) -> tuple[Tensor, Tensor, float]:
    """Return images and their range.

    SSIM depends on x / L, y / L alone. Where L is found from the images they are divided by it, so that torch carries
    the gradient through L as well, and no value has to leave the device.
    """
    if isinstance(data_range, tuple):
        low, high = data_range
        x, y = (as_they_stand(image, 1).clamp(low, high) for image in (preds, target))
        return x, y, float(high - low)
    if data_range is not None:
        return as_they_stand(preds, data_range), as_they_stand(target, data_range), float(data_range)
    x, y = (image if image.dtype == torch.float64 else image.float() for image in (preds, target))
    first, second = (image.max() - image.min() for image in (x, y))
    span = torch.where(second > first, second, first)
    return x / span, y / span, 1.0


def _reduced(each: Tensor, reduction: str | None) -> Tensor:
    if reduction == "elementwise_mean":
        return each.mean()
    if reduction == "sum":
        return each.sum()
    if reduction in ("none", None):
        return each
    raise ValueError("Reduction parameter unknown.")
