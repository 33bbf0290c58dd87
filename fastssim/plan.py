"""The frozen description of one SSIM problem, made once and looked up afterwards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

TILE_ROWS = 128  # rows of a tile: enough slabs for every thread, little computed twice


@dataclass(frozen=True)
class Plan:
    """What is computed: shapes, window, constants; equal plans share everything that follows from them.

    The window's taps are float64, down (`taps_y`) and across (`taps_x`); a backend rounds them to its dtype.
    """

    shape: tuple[int, int, int, int]  # N, C, H, W
    dtype: str  # "float32" or "float64"
    taps_y: tuple[float, ...]
    taps_x: tuple[float, ...]
    c1: float
    c2: float

    @property
    def map_shape(self) -> tuple[int, int, int, int]:
        """Shape of the SSIM map, (N, C, H', W')."""
        n, c, height, width = self.shape
        return n, c, height - len(self.taps_y) + 1, width - len(self.taps_x) + 1


@lru_cache(maxsize=1024)
def tiles(height: int, width: int, most_columns: int) -> tuple[tuple[int, int, int, int], ...]:
    """Cut a plane into tiles (y0, y1, x0, x1) of nearly equal size.

    The cut depends on the plane alone, never on the number of threads, so that sums come out the same to the last bit.
    """
    return tuple((y0, y1, x0, x1) for y0, y1 in _spans(height, TILE_ROWS) for x0, x1 in _spans(width, most_columns))


def _spans(length: int, most: int) -> list[tuple[int, int]]:
    """Cut 0 .. length into nearly equal spans of at most `most`."""
    count = -(-length // most)
    edges = [length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
