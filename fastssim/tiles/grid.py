"""Where the tiles of an image lie: geometry alone."""

from __future__ import annotations

import operator
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np

from fastssim.borders import sources

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEFAULT_STRIDE = 32
BORDERS = ("flush", "zeros", "reflect", "replicate", "circular")


class Geometry(NamedTuple):
    """A grid in the coordinates of its canvas: the image and the halo that its tiles reach into.

    On the canvas no tile lies outside; the image is the part of it from (top, left) on.
    """

    canvas_height: int
    canvas_width: int
    tile_height: int
    tile_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> tuple[int, ...]:
        """First canvas row of every row of tiles."""
        return _origins(self.canvas_height, self.tile_height, self.stride_y)

    @property
    def columns(self) -> tuple[int, ...]:
        """First canvas column of every column of tiles."""
        return _origins(self.canvas_width, self.tile_width, self.stride_x)


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of an image lie; every pixel is covered.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image in pixels.
    tile : int or (int, int)
        Height and width of a tile.
    stride : int or (int, int), optional
        Pixels from one tile to the next, down and across; at least 1, at most the tile's size, so that no gap is left.
        32 where neither `stride` nor `overlap` is given.
    border : {"flush", "zeros", "reflect", "replicate", "circular"}
        "flush": tiles lie inside the image, which is at least as large as one; where the stride leaves a rest, a last
        tile ends at the image's edge. The others let tiles reach ``tile - stride`` pixels or more beyond every edge, so
        that a pixel at the edge is covered as often as any other, and say what stands there: zeros, the image mirrored
        about its outermost pixels, these pixels repeated, or the image's other side. The image may then be smaller
        than a tile.
    overlap : int or (int, int), optional
        Pixels that neighbouring tiles share, in place of `stride`: the stride is ``tile - overlap``.

    Attributes
    ----------
    rows, columns : tuple of int
        First pixel row of every row of tiles, first pixel column of every column of tiles; negative in the halo.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.

    Examples
    --------
    >>> grid = TileGrid((512, 512), tile=128, stride=30)
    >>> grid.shape, len(grid), grid.rows[-2:]
    ((14, 14), 196, (360, 384))
    >>> grid = TileGrid((50, 60), tile=64, overlap=32, border="reflect")
    >>> grid.rows, grid.halo
    ((-32, 0, 32), ((32, 46), (32, 36)))
    """

    size: tuple[int, int]
    tile: tuple[int, int] | int = (128, 128)
    stride: tuple[int, int] | int | None = None
    border: str = "flush"
    overlap: InitVar[tuple[int, int] | int | None] = None
    rows: tuple[int, ...] = field(init=False, repr=False, compare=False)
    columns: tuple[int, ...] = field(init=False, repr=False, compare=False)
    geometry: Geometry = field(init=False, repr=False, compare=False)

    def __post_init__(self, overlap: tuple[int, int] | int | None) -> None:
        if self.border not in BORDERS:
            raise ValueError(f"border is {self.border!r}; give one of {', '.join(map(repr, BORDERS))}")
        size, tile = pair("size", self.size), pair("tile", self.tile)
        stride = _stride(self.stride, overlap, tile)
        place = _inside if self.border == "flush" else _beyond
        axes = [place(*axis) for axis in zip(("high", "wide"), size, tile, stride, strict=True)]
        (canvas_height, top), (canvas_width, left) = axes
        geometry = Geometry(canvas_height, canvas_width, *tile, *stride, top, left, *size)
        values = {
            "size": size,
            "tile": tile,
            "stride": stride,
            "geometry": geometry,
            "rows": tuple(row - top for row in geometry.rows),
            "columns": tuple(column - left for column in geometry.columns),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Tiles down and across."""
        return len(self.rows), len(self.columns)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of a tile."""
        return self.geometry.tile_height, self.geometry.tile_width

    @property
    def halo(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels that tiles reach beyond the image: ((above, below), (left, right))."""
        g = self.geometry
        return (g.top, g.canvas_height - g.top - g.height), (g.left, g.canvas_width - g.left - g.width)

    @property
    def origins(self) -> NDArray[np.int64]:
        """First pixel (row, column) of every tile, row-major, (T, 2)."""
        return self.corners(0, len(self))

    def corners(self, first: int, end: int) -> NDArray[np.int64]:
        """Rows first .. end-1 of `origins` alone, which of a large image are many."""
        down, across = np.divmod(np.arange(first, end), len(self.columns))
        rows, columns = self._starts
        return np.stack([rows[down], columns[across]], axis=1)

    @cached_property
    def _starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`rows` and `columns` as arrays."""
        return np.array(self.rows, np.int64), np.array(self.columns, np.int64)

    def coverage(self) -> NDArray[np.int64]:
        """How many tiles cover each pixel, (H, W)."""
        down, across = (np.zeros(length, np.int64) for length in self.size)
        for counts, origins, length in zip((down, across), (self.rows, self.columns), self.tile_shape, strict=True):
            for origin in origins:
                counts[max(origin, 0) : max(origin + length, 0)] += 1
        return np.outer(down, across)

    def sources(self, axis: int) -> list[int]:
        """Which pixel of the image stands at every place of the canvas along an axis (0 or 1); -1 for a zero.

        Examples
        --------
        >>> TileGrid((4, 4), tile=3, stride=1, border="reflect").sources(0)
        [2, 1, 0, 1, 2, 3, 2, 1]
        """
        return sources(self.size[axis], *self.halo[axis], self.border)


def check_grid(grid: Any) -> None:
    """Refuse anything but a grid.

    Raises
    ------
    TypeError
    """
    if not isinstance(grid, TileGrid):
        raise TypeError(f"grid is a {type(grid).__name__}; give a TileGrid(size, tile, stride)")


def whole(name: str, value: Any, least: int) -> int:
    """Take an int, of Python or NumPy, that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or operator.index(value) < least:
        raise ValueError(f"{name} is {value!r}; it must be an int, at least {least}")
    return operator.index(value)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Take an int or a pair of ints, at least `least`, as (down, across)."""
    unfit = f"{name} is {value!r}; give an int or a pair of ints (down, across)"
    try:
        down, across = (value, value) if not isinstance(value, (tuple, list)) else value
        both = operator.index(down), operator.index(across)
    except (TypeError, ValueError) as error:
        raise TypeError(unfit) from error
    if bool in (type(down), type(across)):
        raise TypeError(unfit)
    if min(both) < least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least}")
    return both


def _stride(stride: Any, overlap: Any, tile: tuple[int, int]) -> tuple[int, int]:
    """Take the stride, or the overlap in its place."""
    if overlap is None:
        return pair("stride", _DEFAULT_STRIDE if stride is None else stride)
    if stride is not None:
        raise ValueError(f"stride is {stride!r} and overlap {overlap!r}; give one of them")
    shared = pair("overlap", overlap, least=0)
    if shared[0] >= tile[0] or shared[1] >= tile[1]:
        raise ValueError(f"overlap is {overlap!r}, the tile {tile[0]} x {tile[1]} pixels; it must be smaller")
    return tile[0] - shared[0], tile[1] - shared[1]


def _inside(axis: str, image: int, tile: int, stride: int) -> tuple[int, int]:
    """Canvas and first image pixel on it, along one axis, of tiles inside the image."""
    if tile > image:
        raise ValueError(
            f"a tile is {tile} pixels {axis}, the image {image}; take a smaller tile, or another border"
            ' than "flush", which lets tiles reach beyond the image'
        )
    _check_gap(axis, tile, stride)
    return image, 0


def _beyond(axis: str, image: int, tile: int, stride: int) -> tuple[int, int]:
    """Canvas and first image pixel on it, along one axis, of tiles that cover every pixel equally often."""
    _check_gap(axis, tile, stride)
    overlap = tile - stride
    count = -(-(image + overlap) // stride)
    return (count - 1) * stride + tile, overlap


def _check_gap(axis: str, tile: int, stride: int) -> None:
    if stride > tile:
        raise ValueError(
            f"the stride {stride} is larger than the tile, {tile} pixels {axis}, and would leave gaps; give {tile} or"
            f" less (the default is {_DEFAULT_STRIDE})"
        )


def _origins(length: int, tile: int, stride: int) -> tuple[int, ...]:
    """First pixels of the tiles along one axis; the last tile ends at the edge."""
    return (*range(0, length - tile, stride), length - tile)
