"""From a plan to kernels: which instance, how many blocks, and the argument but for its pointers.

How a plane is cut depends on the plan alone, never on the device, so that sums come out the same to the last bit.
"""

from __future__ import annotations

import math
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
DIRECT_THREADS = 128  # of a block that computes element by element
REDUCE_THREADS = 256
BLOCKS = 600  # wanted on a GPU: fewer leave large ones without work, more compute more rows twice
MOST_ROWS = 256  # of a block: the local mean that is taken off stays local
LEAST_ROWS = 16
REGISTERS = {"float32": 160, "float64": 144}  # of 255 may hold partial sums; beyond, some compiler spills
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

    def argument(self, fields: dict[str, Any]) -> np.ndarray:
        """Return the kernel's structure, a NumPy array of one element, with those of `fields` set that it has.

        Called at every launch: a NumPy field would take ten times as long as `struct`.
        """
        argument = bytearray(self.template)
        places = self.instance.places
        for name, given in fields.items():
            if name in places:
                number, offset = places[name]
                number.pack_into(argument, offset, given)
        return np.frombuffer(argument, self.instance.argument)


@lru_cache(maxsize=1024)
def march(plan: Plan, task: Task) -> Launch | None:
    """Return the march for a plan; nothing where it does not fit, and the definition, window by window, is needed."""
    n, c, height, width = plan.shape
    taps_y, taps_x = len(plan.taps_y), len(plan.taps_x)
    padding, (pad_y, pad_x) = plan.padding, plan.pad
    wide = _columns(task, taps_y, plan.dtype) if min(taps_y, taps_x) >= 3 else 0
    halo = taps_x - 1 if task.gradients else 0
    possible = [count for count in THREADS if wide and count * wide - halo >= 2 * taps_x]
    if not possible or (padding != "valid" and (height <= pad_y or width <= pad_x)):
        return None
    first_y = first_x = 0
    _, _, rows, columns = plan.map_shape
    if task.gradients and padding == "zeros":  # nothing outside the image takes a gradient
        first_y, first_x, rows, columns = pad_y, pad_x, height, width
    elif task.gradients:
        rows, columns = height + 2 * pad_y, width + 2 * pad_x
    threads = min(possible, key=lambda count: (-(-columns // (count * wide - halo)) * count, -count))
    strips = -(-columns // (threads * wide - halo))
    wanted = max(-(-BLOCKS // (n * c * strips)), -(-rows // MOST_ROWS))
    segments = min(wanted, max(1, rows // max(LEAST_ROWS, taps_y)))
    made = instance(
        "march",
        **_options(plan, task, threads),
        COLUMNS=wide,
        PIVOT_ROWS=4 if taps_y > 7 else max(1, taps_y // 3),
    )
    if _shared_bytes(made) > SHARED_BYTES:
        return None
    fields = {
        **_fields(plan),
        "first_y": first_y,
        "first_x": first_x,
        "rows": rows,
        "columns": columns,
        "segments": segments,
        "strips": strips,
        "gone_in": np.cumsum(np.array(rounded(plan.taps_y, plan.dtype), np.float64)),
    }
    return _launch(made, n * c * segments * strips, threads, fields)


@lru_cache(maxsize=1024)
def windows(plan: Plan, task: Task) -> Launch:
    """Return the kernel that computes every window by the definition."""
    made = instance("windows", **_options(plan, task, DIRECT_THREADS))
    return _by_the_element(made, plan, plan.map_shape)


@lru_cache(maxsize=1024)
def pixels(plan: Plan, task: Task) -> Launch:
    """Return the kernel that gathers the gradient from what `windows` wrote."""
    made = instance("pixels", **_options(plan, task, DIRECT_THREADS))
    return _by_the_element(made, plan, plan.shape)


def _by_the_element(made: Instance, plan: Plan, shape: tuple[int, ...]) -> Launch:
    """One thread for each element of `shape`, no block on two planes."""
    n, c, height, width = shape
    parts = -(-height * width // DIRECT_THREADS)
    fields = {**_fields(plan), "windows": math.prod(plan.map_shape), "parts": parts}
    return _launch(made, n * c * parts, DIRECT_THREADS, fields)


def _launch(made: Instance, grid: int, block: int, fields: dict[str, Any]) -> Launch:
    """Write the fields that the kernel has into its structure."""
    argument = np.zeros(1, made.argument)
    names = made.argument.names or ()
    for name, given in fields.items():
        if name in names:
            argument[name] = given
    return Launch(made, grid, block, argument.tobytes())


def _options(plan: Plan, task: Task, threads: int) -> dict[str, int | str]:
    """Options that all kernels on images have."""
    return {
        "T": "double" if plan.dtype == "float64" else "float",
        "X": TYPES[task.x],
        "Y": TYPES[task.y],
        "TAPS_Y": len(plan.taps_y),
        "TAPS_X": len(plan.taps_x),
        "THREADS": threads,
        "GRADIENTS": task.gradients,
        "UPSTREAM": task.upstream,
        "MAP": task.ssim_map,
        "PADDING": plan.padding.upper(),
        "UNBIASED": plan.unbiased != 1,
    }


def _fields(plan: Plan) -> dict[str, Any]:
    """Fields that the kernels' structures have in common."""
    _, c, height, width = plan.shape
    _, _, windows_y, windows_x = plan.map_shape
    return {
        "channels": c,
        "height": height,
        "width": width,
        "windows_y": windows_y,
        "windows_x": windows_x,
        "c1": plan.c1,
        "c2": plan.c2,
        "spread": plan.unbiased / 2,
        "twice_spread": plan.unbiased,
        "scale": 1,
        "taps_y": rounded(plan.taps_y, plan.dtype),
        "taps_x": rounded(plan.taps_x, plan.dtype),
    }


def _columns(task: Task, taps_y: int, dtype: str) -> int:
    """Columns that one thread computes: as many as its registers hold partial sums for; 0 if not one."""
    maps = 4 + (task.gradients + 2 if task.gradients else 0)
    words = maps * (taps_y - 1) * (2 if dtype == "float64" else 1)
    most = 2 if dtype == "float32" else 1
    return min(most, REGISTERS[dtype] // words)


def _shared_bytes(made: Instance) -> int:
    """Shared memory of a march, as march.cu declares it."""
    number = 8 if made["T"] == "double" else 4
    row = made["THREADS"] * made["COLUMNS"]
    images = max(1, made["GRADIENTS"])
    ring = (made["TAPS_Y"] + 2 if made["GRADIENTS"] else 2) * (row + made["TAPS_X"] - 1) * 2
    back = (2 * row * (2 + images) + row * images) if made["GRADIENTS"] else 0
    return int(number * (ring + back + 32) + 8 * 32)


@lru_cache(maxsize=1024)
def reduce(results: int, parts: int, scale: float, out: str) -> Launch:
    """Return the sum of blocks' sums [results, parts], times scale."""
    made = instance("reduce", OUT=TYPES[out], THREADS=REDUCE_THREADS)
    return _launch(made, results, REDUCE_THREADS, {"parts": parts, "scale": scale})


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
