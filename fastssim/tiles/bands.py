"""Read an image of any size band by band."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.cpu.dispatch import launch_of
from fastssim.tiles.extraction import padded, take
from fastssim.tiles.grid import check_grid
from fastssim.tiles.storage import bits, check, in_memory, on_gpu, refuse_cupy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastssim.tiles.grid import TileGrid

_SPARE = 1 << 23  # bytes kept for the next image, at most
_spare: list[NDArray[np.uint8]] = []


def _memory(size: int) -> NDArray[np.uint8]:
    """Return `size` bytes or more, those that the image before left where they are enough.

    What `free` gives back, the system may take and hand out again page by page, at several times the cost of the tiles
    themselves; it depends on what else the process has allocated.
    """
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(0, np.uint8)
    return memory if len(memory) >= size else np.empty(size, np.uint8)


def _references(memory: NDArray[np.uint8]) -> int:
    """Count who refers to some memory: every view of it does."""
    return sys.getrefcount(memory)


class Bands:
    """The rows of an image's canvas, read in order.

    Parameters
    ----------
    image : ndarray, torch.Tensor, or anything that slices
        (C, H, W) or (H, W).
    grid : TileGrid
        Its size must be the image's.

    Raises
    ------
    TypeError, ValueError
        If the image has another shape, or is a tensor that is neither on the CPU nor on a GPU.
    """

    def __init__(self, image: Any, grid: TileGrid) -> None:
        check_grid(grid)
        refuse_cupy("image", image)
        shape = getattr(image, "shape", None)
        if shape is None or not hasattr(image, "__getitem__"):
            raise TypeError(
                f"image is a {type(image).__name__}; give an array, a tensor, or what has a shape and slices"
            )
        if len(shape) not in (2, 3) or tuple(shape[-2:]) != grid.size:
            height, width = grid.size
            raise ValueError(
                f"image has shape {tuple(shape)}; this grid wants (C, {height}, {width}) or ({height}, {width})"
            )
        if isinstance(image, (torch.Tensor, np.ndarray)):
            check("image", image)
        if isinstance(image, torch.Tensor):
            image = self._gpu_canvas(image, grid) if on_gpu(image) else bits(image)
        self._image = image
        self._flat = len(image.shape) == 2
        self._grid = grid
        self.at_hand = on_gpu(image) or (in_memory(image) and grid.border == "flush")  # looked at, not read
        self._down, self._across = ([], []) if self.at_hand else (grid.sources(0), grid.sources(1))
        self._memory = np.empty(0, np.uint8)  # of the last batch of tiles
        self._alone = _references(self._memory)  # nobody else has it
        self._band: NDArray[Any] | None = None
        self._end = 0  # canvas row behind those in the band

    def read(self, row: int, count: int) -> Any:
        """Return the canvas rows of `count` rows of tiles from `row` on, (C, rows, canvas W)."""
        origins = self._grid.geometry.rows[row : row + count]
        first, end = origins[0], origins[-1] + self._grid.tile_shape[0]
        if on_gpu(self._image):
            return self._image[:, first:end]
        if self.at_hand:
            return self._slice(first, end)
        kept = None
        if self._band is not None:
            kept = self._band[:, self._band.shape[1] - max(self._end - first, 0) :]
            first = max(first, self._end)
        fresh = self._fresh(self._down[first:end])
        # Always a copy: a slice of a memmap is read when it is copied, which is this thread's work.
        self._band = np.concatenate([fresh] if kept is None else [kept, fresh], axis=1)
        self._end = end
        return self._band

    def cut(self, band: Any, row: int, first: int, end: int) -> Any:
        """Cut the tiles first .. end-1 of the grid out of a band that begins with the row of tiles `row`."""
        if on_gpu(band):
            from fastssim.tiles import gpu  # noqa: PLC0415  # only where there is one

            geometry = self._grid.geometry
            return gpu.cut(band[None], geometry, first, end, first_row=geometry.rows[row])[0]
        origins = self._grid.corners(first, end) - (self._grid.rows[row], -self._grid.geometry.left)
        tiles = self._room(end - first, band)
        launch_of("tiles").copy(band, origins, tiles)
        return tiles

    def close(self) -> None:
        """Leave the tiles' memory to the next image."""
        if 0 < len(self._memory) <= _SPARE and _references(self._memory) <= self._alone:
            _spare[:] = [self._memory]
        self._memory = np.empty(0, np.uint8)

    def _room(self, count: int, band: NDArray[Any]) -> NDArray[Any]:
        """Return memory for tiles of a band: that of the batch before, warm in the cache, unless someone holds it."""
        shape = (count, band.shape[0], *self._grid.tile_shape)
        size = math.prod(shape) * band.itemsize
        if len(self._memory) < size or _references(self._memory) > self._alone:
            self._memory = _memory(size)
        return self._memory[:size].view(band.dtype).reshape(shape)

    @staticmethod
    def _gpu_canvas(image: torch.Tensor, grid: TileGrid) -> torch.Tensor:
        """Surround an image on a GPU by the grid's halo, (C, canvas H, canvas W)."""
        canvas: torch.Tensor = padded(image.detach().reshape(-1, *grid.size), grid)
        return canvas

    def _slice(self, first: int, end: int) -> NDArray[Any]:
        """Read rows of the image, (C, rows, W)."""
        rows = self._image[first:end] if self._flat else self._image[:, first:end]
        if np.ma.is_masked(rows):  # as netCDF4 hands out what is missing
            check("image", rows)
        rows = np.asarray(rows)
        expected = (*self._image.shape[:-2], end - first, self._grid.size[1])
        if rows.shape != expected:  # kernels would read beyond it
            raise ValueError(f"image gave rows {first} to {end - 1} as {rows.shape}; by its shape they are {expected}")
        return rows[None] if self._flat else rows

    def _fresh(self, sources: list[int]) -> NDArray[Any]:
        """Read the canvas rows that stand for the image's rows `sources`; -1 stands for zeros."""
        needed = np.unique([source for source in sources if source >= 0])
        if not len(needed):
            if self._band is None:
                raise AssertionError("every row of tiles meets the image")
            channels, _, width = self._band.shape
            return np.zeros((channels, len(sources), width), self._band.dtype)
        runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
        parts = [self._slice(int(run[0]), int(run[-1]) + 1) for run in runs]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if len(sources) != len(needed) or sources[0] < 0 or (np.diff(sources) != 1).any():
            places = np.where(np.array(sources) < 0, -1, np.searchsorted(needed, sources))
            rows = take(rows, places.tolist(), axis=1)
        return rows if self._grid.border == "flush" else take(rows, self._across, axis=2)
