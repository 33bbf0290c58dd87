"""Windowed SSIM in float64 NumPy, slow and obvious: the definition that every backend is tested against.

For a window with weights w_i, sum 1, over pixels x_i, y_i (Wang, Bovik, Sheikh, Simoncelli, 2004):

    mu_x = sum w_i x_i          sigma_x^2 = sum w_i (x_i - mu_x)^2          sigma_xy = sum w_i (x_i - mu_x)(y_i - mu_y)
    SSIM = (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2))
    C1 = (k1 L)^2       C2 = (k2 L)^2       L the data range

With a mask m, w_i is replaced by w_i m_i / sum w_j m_j; a window in which sum w_j m_j is at most 1e-8 has nothing to
compare: its SSIM is 1, its gradient 0, and no reduction but the map knows it. Unbiased variances and covariance are
multiplied by n / (n - 1), n the number of the window's pixels. Padding repeats pixels (or puts zeros, with a mask of 1)
before anything else is done. The same holds of images, whose windows have two axes, and of volumes, whose windows have
three (`dims`).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastssim.borders import OUTSIDE
from fastssim.plan import LEAST_WEIGHT, source
from fastssim.window import WANG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from fastssim.window import Window

    Taps = tuple[tuple[float, ...], ...]  # weights along each axis of a window

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik, 2003
LEAST_FACTOR = 1e-8  # below it the power of multi-scale SSIM goes on as the straight line to 0


class _Moments(NamedTuple):
    """Every window's moments and the four factors of SSIM, each (..., H', W')."""

    share: NDArray[np.float64]  # 1 / (sum of w_i m_i), or 0 where there is nothing to compare
    empty: NDArray[np.bool_]  # windows with nothing to compare
    mu_x: NDArray[np.float64]
    mu_y: NDArray[np.float64]
    a: NDArray[np.float64]  # 2 mu_x mu_y + C1
    b: NDArray[np.float64]  # mu_x^2 + mu_y^2 + C1
    c: NDArray[np.float64]  # 2 sigma_xy + C2
    d: NDArray[np.float64]  # sigma_x^2 + sigma_y^2 + C2


def ssim(
    x: ArrayLike,  # (..., H, W)
    y: ArrayLike,  # (..., H, W)
    *,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    unbiased: bool = False,
    mask: ArrayLike | None = None,  # (..., H, W)
    dims: int = 2,
) -> NDArray[np.float64]:
    """SSIM of every window.

    Parameters
    ----------
    x, y : array_like, (..., H, W), or (..., D, H, W) with dims=3
        Images of one shape; computed in float64.
    data_range : float
        L, the span of the pixel values.
    window : Window
        Weights along each axis.
    k1, k2 : float
        Wang's constants; an infinite k1 leaves the factor of the means out.
    padding : {"valid", "zeros", "reflect", "symmetric", "replicate"}
        Windows that lie wholly in the image, or one window around every pixel of the padded image.
    unbiased : bool
        Multiply variances and covariance by n / (n - 1), n the number of the window's pixels.
    mask : array_like, optional
        Weight of every pixel, broadcast to the images; pixels of weight 0 may hold anything.
    dims : {2, 3}
        Axes of a window, the last of the images.

    Returns
    -------
    ndarray, (..., H - h + 1, W - w + 1), or (..., H, W) with padding; likewise in depth with dims=3
        The SSIM map.

    Examples
    --------
    >>> x = np.linspace(0, 1, 144).reshape(12, 12)
    >>> ssim(x, x).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    taps = window.along(dims)
    a, b, weight = _padded(x, y, mask, taps, padding)
    m = _moments(a, b, weight, taps, (k1 * data_range) ** 2, (k2 * data_range) ** 2, unbiased=unbiased)
    luminance = 1 if np.isinf(k1) else m.a / m.b
    return np.where(m.empty, 1, luminance * m.c / m.d)


def counted(shape: tuple[int, ...], mask: ArrayLike, window: Window, padding: str, dims: int = 2) -> NDArray[np.bool_]:
    """Tell which windows of images of a shape have something to compare, (..., H', W') or (..., D', H', W')."""
    taps = window.along(dims)
    x, y, weight = _padded(np.zeros(shape), np.zeros(shape), mask, taps, padding)
    empty: NDArray[np.bool_] = _moments(x, y, weight, taps, 1, 1, unbiased=False).empty
    return ~empty


def ssim_gradient(
    x: ArrayLike,  # (..., H, W)
    y: ArrayLike,  # (..., H, W)
    upstream: ArrayLike,  # (..., H', W')
    *,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    unbiased: bool = False,
    mask: ArrayLike | None = None,
    dims: int = 2,
) -> NDArray[np.float64]:
    """Gradient of sum(upstream * ssim(x, y)) by x.

    With l = A/B, c = C/D of a window, u = 1 or n / (n - 1), each of its pixels x_i receives

        w_i (c (2 mu_y - 2 l mu_x) / B + u l (2 (y_i - mu_y) - 2 c (x_i - mu_x)) / D)

    and a pixel that padding repeats receives what its copies do.

    Parameters
    ----------
    x, y, data_range, window, k1, k2, padding, unbiased, mask, dims
        As for `ssim`. The gradient by y is the one by x of the swapped images.
    upstream : array_like, (..., H', W')
        Weight of every window.

    Returns
    -------
    ndarray, (..., H, W)

    Examples
    --------
    >>> x = np.linspace(0, 1, 121).reshape(11, 11)
    >>> bool(np.all(ssim_gradient(x, x, np.ones((1, 1))) == 0))
    True
    """
    shape = np.shape(x)
    taps = window.along(dims)
    a, b, weight = _padded(x, y, mask, taps, padding)
    m = _moments(a, b, weight, taps, (k1 * data_range) ** 2, (k2 * data_range) ** 2, unbiased=unbiased)
    luminance, structure = 1 if np.isinf(k1) else m.a / m.b, m.c / m.d
    by_mean = structure * 2 * (m.mu_y - luminance * m.mu_x) / m.b
    spread = _spread(taps, unbiased=unbiased)
    gradient = np.zeros_like(a)
    for pixels, weight_i in _parts(taps, weight, m.share):
        by_variance = luminance * 2 * ((b[pixels] - m.mu_y) - structure * (a[pixels] - m.mu_x)) / m.d
        gradient[pixels] += weight_i * np.asarray(upstream) * (by_mean + spread * by_variance)
    return _folded(gradient, shape, taps, padding)


def ms_ssim(
    x: ArrayLike,  # (N, C, H, W)
    y: ArrayLike,  # (N, C, H, W)
    *,
    weights: Sequence[float] = MS_WEIGHTS,
    product: str = "channel",
    k1: float = 0.01,
    **options: Any,
) -> NDArray[np.float64]:
    """Multi-scale SSIM: the product over scales of the mean of C/D, at the last scale of SSIM, to the power of weights.

    From scale to scale the images shrink by the mean of 2 x 2 pixels; an odd last row or column is left out.

    Parameters
    ----------
    x, y : array_like, (N, C, H, W)
        Images of one shape.
    weights : sequence of float
        Power of each scale, finest first.
    product : {"channel", "image"}
        Multiply the scales of every channel, or of the mean over the channels.
    k1, **options
        As for `ssim`.

    Returns
    -------
    ndarray, (N, C) or (N,)

    Examples
    --------
    >>> x = np.random.default_rng(0).random((1, 2, 48, 48))
    >>> ms_ssim(x, x, weights=(0.5, 0.5)).tolist()
    [[1.0, 1.0]]
    """
    return _combined(_scales(x, y, weights, product, k1, options), weights)


def ms_ssim_gradient(
    x: ArrayLike,  # (N, C, H, W)
    y: ArrayLike,  # (N, C, H, W)
    upstream: ArrayLike,  # (N, C) or (N,)
    *,
    weights: Sequence[float] = MS_WEIGHTS,
    product: str = "channel",
    k1: float = 0.01,
    **options: Any,
) -> NDArray[np.float64]:
    """Gradient of sum(upstream * ms_ssim(x, y)) by x; parameters as for `ms_ssim`.

    Returns
    -------
    ndarray, (N, C, H, W)

    Examples
    --------
    >>> x = np.random.default_rng(0).random((1, 2, 48, 48))
    >>> bool((ms_ssim_gradient(x, x, np.ones((1, 2)), weights=(0.5, 0.5)) == 0).all())
    True
    """
    factors = _scales(x, y, weights, product, k1, options)
    images = [(np.asarray(x, np.float64), np.asarray(y, np.float64))]
    for _ in weights[1:]:
        images.append((halved(images[-1][0]), halved(images[-1][1])))
    gradient = np.zeros(())
    for scale in reversed(range(len(weights))):
        last = scale == len(weights) - 1
        a, b = images[scale]
        others = _combined([f if i != scale else np.ones_like(f) for i, f in enumerate(factors)], weights)
        by_factor = np.asarray(upstream) * others * power_slope(factors[scale], weights[scale])
        by_plane = by_factor if product == "channel" else by_factor[:, None] / a.shape[1]
        constants = {"k1": k1 if last else np.inf, **options}
        height, width = ssim(a, b, **constants).shape[2:]
        by_window = np.broadcast_to(by_plane[..., None, None] / (height * width), (*a.shape[:2], height, width))
        gradient = ssim_gradient(a, b, by_window, **constants) + (0 if last else _unhalved(gradient, a.shape))
    return gradient


def _scales(
    x: Any, y: Any, weights: Sequence[float], product: str, k1: float, options: dict[str, Any]
) -> list[NDArray[np.float64]]:
    """Mean of every scale, each (N, C) or (N,)."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    factors = []
    for scale in range(len(weights)):
        last = scale == len(weights) - 1
        factor = ssim(x, y, k1=k1 if last else np.inf, **options).mean((2, 3))
        factors.append(factor if product == "channel" else factor.mean(1))
        x, y = halved(x), halved(y)
    return factors


def _combined(factors: list[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Product of the scales' powers."""
    product: NDArray[np.float64] = np.prod(
        [power(factor, weight) for factor, weight in zip(factors, weights, strict=True)], axis=0
    )
    return product


def power(factor: NDArray[np.float64], weight: float) -> Any:
    """Return factor ** weight, 0 below 0, and the straight line to 0 under `LEAST_FACTOR`, whose slope is finite."""
    base = np.maximum(factor, 0)
    return np.where(base < LEAST_FACTOR, base * LEAST_FACTOR ** (weight - 1), np.maximum(base, LEAST_FACTOR) ** weight)


def power_slope(factor: NDArray[np.float64], weight: float) -> Any:
    """Return the derivative of `power`, 0 at 0 and below."""
    return np.where(factor > 0, weight * np.maximum(factor, LEAST_FACTOR) ** (weight - 1), 0.0) / np.where(
        (factor > 0) & (factor < LEAST_FACTOR), weight, 1.0
    )


def halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of every 2 x 2 pixels, (..., H // 2, W // 2)."""
    height, width = image.shape[-2] // 2, image.shape[-1] // 2
    whole = image[..., : 2 * height, : 2 * width].reshape(*image.shape[:-2], height, 2, width, 2)
    mean: NDArray[np.float64] = whole.mean((-3, -1))
    return mean


def _unhalved(gradient: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Adjoint of `halved`: every pixel receives a quarter."""
    height, width = gradient.shape[-2:]
    whole = np.zeros(shape)
    whole[..., : 2 * height, : 2 * width] = gradient.repeat(2, -2).repeat(2, -1) / 4
    return whole


def _places(shape: tuple[int, ...], taps: Taps, padding: str) -> tuple[NDArray[np.int64], ...]:
    """Source of every padded place along each axis of a window, as an open mesh."""
    lengths = shape[len(shape) - len(taps) :]
    pads = [0 if padding == "valid" else len(axis) // 2 for axis in taps]
    return np.ix_(*(np.array(source(n, pad, padding)) for n, pad in zip(lengths, pads, strict=True)))


def _inside(places: tuple[NDArray[np.int64], ...]) -> NDArray[np.bool_]:
    """Tell which padded places show a pixel."""
    return np.all(np.broadcast_arrays(*(place != OUTSIDE for place in places)), axis=0)  # type: ignore[no-any-return]


def _padded(x: Any, y: Any, mask: Any, taps: Taps, padding: str) -> list[NDArray[np.float64]]:
    """Pad images and mask; pixels that the mask leaves out become 0."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weight = np.broadcast_to(np.ones(()) if mask is None else np.asarray(mask, np.float64), x.shape)
    places = _places(x.shape, taps, padding)
    inside = _inside(places)
    sources: Any = (..., *places)
    x, y = np.where(weight > 0, x, 0), np.where(weight > 0, y, 0)
    return [np.where(inside, image[sources], filling) for image, filling in ((x, 0.0), (y, 0.0), (weight, 1.0))]


def _folded(gradient: NDArray[np.float64], shape: tuple[int, ...], taps: Taps, padding: str) -> NDArray[np.float64]:
    """Add the gradient of every padded pixel to that of its source."""
    places = _places(shape, taps, padding)
    inside = _inside(places)
    folded = np.zeros(shape)
    sources: Any = (..., *(place[inside] for place in np.broadcast_arrays(*places)))
    np.add.at(folded, sources, gradient[..., inside])
    return folded


def _spread(taps: Taps, *, unbiased: bool) -> float:
    """Factor of variances and covariance."""
    pixels = math.prod(map(len, taps))
    return pixels / (pixels - 1) if unbiased else 1.0


def _moments(x: Any, y: Any, mask: Any, taps: Taps, c1: float, c2: float, *, unbiased: bool) -> _Moments:
    """Take every window's means first, then its central moments about them."""
    lengths = x.shape[x.ndim - len(taps) :]
    ones = np.ones([length - len(axis) + 1 for length, axis in zip(lengths, taps, strict=True)])
    total = np.zeros(np.broadcast_shapes(mask.shape[: mask.ndim - len(taps)] + ones.shape))
    for _, weight in _parts(taps, mask, ones):
        total += weight
    empty = total <= LEAST_WEIGHT
    share = np.where(empty, 0, 1 / np.where(empty, 1, total))
    mu_x, mu_y, variances, covariance = (np.zeros(share.shape) for _ in range(4))
    for pixels, weight in _parts(taps, mask, share):
        mu_x += weight * x[pixels]
        mu_y += weight * y[pixels]
    for pixels, weight in _parts(taps, mask, share):
        off_x, off_y = x[pixels] - mu_x, y[pixels] - mu_y
        variances += weight * (off_x**2 + off_y**2)
        covariance += weight * (off_x * off_y)
    spread = _spread(taps, unbiased=unbiased)
    a, b = 2 * mu_x * mu_y + c1, mu_x**2 + mu_y**2 + c1
    return _Moments(share, empty, mu_x, mu_y, a, b, 2 * spread * covariance + c2, spread * variances + c2)


def _parts(
    taps: Taps, mask: NDArray[np.float64], share: NDArray[np.float64]
) -> Iterator[tuple[Any, NDArray[np.float64]]]:
    """Go through a window's places: the pixels there of all windows, and their weights, (..., H', W')."""
    lengths = share.shape[share.ndim - len(taps) :]
    for place in itertools.product(*(range(len(axis)) for axis in taps)):
        pixels: Any = (..., *(slice(i, i + length) for i, length in zip(place, lengths, strict=True)))
        weight = math.prod(axis[i] for axis, i in zip(taps, place, strict=True))
        yield pixels, weight * mask[pixels] * share
