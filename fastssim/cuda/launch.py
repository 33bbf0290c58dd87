"""From a plan and arrays on a GPU to the kernels: torch tensors and CuPy arrays, on the current stream, without a copy.

Nothing here waits for the GPU, fills memory or copies from or to the host, so that a training step can be captured in
a CUDA graph once a first call has compiled the kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fastssim.cuda import geometry
from fastssim.cuda.device import device_of
from fastssim.cuda.geometry import Task

if TYPE_CHECKING:
    from fastssim.cuda.device import Device
    from fastssim.plan import Plan


class Mean(NamedTuple):
    """How the sums of planes are brought together: their sum over `over`, times `scale`, as `dtype`."""

    over: str = "plane"  # "plane": (N, C); "image": (N,); "all": ()
    scale: float = 1.0
    dtype: str = "float64"


_SUMS = Mean()


def value(plan: Plan, x: Any, y: Any, *, mean: Mean = _SUMS) -> Any:
    """Sum of SSIM over the windows of each plane, (N, C), float64; or as `mean` says."""
    return march(device_of(x), plan, x, y, mean=mean)


def ssim_map(plan: Plan, x: Any, y: Any, out: Any) -> None:
    """Write the SSIM map, `out` (N, C, H', W') contiguous, of x's dtype."""
    march(device_of(x), plan, x, y, ssim_map=out)


def value_and_gradient(
    plan: Plan, x: Any, y: Any, scale: float, grad_x: Any, grad_y: Any | None, *, mean: Mean = _SUMS
) -> Any:
    """As `value`, and in the same march write scale * d(sum)/dx and, unless None, scale * d(sum)/dy; contiguous."""
    return march(device_of(x), plan, x, y, scale=scale, grad_x=grad_x, grad_y=grad_y, mean=mean)


def map_gradient(plan: Plan, x: Any, y: Any, upstream: Any, grad_x: Any, grad_y: Any | None) -> None:
    """Write the gradient of sum(upstream * SSIM map) by x and, unless None, by y; upstream (N, C, H', W') as x."""
    march(device_of(x), plan, x, y, upstream=upstream, grad_x=grad_x, grad_y=grad_y)


def march(
    device: Device,
    plan: Plan,
    x: Any,
    y: Any,
    *,
    scale: float = 1.0,
    upstream: Any = None,
    ssim_map: Any = None,
    grad_x: Any = None,
    grad_y: Any = None,
    mean: Mean | None = None,
) -> Any:
    """Launch what is asked for on a device; return the sums where `mean` says which.

    Raises
    ------
    NotImplementedError
        If the plan has a mask, or takes integer pixels as fractions.
    """
    integers = any(device.dtype(image).startswith("uint") for image in (x, y))
    lacking = {"mask": plan.masked, "integer pixels as fractions of their range": plan.fractions and integers}
    for option, asked in lacking.items():
        if asked:
            raise NotImplementedError(f"the CUDA kernels have no {option} yet: compute on the CPU, call x.cpu() first")
    task = Task(
        device.dtype(x),
        device.dtype(y),
        gradients=(grad_x is not None) + (grad_y is not None),
        upstream=upstream is not None,
        ssim_map=ssim_map is not None,
    )
    if task.gradients == 2 and not geometry.march(plan, task) and geometry.march(plan, replace(task, gradients=1)):
        # Not enough registers for both: one after the other, for SSIM is symmetric.
        march(device, plan, y, x, scale=scale, upstream=upstream, grad_x=grad_y)
        return march(device, plan, x, y, scale=scale, upstream=upstream, ssim_map=ssim_map, grad_x=grad_x, mean=mean)
    fields: dict[str, Any] = {}
    kept = []  # copies must outlive the launches
    for name, image in (("x", x), ("y", y), ("upstream", upstream)):
        if image is not None:
            described, strides = geometry.described(device, image)
            kept.append(described)
            fields[name] = device.pointer(described)
            fields.update(geometry.steps(name, strides, device.itemsize(described)))
    for name, out in (("ssim_map", ssim_map), ("grad_x", grad_x), ("grad_y", grad_y)):
        if out is not None:
            fields[name] = device.pointer(out)
    first = geometry.march(plan, task) or geometry.windows(plan, task)
    sums = device.empty(x, (first.grid,), "float64")
    fields.update(sums=device.pointer(sums), scale=scale)
    direct = first.instance.kernel == "windows"
    if direct and task.gradients:
        maps = device.empty(x, (6, *plan.map_shape), plan.dtype)
        fields["maps"] = device.pointer(maps)
    device.run(x, first, first.argument(fields))
    if direct and task.gradients:
        second = geometry.pixels(plan, task)
        device.run(x, second, second.argument(fields))
    if mean is None:
        return None
    n, c = plan.shape[:2]
    shape = {"plane": (n, c), "image": (n,), "all": ()}[mean.over]
    results = n * c if mean.over == "plane" else n if mean.over == "image" else 1
    last = geometry.reduce(results, first.grid // results, mean.scale, mean.dtype)
    out = device.empty(x, shape, mean.dtype)
    device.run(x, last, last.argument({"sums": device.pointer(sums), "out": device.pointer(out)}))
    return out
