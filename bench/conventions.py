"""What a library computes, in float64: its value is checked against its own convention before it is timed.

Libraries differ in border, window, variance and decimation; the largest differences between "SSIM"s are of this kind,
not of precision. Each is built here from `fastssim.reference`, the definition; fastssim is loaded when a value is asked
for, since the tables of all libraries load this module before `bench.startup` times what each of them loads.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.float64]  # (N, C, H, W) or (N, C, D, H, W)

STRIP = 64  # rows, or planes of volumes, that the reference works on at a time
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, Wang, Simoncelli and Bovik (2003)


@dataclass(frozen=True)
class Convention:
    """One way to reduce two batches of images to a mean SSIM."""

    words: str  # as the table says it
    uniform: bool = False  # equal weights in place of a Gaussian of sigma 1.5
    sample: bool = False  # variances over n - 1 instead of n
    reflect: bool = False  # the border is mirrored, and every pixel has a window
    matlab: bool = False  # images of 8 bits, decimated to about 256 pixels first, as in Wang's ssim.m
    comparable: bool = True  # as much work as the definition, so that times may be compared

    def value(self, x: Any, y: Any, data_range: float = 1.0, window: int = 11) -> float:
        """Mean SSIM of (N, C, H, W), of whole windows also of volumes (N, C, D, H, W)."""
        x, y = (self.images(image, data_range, window) for image in (x, y))
        return float(_means(x, y, **self.options(255.0 if self.matlab else data_range, window)).mean())

    def gradient(self, x: Any, y: Any, data_range: float = 1.0, window: int = 11) -> Images:
        """Gradient of `value` by x."""
        from fastssim import reference  # noqa: PLC0415  # see above

        if self.matlab:
            raise ValueError(f"{self.words} has no gradient")
        shape = np.shape(x)
        x, y = (self.images(image, data_range, window) for image in (x, y))
        windows = (*x.shape[:2], x.shape[2] - window + 1, x.shape[3] - window + 1)
        upstream = np.full(windows, 1 / np.prod(windows))
        by_padded: Images = reference.ssim_gradient(x, y, upstream, **self.options(data_range, window))
        if not self.reflect:
            return by_padded
        down, across = (np.pad(np.arange(length), window // 2, mode="reflect") for length in shape[2:])
        gradient = np.zeros(shape)
        places: Any = np.s_[:, :, down[:, None], across]
        np.add.at(gradient, places, by_padded)
        return gradient

    def options(self, data_range: float, window: int) -> dict[str, Any]:
        """Return the reference's options that stand for this convention."""
        from fastssim import Gaussian, Uniform  # noqa: PLC0415  # see above

        pixels = window * window
        return {
            "data_range": data_range,
            "window": Uniform(window) if self.uniform else Gaussian(window),
            #  n / (n - 1) times both variances and the covariance is (n - 1) / n times C2
            "k2": 0.03 * ((pixels - 1) / pixels) ** 0.5 if self.sample else 0.03,
        }

    def images(self, image: Any, data_range: float, window: int) -> Images:
        """Return what this convention compares in place of an image."""
        pixels: Images = np.asarray(image, np.float64)
        if self.matlab:
            pixels = decimated(eight_bit(pixels, data_range).astype(np.float64))
        if self.reflect:
            border = (window // 2, window // 2)
            pixels = np.pad(pixels, ((0, 0), (0, 0), border, border), mode="reflect")
        return pixels


@dataclass(frozen=True)
class MultiScale:
    """Mean MS-SSIM of every channel over five scales."""

    words: str
    reflect: bool = False  # as in `Convention`; contrasts still count whole windows alone
    comparable: bool = True

    def value(self, x: Any, y: Any, data_range: float = 1.0, window: int = 11) -> float:
        """Mean MS-SSIM of (N, C, H, W), H and W divisible by 16: no convention of uneven halves is needed."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        product: Any = 1.0
        for scale, weight in enumerate(WEIGHTS):
            last = scale == len(WEIGHTS) - 1
            mean = self._mean(x, y, data_range, window, contrast=not last)
            product = product * np.maximum(mean, 0) ** weight
            x, y = _halved(x), _halved(y)
        return float(np.mean(product))

    def _mean(self, x: Images, y: Images, data_range: float, window: int, *, contrast: bool) -> NDArray[np.float64]:
        """Mean of SSIM, or of its contrast and structure alone: with a huge C1 the luminance is 1."""
        of = Convention(self.words, reflect=self.reflect and not contrast)
        x, y = (of.images(image, data_range, window) for image in (x, y))
        return _means(x, y, **of.options(data_range, window), **({"k1": 1e8} if contrast else {}))


def eight_bit(image: Any, data_range: float) -> NDArray[np.uint8]:
    """Round to 0 .. 255."""
    return np.rint(np.clip(np.asarray(image) / data_range, 0, 1) * 255).astype(np.uint8)


def decimated(image: Images) -> Images:
    """Average over f x f pixels and keep every f-th, f = round(shorter side / 256), as ssim.m does by imfilter.

    Examples
    --------
    >>> decimated(np.ones((1, 1, 512, 600))).shape
    (1, 1, 256, 300)
    """
    height, width = image.shape[2:]
    f = max(1, round(min(height, width) / 256))
    padded = np.pad(image, ((0, 0), (0, 0), (f, f), (f, f)), mode="symmetric")
    first = f - f // 2
    boxes = [
        padded[..., first + i : first + i + height : f, first + j : first + j + width : f]
        for i in range(f)
        for j in range(f)
    ]
    mean: Images = np.mean(boxes, axis=0)
    return mean


def _means(x: Images, y: Images, **options: Any) -> NDArray[np.float64]:
    """Mean SSIM of every plane, (N, C); a strip of rows at a time, since the reference holds every window's pixels."""
    from fastssim import reference  # noqa: PLC0415  # see above

    reach = options["window"].size - 1
    lengths = [length - reach for length in x.shape[2:]]
    strips = [np.s_[top : min(top + STRIP, lengths[0]) + reach] for top in range(0, lengths[0], STRIP)]
    jobs = [(plane, rows) for plane in np.ndindex(x.shape[:2]) for rows in strips]

    def total(job: Any) -> Any:
        plane, rows = job
        return reference.ssim(x[plane][rows], y[plane][rows], dims=len(lengths), **options).sum()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = list(pool.map(total, jobs))
    means: NDArray[np.float64] = np.reshape(sums, (*x.shape[:2], len(strips))).sum(2) / math.prod(lengths)
    return means


def _halved(image: Images) -> Images:
    height, width = image.shape[2] // 2, image.shape[3] // 2
    blocks = image[..., : 2 * height, : 2 * width].reshape(*image.shape[:2], height, 2, width, 2)
    halved: Images = blocks.mean(axis=(3, 5))
    return halved


VALID = Convention("valid windows")
REFLECT = Convention("border mirrored", reflect=True)
MATLAB = Convention("8 bits, decimated as ssim.m", matlab=True, comparable=False)
UNIFORM = Convention("uniform window, sample variance", uniform=True, sample=True)
PER_CHANNEL = MultiScale("valid windows")
