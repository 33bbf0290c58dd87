"""What the kernels need to know of a grid and its window, worked out once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastssim.tiles.grid import Geometry
from fastssim.tiles.windows import GIVEN_FULL, GIVEN_PAIR, axis_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sums(NamedTuple):
    """What pixels still lack tiles for: (states, C, rows, columns) float64, from a row or column of the canvas on."""

    values: NDArray[np.float64]
    start: int


NO_SUMS = Sums(np.empty((1, 1, 0, 0)), 0)
REDUCTIONS = ("mean", "max", "min", "mean_std")
SUM = "sum"  # the window of weight 1 that nothing divides: the adjoint of cutting out


@dataclass(frozen=True, eq=False)
class Axis:
    """The tiles along one axis of the canvas."""

    origins: NDArray[np.int64]  # of the tiles, ascending
    first: NDArray[np.int64]  # of every pixel: the first tile that covers it ...
    last: NDArray[np.int64]  # ... and the one behind the last
    weights: NDArray[np.float64]  # (K, tile): those rows of weights that differ
    kinds: NDArray[np.int64]  # of every tile: which row of `weights` is its own

    def spans(self, begin: int, end: int) -> NDArray[np.int64]:
        """Cut the pixels begin .. end-1 where the covering tiles change: (first pixel, end, first tile, end)."""
        changes = np.flatnonzero(np.diff(self.first) | np.diff(self.last)) + 1
        edges = [begin, *changes[(changes > begin) & (changes < end)].tolist(), end]
        return np.array([(a, b, self.first[a], self.last[a]) for a, b in itertools.pairwise(edges)], np.int64)


@dataclass(frozen=True, eq=False)
class Plan:
    """A grid and a window as the kernels take them.

    Where the window is separable, the axes' weights are divided by their sum at every pixel. Where it is not, `full`
    holds it as given and the axes' weights are ones: the kernel divides by the sum over the covering tiles.
    """

    geometry: Geometry
    down: Axis
    across: Axis
    spans: NDArray[np.int64]  # of the image's columns
    full: NDArray[np.float64] | None

    @cached_property
    def origins(self) -> NDArray[np.int64]:
        """First canvas pixel (row, column) of every tile, row-major, (T, 2)."""
        down, across = np.meshgrid(self.down.origins, self.across.origins, indexing="ij")
        return np.stack([down.ravel(), across.ravel()], axis=1)

    def norm(self) -> NDArray[np.float64]:
        """Sum of the full window's weights at every canvas pixel."""
        total = np.zeros((self.geometry.canvas_height, self.geometry.canvas_width))
        if self.full is not None:
            height, width = self.full.shape
            for y in self.down.origins:
                for x in self.across.origins:
                    total[y : y + height, x : x + width] += self.full
        return total


@lru_cache(maxsize=64)
def make_plan(geometry: tuple[int, ...], window: str, weights: tuple[float, ...] = ()) -> Plan:
    """Work out a plan.

    Parameters
    ----------
    geometry : tuple of int
        A `Geometry`.
    window : str
        The first half of a `windows.window_key`, or `SUM`.
    weights : tuple of float
        Its second half.

    Raises
    ------
    ValueError
        If given weights leave a pixel without any.
    """
    g = Geometry(*geometry)
    full = None
    if window == GIVEN_FULL:
        full = np.array(weights).reshape(g.tile_height, g.tile_width)
        window = SUM
    if window == SUM:
        shapes = [np.ones(g.tile_height), np.ones(g.tile_width)]
    elif window == GIVEN_PAIR:
        shapes = [np.array(weights[: g.tile_height]), np.array(weights[g.tile_height :])]
    else:
        shapes = [axis_weights(window, g.tile_height), axis_weights(window, g.tile_width)]
    down = _axis(g.canvas_height, g.rows, shapes[0], normalise=window != SUM, inside=(g.top, g.height))
    across = _axis(g.canvas_width, g.columns, shapes[1], normalise=window != SUM, inside=(g.left, g.width))
    if full is not None:
        _check_full(g, full)
    return Plan(g, down, across, across.spans(g.left, g.left + g.width), full)


def _axis(
    length: int, origins: tuple[int, ...], weights: NDArray[np.float64], *, normalise: bool, inside: tuple[int, int]
) -> Axis:
    """Describe one axis; `inside`: its first image pixel and their number."""
    starts = np.array(origins, np.int64)
    pixels = np.arange(length)
    first = np.searchsorted(starts + len(weights), pixels, side="right").astype(np.int64)
    last = np.searchsorted(starts, pixels, side="right").astype(np.int64)
    table = weights[None]
    kinds = np.zeros(len(starts), np.int64)
    if normalise:
        total = np.zeros(length)
        for start in origins:
            total[start : start + len(weights)] += weights
        if not (total[inside[0] : inside[0] + inside[1]] > 0).all():
            raise ValueError(
                "window leaves pixels of the image without any weight; take more overlap or larger weights"
            )
        total[total == 0] = 1  # in the halo, where nothing is asked for
        shares = np.stack([weights / total[start : start + len(weights)] for start in origins])
        table, kinds = np.unique(shares, axis=0, return_inverse=True)
        kinds = kinds.reshape(-1).astype(np.int64)
    return Axis(starts, first, last, np.ascontiguousarray(table), kinds)


def _check_full(g: Geometry, full: NDArray[np.float64]) -> None:
    """Refuse a window that leaves a pixel without weight.

    Between the edges the pattern of tiles repeats: a canvas of a few tiles shows every case there is.
    """
    canvas = []
    for length, tile, stride in (
        (g.canvas_height, g.tile_height, g.stride_y),
        (g.canvas_width, g.tile_width, g.stride_x),
    ):
        spare = (length - 3 * tile) // stride  # whole strides that nothing is missed without
        canvas.append(length - max(spare, 0) * stride)
    bottom, right = g.canvas_height - g.top - g.height, g.canvas_width - g.left - g.width
    height, width = canvas[0] - g.top - bottom, canvas[1] - g.left - right
    small = g._replace(canvas_height=canvas[0], canvas_width=canvas[1], height=height, width=width)
    total = np.zeros(canvas)
    for y in small.rows:
        for x in small.columns:
            total[y : y + g.tile_height, x : x + g.tile_width] += full
    if not (total[g.top : g.top + height, g.left : g.left + width] > 0).all():
        raise ValueError("window leaves pixels of the image without any weight; take more overlap or larger weights")
