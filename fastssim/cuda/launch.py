"""From a plan and arrays on a GPU to the kernels: torch tensors and CuPy arrays, on the current stream, without a copy.

Images (N, C, H, W) and volumes (N, C, D, H, W) alike: a plan knows which.

Nothing here waits for the GPU, fills memory or copies from or to the host, so that a training step can be captured in
a CUDA graph once a first call has compiled the kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fastssim.cuda import geometry, volume_geometry
from fastssim.cuda.device import device_of
from fastssim.cuda.geometry import Launch, Task

if TYPE_CHECKING:
    from fastssim.cuda.device import Device
    from fastssim.plan import Plan


class Reduction(NamedTuple):
    """How planes' sums are brought together: offset + scale * S / windows + l1 * sum|x - y|, S the sum of SSIM."""

    over: str = "plane"  # "plane": (N, C); "image": (N,); "all": ()
    dtype: str = "float64"
    windows: float = 1.0
    counted: bool = False  # under a mask: divide by the windows that count instead, and return how many
    offset: float = 0.0
    scale: float = 1.0
    l1: float | None = None


class Reduced(NamedTuple):
    """What came out, and how many windows counted where it was divided by that; both of the reduction's shape."""

    value: Any
    counts: Any


_SUMS = Reduction()


def value(
    plan: Plan,
    x: Any,
    y: Any,
    mask: Any = None,
    reduction: Reduction = _SUMS,
    halves: tuple[Any, Any] | None = None,
) -> Reduced:
    """Bring the SSIM of all windows together as `reduction` says.

    And, in the same march, write the means of 2 x 2 pixels of x and y to `halves`, (N, C, H // 2, W // 2), contiguous,
    of the plan's dtype.
    """
    return march(device_of(x), plan, x, y, mask, reduction=reduction, halves=halves)


def ssim_map(plan: Plan, x: Any, y: Any, mask: Any, out: Any) -> None:
    """Write the SSIM map, `out` (N, C, H', W') contiguous, of the plan's dtype."""
    march(device_of(x), plan, x, y, mask, ssim_map=out)


def value_and_gradient(
    plan: Plan,
    x: Any,
    y: Any,
    mask: Any,
    scale: float,
    grad_x: Any,
    grad_y: Any | None,
    *,
    l1: float | None = None,
    reduction: Reduction = _SUMS,
    halves: tuple[Any, Any] | None = None,
) -> Reduced:
    """As `value`, and in the same march write the gradient of scale * sum(SSIM) + l1 * sum|x - y|.

    To x and, unless None, to y; contiguous, of the plan's dtype.
    """
    return march(
        device_of(x), plan, x, y, mask, scale=scale, l1=l1, grad_x=grad_x, grad_y=grad_y, reduction=reduction,
        halves=halves,
    )  # fmt: skip


def map_gradient(plan: Plan, x: Any, y: Any, mask: Any, upstream: Any, grad_x: Any, grad_y: Any | None) -> None:
    """Write the gradient of sum(upstream * SSIM map) by x and, unless None, by y; all of the plan's dtype."""
    march(device_of(x), plan, x, y, mask, upstream=upstream, grad_x=grad_x, grad_y=grad_y)


def deliver(gradient: Any, coarser: Any, upstream: Any) -> None:
    """Turn the gradient of the finest of MS-SSIM's scales into that of all, see deliver.cu.

    `gradient` (N, C, H, W); `coarser`, those of the other scales one behind the other; `upstream` (scales, N, C); all
    contiguous and of one dtype.
    """
    add_up(device_of(gradient), gradient, coarser, upstream)


def add_up(device: Device, gradient: Any, coarser: Any, upstream: Any) -> None:
    """As `deliver`, on a device."""
    count = math.prod(coarser.shape)
    made = geometry.deliver(tuple(gradient.shape), device.dtype(gradient), upstream.shape[0], count)
    arrays = {"gradient": gradient, "coarser": coarser, "upstream": upstream}
    fields = {name: device.pointer(array) for name, array in arrays.items()}
    device.run(gradient, made, made.argument(fields))


def march(
    device: Device,
    plan: Plan,
    x: Any,
    y: Any,
    mask: Any = None,
    *,
    scale: float = 1.0,
    l1: float | None = None,
    upstream: Any = None,
    ssim_map: Any = None,
    grad_x: Any = None,
    grad_y: Any = None,
    reduction: Reduction | None = None,
    halves: tuple[Any, Any] | None = None,
) -> Reduced:
    """Launch what is asked for on a device."""
    task = Task(
        device.dtype(x),
        device.dtype(y),
        gradients=(grad_x is not None) + (grad_y is not None),
        upstream=upstream is not None,
        ssim_map=ssim_map is not None,
        mask=None if mask is None else device.dtype(mask),
        l1=l1 is not None or (reduction is not None and reduction.l1 is not None),
        halves=halves is not None,
    )
    of = _march_of(plan)
    if task.gradients == 2 and not of.march(plan, task) and of.march(plan, replace(task, gradients=1)):
        # Not enough room in a block for both: one after the other, for SSIM is symmetric.
        march(device, plan, y, x, mask, scale=scale, l1=l1, upstream=upstream, grad_x=grad_y)
        return march(
            device, plan, x, y, mask, scale=scale, l1=l1, upstream=upstream, ssim_map=ssim_map, grad_x=grad_x,
            reduction=reduction, halves=halves,
        )  # fmt: skip
    fields: dict[str, Any] = {"scale": scale, "l1": l1 or 0.0}
    kept = []  # copies must outlive the launches
    for name, image in (("x", x), ("y", y), ("mask", mask), ("upstream", upstream)):
        if image is not None:
            described, strides = geometry.described(device, image)
            kept.append(described)
            fields[name] = device.pointer(described)
            fields.update(geometry.steps(name, strides, device.itemsize(described)))
    half_x, half_y = halves or (None, None)
    outs = {"ssim_map": ssim_map, "grad_x": grad_x, "grad_y": grad_y, "half_x": half_x, "half_y": half_y}
    for name, out in outs.items():
        if out is not None:
            fields[name] = device.pointer(out)
    kernels, between = _ready(plan, task)
    first = kernels[0]
    names = ["sums", *(["counted"] if plan.masked else []), *(["distances"] if task.l1 else [])]
    sums = device.empty(x, (len(names), first.grid), "float64")
    places = {name: device.pointer(sums) + 8 * first.grid * i for i, name in enumerate(names)}
    fields.update(places)
    for name, (shape, dtype) in between.items():
        handed_on = device.empty(x, shape, dtype)
        kept.append(handed_on)
        fields[name] = device.pointer(handed_on)
    for kernel in kernels:
        device.run(x, kernel, kernel.argument(fields))
    if reduction is None:
        return Reduced(None, None)
    return _reduced(device, plan, x, first.grid, places, reduction)


def _march_of(plan: Plan) -> Any:
    """Return the module that makes the march for images or that for volumes."""
    return volume_geometry if plan.taps_z else geometry


@lru_cache(maxsize=1024)
def _ready(plan: Plan, task: Task) -> tuple[list[Launch], dict[str, tuple[tuple[int, ...], str]]]:
    """Return the kernels that compute a task, in order, and the shapes and dtypes of what they hand on to one another.

    The first kernel's blocks leave the sums.
    """
    if plan.taps_z:
        kernels = list(volume_geometry.march(plan, task) or [geometry.windows(plan, task)])
    else:
        kernels = [geometry.first(plan, task)]
    first = kernels[0].instance.kernel
    between: dict[str, tuple[tuple[int, ...], str]] = {}
    if task.gradients and first == "boxes":
        kernels.append(geometry.boxes_back(plan, task))
        between["maps"] = (4, *plan.map_shape), "float64"
    elif task.gradients and first != "march":
        between["maps"] = (6, *plan.map_shape), plan.dtype
        if first == "windows":
            kernels.append(geometry.pixels(plan, task))
        elif volume_geometry.folds(plan):
            between["folded"] = (task.gradients, *plan.shape[:2], *plan.padded), plan.dtype
    if task.halves and first != "march":
        kernels.append(geometry.halve(plan, task))
    return kernels, between


def _reduced(
    device: Device, plan: Plan, like: Any, blocks: int, places: dict[str, int], reduction: Reduction
) -> Reduced:
    """Launch the kernel that brings the blocks' sums, at `places`, together."""
    n, c = plan.shape[:2]
    shape = {"plane": (n, c), "image": (n,), "all": ()}[reduction.over]
    results = n * c if reduction.over == "plane" else n if reduction.over == "image" else 1
    last = geometry.reduce(
        results, blocks // results, reduction.dtype, reduction.windows, reduction.offset, reduction.scale,
        reduction.l1 or 0.0,
    )  # fmt: skip
    out = device.empty(like, shape, reduction.dtype)
    fields = {"sums": places["sums"], "out": device.pointer(out)}
    counts = None
    if reduction.counted:
        counts = device.empty(like, shape, "float64")
        fields.update(counted=places["counted"], counts=device.pointer(counts))
    if reduction.l1 is not None:
        fields["distances"] = places["distances"]
    device.run(like, last, last.argument(fields))
    return Reduced(out, counts)
