"""The frozen description of one SSIM problem, made once and looked up afterwards."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple, dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from fastssim.borders import sources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PADDINGS = ("valid", "zeros", "reflect", "symmetric", "replicate")
REDUCTIONS = ("mean", "sum", "image", "channel", "none")
LEAST_WEIGHT = 1e-8  # a masked window whose pixels keep less of the window's weight holds nothing to compare


@dataclass(frozen=True)
class Plan:
    """What is computed: shapes, window, constants; equal plans share everything that follows from them.

    It holds nothing of any backend. The window's taps are float64, down (`taps_y`), across (`taps_x`) and, for volumes,
    into the depth (`taps_z`); a backend rounds them to its dtype (`fastssim.window.rounded`). Images of another dtype
    are converted as they are read.
    """

    shape: tuple[int, ...]  # N, C, H, W of images; N, C, D, H, W of volumes
    dtype: str  # of the arithmetic, the value and the gradient: "float32" or "float64"
    taps_y: tuple[float, ...]
    taps_x: tuple[float, ...]
    c1: float
    c2: float
    padding: str = "valid"  # one of PADDINGS
    unbiased: float = 1.0  # what variances and covariance are multiplied by: n / (n - 1), or 1
    masked: bool = False  # a weight for every pixel comes with the images
    fractions: bool = False  # integer pixels are divided by the largest number of their type as they are read
    taps_z: tuple[float, ...] = ()  # of volumes only

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Hash of all fields, taken once: plans are looked up at every call."""
        return hash(astuple(self))

    @property
    def taps(self) -> tuple[tuple[float, ...], ...]:
        """Taps along each axis: down and across, of volumes into the depth first."""
        return (self.taps_z, self.taps_y, self.taps_x) if self.taps_z else (self.taps_y, self.taps_x)

    @property
    def pad(self) -> tuple[int, ...]:
        """Pixels that padding adds on each side of each axis."""
        return tuple(0 if self.padding == "valid" else len(taps) // 2 for taps in self.taps)

    @property
    def padded(self) -> tuple[int, ...]:
        """Length of each axis with the padding."""
        return tuple(length + 2 * pad for length, pad in zip(self.shape[2:], self.pad, strict=True))

    @cached_property
    def map_shape(self) -> tuple[int, ...]:
        """Shape of the SSIM map, (N, C, H', W') or (N, C, D', H', W')."""
        ends = (length - len(taps) + 1 for length, taps in zip(self.padded, self.taps, strict=True))
        return *self.shape[:2], *ends

    def count(self, reduction: str) -> int:
        """How many windows one number of a reduction takes in, where no mask leaves any out; 1 for a sum."""
        return 1 if reduction == "sum" else _taken_in(self.map_shape, reduction)

    def pixels(self, reduction: str) -> int:
        """How many pixels one number of a reduction takes in."""
        return _taken_in(self.shape, reduction)


def _taken_in(shape: tuple[int, ...], reduction: str) -> int:
    """How many elements of (N, C, ...) one number of a mean takes in."""
    return math.prod(shape[{"mean": 0, "image": 1, "channel": 2}[reduction] :])


@lru_cache(maxsize=1024)
def scales(plan: Plan, count: int, contrast_c1: float) -> tuple[Plan, ...]:
    """Return the plans of MS-SSIM's scales, finest first, each of half the height and width of the one before.

    All but the last have `contrast_c1` for C1, far above every mean, which leaves contrast and structure of SSIM.
    """
    n, c, height, width = plan.shape
    finer = replace(plan, c1=contrast_c1)
    return tuple(
        replace(plan if scale == count - 1 else finer, shape=(n, c, height >> scale, width >> scale))
        for scale in range(count)
    )


class Sums(NamedTuple):
    """What one pass over the images adds up, each (N, C), float64."""

    ssim: NDArray[np.float64]
    counted: NDArray[np.float64]  # windows with something to compare, under a mask; else 0
    distance: NDArray[np.float64]  # |x - y|, where it is asked for; else 0


def source(length: int, pad: int, padding: str) -> list[int]:
    """Tell for each of the ``length + 2 * pad`` padded places which pixel of the line it repeats, or OUTSIDE.

    Examples
    --------
    >>> source(3, 2, "reflect"), source(3, 2, "symmetric"), source(3, 2, "replicate"), source(3, 1, "zeros")
    ([2, 1, 0, 1, 2, 1, 0], [1, 0, 0, 1, 2, 2, 1], [0, 0, 0, 1, 2, 2, 2], [-1, 0, 1, 2, -1])
    """
    return sources(length, pad, pad, padding)


def tiles(*axes: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Cut a plane into tiles (y0, y1, x0, x1), a volume into bricks (z0, z1, y0, y1, x0, x1), from spans of each axis.

    The cut depends on the image alone, never on the number of threads, so that sums come out the same to the last bit.

    Examples
    --------
    >>> tiles(spans(4, 8, 2), [(0, 5)])
    [(4, 6, 0, 5), (6, 8, 0, 5)]
    """
    return [tuple(itertools.chain(*tile)) for tile in itertools.product(*axes)]


def spans(first: int, last: int, most: int) -> list[tuple[int, int]]:
    """Cut first .. last into nearly equal spans of at most `most`."""
    length = last - first
    count = -(-length // most)
    edges = [first + length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
