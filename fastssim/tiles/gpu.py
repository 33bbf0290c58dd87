"""Tiles on a GPU: cut out and blended there by `fastssim.cuda`, moved beside what is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fastssim.cuda import tile_launch
from fastssim.cuda.device import device_of
from fastssim.tiles.plan import SUM, make_plan
from fastssim.tiles.storage import as_read, torch_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fastssim.tiles.grid import Geometry
    from fastssim.tiles.plan import Plan


def cut(canvas: Tensor, geometry: Geometry, start: int, stop: int, *, first_row: int = 0) -> Tensor:
    """Cut the tiles start .. stop-1 out of canvases (N, C, rows, canvas W) that begin at the canvas row `first_row`."""
    canvas = as_read(canvas)  # kernels read memory as it is
    n, channels = canvas.shape[:2]
    tiles = canvas.new_empty((n, stop - start, channels, geometry.tile_height, geometry.tile_width))
    plan = make_plan(tuple(geometry), SUM)
    tile_launch.scatter(device_of(canvas), plan, canvas, tiles, first=start, first_row=first_row, weighted=False)
    return tiles


def gather(plan: Plan, tiles: Tensor, reduction: str, out: Tensor, deviation: Tensor | None, **pieces: Any) -> None:
    """Blend tiles (N, T, C, h, w); see `fastssim.cuda.tile_launch.gather`."""
    tile_launch.gather(device_of(tiles), plan, as_read(tiles).contiguous(), reduction, out, deviation, **pieces)


def scatter(plan: Plan, canvas: Tensor, tiles: Tensor) -> None:
    """Write the tiles of canvases times their weights."""
    tile_launch.scatter(device_of(canvas), plan, canvas, tiles, weighted=True)


class Mover:
    """Copies from and to a GPU on a stream of its own, through memory that the system may not move (pinned).

    Each method is called by one thread, and what it returns may be used by any.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams = {way: torch.cuda.Stream(device) for way in ("up", "down")}

    def up(self, band: NDArray[Any]) -> tuple[Tensor, torch.cuda.Event]:
        """Begin to copy an array to the GPU; the event says when it is there."""
        stream = self._streams["up"]
        with torch.cuda.stream(stream):
            pinned = torch.empty(band.shape, dtype=torch_dtype(band.dtype), pin_memory=True)
            pinned.numpy()[...] = band
            moved = pinned.to(self._device, non_blocking=True)
            return moved, stream.record_event()

    def wait(self, moved: Tensor, event: torch.cuda.Event) -> Tensor:
        """Let this thread's stream go on when the array is there, and keep its memory as long as that stream needs."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        moved.record_stream(stream)
        return moved

    def ready(self) -> torch.cuda.Event:
        """Note where this thread's stream stands."""
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event

    def down(self, pixels: Tensor, ready: torch.cuda.Event) -> Tensor:
        """Copy a tensor to memory, once the GPU is `ready`; return when it is there."""
        stream = self._streams["down"]
        with torch.cuda.stream(stream):
            stream.wait_event(ready)
            pixels.record_stream(stream)
            pinned = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            pinned.copy_(pixels, non_blocking=True)
        stream.synchronize()
        return pinned
