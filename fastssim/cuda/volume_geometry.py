"""From a plan of volumes to the kernels of `volume.cu`; see `fastssim.cuda.geometry`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastssim.cuda import geometry
from fastssim.cuda.geometry import BLOCKS, LEAST_ROWS, REGISTERS, SHARED_BYTES, Launch, Task
from fastssim.cuda.instances import instance

if TYPE_CHECKING:
    from fastssim.plan import Plan

WINDOWS, POSITIONS, PIXELS = range(3)  # phases, as volume.cu has them
THREADS = 256
TILE_X = 32  # columns of a block


@lru_cache(maxsize=1024)
def march(plan: Plan, task: Task) -> tuple[Launch, ...] | None:
    """Return the phases that a task needs, in order; nothing where a block cannot hold the window.

    Nor under a mask or with L1, which `geometry.windows` knows.
    """
    if plan.masked or task.l1:
        return None
    numbers = [WINDOWS]
    if task.gradients:
        numbers += [POSITIONS, PIXELS] if folds(plan) else [POSITIONS]
    phases = tuple(phase(plan, task, number) for number in numbers)
    partial = 4 * (2 if plan.dtype == "float64" else 1) * (len(plan.taps_z) - 1)  # numbers that wait for further planes
    too_large = partial > REGISTERS[plan.dtype] or any(shared_bytes(made.instance) > SHARED_BYTES for made in phases)
    return None if too_large else phases


def folds(plan: Plan) -> bool:
    """Whether padding repeats pixels, which take the gradients of their repetitions."""
    return plan.padding not in {"valid", "zeros"}


def phase(plan: Plan, task: Task, number: int) -> Launch:
    """Return one of the three kernels for a plan."""
    n, c, *lengths = plan.shape
    made = instance("volume", PHASE=number, **geometry.options_of(plan, task, THREADS))
    covered: tuple[int, ...] = plan.map_shape[2:]
    first: tuple[int, ...] = (0, 0, 0)
    if number != WINDOWS:
        covered = plan.padded
        if plan.padding == "zeros":  # nothing outside the volume takes a gradient
            covered, first = tuple(lengths), plan.pad
    tiles_y, tiles_x = -(-covered[1] // (THREADS // TILE_X)), -(-covered[2] // TILE_X)
    wanted = -(-BLOCKS // (n * c * tiles_y * tiles_x))
    segments = min(wanted, max(1, covered[0] // max(LEAST_ROWS, len(plan.taps_z))))
    parts = -(-math.prod(lengths) // THREADS)
    fields = {
        **geometry.fields_of(plan),
        **{f"first_{axis}": place for axis, place in zip("zyx", first, strict=True)},
        **{f"covered_{axis}": length for axis, length in zip("zyx", covered, strict=True)},
        "windows": math.prod(plan.map_shape),
        "positions": n * c * math.prod(plan.padded),
        "segments": segments,
        "tiles_y": tiles_y,
        "tiles_x": tiles_x,
        "parts": parts,
    }
    grid = n * c * (parts if number == PIXELS else segments * tiles_y * tiles_x)
    return geometry.launched(made, grid, THREADS, fields)


def shared_bytes(made: Any) -> int:
    """Shared memory of a block, as volume.cu declares it."""
    number = 8 if made["T"] == "double" else 4
    rows, width = made["THREADS"] // TILE_X + made["TAPS_Y"] - 1, TILE_X + made["TAPS_X"] - 1
    back = 2 + max(1, made["GRADIENTS"])
    each = {WINDOWS: (2, 4), POSITIONS: (back, back), PIXELS: (0, 0)}[made["PHASE"]]
    return int(rows * number * (width * each[0] + TILE_X * each[1]) + 8 * 32)
