"""What a function returns for tiles, blended into arrays as large as the image."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.interop import viewed
from fastssim.tiles.grid import TileGrid
from fastssim.tiles.storage import (
    assign,
    check,
    check_pixels,
    check_target,
    empty,
    finite,
    in_memory,
    on_gpu,
    plain,
    torch_dtype,
)
from fastssim.tiles.stream import Blender, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastssim.tiles.gpu import Mover


class Results:
    """The maps of a function, of any structure: one, a tuple or a list of them, or a dict.

    Parameters
    ----------
    grid, window, reduction
        As for `sliding_window`.
    out
        Where the maps go, or None.
    tensors : bool
        Allocate tensors, not arrays.
    home : torch.device
        Where these tensors are.
    mover : Mover, optional
        Blend on the GPU what the function returned there, and move it by this.
    first_row : int
        The image's row to begin with.
    """

    def __init__(
        self,
        grid: TileGrid,
        window: Any,
        reduction: str,
        out: Any,
        *,
        tensors: bool,
        home: torch.device,
        mover: Mover | None,
        first_row: int,
    ) -> None:
        self._grid = grid
        self._options = {"window": window, "reduction": reduction}
        self._out = out
        self._tensors = tensors
        self._home = home
        self._mover = mover
        self._first_row = first_row
        self._keys: list[Any] | None = None  # None until the first call; [None] for a single map
        self._kinds: list[str] = []  # of every map: its tiles' shape and dtype
        self._kind: type = object
        self._blenders: list[Blender] = []
        self._maps: list[tuple[Any, ...]] = []  # of every map: its array, for "mean_std" two
        # Checks the options, and knows where an earlier run ended.
        self.first_tile = Blender(grid, channels=1, first_row=first_row, **self._options).first_tile

    @property
    def targets(self) -> list[Any]:
        """All arrays that are written to."""
        return [target for targets in self._maps for target in targets]

    @property
    def at_hand(self) -> bool:
        """Whether rows are written at once, not to a file or from a GPU.

        Where some go to a GPU, all are: the stream that computes them is this thread's.
        """
        return any(map(on_gpu, self.targets)) or (self._mover is None and all(map(in_memory, self.targets)))

    @property
    def value(self) -> Any:
        """The maps in the structure of what the function returned."""
        if self._out is not None:
            return self._out
        maps = [targets if len(targets) > 1 else targets[0] for targets in self._maps]
        if self._keys == [None]:
            return maps[0]
        if issubclass(self._kind, dict):
            return dict(zip(self._keys or (), maps, strict=True))
        return tuple(maps)

    def take(self, returned: Any, first: int, end: int) -> list[list[Rows]]:
        """Blend what the function returned for the tiles first .. end-1; return every map's finished rows.

        Raises
        ------
        TypeError, ValueError
            If it is not what `sliding_window` allows, or differs from call to call, or does not fit `out`.
        """
        names = f"tiles {first} to {end - 1} of {len(self._grid)}"
        keys, values = _unpacked(returned)
        if self._keys not in (None, keys):
            raise ValueError(f"fn returned the maps {keys} for {names}; before, it returned {self._keys}")
        maps = [self._checked(value, first, end, names) for value in values]
        if self._keys is None:
            self._prepare(keys, maps, type(returned))
            self._kinds = [_kind(value) for value in maps]
        for key, value, before in zip(keys, maps, self._kinds, strict=True):
            if _kind(value) != before:
                which = "" if key is None else f"the map {key!r} as "
                raise ValueError(f"fn returned {which}{_kind(value)} for {names}; before, it returned {before}")
        finished = [blender.add(value) for value, blender in zip(maps, self._blenders, strict=True)]
        for value, blender in zip(maps, self._blenders, strict=True):
            if not blender.finite or self._options["reduction"] in ("max", "min") or on_gpu(value):
                self._check_finite(value, first)
        return finished

    def write(self, finished: list[list[Rows]], ready: Any = None) -> int:
        """Write finished rows, those on a GPU once it is `ready`; return the image's row that they reach."""
        reached = 0
        for targets, blocks in zip(self._maps, finished, strict=True):
            for rows in blocks:
                for target, pixels in zip(targets, rows.pixels, strict=False):  # none that are in place already
                    if self._mover is not None and on_gpu(pixels) and not on_gpu(target):
                        assign(target, rows.first, rows.end, self._mover.down(pixels, ready))
                    else:
                        assign(target, rows.first, rows.end, pixels)
                reached = rows.end * self._grid.size[0] // int(targets[0].shape[-2])
        return reached

    def _checked(self, value: Any, first: int, end: int, names: str) -> Any:
        """Take one map as a tensor or an array, of tiles as many as were given."""
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if not on_gpu(value) or self._mover is None:
                value = value.cpu()
        elif not isinstance(value, np.ndarray):
            raise TypeError(f"fn returned a {type(value).__name__} for {names}; it must return an array or a tensor")
        else:
            check("what fn returned", value)
        shape = tuple(value.shape)
        if len(shape) != 4 or shape[0] != end - first or not all(shape):
            raise ValueError(f"fn returned shape {shape} for {names}; it must be ({end - first}, C, h, w)")
        check_pixels("what fn returned", value.dtype)
        if self._tensors and not isinstance(value, torch.Tensor):
            value = viewed(value)
        elif not self._tensors and isinstance(value, torch.Tensor):
            if value.dtype == torch.bfloat16:
                raise TypeError(
                    "fn returned bfloat16, which NumPy does not have; convert it, or give the image as a tensor"
                )
            value = value if on_gpu(value) else value.numpy()
        return value

    def _check_finite(self, tiles: Any, first: int) -> None:
        """Refuse NaN and infinity; names the tile, the first of which has the number `first`."""
        if finite(tiles):
            return
        number = next(number for number, tile in enumerate(tiles, start=first) if not finite(tile))
        ((row, column),) = self._grid.corners(number, number + 1)
        raise ValueError(f"fn returned NaN or infinity for tile {number}, at row {row}, column {column}")

    def _prepare(self, keys: list[Any], maps: list[Any], kind: type) -> None:
        """Make blenders and arrays for the maps of the first call."""
        pair = self._options["reduction"] == "mean_std"
        given = self._given(keys)
        blenders, targets = [], []
        for key, value, target in zip(keys, maps, given, strict=True):
            grid = _scaled(self._grid, tuple(value.shape[2:]))
            first_row = self._first_row * grid.size[0] // self._grid.size[0]
            blender = Blender(
                grid,
                channels=value.shape[1],
                dtype=value.dtype,
                device=value.device if on_gpu(value) else None,
                first_row=first_row,
                **self._options,
            )
            shape = (value.shape[1], *grid.size)
            dtypes = blender.dtypes
            if target is None:
                arrays = tuple(self._empty(shape, dtype) for dtype in dtypes)
            else:
                arrays = tuple(target) if pair else (target,)
                if len(arrays) != len(dtypes):
                    raise ValueError(f'out has {len(arrays)} arrays; "mean_std" wants a pair of them')
                name = "out" if key is None else f"out[{key!r}]"
                for array, dtype in zip(arrays, dtypes, strict=True):
                    check_target(name, array, shape, dtype)
            #  What we allocated nobody sees before all is done: not what is NaN or unfinished, either.
            if target is None and not on_gpu(value) and not any(map(on_gpu, arrays)):
                blender.blend_into(arrays)
            blenders.append(blender)
            targets.append(arrays)
        self._keys, self._kind, self._blenders, self._maps = keys, kind, blenders, targets

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate a map of the image's kind."""
        if self._tensors and self._home.type != "cpu":
            return torch.empty(shape, dtype=torch_dtype(dtype), device=self._home)
        if not self._tensors and isinstance(dtype, torch.dtype):
            dtype = plain(torch.empty(0, dtype=dtype)).dtype
        return empty(shape, dtype)

    def _given(self, keys: list[Any]) -> list[Any]:
        """Bring `out` into the order of the maps."""
        if self._out is None:
            return [None] * len(keys)
        if keys == [None]:
            return [self._out]
        if isinstance(self._out, dict):
            if set(self._out) != set(keys):
                raise ValueError(f"out has the maps {list(self._out)}; fn returned {keys}")
            return [self._out[key] for key in keys]
        if not isinstance(self._out, (tuple, list)) or len(self._out) != len(keys):
            raise ValueError(f"fn returned {len(keys)} maps {keys}; out must hold as many, in the same structure")
        return list(self._out)


def _unpacked(returned: Any) -> tuple[list[Any], Sequence[Any]]:
    """Names and maps of what a function returned; a single map has the name None."""
    if isinstance(returned, dict):
        return list(returned), list(returned.values())
    if isinstance(returned, (tuple, list)):
        return list(range(len(returned))), returned
    return [None], [returned]


def _kind(tiles: Any) -> str:
    """Put into words what stays the same from call to call."""
    return f"tiles of shape {tuple(tiles.shape[1:])} and dtype {tiles.dtype}"


def _scaled(grid: TileGrid, tile: tuple[int, ...]) -> TileGrid:
    """Return the grid at the scale at which its tiles are as large as `tile`."""
    if tile == grid.tile_shape:
        return grid
    sizes = []
    for axis in (0, 1):
        scale = Fraction(tile[axis], grid.tile_shape[axis])
        stride, size = grid.geometry[4 + axis] * scale, grid.size[axis] * scale
        if stride.denominator != 1 or size.denominator != 1:
            raise ValueError(
                f"fn returned tiles of {tile[0]} x {tile[1]} for {grid.tile_shape[0]} x {grid.tile_shape[1]}, a scale"
                f" of {scale}; the stride {grid.geometry[4 + axis]} and the image's size {grid.size[axis]} must come"
                " out whole at that scale: choose another stride, or pad the image"
            )
        sizes.append((int(size), int(stride)))
    (height, stride_y), (width, stride_x) = sizes
    return TileGrid((height, width), (tile[0], tile[1]), (stride_y, stride_x), grid.border)
