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
BOX_THREADS = (128, 256, 512)  # of a block that goes by running sums
DIRECT_THREADS = 128  # of a block that computes element by element
REDUCE_THREADS = 256
BLOCKS = 600  # wanted on a GPU: fewer leave large ones without work, more compute more rows twice
MOST_ROWS = 256  # of a block: the local mean that is taken off stays local
LEAST_ROWS = 16
REGISTERS = {"float32": 160, "float64": 144}  # of 255 may hold partial sums; beyond, some compiler spills
MASK_REGISTERS = 10  # more that a mask takes
SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Task:
    """What is computed from a plan's two images, and the types of memory."""

    x: str
    y: str
    gradients: int = 0  # 1: to x; 2: to both
    upstream: bool = False
    ssim_map: bool = False
    mask: str | None = None  # dtype of the weights
    l1: bool = False  # |x - y|, too
    halves: bool = False  # the means of 2 x 2 pixels of both images, too


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


def first(plan: Plan, task: Task) -> Launch:
    """Return the fastest kernel on images that computes a task; a gradient needs a second after `boxes`, `windows`."""
    return march(plan, task) or boxes(plan, task) or windows(plan, task)


@lru_cache(maxsize=1024)
def march(plan: Plan, task: Task) -> Launch | None:
    """Return the march for a plan; nothing where it does not fit, and `boxes` or `windows` are needed."""
    n, c, height, width = plan.shape
    taps_y, taps_x = len(plan.taps_y), len(plan.taps_x)
    padding, (pad_y, pad_x) = plan.padding, plan.pad
    wide = _columns(task, taps_y, plan.dtype) if min(taps_y, taps_x) >= 3 else 0
    halo = taps_x - 1 if task.gradients else 0
    possible = {
        count: instance("march", **options_of(plan, task, count), HALVED=task.halves, COLUMNS=wide)
        for count in THREADS
        if wide and count * wide - halo >= 2 * taps_x
    }
    possible = {count: made for count, made in possible.items() if _shared_bytes(made) <= SHARED_BYTES}
    if not possible or (padding != "valid" and (height <= pad_y or width <= pad_x)):
        return None
    first_y = first_x = 0
    _, _, rows, columns = plan.map_shape
    if task.gradients and padding == "zeros":  # nothing outside the image takes a gradient
        first_y, first_x, rows, columns = pad_y, pad_x, height, width
    elif task.gradients or task.halves:
        rows, columns = (height + 2 * pad_y, width + 2 * pad_x) if task.gradients else (height, width)
    threads = min(possible, key=lambda count: (-(-columns // (count * wide - halo)) * count, -count))
    strips = -(-columns // (threads * wide - halo))
    wanted = max(-(-BLOCKS // (n * c * strips)), -(-rows // MOST_ROWS))
    segments = min(wanted, max(1, rows // max(LEAST_ROWS, taps_y)))
    fields = {
        **fields_of(plan),
        "first_y": first_y,
        "first_x": first_x,
        "rows": rows,
        "columns": columns,
        "segments": segments,
        "strips": strips,
    }
    return launched(possible[threads], n * c * segments * strips, threads, fields)


@lru_cache(maxsize=1024)
def windows(plan: Plan, task: Task) -> Launch:
    """Return the kernel that computes every window of images or volumes by the definition."""
    made = instance("windows", **options_of(plan, task, DIRECT_THREADS))
    return _by_the_element(made, plan, plan.map_shape)


@lru_cache(maxsize=1024)
def pixels(plan: Plan, task: Task) -> Launch:
    """Return the kernel that gathers the gradient from what `windows` wrote."""
    made = instance("pixels", **options_of(plan, task, DIRECT_THREADS))
    return _by_the_element(made, plan, plan.shape)


@lru_cache(maxsize=1024)
def halve(plan: Plan, task: Task) -> Launch:
    """Return the kernel that takes the means of 2 x 2 pixels where no march does."""
    n, c, height, width = plan.shape
    made = instance("halve", **options_of(plan, task, DIRECT_THREADS))
    return _by_the_element(made, plan, (n, c, height // 2, width // 2))


@lru_cache(maxsize=1024)
def deliver(shape: tuple[int, int, int, int], dtype: str, scales: int, coarser: int) -> Launch:
    """Return the kernel that adds up the gradients of MS-SSIM's scales; `coarser`: elements of all but the finest."""
    n, c, height, width = shape
    made = instance("deliver", T=TYPES[dtype], THREADS=DIRECT_THREADS)
    parts = -(-(-(-height // 2) * -(-width // 2)) // DIRECT_THREADS)
    fields = {"planes": n * c, "end": coarser, "scales": scales, "height": height, "width": width, "parts": parts}
    return launched(made, n * c * parts, DIRECT_THREADS, fields)


@lru_cache(maxsize=1024)
def boxes(plan: Plan, task: Task) -> Launch | None:
    """Return the kernel that goes by running sums; nothing where the window's weights differ or it does not fit."""
    flat = len(set(plan.taps_y)) == 1 and len(set(plan.taps_x)) == 1
    folded = task.gradients > 0 and plan.padding not in {"valid", "zeros"}
    if not flat or folded or plan.masked or task.l1 or len(plan.taps_x) > BOX_THREADS[-1] // 2:
        return None
    return _by_the_strip("boxes", plan, task, plan.map_shape)


@lru_cache(maxsize=1024)
def boxes_back(plan: Plan, task: Task) -> Launch:
    """Return the kernel that takes the gradient from what `boxes` wrote."""
    return _by_the_strip("boxes_back", plan, task, plan.shape)


def _by_the_strip(kernel: str, plan: Plan, task: Task, shape: tuple[int, ...]) -> Launch:
    """One block for a strip of columns and a segment of rows of `shape`, and threads for the columns beside it."""
    n, c, height, width = shape
    taps_y, taps_x = len(plan.taps_y), len(plan.taps_x)
    threads = next(count for count in BOX_THREADS if 2 * taps_x <= count)
    strips = -(-width // (threads - taps_x + 1))
    segments = min(-(-BLOCKS // (n * c * strips)), max(1, height // max(LEAST_ROWS, 4 * taps_y)))
    fields = {**fields_of(plan), "windows": math.prod(plan.map_shape), "segments": segments, "strips": strips}
    return launched(instance(kernel, **options_of(plan, task, threads)), n * c * segments * strips, threads, fields)


def _by_the_element(made: Instance, plan: Plan, shape: tuple[int, ...]) -> Launch:
    """One thread for each element of `shape`, no block on two channels."""
    n, c, *lengths = shape
    parts = -(-math.prod(lengths) // DIRECT_THREADS)
    fields = {**fields_of(plan), "windows": math.prod(plan.map_shape), "parts": parts}
    return launched(made, n * c * parts, DIRECT_THREADS, fields)


def launched(made: Instance, grid: int, block: int, fields: dict[str, Any]) -> Launch:
    """Write the fields that the kernel has into its structure."""
    argument = np.zeros(1, made.argument)
    names = made.argument.names or ()
    for name, given in fields.items():
        if name in names:
            argument[name] = given
    return Launch(made, grid, block, argument.tobytes())


def options_of(plan: Plan, task: Task, threads: int) -> dict[str, int | str]:
    """Options that all kernels of SSIM have; an image is a volume of one plane."""
    return {
        "T": "double" if plan.dtype == "float64" else "float",
        "X": TYPES[task.x],
        "Y": TYPES[task.y],
        "W": TYPES[task.mask or "uint8"],
        "TAPS_Z": max(1, len(plan.taps_z)),
        "TAPS_Y": len(plan.taps_y),
        "TAPS_X": len(plan.taps_x),
        "THREADS": threads,
        "GRADIENTS": task.gradients,
        "UPSTREAM": task.upstream,
        "MAP": task.ssim_map,
        "PADDING": plan.padding.upper(),
        "UNBIASED": plan.unbiased != 1,
        "FRACTIONS": plan.fractions and any(dtype.startswith("uint") for dtype in (task.x, task.y)),
        "MASKED": plan.masked,
        "L1": task.l1,
    }


def fields_of(plan: Plan) -> dict[str, Any]:
    """Fields that the kernels' structures have in common; an image is a volume of one plane."""
    _, channels, *lengths = plan.shape
    return {
        "channels": channels,
        **dict(zip(("depth", "height", "width"), (1, *lengths)[-3:], strict=True)),
        **dict(zip(("windows_z", "windows_y", "windows_x"), (1, *plan.map_shape[2:])[-3:], strict=True)),
        "c1": plan.c1,
        "c2": plan.c2,
        "spread": plan.unbiased / 2,
        "twice_spread": plan.unbiased,
        "scale": 1,
        "l1": 0,
        "taps_z": rounded(plan.taps_z or (1.0,), plan.dtype),
        "taps_y": rounded(plan.taps_y, plan.dtype),
        "taps_x": rounded(plan.taps_x, plan.dtype),
    }


def _columns(task: Task, taps_y: int, dtype: str) -> int:
    """Columns that one thread computes: as many as its registers hold partial sums for; 0 if not one."""
    maps = 4 + (task.mask is not None) + (task.gradients + 2 if task.gradients else 0)
    words = maps * (taps_y - 1) * (2 if dtype == "float64" else 1)
    most = 2 if dtype == "float32" else 1
    return min(most, (REGISTERS[dtype] - (MASK_REGISTERS if task.mask else 0)) // words)


def march_group(made: Instance) -> int:
    """Return how many windows share a pivot on the way down, see march.cu; 1 in float64, which has none."""
    return 1 if made["T"] == "double" else made["TAPS_Y"] // 2 + 1


def _shared_bytes(made: Instance) -> int:
    """Shared memory of a march, as march.cu declares it."""
    number = 8 if made["T"] == "double" else 4
    row = made["THREADS"] * made["COLUMNS"]
    images = max(1, made["GRADIENTS"])
    pixel = 3 if made["MASKED"] else 2
    ring = (made["TAPS_Y"] + 2 if made["GRADIENTS"] else 2) * (row + made["TAPS_X"] - 1) * pixel
    back = (2 * row * (2 + images) + row * images) if made["GRADIENTS"] else 0
    groups = 1 + -(-(made["TAPS_Y"] - 1) // march_group(made))  # under way at a time
    pivots = 2 * made["THREADS"] * groups if made["GRADIENTS"] and number == 4 else 0
    return int(number * (ring + back + pivots + 32) + 8 * 32)


@lru_cache(maxsize=1024)
def reduce(
    results: int, parts: int, out: str, windows: float = 1, offset: float = 0, scale: float = 1, l1: float = 0
) -> Launch:
    """Return the kernel that brings blocks' sums [results, parts] together; see reduce.cu."""
    made = instance("reduce", OUT=TYPES[out], THREADS=REDUCE_THREADS)
    fields = {"parts": parts, "windows": windows, "offset": offset, "scale": scale, "l1": l1}
    return launched(made, results, REDUCE_THREADS, fields)


def steps(name: str, strides: tuple[int, ...], itemsize: int) -> dict[str, int]:
    """Fields of the kernels for an image's strides, given in elements: (N, C, H, W) or (N, C, D, H, W)."""
    image, channel, *plane, row, column = strides
    return {
        f"image_{name}": image,
        f"channel_{name}": channel,
        f"plane_{name}": plane[0] if plane else 0,
        f"row_{name}": row * itemsize,
        f"column_{name}": column * itemsize,
    }


def described(device: Device, image: Any) -> tuple[Any, tuple[int, ...]]:
    """Return an image and its strides; a contiguous copy where a row or column step is too long for the kernel."""
    strides = device.strides(image)
    longest = max(abs(step) for step in strides[-2:]) * device.itemsize(image)
    if longest >= 2**31:
        image = device.contiguous(image)
        strides = device.strides(image)
    return image, strides
