"""Overlapping tiles of an image of any size: cut them out, put them together again, run a function over them.

A grid covers every pixel: where the stride leaves a rest, a last tile sits flush with the edge. Blending is a weighted
mean in float64 with separable weights that are divided by their sum beforehand, so no map of counts is kept, and a
constant stays that constant. Tiles come in row-major order; a row of the image is finished when the last tile that
covers it is in, and leaves at once, so that memory depends on the image's width and the tile's height alone.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

BORDERS = ("flush",)
WINDOWS = ("uniform", "gaussian")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of an image lie.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image in pixels.
    tile : int or (int, int)
        Height and width of a tile; not larger than the image.
    stride : int or (int, int)
        Pixels from one tile to the next, down and across; at least 1, at most the tile's size, so that no gap is left.
    border : {"flush"}
        Where the stride leaves a rest, one more tile ends at the image's edge.

    Attributes
    ----------
    rows, columns : tuple of int
        First pixel row of every row of tiles, first pixel column of every column of tiles.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.

    Examples
    --------
    >>> grid = TileGrid((512, 512), tile=128, stride=30)
    >>> grid.shape, len(grid), grid.rows[-2:]
    ((14, 14), 196, (360, 384))
    """

    size: tuple[int, int]
    tile: tuple[int, int] | int = (128, 128)
    stride: tuple[int, int] | int = (32, 32)
    border: str = "flush"
    rows: tuple[int, ...] = field(init=False, repr=False, compare=False)
    columns: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size, tile, stride = (_pair(name, getattr(self, name)) for name in ("size", "tile", "stride"))
        if self.border not in BORDERS:
            raise ValueError(f'border is {self.border!r}; this version knows "flush": a last tile at the image\'s edge')
        for axis, image, length, step in zip(("high", "wide"), size, tile, stride, strict=True):
            if length > image:
                raise ValueError(
                    f"a tile is {length} pixels {axis}, the image {image}; take a smaller tile or pad the image"
                )
            if step > length:
                raise ValueError(
                    f"the stride {step} is larger than the tile, {length} pixels {axis}: it would leave gaps"
                )
        origins = (
            (*range(0, image - length, step), image - length)
            for image, length, step in zip(size, tile, stride, strict=True)
        )
        for name, value in zip(
            ("size", "tile", "stride", "rows", "columns"), (size, tile, stride, *origins), strict=True
        ):
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
        return _pair("tile", self.tile)

    @property
    def origins(self) -> NDArray[np.int64]:
        """First pixel (row, column) of every tile, row-major, (T, 2)."""
        down, across = np.meshgrid(self.rows, self.columns, indexing="ij")
        return np.stack([down.ravel(), across.ravel()], axis=1).astype(np.int64)

    def coverage(self) -> NDArray[np.int64]:
        """How many tiles cover each pixel, (H, W)."""
        height, width = self.tile_shape
        down, across = (np.zeros(length, np.int64) for length in self.size)
        for row in self.rows:
            down[row : row + height] += 1
        for column in self.columns:
            across[column : column + width] += 1
        return np.outer(down, across)


def extract(image: Any, grid: TileGrid, *, start: int = 0, stop: int | None = None) -> Any:
    """Cut the tiles of a grid out of an image.

    Parameters
    ----------
    image : ndarray or torch.Tensor, (C, H, W) or (N, C, H, W)
        Any dtype and strides; not altered.
    grid : TileGrid
        Its size must be the image's.
    start, stop : int
        Only tiles start .. stop-1, in row-major order.

    Returns
    -------
    ndarray or torch.Tensor, (T, C, h, w) or (N, T, C, h, w)
        Of the image's kind and dtype.

    Raises
    ------
    TypeError, ValueError
        If the image is of another kind or size than the grid's, or requires a gradient.

    Examples
    --------
    >>> extract(np.zeros((3, 100, 90)), TileGrid((100, 90), tile=64, stride=32)).shape
    (9, 3, 64, 64)
    """
    from fastssim.cpu.pool import run_slabs  # noqa: PLC0415  # loads Numba, at the first use
    from fastssim.cpu.tiles import extract_tiles  # noqa: PLC0415

    array = _as_array("image", image)
    if array.ndim not in (3, 4) or array.shape[-2:] != grid.size:
        raise ValueError(
            f"image has shape {array.shape}; this grid wants (C, {grid.size[0]}, {grid.size[1]}), N may stand before"
        )
    origins = grid.origins[slice(*slice(start, stop).indices(len(grid)))]
    images = array if array.ndim == 4 else array[None]
    out = np.empty((len(images), len(origins), images.shape[1], *grid.tile_shape), array.dtype)
    edges = _slabs(len(origins))

    def slab(i: int) -> None:
        for source, target in zip(images, out, strict=True):
            extract_tiles(source, origins, edges[i], edges[i + 1], target)

    run_slabs(slab, len(edges) - 1)
    return _like(image, out if array.ndim == 4 else out[0])


def blend(tiles: Any, grid: TileGrid, *, window: str = "uniform") -> Any:
    """Put tiles together by their weighted mean; the inverse of `extract`.

    Parameters
    ----------
    tiles : ndarray or torch.Tensor, (T, C, h, w) or (N, T, C, h, w)
        All tiles of the grid in row-major order, float32 or float64.
    grid : TileGrid
        Where they lie.
    window : {"uniform", "gaussian"}
        Weights inside a tile: all equal, or a Gaussian of sigma tile / 8 about its middle (the convention of MONAI's
        sliding-window inference), which leaves no seam where a tile's edge is off.

    Returns
    -------
    ndarray or torch.Tensor, (C, H, W) or (N, C, H, W)
        Of the tiles' kind and dtype.

    Raises
    ------
    TypeError, ValueError
        If the tiles are not all the grid's, or the window is unknown.

    Examples
    --------
    >>> grid = TileGrid((100, 90), tile=64, stride=32)
    >>> image = np.random.default_rng(0).random((1, 100, 90), np.float32)
    >>> bool(np.allclose(blend(extract(image, grid), grid, window="gaussian"), image, rtol=1e-7))
    True
    """
    array = _as_array("tiles", tiles)
    batch = array if array.ndim == 5 else array[None]
    if batch.ndim != 5 or batch.shape[1] != len(grid) or batch.shape[3:] != grid.tile_shape:
        height, width = grid.tile_shape
        raise ValueError(
            f"tiles have shape {array.shape}; this grid wants ({len(grid)}, C, {height}, {width}), N may stand before"
        )
    out = np.empty((len(batch), batch.shape[2], *grid.size), array.dtype)
    for source, target in zip(batch, out, strict=True):
        blender = Blender(grid, channels=batch.shape[2], dtype=array.dtype, window=window)
        blender.push(source, target)
    return _like(tiles, out if array.ndim == 5 else out[0])


class Blender:
    """Blend tiles as they come, in row-major order, and hand over finished rows at once.

    Holds a band of the image as high as a tile, whatever the image's height.

    Parameters
    ----------
    grid : TileGrid
        Where the tiles lie.
    channels : int
        Channels of the tiles.
    dtype : numpy dtype
        float32 or float64, of the tiles and of the result.
    window : {"uniform", "gaussian"}
        As for `blend`.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.

    Examples
    --------
    >>> grid = TileGrid((96, 64), tile=64, stride=32)
    >>> out = np.zeros((1, 96, 64), np.float32)
    >>> blender = Blender(grid, channels=1)
    >>> blender.push(np.ones((1, 1, 64, 64), np.float32), out)  # rows 0 .. 31 are finished
    32
    >>> blender.push(np.ones((1, 1, 64, 64), np.float32), out)
    96
    """

    def __init__(self, grid: TileGrid, *, channels: int, dtype: Any = np.float32, window: str = "uniform") -> None:
        if np.dtype(dtype) not in _FLOATS:
            raise TypeError(f"tiles are {np.dtype(dtype)}; float32 and float64 can be blended: convert them first")
        weights = [_window(window, length) for length in grid.tile_shape]
        self._grid = grid
        self._dtype = np.dtype(dtype)
        self._weights_y = _normalised(weights[0], grid.rows, grid.size[0])
        self._weights_x = _normalised(weights[1], grid.columns, grid.size[1])
        self._band = np.zeros((channels, grid.tile_shape[0], grid.size[1]))
        self._pushed = 0
        self.finished = 0

    def push(self, tiles: NDArray[Any], out: Any) -> int:
        """Add the next tiles, (B, C, h, w), write the rows they finish to ``out[:, y0:y1]``; return the rows finished.

        Parameters
        ----------
        tiles : ndarray, (B, C, h, w)
            The tiles that follow those pushed before.
        out : array_like, (C, H, W)
            Anything that takes an assignment to ``out[:, y0:y1]``.

        Raises
        ------
        ValueError
            If more tiles come than the grid has, or of another shape.
        """
        expected = (self._band.shape[0], *self._grid.tile_shape)
        if tiles.shape[1:] != expected or self._pushed + len(tiles) > len(self._grid):
            left = len(self._grid) - self._pushed
            raise ValueError(f"tiles have shape {tiles.shape}; at most {left} more of shape {expected} are due")
        across = len(self._grid.columns)
        while len(tiles):
            row, column = divmod(self._pushed, across)
            count = min(len(tiles), across - column)
            self._add(tiles[:count], row, column)
            tiles = tiles[count:]
            self._pushed += count
            if column + count == across:
                self._finish(row, out)
        return self.finished

    def _add(self, tiles: NDArray[Any], row: int, column: int) -> None:
        """Add tiles of one row of tiles to the band."""
        from fastssim.cpu.pool import run_slabs  # noqa: PLC0415  # loads Numba, at the first use
        from fastssim.cpu.tiles import add_tiles  # noqa: PLC0415

        chosen = slice(column, column + len(tiles))
        columns = np.array(self._grid.columns[chosen])
        edges = _slabs(self._band.shape[1])
        run_slabs(
            lambda i: add_tiles(
                tiles, columns, self._weights_y[row], self._weights_x[chosen], edges[i], edges[i + 1], self._band
            ),
            len(edges) - 1,
        )

    def _finish(self, row: int, out: Any) -> None:
        """Hand over the rows that no further tile covers, and move the band down."""
        last = row + 1 == len(self._grid.rows)
        bottom = self._grid.size[0] if last else self._grid.rows[row + 1]
        count = bottom - self.finished
        out[:, self.finished : bottom] = self._band[:, :count].astype(self._dtype)
        self._band[:, :-count] = self._band[:, count:]
        self._band[:, -count:] = 0
        self.finished = bottom


def sliding_window(
    fn: Callable[[Any], Any],
    image: Any,
    grid: TileGrid,
    *,
    window: str = "uniform",
    batch_size: int = 64,
    out: Any = None,
    progress: Callable[[int, int], object] | None = None,
) -> Any:
    """Run a function over the tiles of an image and blend what it returns.

    Works down the image band by band: memory depends on the image's width and the tile's height, not on its height, so
    image and `out` may be larger than memory (``numpy.memmap``, zarr, tifffile).

    Parameters
    ----------
    fn : callable
        Takes tiles (B, C, h, w), of the image's kind, and returns (B, C', h, w), float32 or float64.
    image : ndarray, torch.Tensor, or anything of shape (C, H, W) that slices as ``image[:, y0:y1]``
        Read band by band.
    grid : TileGrid
        Its size must be the image's.
    window : {"uniform", "gaussian"}
        As for `blend`.
    batch_size : int
        Tiles at a time, at most.
    out : optional
        Where the result goes, of shape (C', H, W); anything that takes an assignment to ``out[:, y0:y1]``. Rows are
        written as they are finished.
    progress : callable, optional
        Called as ``progress(tiles done, tiles in all)`` after every batch.

    Returns
    -------
    ndarray, torch.Tensor, or `out`
        (C', H, W).

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or `fn` returns another shape, another dtype, NaN or infinity.
    RuntimeError
        If `fn` raises: names the tiles, with the error as cause. Rows already written to `out` stay.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((1, 300, 200), np.float32)
    >>> edges = sliding_window(lambda tiles: abs(tiles - 0.5), image, TileGrid((300, 200), tile=64, stride=48))
    >>> edges.shape
    (1, 300, 200)
    """
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[1:] != grid.size:
        raise ValueError(f"image has shape {shape}; this grid wants (C, {grid.size[0]}, {grid.size[1]})")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    as_tensor = isinstance(image, torch.Tensor)
    blender: Blender | None = None
    target: Any = out
    done = 0
    for tiles in _batches(image, grid, batch_size):
        names = f"tiles {done} to {done + len(tiles) - 1} of {len(grid)}"
        result = _call(fn, torch.from_numpy(tiles) if as_tensor else tiles, names)
        if result.shape != (len(tiles), *result.shape[1:2], *grid.tile_shape) or result.ndim != 4:
            height, width = grid.tile_shape
            raise ValueError(
                f"fn returned shape {result.shape} for {names}; it must be ({len(tiles)}, C, {height}, {width})"
            )
        if not np.isfinite(result).all():
            bad = done + int(np.flatnonzero(~np.isfinite(result).all(axis=(1, 2, 3)))[0])
            row, column = grid.origins[bad]
            raise ValueError(f"fn returned NaN or infinity for tile {bad}, at row {row}, column {column}")
        if blender is None:
            blender = Blender(grid, channels=result.shape[1], dtype=result.dtype, window=window)
            wanted = (result.shape[1], *grid.size)
            if out is None:
                target = np.empty(wanted, result.dtype)
            elif tuple(out.shape) != wanted:
                raise ValueError(f"out has shape {tuple(out.shape)}; the result has {wanted}")
            elif isinstance(out, np.ndarray) and not out.flags.writeable:
                raise ValueError("out is read-only; open it for writing (a memmap with mode 'r+' or 'w+')")
            elif isinstance(out, torch.Tensor):
                target = out.detach().numpy()
        blender.push(result, target)
        done += len(tiles)
        if progress is not None:
            progress(done, len(grid))
    return out if out is not None else _like(image, target)


def _batches(image: Any, grid: TileGrid, batch_size: int) -> Iterator[NDArray[Any]]:
    """Cut the tiles of an image, a row of tiles at a time, never reading more than one tile's height."""
    height = grid.tile_shape[0]
    strip = TileGrid((height, grid.size[1]), grid.tile, (1, _pair("stride", grid.stride)[1]))
    for row in grid.rows:
        band = image[:, row : row + height]
        array = _as_array("image", band) if isinstance(band, torch.Tensor) else np.asarray(band)
        for start in range(0, len(strip), batch_size):
            yield extract(array, strip, start=start, stop=min(start + batch_size, len(strip)))


def _call(fn: Callable[[Any], Any], tiles: Any, names: str) -> NDArray[Any]:
    """Call the user's function and take its result as an array."""
    try:
        result = fn(tiles)
    except Exception as error:
        raise RuntimeError(f"fn failed on {names}: {type(error).__name__}: {error}") from error
    if isinstance(result, torch.Tensor):
        result = result.detach().cpu().numpy()
    if not isinstance(result, np.ndarray):
        raise TypeError(f"fn returned a {type(result).__name__} for {names}; it must return an array or a tensor")
    return result


def _as_array(name: str, array: Any) -> NDArray[Any]:
    """View an ndarray or a tensor as an ndarray."""
    if isinstance(array, torch.Tensor):
        if array.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} requires a gradient, which this version does not carry through: call .detach() first"
            )
        if array.device.type != "cpu":
            raise ValueError(f"{name} is on {array.device}; this version computes on the CPU: call .cpu() first")
        tensor: NDArray[Any] = array.detach().numpy()
        return tensor
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; give a NumPy array or a torch.Tensor")
    return array


def _like(kind: Any, array: NDArray[Any]) -> Any:
    """Return a tensor where a tensor was given."""
    return torch.from_numpy(array) if isinstance(kind, torch.Tensor) else array


def _slabs(count: int) -> list[int]:
    """Edges of a few slabs of work."""
    slabs = min(count, 16)
    return [count * i // slabs for i in range(slabs + 1)] if count else [0]


def _window(name: str, length: int) -> NDArray[np.float64]:
    """Weights along one axis of a tile."""
    if name == "uniform":
        return np.ones(length)
    if name == "gaussian":
        offset = np.arange(length) - (length - 1) / 2
        bell: NDArray[np.float64] = np.maximum(np.exp(-0.5 * (offset / (length / 8)) ** 2), 1e-3)
        return bell
    raise ValueError(f"window is {name!r}; give one of {', '.join(map(repr, WINDOWS))}")


def _normalised(weights: NDArray[np.float64], origins: tuple[int, ...], length: int) -> NDArray[np.float64]:
    """Weights of every tile along one axis (tiles, pixels), divided by the sum at the pixel over all tiles."""
    total = np.zeros(length)
    for origin in origins:
        total[origin : origin + len(weights)] += weights
    return np.stack([weights / total[origin : origin + len(weights)] for origin in origins])


def _pair(name: str, value: Any) -> tuple[int, int]:
    """Take an int or a pair of ints, at least 1, as (down, across)."""
    try:
        down, across = (value, value) if not isinstance(value, (tuple, list)) else value
        pair = operator.index(down), operator.index(across)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {value!r}; give an int or a pair of ints (down, across)") from error
    if min(pair) < 1:
        raise ValueError(f"{name} is {value!r}; it must be at least 1")
    return pair
