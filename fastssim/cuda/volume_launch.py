"""From a plan of volumes and arrays on a GPU to the kernels of `volume.cu`; see `fastssim.cuda.launch`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastssim.cuda import geometry
from fastssim.cuda.geometry import BLOCKS, LEAST_ROWS, REGISTERS, SHARED_BYTES, Launch, Task, described, reduce
from fastssim.cuda.instances import TYPES, instance
from fastssim.window import rounded

if TYPE_CHECKING:
    from fastssim.cuda.device import Device
    from fastssim.plan import Plan

WINDOWS, POSITIONS, PIXELS = range(3)  # phases, as volume.cu has them
THREADS = 256
TILE_X = 32  # columns of a block
_OFFSETS = ("z", "y", "x")


def march(
    device: Device,
    plan: Plan,
    x: Any,  # (N, C, D, H, W)
    y: Any,  # the same
    *,
    scale: float = 1.0,
    upstream: Any = None,
    **outputs: Any,
) -> Any:
    """Launch what is asked for on a device; return the sums of SSIM over each volume's windows, (N, C), float64.

    `outputs`: `ssim_map` (N, C, D', H', W'), `grad_x` and `grad_y`, each contiguous, each may be left out.

    Raises
    ------
    NotImplementedError
        If the plan has a mask or takes integer pixels as fractions, or its window is too large for the kernel.
    """
    task = Task(
        device.dtype(x),
        device.dtype(y),
        gradients=("grad_x" in outputs) + ("grad_y" in outputs),
        upstream=upstream is not None,
        ssim_map="ssim_map" in outputs,
    )
    integers = any(name.startswith("uint") for name in (task.x, task.y))
    if plan.masked or (plan.fractions and integers):
        raise NotImplementedError(
            "the CUDA kernels of volumes take no mask, and integer pixels only as they stand: call x.cpu() first"
        )
    fields: dict[str, Any] = {"scale": scale}
    kept = []  # copies must outlive the launches
    for name, image in (("x", x), ("y", y), ("upstream", upstream)):
        if image is not None:
            one, strides = described(device, image)
            kept.append(one)
            item = device.itemsize(one)
            steps = zip(("image", "channel", "plane", "row", "column"), strides, (1, 1, 1, item, item), strict=True)
            fields |= {name: device.pointer(one), **{f"{axis}_{name}": step * unit for axis, step, unit in steps}}
    fields |= {name: device.pointer(out) for name, out in outputs.items()}
    launches = [phase(plan, task, WINDOWS)]
    sums = device.empty(x, (launches[0].grid,), "float64")
    fields["sums"] = device.pointer(sums)
    if task.gradients:
        maps = device.empty(x, (6, *plan.map_shape), plan.dtype)
        fields["maps"] = device.pointer(maps)
        launches.append(phase(plan, task, POSITIONS))
    if task.gradients and plan.padding not in {"valid", "zeros"}:
        folded = device.empty(x, (task.gradients, *plan.shape[:2], *plan.padded), plan.dtype)
        fields["folded"] = device.pointer(folded)
        launches.append(phase(plan, task, PIXELS))
    for launch in launches:
        device.run(x, launch, launch.argument(fields))
    volumes = math.prod(plan.shape[:2])
    last = reduce(volumes, launches[0].grid // volumes, "float64")
    totals = device.empty(x, plan.shape[:2], "float64")
    device.run(x, last, last.argument({"sums": device.pointer(sums), "out": device.pointer(totals)}))
    return totals


@lru_cache(maxsize=1024)
def phase(plan: Plan, task: Task, number: int) -> Launch:
    """Return one of the three kernels for a plan; `NotImplementedError` where a block cannot hold its window."""
    n, c, *lengths = plan.shape
    taps = [rounded(axis, plan.dtype) for axis in plan.taps]
    made = instance(
        "volume",
        PHASE=number,
        T="double" if plan.dtype == "float64" else "float",
        X=TYPES[task.x],
        Y=TYPES[task.y],
        **{f"TAPS_{axis.upper()}": len(along) for axis, along in zip(_OFFSETS, taps, strict=True)},
        THREADS=THREADS,
        GRADIENTS=task.gradients,
        UPSTREAM=task.upstream,
        MAP=task.ssim_map,
        PADDING=plan.padding.upper(),
        UNBIASED=plan.unbiased != 1,
    )
    words = 2 if plan.dtype == "float64" else 1
    if shared_bytes(made) > SHARED_BYTES or 4 * words * (len(taps[0]) - 1) > REGISTERS[plan.dtype]:
        sizes = " x ".join(str(len(axis)) for axis in taps)
        raise NotImplementedError(f"a window of {sizes} is too large for the CUDA kernels: call x.cpu() first")
    covered: tuple[int, ...] = plan.map_shape[2:]
    first: tuple[int, ...] = (0, 0, 0)
    if number != WINDOWS:
        covered = plan.padded
        if plan.padding == "zeros":  # nothing outside the volume takes a gradient
            covered, first = tuple(lengths), plan.pad
    tiles_y, tiles_x = -(-covered[1] // (THREADS // TILE_X)), -(-covered[2] // TILE_X)
    wanted = -(-BLOCKS // (n * c * tiles_y * tiles_x))
    segments = min(wanted, max(1, covered[0] // max(LEAST_ROWS, len(taps[0]))))
    parts = -(-math.prod(lengths) // THREADS)
    fields = {
        **{f"taps_{axis}": along for axis, along in zip(_OFFSETS, taps, strict=True)},
        **{f"windows_{axis}": length for axis, length in zip(_OFFSETS, plan.map_shape[2:], strict=True)},
        **{f"first_{axis}": place for axis, place in zip(_OFFSETS, first, strict=True)},
        **{f"covered_{axis}": length for axis, length in zip(_OFFSETS, covered, strict=True)},
        **dict(zip(("channels", "depth", "height", "width"), (c, *lengths), strict=True)),
        "windows": math.prod(plan.map_shape),
        "positions": n * c * math.prod(plan.padded),
        "segments": segments,
        "tiles_y": tiles_y,
        "tiles_x": tiles_x,
        "parts": parts,
        "c1": plan.c1,
        "c2": plan.c2,
        "spread": plan.unbiased / 2,
        "twice_spread": plan.unbiased,
        "scale": 1,
    }
    grid = n * c * (parts if number == PIXELS else segments * tiles_y * tiles_x)
    return geometry._launch(made, grid, THREADS, fields)  # noqa: SLF001  # one way to fill a kernel's structure


def shared_bytes(made: Any) -> int:
    """Shared memory of a block, as volume.cu declares it."""
    number = 8 if made["T"] == "double" else 4
    rows, width = made["THREADS"] // TILE_X + made["TAPS_Y"] - 1, TILE_X + made["TAPS_X"] - 1
    back = 2 + max(1, made["GRADIENTS"])
    each = {WINDOWS: (2, 4), POSITIONS: (back, back), PIXELS: (0, 0)}[made["PHASE"]]
    return int(rows * number * (width * each[0] + TILE_X * each[1]) + 8 * 32)
