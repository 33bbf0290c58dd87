"""Cut the tiles of a grid out of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.autograd import unobserved, watched
from fastssim.cpu.dispatch import launch_of
from fastssim.tiles import operators
from fastssim.tiles.grid import check_grid
from fastssim.tiles.plan import SUM
from fastssim.tiles.storage import bits, check, on_gpu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastssim.tiles.grid import TileGrid


def extract(image: Any, grid: TileGrid, *, start: int = 0, stop: int | None = None) -> Any:
    """Cut the tiles of a grid out of an image.

    Parameters
    ----------
    image : ndarray or torch.Tensor, (C, H, W) or (N, C, H, W)
        Any dtype and strides; not altered.
    grid : TileGrid
        Its size must be the image's. Where its tiles reach beyond the image, they hold what its border says.
    start, stop : int
        Only tiles start .. stop-1, in row-major order; as in a slice, negative numbers count from the end.

    Returns
    -------
    ndarray or torch.Tensor, (T, C, h, w) or (N, T, C, h, w)
        Of the image's kind and dtype; a tensor is differentiable: the gradient of a pixel is the sum over its copies.

    Raises
    ------
    TypeError, ValueError
        If the image is neither array nor tensor, or not of the grid's size.

    Examples
    --------
    >>> from fastssim.tiles import TileGrid
    >>> extract(np.zeros((3, 100, 90)), TileGrid((100, 90), tile=64, stride=32)).shape
    (6, 3, 64, 64)
    """
    check_grid(grid)
    check("image", image)
    shape = tuple(image.shape)
    if len(shape) not in (3, 4) or shape[-2:] != grid.size:
        raise ValueError(
            f"image has shape {shape}; this grid wants (C, {grid.size[0]}, {grid.size[1]}), N may stand before"
        )
    images = image if len(shape) == 4 else image[None]
    cut = _tensor_tiles if isinstance(image, torch.Tensor) else _array_tiles
    tiles = cut(images, grid, start, stop)
    return tiles if len(shape) == 4 else tiles[0]


def padded(image: Any, grid: TileGrid) -> Any:
    """Surround images (..., H, W) by the halo of a grid; without one, the images themselves."""
    if grid.border == "flush":
        return image
    rows, columns = (grid.sources(axis) for axis in (0, 1))
    if isinstance(image, torch.Tensor):
        if grid.border == "zeros":
            (above, below), (left, right) = grid.halo
            return torch.nn.functional.pad(image, (left, right, above, below))
        chosen = image.index_select(-2, torch.tensor(rows, device=image.device))
        return chosen.index_select(-1, torch.tensor(columns, device=image.device))
    return take(take(image, rows, axis=-2), columns, axis=-1)


def take(image: NDArray[Any], sources: list[int], axis: int) -> NDArray[Any]:
    """Take rows or columns by their numbers; -1 stands for zeros."""
    places = np.array(sources)
    taken: NDArray[Any] = np.take(image, np.maximum(places, 0), axis=axis)
    np.moveaxis(taken, axis, 0)[places < 0] = 0
    return taken


def _tensor_tiles(images: torch.Tensor, grid: TileGrid, start: int, stop: int | None) -> torch.Tensor:
    plain = not watched(images, images, None) if on_gpu(images) else unobserved(images, images, None)
    if (start, stop) == (0, None) or not plain or operators.wants_derivative(images):
        tiles = operators.scatter(padded(images, grid), (list(grid.geometry), SUM, []))
        return tiles[:, start:stop]
    if on_gpu(images):
        from fastssim.tiles import gpu  # noqa: PLC0415  # only where there is one

        first, end, _ = slice(start, stop).indices(len(grid))
        return gpu.cut(padded(images, grid), grid.geometry, first, max(first, end))
    return torch.from_numpy(_array_tiles(bits(images), grid, start, stop)).view(images.dtype)


def _array_tiles(images: NDArray[Any], grid: TileGrid, start: int, stop: int | None) -> NDArray[Any]:
    (above, _), (left, _) = grid.halo
    first, end, _ = slice(start, stop).indices(len(grid))
    origins = grid.corners(first, end) + np.array([above, left])
    tiles = np.empty((len(images), len(origins), images.shape[1], *grid.tile_shape), images.dtype)
    for source, target in zip(padded(images, grid), tiles, strict=True):
        launch_of("tiles").copy(source, origins, target)
    return tiles
