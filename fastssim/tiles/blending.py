"""Put the tiles of a grid together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.cpu.dispatch import launch_of
from fastssim.tiles import operators
from fastssim.tiles.grid import check_grid
from fastssim.tiles.plan import REDUCTIONS, make_plan
from fastssim.tiles.storage import check, check_pixels, deviation_dtype, stored
from fastssim.tiles.windows import window_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastssim.tiles.grid import TileGrid
    from fastssim.tiles.plan import Plan


def blend(tiles: Any, grid: TileGrid, *, window: Any = "uniform", reduction: str = "mean") -> Any:
    """Put tiles together by a weighted mean, which undoes `extract`, or another reduction.

    Sums are float64, in a fixed order: results are the same to the last bit for every number of threads. They are
    rounded once to float32 or float64; from float32 on to float16 and bfloat16; for uint8 to the nearest whole number,
    ties to even. What the tiles hold beyond the image is dropped.

    Parameters
    ----------
    tiles : ndarray or torch.Tensor, (T, C, h, w) or (N, T, C, h, w)
        All tiles of the grid in row-major order; float64, float32, float16, bfloat16 (tensors) or uint8; any strides.
    grid : TileGrid
        Where they lie.
    window : {"uniform", "gaussian", "hann", "tent"}, array (h, w), or a pair of arrays (h,) and (w,)
        Weights inside a tile: all equal; a Gaussian of sigma tile / 8 about its middle, along each axis at least 1e-3;
        the squared sine; a triangle; or given, finite and not negative, of which only the ratios count. All but
        "uniform" fade towards the tile's edges, which leaves no seam where these are off. MONAI's Gaussian has the same
        sigma, but its bound of 1e-3 is one of the product: ``np.maximum(np.outer(down, across), 1e-3)``.
    reduction : {"mean", "max", "min", "mean_std"}
        The weighted mean; the largest or smallest of the tiles' values, whatever the window; or the mean together with
        the weighted standard deviation, which shows where tiles disagree.

    Returns
    -------
    ndarray or torch.Tensor, (C, H, W) or (N, C, H, W); a pair of them for "mean_std"
        Of the tiles' kind and dtype; the standard deviation of uint8 is float32. The mean of tensors is differentiable.

    Raises
    ------
    TypeError, ValueError
        If the tiles are not all the grid's, or the window or the reduction is unknown.
    NotImplementedError
        If a gradient is wanted through another reduction than the mean.

    Examples
    --------
    >>> from fastssim.tiles import TileGrid, extract
    >>> grid = TileGrid((100, 90), tile=64, stride=32)
    >>> image = np.random.default_rng(0).random((1, 100, 90), np.float32)
    >>> bool((blend(extract(image, grid), grid, window="gaussian") == image).all())
    True
    """
    check_grid(grid)
    check("tiles", tiles)
    check_pixels("tiles", tiles.dtype)
    check_reduction(reduction)
    shape = tuple(tiles.shape)
    if len(shape) not in (4, 5) or shape[-4] != len(grid) or shape[-2:] != grid.tile_shape:
        height, width = grid.tile_shape
        raise ValueError(
            f"tiles have shape {shape}; this grid wants ({len(grid)}, C, {height}, {width}), N may stand before"
        )
    name, weights = window_key(window, grid.tile_shape)
    batch = tiles if len(shape) == 5 else tiles[None]
    if isinstance(tiles, torch.Tensor):
        result = _blend_tensor(batch, (list(grid.geometry), name, list(weights)), reduction)
    else:
        result = _blend_array(batch, make_plan(tuple(grid.geometry), name, weights), reduction)
    if len(shape) == 5:
        return result
    return (result[0][0], result[1][0]) if isinstance(result, tuple) else result[0]


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that there is not.

    Raises
    ------
    ValueError
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; give one of {', '.join(map(repr, REDUCTIONS))}")


def _blend_tensor(tiles: torch.Tensor, key: operators.Key, reduction: str) -> Any:
    if reduction == "mean":
        return operators.gather(tiles, key)
    if operators.wants_derivative(tiles):
        raise NotImplementedError(
            f'tiles require a gradient, which "{reduction}" does not carry through: call .detach(), or take "mean"'
        )
    return operators.reduce(tiles, key, reduction)


def _blend_array(tiles: NDArray[Any], plan: Plan, reduction: str) -> Any:
    g = plan.geometry
    shape = (len(tiles), tiles.shape[2], g.height, g.width)
    out = np.empty(shape, tiles.dtype)
    deviation = np.empty(shape, deviation_dtype(tiles.dtype)) if reduction == "mean_std" else None
    for n, source in enumerate(tiles):
        launch_of("tiles").gather(
            plan,
            stored(np.ascontiguousarray(source)),
            reduction,
            stored(out[n]),
            None if deviation is None else stored(deviation[n]),
        )
    return out if deviation is None else (out, deviation)
