"""From residuals to scores: scales, opening, blur, and what a residual means where the image is as it is."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

LOCAL = 5  # pixels down and across that a local mean is of
CONTRAST_WINDOW = 11  # pixels
CONTRAST_BINS = 32
SHARE_OF_SPREAD = 0.1  # no bin's spread counts as less than this share of the largest


def multi_scale(
    residual: Callable[[Tensor, Tensor], Tensor], image: Tensor, reconstruction: Tensor, scales: int
) -> Tensor:
    """Average a residual over scales, each the 2 x 2 means of the one before, brought back to the image's size.

    Parameters
    ----------
    residual : callable
        Of image and reconstruction (N, C, H, W), gives (N, 1, H, W).
    image, reconstruction : Tensor, (N, C, H, W)
    scales : int
        1: the residual as it is.

    Returns
    -------
    Tensor, (N, 1, H, W)
    """
    total = residual(image, reconstruction)
    height, width = image.shape[2:]
    largest = 1 << (scales - 1)
    beyond = (0, -width % largest, 0, -height % largest)  # whole pixels at every scale, each where it belongs
    if any(beyond):
        image, reconstruction = (F.pad(each, beyond, mode="replicate") for each in (image, reconstruction))
    for scale in range(1, scales):
        image, reconstruction = F.avg_pool2d(image, 2), F.avg_pool2d(reconstruction, 2)
        coarse = F.interpolate(residual(image, reconstruction), scale_factor=float(1 << scale), mode="bilinear")
        total = total + coarse[..., :height, :width]
    return total / scales


def weighed(residual: Tensor, image: Tensor, reconstruction: Tensor, power: float) -> Tensor:
    """Multiply a residual by a power of the local difference: that of the means of 5 x 5 pixels, over the channels.

    Parameters
    ----------
    residual : Tensor, (N, 1, H, W)
    image, reconstruction : Tensor, (N, C, H, W)
        Mirrored at their border.
    power : float
        0: the residual as it is.

    Returns
    -------
    Tensor, (N, 1, H, W)

    Examples
    --------
    >>> import torch
    >>> image = torch.zeros(1, 1, 8, 8)
    >>> weighed(torch.ones(1, 1, 8, 8), image, image + 0.25, 0.5).unique()
    tensor([0.5000])
    """
    if power == 0:
        return residual
    reach = LOCAL // 2
    apart = F.pad(image - reconstruction, (reach,) * 4, mode="reflect")
    local = F.avg_pool2d(apart, LOCAL, 1).square().mean(dim=1, keepdim=True).sqrt()
    return residual * local**power


def opened(residual: NDArray[np.float32], diameter: int) -> NDArray[np.float32]:
    """Open a residual (H, W) by a disc: at every threshold its mask is the opened mask.

    Parameters
    ----------
    residual : ndarray, (H, W)
    diameter : int
        In pixels; 0 and 1 change nothing.

    Examples
    --------
    >>> residual = np.zeros((9, 9), np.float32); residual[4, :] = 1
    >>> float(opened(residual, 4).max())
    0.0
    """
    if diameter < 2:
        return residual
    result: NDArray[np.float32] = ndimage.grey_opening(residual, footprint=disc(diameter))
    return result


def smoothed(residual: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur a residual (H, W) by a Gaussian, mirrored at the border; a constant stays that constant.

    Parameters
    ----------
    residual : ndarray, (H, W)
    sigma : float
        Standard deviation in pixels; 0 changes nothing.

    Examples
    --------
    >>> residual = np.zeros((9, 9), np.float32); residual[4, 4] = 1
    >>> smoothed(residual, 1.0)[4, 3:6].round(3)
    array([0.097, 0.159, 0.097], dtype=float32)
    """
    if sigma == 0:
        return residual
    result: NDArray[np.float32] = ndimage.gaussian_filter(residual, sigma)
    return result


def disc(diameter: int) -> NDArray[np.bool_]:
    """Mark the pixels, `diameter` down and across, whose middles lie in a disc.

    Examples
    --------
    >>> disc(4).astype(int)
    array([[0, 1, 1, 0],
           [1, 1, 1, 1],
           [1, 1, 1, 1],
           [0, 1, 1, 0]])
    """
    place = np.arange(diameter) - (diameter - 1) / 2
    inside: NDArray[np.bool_] = np.hypot(place[:, None], place) <= diameter / 2
    return inside


@dataclass(frozen=True)
class Contrast:
    """Mean and spread of good images' residuals, by the local contrast of the image."""

    contrast: tuple[float, ...]  # middles of bins, rising
    mean: tuple[float, ...]
    spread: tuple[float, ...]


def local_contrast(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Take the standard deviation in a box of 11 pixels about each, mean over channels, (C, H, W) to (H, W)."""
    planes = image.astype(np.float64)
    size = (1, CONTRAST_WINDOW, CONTRAST_WINDOW)
    mean = ndimage.uniform_filter(planes, size)
    variance = ndimage.uniform_filter(planes**2, size) - mean**2
    contrast: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0)).mean(0)
    return contrast


def fit_contrast(residuals: Sequence[NDArray[np.float32]], images: Sequence[NDArray[np.float32]]) -> Contrast:
    """Find mean and spread of residuals (H, W) of good images (C, H, W) in bins of equally many pixels."""
    contrast = np.concatenate([local_contrast(image).ravel() for image in images])
    residual = np.concatenate([residual.ravel() for residual in residuals]).astype(np.float64)
    edges = np.quantile(contrast, np.linspace(0, 1, CONTRAST_BINS + 1)[1:-1])
    which = np.searchsorted(edges, contrast, side="right")
    count = np.bincount(which, minlength=CONTRAST_BINS)
    some = count > 0  # equal contrasts fall together

    def mean_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.bincount(which, values, CONTRAST_BINS)[some] / count[some]
        return means

    middle, mean = mean_of(contrast), mean_of(residual)
    spread = np.sqrt(np.maximum(mean_of(residual**2) - mean**2, 0))
    spread = np.maximum(spread, max(SHARE_OF_SPREAD * spread.max(), 1e-12))
    return Contrast(tuple(middle.tolist()), tuple(mean.tolist()), tuple(spread.tolist()))


@dataclass(frozen=True)
class Level:
    """How much whole good images differ in their residuals."""

    middle: float  # the median of the images' medians
    share: float  # in [0, 1): of the variance of all pixels, what lies between images


def fit_level(residuals: Sequence[NDArray[np.float32]]) -> Level:
    """Find the level of residuals (H, W) of good images; a single one differs from none.

    Examples
    --------
    >>> steep = np.array([[0, 1, 2]], np.float32)
    >>> fit_level([steep, steep + 2])  # medians 1 and 3, of variance 2; within the images it is 2/3
    Level(middle=2.0, share=0.75)
    """
    medians = [float(np.median(residual)) for residual in residuals]
    between = statistics.variance(medians) if len(medians) > 1 else 0.0
    within = float(np.mean([residual.var() for residual in residuals]))
    share = between / (between + within) if between else 0.0
    return Level(statistics.median(medians), round(share, 6))


def normalised(
    residual: NDArray[np.float32], image: NDArray[np.float32], kind: str, good: Contrast | Level | None = None
) -> NDArray[np.float32]:
    """Turn a residual into a score.

    Parameters
    ----------
    residual : ndarray, (H, W)
    image : ndarray, (C, H, W)
        What it is the residual of.
    kind : {"none", "contrast", "level", "median", "image"}
        The residual itself; (residual - mean) / spread of good images' residuals at the same local contrast;
        residual - share * (median of this very image - good images' median), see `Level`; residual - median of this
        very image, of which a defect is a small part; (residual - median) / spread of it, the spread being 1.4826 times
        the median distance from the median.
    good : Contrast or Level, optional
        For "contrast" and "level".

    Examples
    --------
    >>> normalised(np.array([[1, 2, 3, 4, 9]], np.float32), np.zeros((1, 1, 5), np.float32), "image").round(2)
    array([[-1.35, -0.67,  0.  ,  0.67,  4.05]], dtype=float32)
    >>> normalised(np.array([[1, 2, 3, 4, 9]], np.float32), np.zeros((1, 1, 5), np.float32), "median")
    array([[-2., -1.,  0.,  1.,  6.]], dtype=float32)
    """
    if kind == "level" and isinstance(good, Level):
        above = good.share * (float(np.median(residual)) - good.middle)
        levelled: NDArray[np.float32] = residual - np.float32(above)
        return levelled
    if kind == "contrast" and isinstance(good, Contrast):
        local = local_contrast(image)
        mean, spread = (np.interp(local, good.contrast, values) for values in (good.mean, good.spread))
        return ((residual - mean) / spread).astype(np.float32)
    if kind in {"median", "image"}:
        away: NDArray[np.float32] = residual - np.median(residual)
        if kind == "median":
            return away
        return (away / max(1.4826 * float(np.median(np.abs(away))), 1e-12)).astype(np.float32)
    return residual
