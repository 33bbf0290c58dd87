"""Drop-in for frame-analytics' SSIM: ``from fastssim.compat.frame_analytics import MSSSIM, SSIM, ms_ssim, ssim``.

Its conventions: images (N, C, H, W), (C, H, W) or (H, W) as they stand, ``data_range`` that of their type; windows that
lie wholly in the image; from scale to scale the means of 2 x 2 pixels, an odd last row and column left out; values in
float64, maps in the images' float type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand
from fastssim.compat.options import FALLBACK, NATIVE, REFUSED, options
from fastssim.compat.windows import EVEN, reached, window_of
from fastssim.functional import scale_means
from fastssim.functional import ssim as whole
from fastssim.interop import take
from fastssim.problem import problem_of
from fastssim.reference import MS_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastssim.window import Window

__all__ = ["MSSSIM", "SSIM", "ms_ssim", "ssim"]

PACKAGE = "frame_analytics"
REPLACES = {"frame_analytics": ("ssim", "ms_ssim", "SSIM", "MSSSIM")}
ALL = "ssim ms_ssim SSIM MSSSIM"
OPTIONS = (
    *options("ssim ms_ssim", NATIVE, "x y", "also of different dtypes"),
    *options(ALL, NATIVE, "data_range K reduction crop_border win_size sigma"),
    *options(ALL, FALLBACK, "even", EVEN),
    *options("ssim SSIM", NATIVE, "return_map"),
    *options(ALL, NATIVE, "dtype", "float64 is computed in float64, all else in float32"),
    *options("ssim SSIM", NATIVE, "downsample", "averaged by torch beforehand"),
    *options(ALL, NATIVE, "luma", "the weighted mean of red, green and blue is torch's, beforehand"),
    *options("ms_ssim MSSSIM", NATIVE, "weights", "any number of scales"),
    *options("ssim ms_ssim", NATIVE, "backend_hint", "taken, but there is one way only"),
    *options(ALL, REFUSED, "complex", "complex images: TypeError"),
)  # fmt: skip
DEFECTS = (
    "On the CPU a gradient takes torch's convolutions: the kernels there have none.",
    "E[x^2] - E[x]^2 in float32, about the middle of the range, loses digits on bright flat areas.",
    "float16 images are compared in float16 where `dtype` says so.",
)
INTEGERS = {torch.uint8: 255.0, torch.int16: 65535.0, torch.int32: 65535.0, torch.uint16: 65535.0}
LUMA = {  # of red, green, blue, and what is added, as a part of the range
    "bt601": (0.299, 0.587, 0.114, 0.0),
    "bt709": (0.2126, 0.7152, 0.0722, 0.0),
    "matlab": (65.481 / 255, 128.553 / 255, 24.966 / 255, 16 / 255),
}


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float | None = None,
    win_size: int = 11,
    sigma: float = 1.5,
    K: Sequence[float] = (0.01, 0.03),
    reduction: str = "mean",
    return_map: bool = False,
    dtype: torch.dtype | None = None,
    downsample: bool = False,
    backend_hint: str = "auto",  # noqa: ARG001  # there is one way only
    luma: bool | str | None = None,
    crop_border: int = 0,
) -> Tensor:
    """SSIM, the mean of all or with ``reduction="none"`` of each image, or its map; parameters as there.

    Raises
    ------
    ValueError
        As there, for shapes, devices, another reduction, and images smaller than the window or the border cut off.
    TypeError
        For a `luma` that is no word, and for complex images.

    Examples
    --------
    >>> x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    >>> ssim(x, x)
    tensor(1., dtype=torch.float64)
    >>> ssim(x, x, luma="bt601", crop_border=4, return_map=True).shape
    torch.Size([2, 1, 14, 14])
    """
    _check_reduction(reduction)
    x, y, span, work = _prepared(x, y, data_range, dtype, luma, crop_border)
    if downsample:
        x, y = (_averaged(image) for image in (x, y))
    if min(x.shape[2:]) < win_size:
        raise ValueError(f"image {tuple(x.shape[2:])} smaller than window {win_size}x{win_size}")
    x, y, settings = _settings(x, y, span, win_size, sigma, K)
    if return_map:
        return whole(x, y, reduction="none", **settings).to(work)
    #  A gradient of the mean needs no pass of its own to be scaled; where there is none, the mean of the images' values
    #  is what `reduction="none"` has, to the last bit of float64.
    if reduction == "mean" and torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return whole(x, y, **settings).double()
    each = whole(x, y, reduction="image", **settings).double()
    return each if reduction == "none" else each.mean()


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float | None = None,
    win_size: int = 11,
    sigma: float = 1.5,
    K: Sequence[float] = (0.01, 0.03),
    weights: Sequence[float] | None = None,
    reduction: str = "mean",
    dtype: torch.dtype | None = None,
    backend_hint: str = "auto",  # noqa: ARG001  # there is one way only
    luma: bool | str | None = None,
    crop_border: int = 0,
) -> Tensor:
    """Multi-scale SSIM, the mean of all or with ``reduction="none"`` of each image; parameters as there.

    Raises
    ------
    ValueError, TypeError
        As `ssim`; a ValueError also for images too small for the scales.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> ms_ssim(x, x)
    tensor(1., dtype=torch.float64)
    """
    _check_reduction(reduction)
    powers = tuple(map(float, MS_WEIGHTS if weights is None else weights))
    if not powers:
        raise ValueError("weights must not be empty")
    x, y, span, _ = _prepared(x, y, data_range, dtype, luma, crop_border)
    least = win_size << (len(powers) - 1)
    if min(x.shape[2:]) < least:
        raise ValueError(
            f"image {tuple(x.shape[2:])} is too small for {len(powers)} scales with a {win_size}x{win_size} window;"
            f" needs at least {least} px on a side"
        )
    if win_size % 2:
        problem = problem_of(span, _window(win_size, sigma), *K, "valid", "channel", False, 2)  # noqa: FBT003  # as it takes them
        images = take(as_they_stand(x, span), as_they_stand(y, span))
        each = [*scale_means(images.x, images.y, len(powers), problem, span, *K)]
    else:

        def compare(function: Any, a: Tensor, b: Tensor) -> Tensor:
            a, b, settings = _settings(a, b, span, win_size, sigma, K)
            compared: Tensor = function(a, b, reduction="channel", **settings)
            return compared

        each = scales.factors(
            as_they_stand(x, 1), as_they_stand(y, 1), len(powers), shrink=scales.halved, compare=compare
        )
    value = scales.product(each, powers).double().mean(1)
    return value if reduction == "none" else value.mean()


class _Score(nn.Module):
    """What both modules share."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.dtype_ = options.pop("dtype")  # as there: a module has no dtype of its own
        self._names = ["dtype_", *options]
        for name, value in options.items():
            setattr(self, name, value)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 1 - `forward`."""
        return 1.0 - self.forward(x, y)  # type: ignore[no-any-return]

    def _options(self) -> dict[str, Any]:
        """Return the options as they are now."""
        return {name.rstrip("_"): getattr(self, name) for name in self._names}


class SSIM(_Score):
    """`ssim` as a module; parameters as ``frame_analytics.SSIM``.

    Examples
    --------
    >>> x = torch.rand(2, 3, 32, 32)
    >>> SSIM()(x, x), SSIM().loss(x, x)
    (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """

    def __init__(
        self,
        data_range: float | None = None,
        win_size: int = 11,
        sigma: float = 1.5,
        K: Sequence[float] = (0.01, 0.03),
        reduction: str = "mean",
        return_map: bool = False,
        dtype: torch.dtype | None = None,
        downsample: bool = False,
        luma: bool | str | None = None,
        crop_border: int = 0,
    ) -> None:
        super().__init__(
            data_range=data_range, win_size=win_size, sigma=sigma, K=tuple(K), reduction=reduction,
            return_map=return_map, dtype=dtype, downsample=downsample, luma=luma, crop_border=crop_border,
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the SSIM of two batches of images."""
        return ssim(x, y, **self._options())


class MSSSIM(_Score):
    """`ms_ssim` as a module; parameters as ``frame_analytics.MSSSIM``.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> MSSSIM().loss(x, x)
    tensor(0., dtype=torch.float64)
    """

    def __init__(
        self,
        data_range: float | None = None,
        win_size: int = 11,
        sigma: float = 1.5,
        K: Sequence[float] = (0.01, 0.03),
        weights: Sequence[float] | None = None,
        reduction: str = "mean",
        dtype: torch.dtype | None = None,
        luma: bool | str | None = None,
        crop_border: int = 0,
    ) -> None:
        super().__init__(
            data_range=data_range, win_size=win_size, sigma=sigma, K=tuple(K),
            weights=MS_WEIGHTS if weights is None else tuple(weights), reduction=reduction, dtype=dtype, luma=luma,
            crop_border=crop_border,
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the multi-scale SSIM of two batches of images."""
        return ms_ssim(x, y, **self._options())


def _check_reduction(reduction: str) -> None:
    if reduction not in {"mean", "none"}:
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")


def _prepared(
    x: Tensor, y: Tensor, data_range: float | None, dtype: torch.dtype | None, luma: bool | str | None, border: int
) -> tuple[Tensor, Tensor, float, torch.dtype]:
    """Return images (N, C, H, W) without their border, grey where that is wanted, their range and type of a map."""
    if x.shape != y.shape:
        raise ValueError(f"shape mismatch: {tuple(x.shape)} vs {tuple(y.shape)}")
    if x.device != y.device:
        raise ValueError(f"device mismatch: {x.device} vs {y.device}")
    if not 2 <= x.ndim <= 4:
        raise ValueError(f"expected 2/3/4-D tensor, got shape {tuple(x.shape)}")
    span = float(INTEGERS.get(x.dtype, 1.0) if data_range is None else data_range)
    work = dtype or (torch.float64 if x.dtype == torch.float64 else torch.float32)
    mode = _mode(luma)
    x, y = (_cropped(image[(None,) * (4 - image.ndim)], border) for image in (x, y))
    if dtype is not None:
        x, y = (image.to(torch.float64 if dtype == torch.float64 else torch.float32) for image in (x, y))
    if mode is not None:
        x, y = (_grey(image, mode, span) for image in (x, y))
    return x, y, span, work


def _mode(luma: bool | str | None) -> str | None:
    """Return the name of the weights of red, green and blue."""
    if luma is None or luma is False:
        return None
    if luma is True:
        return "bt601"
    if not isinstance(luma, str):
        raise TypeError(f"luma must be None, a bool or a string, got {type(luma).__name__}")
    if luma not in LUMA:
        raise ValueError(f"unknown luma mode {luma!r}; expected one of {sorted(LUMA)}")
    return luma


def _cropped(image: Tensor, border: int) -> Tensor:
    """View an image without its outer pixels."""
    if border < 0:
        raise ValueError(f"crop_border must be >= 0, got {border}")
    height, width = image.shape[2:]
    if border and min(height, width) <= 2 * border:
        raise ValueError(f"crop_border={border} removes the whole {height}x{width} image")
    return image[..., border : height - border, border : width - border]


def _grey(image: Tensor, mode: str, data_range: float) -> Tensor:
    """Return the luma of a colour image, in its own units."""
    if image.shape[1] != 3:
        raise ValueError(f"luma needs a 3-channel image, got {image.shape[1]} channels")
    *parts, added = LUMA[mode]
    image = image if image.dtype == torch.float64 else image.float()
    red, green, blue = (part * image[:, i : i + 1] for i, part in enumerate(parts))
    return red + green + blue + added * data_range


def _averaged(image: Tensor) -> Tensor:
    """Return an image averaged as MATLAB's ssim.m does: over f x f pixels, f = round(shorter side / 256)."""
    factor = max(1, round(min(image.shape[2:]) / 256))
    if factor == 1:
        return image
    image = as_they_stand(image, 1)
    image = image if image.dtype == torch.float64 else image.float()
    return F.avg_pool2d(F.pad(image, [factor // 2] * 4, mode="replicate"), factor)


def _settings(
    x: Tensor, y: Tensor, data_range: float, size: int, sigma: float, K: Sequence[float]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return images, as far as windows reach, and the options of `fastssim.ssim`."""
    x, y = (as_they_stand(image, data_range) for image in (x, y))
    settings = {"data_range": data_range, "window": _window(size, sigma), "k1": K[0], "k2": K[1]}
    return *reached(x, y, (size, size)), settings


def _window(size: int, sigma: float) -> Window:
    return window_of("gaussian", (size, size), (float(sigma), float(sigma)))
