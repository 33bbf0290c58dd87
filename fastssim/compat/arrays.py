"""Mean SSIM of arrays as scikit-image defines it; ``xp`` is NumPy, or CuPy, which follows its interface.

With a window of w pixels along each of d axes, moments about the means over the window, and NP = w^d, variances and
covariance are multiplied by NP / (NP - 1) with sample covariance: the same SSIM as with C2 (NP - 1) / NP. The map has a
value for every pixel, the border mirrored; the mean is over windows that lie wholly in the image.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from fastssim.functional import ssim
from fastssim.interop import library_of
from fastssim.plan import source
from fastssim.window import Gaussian, Taps, Uniform

TRUNCATE = 3.5  # sigmas from the middle to the end of a Gaussian
TOO_LARGE = (
    "win_size exceeds image extent. Either ensure that your images are at least 7x7; or pass win_size explicitly in the"
    " function call, with an odd value less than or equal to the smaller side of your images. If your images are"
    " multichannel (with color channels), set channel_axis to the axis number corresponding to the channels."
)


def structural_similarity(
    im1: Any,
    im2: Any,
    *,
    win_size: int | None,
    gradient: bool | str,
    data_range: float | None,
    channel_axis: int | None,
    gaussian_weights: bool,
    full: bool,
    use_sample_covariance: bool,
    K1: float,
    K2: float,
    sigma: float,
) -> Any:
    """Return the mean, then the gradient and the map where they are asked for."""
    if im1.shape != im2.shape:
        raise ValueError("Input images must have the same dimensions.")
    _check_options(K1, K2, sigma, gradient)
    xp = np if isinstance(im1, np.ndarray) else library_of(im1)
    dtype = _float_type(im1.dtype)
    channels = 1 if channel_axis is None else im1.shape[channel_axis]
    planes = [
        image[None] if channel_axis is None else xp.moveaxis(image, channel_axis, 0) for image in (im1, im2)
    ]  # (C, ...)
    shape = planes[0].shape[1:]
    radius = int(TRUNCATE * sigma + 0.5)
    size = win_size if win_size is not None else 2 * radius + 1 if gaussian_weights else 7
    _check_size(size, shape)
    span = _data_range(im1.dtype, im2.dtype) if data_range is None else data_range
    pixels = size ** len(shape)
    factor = pixels / (pixels - 1) if use_sample_covariance else 1.0  # of one pixel a ZeroDivisionError, as there
    options: dict[str, Any] = {
        "data_range": float(span),
        "window": _window(gaussian_weights, sigma, radius, size, line=len(shape) == 1),
        "k1": float(K1),
        "k2": K2 / factor**0.5,
    }
    sides = shape if len(shape) > 1 else (1, *shape)
    options["dims"] = len(sides)
    x, y = (image.astype(dtype, copy=False).reshape(channels, *sides) for image in planes)
    pad = (size - 1) // 2
    inner = (slice(None), *[slice(pad, length - pad) if length >= size else slice(None) for length in sides])
    axes = tuple(range(1, len(sides) + 1))
    whole = size == options["window"].shape[1]  # else the mean is over other windows than fit in the image
    plain = len(sides) > 3 or (len(sides) == 3 and not whole)

    def back(maps: Any) -> Any:
        """Give (C, H, W) the images' axes again."""
        maps = maps.reshape(channels, *shape)
        return maps[0] if channel_axis is None else xp.moveaxis(maps, 0, channel_axis)

    results = []
    moments: Any = None
    if plain or gradient == "skimage":
        moments = _Moments(xp, x, y, options, factor)
    maps: Any = moments.ssim if plain else None
    if maps is None and (full or not whole):
        maps = ssim(x, y, padding="symmetric", reduction="none", **options)
    each = found = None
    if moments is not None and gradient:
        found = moments.formula() if gradient == "skimage" else moments.gradient(inner)
    elif gradient:
        each, found = _gradient(xp, x, y, options, None if whole else inner)
    if plain or not whole:
        each = maps[inner].mean(axes, dtype=np.float64)
    elif each is None:  # not the map's mean: the same to the last bit with and without `full`
        each = ssim(x, y, reduction="channel", **options)
    results.append(each[0].astype(np.float64) if channel_axis is None else each.astype(dtype).mean())
    if found is not None:
        results.append(back(found.astype(dtype, copy=False)))
    if full:
        results.append(back(maps.astype(dtype, copy=False)))
    return results[0] if len(results) == 1 else tuple(results)


def _check_options(K1: float, K2: float, sigma: float, gradient: bool | str) -> None:
    for name, number in (("K1", K1), ("K2", K2), ("sigma", sigma)):
        if number < 0:
            raise ValueError(f"{name} must be positive")
    if gradient not in (False, True, "skimage"):
        raise ValueError(f'gradient is {gradient!r}; give True (exact), "skimage" (its formula) or False')


def _check_size(size: int, shape: tuple[int, ...]) -> None:
    if not shape or min(shape) < size:
        raise ValueError(TOO_LARGE)
    if size % 2 != 1:
        raise ValueError("Window size must be odd.")


def _float_type(dtype: Any) -> Any:
    """Dtype of results: float32 for float32 and float16, else float64."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise ValueError("complex valued input is not supported")
    return np.float32 if dtype.char in "ef" else np.float64


def _data_range(first: Any, second: Any) -> float:
    """Range of the images' type, as scikit-image guesses it."""
    first, second = np.dtype(first), np.dtype(second)
    if "f" in (first.kind, second.kind):
        raise ValueError(
            "Since image dtype is floating point, you must specify the data_range parameter. It is recommended that you"
            " always specify the data_range anyway."
        )
    if first != second:
        warnings.warn("Inputs have mismatched dtypes. Setting data_range based on im1.dtype.", stacklevel=4)
    if first.kind == "b":
        return 1.0
    span = float(np.iinfo(first).max) - float(np.iinfo(first).min)
    if first != np.uint8:
        warnings.warn(
            f"Setting data_range based on im1.dtype. data_range = {span:.0f}."
            " Please specify data_range explicitly to avoid mistakes.",
            stacklevel=4,
        )
    return span


def _window(gaussian_weights: bool, sigma: float, radius: int, size: int, *, line: bool) -> Gaussian | Uniform | Taps:
    """Return the window; along the one axis of a line alone."""
    if gaussian_weights and radius == 0:
        return Taps([1.0])
    length = 2 * radius + 1 if gaussian_weights else size
    shape = (1 if line else length, length)
    return Gaussian(shape, float(sigma)) if gaussian_weights else Uniform(shape)


def _gradient(xp: Any, x: Any, y: Any, options: dict[str, Any], inner: Any) -> tuple[Any, Any]:
    """Mean over each channel's windows, and the gradient of their mean by the second image, whatever torch's mode."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        first, second = (torch.utils.dlpack.from_dlpack(image.copy()) for image in (x, y))
        second.requires_grad_()
        if inner is None:
            each = ssim(first, second, reduction="channel", **options)
        else:
            each = ssim(first, second, padding="symmetric", reduction="none", **options)[inner].flatten(1).mean(1)
        (found,) = torch.autograd.grad(each.mean(), second)
    return xp.from_dlpack(each.detach()), xp.from_dlpack(found)


class _Moments:
    """Moments of arrays (C, ...) of any number of axes by plain filters in float64, the border mirrored: slow.

    Of two axes or one the window is that of `ssim`; of more it is the same along each.
    """

    def __init__(self, xp: Any, x: Any, y: Any, options: dict[str, Any], factor: float) -> None:
        self._xp = xp
        window = options["window"]
        self._taps = [window.taps_y, window.taps_x] if x.ndim == 3 else [window.taps_x] * (x.ndim - 1)
        self.x, self.y = (image.astype(np.float64) for image in (x, y))
        self.factor = factor
        self.mu_x, self.mu_y = self._mean(self.x), self._mean(self.y)
        square_x, square_y, cross = (self._mean(a) for a in (self.x**2, self.y**2, self.x * self.y))
        c1 = (options["k1"] * options["data_range"]) ** 2
        c2 = (options["k2"] * options["data_range"]) ** 2 * factor  # K2's own
        self.a1 = 2 * self.mu_x * self.mu_y + c1
        self.a2 = 2 * factor * (cross - self.mu_x * self.mu_y) + c2
        self.b1 = self.mu_x**2 + self.mu_y**2 + c1
        self.b2 = factor * (square_x - self.mu_x**2 + square_y - self.mu_y**2) + c2
        self.ssim = self.a1 * self.a2 / (self.b1 * self.b2)

    def formula(self) -> Any:
        """Return what scikit-image returns as the gradient, Avanaki's equations 7 and 8."""
        below = self.b1 * self.b2
        total = self._mean(self.a1 / below) * self.x - self._mean(self.ssim / self.b2) * self.y
        means = (self.mu_x * (self.a2 - self.a1) - self.mu_y * (self.b2 - self.b1) * self.ssim) / below
        return (total + self._mean(means)) * (2 / self.x[0].size)

    def gradient(self, inner: Any) -> Any:
        """Return the gradient by y of the mean over the windows `inner` of all channels."""
        share = self._xp.zeros(self.x.shape)
        share[inner] = 1 / share[inner].size
        below = self.b1 * self.b2
        by_cross = 2 * self.factor * self.a1 / below
        by_square = -self.factor * self.ssim / self.b2
        by_mean = 2 * self.mu_x * self.a2 / below - self.mu_x * by_cross
        by_mean -= 2 * self.mu_y * (self.ssim / self.b1 + by_square)
        spread = [self._adjoint(share * slope) for slope in (by_mean, by_cross, by_square)]
        return spread[0] + spread[1] * self.x + 2 * spread[2] * self.y

    def _mean(self, image: Any) -> Any:
        """Weighted mean over the window of every pixel."""
        for axis, taps in enumerate(self._taps, start=1):
            length, radius = image.shape[axis], len(taps) // 2
            padded = self._xp.take(image, self._xp.asarray(source(length, radius, "symmetric")), axis)
            image = sum(weight * padded[_span(axis, i, length)] for i, weight in enumerate(taps))
        return image

    def _adjoint(self, image: Any) -> Any:
        """Give every pixel what the windows that hold it, or its mirror image, have for it."""
        for axis, taps in enumerate(self._taps, start=1):
            length, radius = image.shape[axis], len(taps) // 2
            shape = [*image.shape[:axis], length + 2 * radius, *image.shape[axis + 1 :]]
            padded = self._xp.zeros(shape)
            for i, weight in enumerate(taps):
                padded[_span(axis, i, length)] += weight * image
            image = self._xp.zeros(image.shape)
            for i, place in enumerate(source(length, radius, "symmetric")):
                image[_span(axis, place, 1)] += padded[_span(axis, i, 1)]
        return image


def _span(axis: int, first: int, length: int) -> tuple[slice, ...]:
    """Take `length` places of one axis."""
    return (*[slice(None)] * axis, slice(first, first + length))
