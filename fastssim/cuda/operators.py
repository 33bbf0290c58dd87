"""The operators of `fastssim.autograd` on a GPU: everything stays there, numbers of windows and quotients, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastssim.autograd import arithmetic_dtype, empty_gradients, plan_of, spread
from fastssim.cuda import launch
from fastssim.cuda.launch import Reduction

if TYPE_CHECKING:
    from torch import Tensor

    from fastssim.plan import Plan

_OVER = {"channel": "plane", "image": "image", "mean": "all", "sum": "all"}


def _reduction(plan: Plan, reduction: str, alpha: float | None) -> Reduction:
    """Reduced SSIM, or with alpha the loss alpha L1 + (1 - alpha)(1 - SSIM)."""
    plain = Reduction(
        _OVER[reduction], plan.dtype, windows=plan.count(reduction), counted=plan.masked and reduction != "sum"
    )
    if alpha is None:
        return plain
    return plain._replace(offset=1 - alpha, scale=alpha - 1, l1=alpha / plan.pixels(reduction) if alpha else None)


def ssim_mean(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> Tensor:
    """SSIM reduced over windows."""
    *problem, reduction, alpha = rest
    plan = plan_of(x, y, mask, *problem)
    value: Tensor = launch.value(plan, x, y, mask, _reduction(plan, reduction, alpha)).value
    return value


def ssim_map(x: Tensor, y: Tensor, mask: Tensor | None, *problem: Any) -> Tensor:
    """SSIM of every window."""
    plan = plan_of(x, y, mask, *problem)
    out = x.new_empty(plan.map_shape, dtype=arithmetic_dtype(x, y))
    launch.ssim_map(plan, x, y, mask, out)
    return out


def ssim_mean_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """SSIM reduced over windows, and its gradient."""
    *problem, reduction, alpha, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = empty_gradients(x, y, both=both)
    result = _reduction(plan, reduction, alpha)
    scale = result.scale if result.counted else result.scale / result.windows
    value, counts = launch.value_and_gradient(plan, x, y, mask, scale, grad_x, grad_y, l1=result.l1, reduction=result)
    if counts is not None:  # only now is it known how many windows count
        for gradient in (grad_x, grad_y):
            if gradient is not None:
                gradient.div_(spread(counts.clamp(min=1), gradient))
    return value, grad_x, grad_y


def one_scale(
    plan: Plan, x: Tensor, y: Tensor, gradients: list[Tensor], next_shape: tuple[int, ...] | None
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """One of MS-SSIM's scales, as `fastssim.scales.over_scales` wants it."""
    result = _reduction(plan, "channel", None)
    halves = None
    if next_shape is not None:
        dtype = arithmetic_dtype(x, y)
        halves = x.new_empty(next_shape, dtype=dtype), x.new_empty(next_shape, dtype=dtype)
    if gradients:
        grad_x, grad_y = (*gradients, None)[:2]
        mean = launch.value_and_gradient(
            plan, x, y, None, 1 / result.windows, grad_x, grad_y, reduction=result, halves=halves
        )
    else:
        mean = launch.value(plan, x, y, None, result, halves)
    return mean.value, halves


def ssim_map_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """Gradient of a map of SSIM, given the gradient by the map."""
    *problem, upstream, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = empty_gradients(x, y, both=both)
    launch.map_gradient(plan, x, y, mask, upstream, grad_x, grad_y)
    return grad_x, grad_y
