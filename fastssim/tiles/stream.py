"""Blend tiles as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cpu.dispatch import launch_of
from fastssim.tiles.blending import check_reduction
from fastssim.tiles.grid import check_grid, whole
from fastssim.tiles.plan import NO_SUMS, Sums, make_plan
from fastssim.tiles.storage import (
    GPUS,
    assign,
    check,
    check_pixels,
    check_target,
    deviation_dtype,
    empty,
    on_gpu,
    place_of,
    stored,
)
from fastssim.tiles.windows import window_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastssim.tiles.grid import TileGrid


class Rows(NamedTuple):
    """Finished rows of an image.

    Examples
    --------
    >>> from fastssim.tiles import Blender, TileGrid
    >>> blender = Blender(TileGrid((96, 64), tile=64, stride=32), channels=1)
    >>> ((first, end, (pixels,)),) = blender.add(np.ones((1, 1, 64, 64), np.float32))
    >>> first, end, pixels.shape
    (0, 32, (1, 32, 64))
    """

    first: int
    end: int
    pixels: tuple[Any, ...]  # (C, end - first, W); for "mean_std" the means and the deviations; none after `blend_into`


class Blender:
    """Blend tiles as they come, in row-major order, and hand over finished rows at once.

    Holds the sums of a band of the image that is at most as high as a tile, whatever the image's height. The result is
    the same as that of `blend` to the last bit, however many tiles come at a time.

    Parameters
    ----------
    grid : TileGrid
        Where the tiles lie.
    channels : int
        Channels of the tiles.
    dtype : dtype
        Of the tiles and of the result: NumPy's or torch's, one of those that `blend` takes.
    window, reduction
        As for `blend`.
    device : str or torch.device, optional
        Where the tiles are, if they are tensors on a GPU; finished rows stay there.
    first_row : int
        Begin at this row of the image, to go on where an earlier run ended: the first tile that is due is
        `first_tile`, the first that covers this row; rows above are not handed over.

    Attributes
    ----------
    first_tile : int
        Number of the tile that is to come first.
    finished : int
        Rows of the image above this one are done.
    finite : bool
        Whether the tiles added last were free of NaN and infinity inside the image, as their sums show; always true
        for "max" and "min" and on a GPU, where nobody looks.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.
    CudaUnavailableError
        If `device` is a GPU and torch finds none.

    Examples
    --------
    >>> from fastssim.tiles import TileGrid
    >>> grid = TileGrid((96, 64), tile=64, stride=32)
    >>> out = np.zeros((1, 96, 64), np.float32)
    >>> blender = Blender(grid, channels=1)
    >>> blender.push(np.ones((1, 1, 64, 64), np.float32), out)  # rows 0 .. 31 are finished
    32
    >>> blender.push(np.ones((1, 1, 64, 64), np.float32), out)
    96
    """

    def __init__(
        self,
        grid: TileGrid,
        *,
        channels: int,
        dtype: Any = np.float32,
        window: Any = "uniform",
        reduction: str = "mean",
        device: str | torch.device | None = None,
        first_row: int = 0,
    ) -> None:
        check_grid(grid)
        self._dtype = dtype if isinstance(dtype, torch.dtype) else np.dtype(dtype)
        check_pixels("dtype", self._dtype)
        check_reduction(reduction)
        channels, first_row = whole("channels", channels, 0), whole("first_row", first_row, 0)
        if first_row >= grid.size[0]:
            raise ValueError(f"first_row is {first_row}; the image has the rows 0 to {grid.size[0] - 1}")
        self._grid = grid
        self._plan = make_plan(tuple(grid.geometry), *window_key(window, grid.tile_shape))
        self._channels = channels
        self._reduction = reduction
        self._device = torch.device("cpu") if device is None else torch.empty(0, device=place_of(device)).device
        tensors = isinstance(self._dtype, torch.dtype)
        if device is not None and not tensors:
            raise TypeError(f"dtype is {self._dtype}, but tiles on {self._device} are tensors; give one of torch's")
        self._gpu = tensors and self._device.type in GPUS
        self._band_in = self._band_out = self._carry = NO_SUMS
        self._block: tuple[Any, ...] = ()
        self._whole: tuple[Any, ...] = ()
        self._due = self.first_tile = int(self._plan.down.first[grid.geometry.top + first_row]) * grid.shape[1]
        self.finished = first_row
        self.finite = True

    @property
    def dtypes(self) -> tuple[Any, ...]:
        """Dtype of the result; for "mean_std" also that of the standard deviation."""
        return (self._dtype, deviation_dtype(self._dtype)) if self._reduction == "mean_std" else (self._dtype,)

    def blend_into(self, arrays: tuple[Any, ...]) -> None:
        """Blend straight into these arrays, (C, H, W) in memory, one for each of `dtypes`.

        For `add`, not for `push`: the rows that it returns have no pixels then. Rows below those change, too. Not for
        tiles on a GPU.

        Raises
        ------
        TypeError, ValueError
            If they are of another number, shape or dtype, or their pixels do not lie row by row.
        """
        if self._gpu:
            raise ValueError(f"tiles are on {self._device}, where kernels write to no memory; take the rows of `add`")
        shape = (self._channels, *self._grid.size)
        if len(arrays) != len(self.dtypes):
            raise ValueError(f"{len(arrays)} arrays came; this blender writes {len(self.dtypes)}")
        for array, dtype in zip(arrays, self.dtypes, strict=True):
            check("an array", array)
            check_target("an array", array, shape, dtype)
            rows = stored(array) if array.dtype == dtype and tuple(array.shape) == shape else None
            if rows is None or rows.strides[-1] != rows.itemsize or min(rows.strides) < 1:
                raise ValueError(f"an array does not hold {dtype} of shape {shape} row by row; give one that does")
        self._whole = arrays

    def push(self, tiles: Any, out: Any) -> int:
        """Take the next tiles, write the rows they finish to ``out[:, y0:y1]``; return the rows finished so far.

        Parameters
        ----------
        tiles : ndarray or torch.Tensor, (B, C, h, w)
            The tiles that follow those pushed before.
        out : array_like, (C, H, W), or (H, W) for one channel; a pair of them for "mean_std"
            Anything that takes an assignment to ``out[:, y0:y1]`` or ``out[y0:y1]``.

        Raises
        ------
        TypeError, ValueError
            If more tiles come than the grid has, or of another shape or dtype, or `out` is of another.
        """
        targets = out if self._reduction == "mean_std" else (out,)
        if len(targets) != len(self.dtypes):
            raise ValueError(f'out has {len(targets)} arrays; "mean_std" wants a pair of them')
        for target, dtype in zip(targets, self.dtypes, strict=True):
            if hasattr(target, "shape"):
                check_target("out", target, (self._channels, *self._grid.size), dtype)
        for rows in self.add(tiles):
            for target, pixels in zip(targets, rows.pixels, strict=True):
                assign(target, rows.first, rows.end, pixels)
        return self.finished

    def add(self, tiles: Any) -> list[Rows]:
        """Take the next tiles, (B, C, h, w), and return the rows they finish.

        Raises
        ------
        TypeError, ValueError
            As `push`.
        """
        check("tiles", tiles)
        expected = (self._channels, *self._grid.tile_shape)
        if tuple(tiles.shape[1:]) != expected or self._due + len(tiles) > len(self._grid):
            left = len(self._grid) - self._due
            raise ValueError(f"tiles have shape {tuple(tiles.shape)}; at most {left} more of shape {expected} are due")
        if tiles.dtype != self._dtype:
            raise TypeError(f"tiles are {tiles.dtype}, this blender is for {self._dtype}; convert them")
        if isinstance(tiles, torch.Tensor) and tiles.requires_grad and torch.is_grad_enabled():
            raise ValueError("tiles require a gradient, which a Blender does not carry through: call .detach() first")
        if isinstance(tiles, torch.Tensor) and tiles.device != self._device:
            raise ValueError(f"tiles are on {tiles.device}, this blender is for {self._device}; move them")
        pixels: Any = tiles.detach().contiguous() if on_gpu(tiles) else np.ascontiguousarray(stored(tiles))
        across = self._grid.shape[1]
        self.finite = True
        finished = []
        while len(pixels):
            row, column = divmod(self._due, across)
            whole = len(pixels) // across if column == 0 else 0  # rows of tiles
            count = whole * across or min(len(pixels), across - column)
            part = (row, row + max(whole, 1), column, across if whole else column + count)
            finished += self._blend(pixels[:count], part)
            pixels = pixels[count:]
            self._due += count
        return finished

    def _blend(self, tiles: Any, part: tuple[int, int, int, int]) -> list[Rows]:
        """Blend tiles of one row of tiles, or whole rows of them."""
        g, plan = self._grid.geometry, self._plan
        ia, ib, ja, jb = part
        y0 = max(int(plan.down.origins[ia]), g.top + self.finished)
        y1 = min(int(plan.down.origins[ib - 1]) + g.tile_height, g.top + g.height)
        last = ib == len(plan.down.origins)
        end = g.height if last else max(min(int(plan.down.origins[ib]) - g.top, g.height), self.finished)
        if ja == 0:
            shape = (self._channels, end - self.finished, g.width)
            self._block = tuple(array[:, self.finished : end] for array in self._whole) or tuple(
                self._empty(shape, dtype) for dtype in self.dtypes
            )
            overlap = _overlap(plan.down.origins, ib, g.tile_height)
            self._band_out = self._sums(plan.down.origins, ib, (overlap, g.canvas_width))
        overlap = _overlap(plan.across.origins, jb, g.tile_width)
        carry = self._sums(plan.across.origins, jb, (g.tile_height, overlap))
        pieces = {
            "part": part,
            "rows": (y0, y1),
            "band": (self._band_in, self._band_out),
            "carry": (self._carry, carry),
        }
        self._gather(tiles, self._block, pieces)
        self._carry = carry
        if jb < len(plan.across.origins):
            return []
        self._band_in = self._band_out
        rows = Rows(self.finished, end, () if self._whole else self._block)
        self.finished = end
        return [rows] if rows.end > rows.first else []

    def _gather(self, tiles: Any, block: tuple[Any, ...], pieces: dict[str, Any]) -> None:
        """Blend on the device where the tiles are."""
        if on_gpu(tiles):
            from fastssim.tiles import gpu  # noqa: PLC0415  # only where there is one

            out, *deviation = (rows[None] for rows in block)
            gpu.gather(self._plan, tiles[None], self._reduction, out, deviation[0] if deviation else None, **pieces)
            return
        out, *deviation = (stored(rows) for rows in block)
        self.finite &= launch_of("tiles").gather(
            self._plan, tiles, self._reduction, out, deviation[0] if deviation else None, **pieces
        )

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate where the tiles are."""
        if self._gpu:
            return torch.empty(shape, dtype=dtype, device=self._device)
        return empty(shape, dtype)

    def _sums(self, origins: NDArray[np.int64], next_tile: int, shape: tuple[int, int]) -> Sums:
        """Allocate what is handed on to the tiles from `next_tile` on."""
        if not min(shape):
            return NO_SUMS
        states = 3 if self._reduction == "mean_std" else 1
        number: Any = torch.float64 if self._gpu else np.dtype(np.float64)
        values = self._empty((states, self._channels, *shape), number)
        return Sums(values, int(origins[next_tile]))


def _overlap(origins: NDArray[np.int64], next_tile: int, length: int) -> int:
    """Pixels of the tiles before `next_tile` that it covers too."""
    return int(origins[next_tile - 1]) + length - int(origins[next_tile]) if next_tile < len(origins) else 0
