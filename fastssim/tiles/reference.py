"""Blending in float64 NumPy, slow and obvious: the definition that the kernels are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastssim.tiles.grid import TileGrid


def blend(tiles: ArrayLike, grid: TileGrid, weights: ArrayLike, reduction: str = "mean") -> Any:
    """Put tiles together, as `fastssim.tiles.blend`.

    Parameters
    ----------
    tiles : array_like, (T, C, h, w)
    grid : TileGrid
    weights : array_like, (h, w)
        Weights inside a tile.
    reduction : {"mean", "max", "min", "mean_std"}

    Returns
    -------
    ndarray, (C, H, W), float64; a pair of them for "mean_std"

    Examples
    --------
    >>> from fastssim.tiles import TileGrid
    >>> grid = TileGrid((1, 3), tile=(1, 2), stride=1)
    >>> blend([[[[1, 2]]], [[[4, 5]]]], grid, np.ones((1, 2))).tolist()
    [[[1.0, 3.0, 5.0]]]
    """
    values = np.asarray(tiles, np.float64)
    if reduction in ("max", "min"):
        return _extreme(values, grid, *((np.maximum, -np.inf) if reduction == "max" else (np.minimum, np.inf)))
    weights = np.asarray(weights, np.float64)
    mean = _weighted(values, grid, weights)
    if reduction == "mean":
        return mean
    off = [(tile - mean[:, y, x]) ** 2 for tile, (y, x) in zip(_inner(values, grid), _places(grid), strict=True)]
    return mean, np.sqrt(_sum(off, grid, weights) / _sum([np.ones_like(tile) for tile in off], grid, weights))


def _weighted(tiles: NDArray[np.float64], grid: TileGrid, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean at every pixel."""
    inner = _inner(tiles, grid)
    return _sum(inner, grid, weights) / _sum([np.ones_like(tile) for tile in inner], grid, weights)


def _sum(inner: list[NDArray[np.float64]], grid: TileGrid, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sum at every pixel."""
    total = np.zeros((inner[0].shape[0], *grid.size))
    shares = _inner(np.broadcast_to(weights, (len(grid), 1, *weights.shape)), grid)
    for tile, share, (y, x) in zip(inner, shares, _places(grid), strict=True):
        total[:, y, x] += share * tile
    return total


def _extreme(tiles: NDArray[np.float64], grid: TileGrid, choose: Any, start: float) -> NDArray[np.float64]:
    """Largest or smallest value at every pixel; NaN where there is one."""
    out = np.full((tiles.shape[1], *grid.size), start)
    for tile, (y, x) in zip(_inner(tiles, grid), _places(grid), strict=True):
        out[:, y, x] = choose(out[:, y, x], tile)
    return out


def _places(grid: TileGrid) -> list[tuple[slice, slice]]:
    """Rows and columns of the image that every tile covers."""
    (height, width), (high, wide) = grid.size, grid.tile_shape
    return [(slice(max(y, 0), min(y + high, height)), slice(max(x, 0), min(x + wide, width))) for y, x in grid.origins]


def _inner(tiles: NDArray[np.float64], grid: TileGrid) -> list[NDArray[np.float64]]:
    """Return the part of every tile that lies in the image."""
    return [
        tile[:, down.start - y : down.stop - y, across.start - x : across.stop - x]
        for tile, (y, x), (down, across) in zip(tiles, grid.origins, _places(grid), strict=True)
    ]
