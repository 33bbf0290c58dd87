"""Drop-in for scikit-image's SSIM: ``from fastssim.compat.skimage import structural_similarity``.

Its conventions: a uniform window of 7 pixels, or a Gaussian; variances over n - 1; the mean of windows that lie wholly
in the image, the map with its border mirrored; the range of an integer type where none is given.
"""

from __future__ import annotations

import warnings
from typing import Any

from fastssim.compat import arrays
from fastssim.compat.options import FALLBACK, NATIVE, options

__all__ = ["structural_similarity"]

PACKAGE = "skimage"
REPLACES = {"skimage.metrics": ("structural_similarity",)}
NAME = "structural_similarity"
OPTIONS = (
    *options(NAME, NATIVE, "im1 im2", "one or two axes and a channel axis; any real dtype, float64 but for float32"),
    *options(NAME, NATIVE, "win_size data_range channel_axis gaussian_weights use_sample_covariance K1 K2 sigma"),
    *options(NAME, NATIVE, "full"),
    *options(NAME, NATIVE, "gradient", "True: the exact gradient of the returned mean by im2, in the same pass"),
    *options(NAME, FALLBACK, "gradient", '"skimage": its own formula, 2 % to 57 % off, by NumPy or CuPy in float64'),
    *options(NAME, FALLBACK, "win_size", "beside gaussian_weights, as long as another window: the mean of the map"),
    *options(NAME, NATIVE, "kwargs", "an unknown keyword is ignored, as there, but with a warning"),
    *options(NAME, NATIVE, "volumes", "three axes beside the channels"),
    *options(
        NAME, FALLBACK, "volumes", "more axes, or three where the mean is of the map: by NumPy or CuPy in float64"
    ),
)
DEFECTS = (
    "The gradient is that of another mean: of the uncropped map, without n / (n - 1), not divided by the channels.",
    "Unknown keywords, such as the old `multichannel`, are ignored in silence.",
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas.",
)


def structural_similarity(
    im1: Any,
    im2: Any,
    *,
    win_size: int | None = None,
    gradient: bool | str = False,
    data_range: float | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    use_sample_covariance: bool = True,
    K1: float = 0.01,
    K2: float = 0.03,
    sigma: float = 1.5,
    **kwargs: Any,
) -> Any:
    """Mean SSIM of two arrays; parameters as ``skimage.metrics.structural_similarity`` but for `gradient`.

    Parameters
    ----------
    gradient : bool or "skimage"
        True: also return the exact gradient of the mean by `im2`. "skimage": what scikit-image returns in its place.

    Returns
    -------
    mean : float, or (mean, gradient), (mean, map), (mean, gradient, map)

    Raises
    ------
    ValueError
        As there.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.linspace(0, 1, 256).reshape(16, 16)
    >>> float(structural_similarity(image, image, data_range=1.0))
    1.0
    """
    if kwargs:
        warnings.warn(f"structural_similarity has no {', '.join(kwargs)}; ignored, as by scikit-image", stacklevel=2)
    return arrays.structural_similarity(
        im1, im2, win_size=win_size, gradient=gradient, data_range=data_range, channel_axis=channel_axis,
        gaussian_weights=gaussian_weights, full=full, use_sample_covariance=use_sample_covariance, K1=K1, K2=K2,
        sigma=sigma,
    )  # fmt: skip
