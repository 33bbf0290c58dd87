"""How far tiles reconstructed by a model are from the image: 1 - SSIM of each, blended.

SSIM takes nearly all of the time and blending less than a tenth, with maps that are still in the cache: one kernel for
both would gain less than that, and have to be written for every reduction and window of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.functional import ssim
from fastssim.tiles.bands import Bands
from fastssim.tiles.grid import check_grid
from fastssim.tiles.storage import check, empty, native, on_gpu, plain
from fastssim.tiles.stream import Blender
from fastssim.window import WANG, Window

if TYPE_CHECKING:
    from fastssim.tiles.grid import TileGrid

_TOGETHER = 64  # tiles whose maps exist at a time
_OF_SSIM = {"max": "min", "min": "max"}  # the largest 1 - SSIM is 1 - the smallest SSIM


def ssim_residual(
    tiles: Any,
    image: Any,
    grid: TileGrid,
    *,
    window: Any = "uniform",
    reduction: str = "mean",
    ssim_window: Window = WANG,
    **options: Any,
) -> Any:
    """Blend 1 - SSIM of each tile against the image.

    The maps of a few tiles exist at a time, never those of all. This is the mean of the tiles' residuals, which is not
    the residual of the tiles' mean: SSIM is not linear. A tile's map is as large as the tile, whose border is mirrored
    for the windows that reach beyond it.

    Parameters
    ----------
    tiles : ndarray or torch.Tensor, (T, C, h, w)
        All tiles of the grid in row-major order, float32 or float64, as a model reconstructed them.
    image : ndarray, torch.Tensor, or anything that slices, (C, H, W)
        Of any dtype that `fastssim.ssim` takes; integers are read as it reads them.
    grid : TileGrid
        Where the tiles lie.
    window, reduction
        How tiles are blended, as for `blend`.
    ssim_window : Window
        Of SSIM.
    **options
        Any other keyword of `fastssim.ssim` but ``reduction``, ``padding`` and ``dims``; a ``mask`` is that of a tile.

    Returns
    -------
    ndarray or torch.Tensor, (C, H, W); a pair of them for "mean_std"
        Of the tiles' kind and dtype, from 0 (equal) to 2.

    Raises
    ------
    TypeError, ValueError
        If tiles and image are not the grid's, or as `blend` and `fastssim.ssim`.
    NotImplementedError
        If tiles require a gradient: use `extract`, `fastssim.ssim_map` and `blend`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastssim.tiles import TileGrid, extract
    >>> grid = TileGrid((100, 90), tile=64, stride=32)
    >>> image = np.random.default_rng(0).random((1, 100, 90), np.float32)
    >>> float(ssim_residual(extract(image, grid), image, grid).max())
    0.0
    """
    check_grid(grid)
    if refused := options.keys() & {"padding", "dims"}:
        raise TypeError(
            f"ssim_residual takes no {' and no '.join(sorted(refused))}: tiles are images, mirrored at the border"
        )
    check("tiles", tiles)
    shape, (height, width) = tuple(tiles.shape), grid.tile_shape
    if len(shape) != 4 or shape[0] != len(grid) or shape[2:] != grid.tile_shape:
        raise ValueError(f"tiles have shape {shape}; this grid wants ({len(grid)}, C, {height}, {width})")
    if tiles.dtype not in (np.float32, np.float64, torch.float32, torch.float64):
        raise TypeError(f"tiles are {tiles.dtype}; give float32 or float64, as a model reconstructed them")
    if isinstance(tiles, torch.Tensor) and tiles.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            "tiles require a gradient, which ssim_residual does not carry through: call .detach()"
        )
    bands = Bands(image, grid)
    blender = Blender(
        grid,
        channels=shape[1],
        dtype=tiles.dtype,
        device=tiles.device if on_gpu(tiles) else None,
        window=window,
        reduction=_OF_SSIM.get(reduction, reduction),
    )
    out = tuple(_empty(tiles, (shape[1], *grid.size), dtype) for dtype in blender.dtypes)
    target = out if len(out) > 1 else out[0]
    across = grid.shape[1]
    for row in range(grid.shape[0]):
        band = bands.read(row, 1)
        for first in range(row * across, (row + 1) * across, _TOGETHER):
            end = min(first + _TOGETHER, (row + 1) * across)
            y: Any = bands.cut(band, row, first, end)
            if isinstance(image, torch.Tensor):
                y = y if on_gpu(y) else torch.from_numpy(y)
                y = y.view(image.dtype)  # bfloat16 comes as its bits
            elif isinstance(tiles, torch.Tensor):
                y = torch.from_numpy(native(y))
            y = y.to(tiles.device) if isinstance(tiles, torch.Tensor) else plain(y)
            maps: Any = ssim(tiles[first:end], y, window=ssim_window, padding="reflect", reduction="none", **options)
            blender.push(maps.to(tiles.dtype) if isinstance(tiles, torch.Tensor) else maps.astype(tiles.dtype), target)
    # 1 - SSIM is taken once, of the blended image, for blending is linear: of each tile it would cost a pass over all.
    out[0][...] = 1 - out[0]
    return target


def _empty(tiles: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Allocate where the tiles are."""
    return torch.empty(shape, dtype=dtype, device=tiles.device) if on_gpu(tiles) else empty(shape, dtype)
