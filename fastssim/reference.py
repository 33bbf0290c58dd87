"""Windowed SSIM in float64 NumPy, slow and obvious: the definition that every backend is tested against.

For a window with weights w_i over pixels x_i, y_i (Wang, Bovik, Sheikh, Simoncelli, 2004):

    mu_x = sum w_i x_i          sigma_x^2 = sum w_i (x_i - mu_x)^2          sigma_xy = sum w_i (x_i - mu_x)(y_i - mu_y)
    SSIM = (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2))
    C1 = (k1 L)^2       C2 = (k2 L)^2       L the data range
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastssim.window import Gaussian

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastssim.window import Window

_GAUSSIAN = Gaussian()


class _Moments(NamedTuple):
    """Every window's moments and the four factors of SSIM, each (..., H', W')."""

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
    window: Window = _GAUSSIAN,
    k1: float = 0.01,
    k2: float = 0.03,
) -> NDArray[np.float64]:
    """SSIM of every window that lies wholly in the image.

    Parameters
    ----------
    x, y : array_like, (..., H, W)
        Images of one shape; computed in float64.
    data_range : float
        L, the span of the pixel values.
    window : Window
        Weights along each axis.
    k1, k2 : float
        Wang's constants.

    Returns
    -------
    ndarray, (..., H - size + 1, W - size + 1)
        The SSIM map; its mean is the index.

    Examples
    --------
    >>> x = np.linspace(0, 1, 144).reshape(12, 12)
    >>> ssim(x, x).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    moments = _moments(x, y, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
    return moments.a * moments.c / (moments.b * moments.d)


def ssim_gradient(
    x: ArrayLike,  # (..., H, W)
    y: ArrayLike,  # (..., H, W)
    upstream: ArrayLike,  # (..., H', W')
    *,
    data_range: float = 1.0,
    window: Window = _GAUSSIAN,
    k1: float = 0.01,
    k2: float = 0.03,
) -> NDArray[np.float64]:
    """Gradient of sum(upstream * ssim(x, y)) by x.

    With l = A/B, c = C/D of a window, each of its pixels x_i receives

        w_i (c (2 mu_y - 2 l mu_x) / B + l (2 (y_i - mu_y) - 2 c (x_i - mu_x)) / D)

    Parameters
    ----------
    x, y, data_range, window, k1, k2
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
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    m = _moments(x, y, window, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
    luminance, structure = m.a / m.b, m.c / m.d
    height, width = luminance.shape[-2:]
    gradient = np.zeros_like(x)
    for i, weight_y in enumerate(window.taps):
        for j, weight_x in enumerate(window.taps):
            pixels = np.s_[..., i : i + height, j : j + width]
            by_mean = structure * 2 * (m.mu_y - luminance * m.mu_x) / m.b
            by_variance = luminance * 2 * ((y[pixels] - m.mu_y) - structure * (x[pixels] - m.mu_x)) / m.d
            gradient[pixels] += weight_y * weight_x * np.asarray(upstream) * (by_mean + by_variance)
    return gradient


def _moments(x: Any, y: Any, window: Window, c1: float, c2: float) -> _Moments:
    """Take every window's means first, then its central moments about them."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    size = window.size
    weights = np.outer(window.taps, window.taps)
    patches_x = np.lib.stride_tricks.sliding_window_view(x, (size, size), (-2, -1))
    patches_y = np.lib.stride_tricks.sliding_window_view(y, (size, size), (-2, -1))
    mu_x = (patches_x * weights).sum((-2, -1))
    mu_y = (patches_y * weights).sum((-2, -1))
    off_x = patches_x - mu_x[..., None, None]
    off_y = patches_y - mu_y[..., None, None]
    variances = ((off_x**2 + off_y**2) * weights).sum((-2, -1))
    covariance = (off_x * off_y * weights).sum((-2, -1))
    return _Moments(mu_x, mu_y, 2 * mu_x * mu_y + c1, mu_x**2 + mu_y**2 + c1, 2 * covariance + c2, variances + c2)
