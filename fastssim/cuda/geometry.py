"""From a plan to kernels: which instance, how many blocks, and the argument but for its pointers.

How a plane is cut depends on the plan alone, never on the device, so that sums come out the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastssim.cuda.instances import TYPES, Instance, instance
from fastssim.window import rounded

if TYPE_CHECKING:
    from fastssim.cuda.device import Device
    from fastssim.plan import Plan

THREADS = (64, 96, 128)  # of a block of the march: whichever computes the fewest columns twice
REDUCE_THREADS = 256
BLOCKS = 600  # wanted on a GPU: fewer leave large ones without work, more compute more rows twice
MOST_ROWS = 256  # of a block: the local mean that is taken off stays local
LEAST_ROWS = 16
REGISTERS = 176  # of 255 may hold partial sums
SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Task:
    """What is computed from a plan's two images, and the types of memory."""

    x: str
    y: str
    gradients: int = 0  # 1: to x; 2: to both
    upstream: bool = False
    ssim_map: bool = False


@dataclass(frozen=True)
class Launch:
    """One kernel, ready but for what differs from call to call."""

    instance: Instance
    grid: int
    block: int
    template: bytes

    def argument(self, **fields: Any) -> np.ndarray:
        """Return the kernel's structure, a NumPy array of one element, with pointers, strides and scale set."""
        argument = np.frombuffer(bytearray(self.template), self.instance.argument)
        for name, value in fields.items():
            argument[name] = value
        return argument


@lru_cache(maxsize=1024)
def march(plan: Plan, task: Task) -> Launch:
    """Return the march for a plan."""
    n, c, height, width = plan.shape
    taps_y, taps_x = len(plan.taps_y), len(plan.taps_x)
    number = "double" if plan.dtype == "float64" else "float"
    _, _, windows_y, windows_x = plan.map_shape
    rows, columns = (height, width) if task.gradients else (windows_y, windows_x)
    halo = taps_x - 1 if task.gradients else 0
    wide = _columns(task, taps_y, number)
    threads = min(THREADS, key=lambda count: (-(-columns // (count * wide - halo)) * count, -count))
    strips = -(-columns // (threads * wide - halo))
    segments = min(max(-(-BLOCKS // (n * c * strips)), -(-rows // MOST_ROWS)), max(1, rows // LEAST_ROWS))
    made = instance(
        "march",
        T=number,
        X=TYPES[task.x],
        Y=TYPES[task.y],
        TAPS_Y=taps_y,
        TAPS_X=taps_x,
        THREADS=threads,
        COLUMNS=wide,
        GRADIENTS=task.gradients,
        UPSTREAM=task.upstream,
        MAP=task.ssim_map,
        PADDING="VALID",
        UNBIASED=False,
        PIVOT_ROWS=8 if taps_y > 7 else max(1, taps_y // 3),
    )
    down = rounded(plan.taps_y, plan.dtype)
    argument = np.zeros(1, made.argument)
    for name, value in {
        "channels": c,
        "height": height,
        "width": width,
        "windows_y": windows_y,
        "windows_x": windows_x,
        "rows": rows,
        "columns": columns,
        "segments": segments,
        "strips": strips,
        "c1": plan.c1,
        "c2": plan.c2,
        "spread": 0.5,
        "twice_spread": 1,
        "scale": 1,
        "taps_y": down,
        "taps_x": rounded(plan.taps_x, plan.dtype),
        "gone_in": np.cumsum(np.array(down, np.float64)),
    }.items():
        argument[name] = value
    return Launch(made, n * c * segments * strips, threads, argument.tobytes())


def _columns(task: Task, taps_y: int, number: str) -> int:
    """Columns that one thread computes: as many as its registers hold partial sums for; 0 if not one."""
    maps = 4 + (task.gradients + 2 if task.gradients else 0)
    words = maps * (taps_y - 1) * (2 if number == "double" else 1)
    return 2 if 2 * words <= REGISTERS and number == "float" else 1 if words <= REGISTERS else 0


@lru_cache(maxsize=1024)
def reduce(results: int, parts: int, scale: float, out: str) -> Launch:
    """Return the sum of blocks' sums [results, parts], times scale."""
    made = instance("reduce", OUT=TYPES[out], THREADS=REDUCE_THREADS)
    argument = np.zeros(1, made.argument)
    argument["parts"], argument["scale"] = parts, scale
    return Launch(made, results, REDUCE_THREADS, argument.tobytes())


def steps(name: str, strides: tuple[int, ...], itemsize: int) -> dict[str, int]:
    """Fields of the march for an image's strides, given in elements: (N, C, H, W)."""
    image, channel, row, column = strides
    return {
        f"image_{name}": image,
        f"channel_{name}": channel,
        f"row_{name}": row * itemsize,
        f"column_{name}": column * itemsize,
    }


def described(device: Device, image: Any) -> tuple[Any, tuple[int, ...]]:
    """Return an image and its strides; a contiguous copy where a row or column step is too long for the kernel."""
    strides = device.strides(image)
    longest = max(abs(step) for step in strides[2:]) * device.itemsize(image)
    if longest >= 2**31:
        image = device.contiguous(image)
        strides = device.strides(image)
    return image, strides
