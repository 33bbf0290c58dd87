"""SSIM as operators of torch, and its gradients.

The operators are opaque to torch (``torch.library``, no autograd formula), so a compiled training step calls them as
they are; the ``autograd.Function`` around them is plain Python that the compiler traces. Where the map is reduced, the
upstream gradient is one number per batch, image or channel: the gradient is computed with the value, in one pass, and
backward only scales it. Where the map itself is returned, backward computes again from x and y: nothing else is kept.

Each operator takes the images as they are, of any dtype and strides, and computes in float64 where one of them is, else
in float32; gradients come in that dtype and are rounded to the images' own when the upstream gradient is known.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.forward_ad import unpack_dual

from fastssim.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

_PROBLEM = (
    "Tensor x, Tensor y, Tensor? mask, float[] taps_z, float[] taps_y, float[] taps_x, float c1, float c2, str padding,"
    " float unbiased, bool fractions"  # taps_z: of volumes (N, C, D, H, W); empty for images (N, C, H, W)
)
_library = torch.library.Library("fastssim", "DEF")
# alpha: None for SSIM; else the loss alpha L1 + (1 - alpha)(1 - SSIM)
_library.define(f"ssim_mean({_PROBLEM}, str reduction, float? alpha) -> Tensor")
_library.define(f"ssim_map({_PROBLEM}) -> Tensor")
_library.define(f"ssim_mean_gradient({_PROBLEM}, str reduction, float? alpha, bool both) -> (Tensor, Tensor, Tensor)")
_library.define(f"ssim_map_gradient({_PROBLEM}, Tensor upstream, bool both) -> (Tensor, Tensor)")


@lru_cache(maxsize=1024)
def _plan(
    shape: torch.Size,
    dtype: torch.dtype,
    taps_z: tuple[float, ...],
    taps_y: tuple[float, ...],
    taps_x: tuple[float, ...],
    c1: float,
    c2: float,
    padding: str,
    unbiased: float,
    fractions: bool,
    masked: bool,
) -> Plan:
    name = "float64" if dtype == torch.float64 else "float32"
    return Plan(tuple(shape), name, taps_y, taps_x, c1, c2, padding, unbiased, masked, fractions, taps_z)


def _dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in {x.dtype, y.dtype} else torch.float32


def plan_of(x: Tensor, y: Tensor, mask: Tensor | None, taps_z: Any, taps_y: Any, taps_x: Any, *rest: Any) -> Plan:
    """Return the plan of an operator's problem."""
    return _plan(x.shape, _dtype(x, y), tuple(taps_z), tuple(taps_y), tuple(taps_x), *rest, mask is not None)


def reduced_shape(x: Tensor, reduction: str) -> tuple[int, ...]:
    """Shape of a reduction: of all, of each image, of each channel of each image."""
    return {"image": (x.shape[0],), "channel": (x.shape[0], x.shape[1])}.get(reduction, ())


def _gradients(x: Tensor, y: Tensor, *, both: bool) -> tuple[Tensor, Tensor]:
    """Memory for the gradients; the second is empty where only one is wanted."""
    dtype = _dtype(x, y)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape if both else (0,), dtype=dtype)


# ------------------------------------------------------------------------------------------------------------- CPU


@cache
def _launch(dims: int) -> Any:
    """Return the kernels' launch, or what stands for it where Numba's compiler is switched off."""
    from numba import config  # noqa: PLC0415  # loads Numba, at the first use

    if config.DISABLE_JIT:
        return import_module("fastssim.cpu.plain")
    return import_module({2: "fastssim.cpu.launch", 3: "fastssim.cpu.volume_launch"}[dims])


def _reduced(planes: Any, reduction: str) -> Any:
    """Add up what the planes hold, (N, C)."""
    return planes if reduction == "channel" else planes.sum(axis=1) if reduction == "image" else planes.sum()


def _value(plan: Plan, sums: Any, reduction: str, alpha: float | None) -> Tensor:
    """Reduced SSIM, or the loss with L1, from the planes' sums."""
    value = _reduced(sums.ssim, reduction)
    if plan.masked and reduction != "sum":
        count = _reduced(sums.counted, reduction)
        value = (value + (count == 0)) / (count + (count == 0))  # nothing to compare is no difference: 1
    else:
        value = value / plan.count(reduction)
    if alpha is not None:
        value = alpha * _reduced(sums.distance, reduction) / plan.pixels(reduction) + (1 - alpha) * (1 - value)
    dtype = getattr(torch, plan.dtype)
    return torch.as_tensor(value, dtype=dtype) if value.ndim else torch.scalar_tensor(float(value), dtype=dtype)


def _ssim_mean(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> Tensor:
    launch = _launch(x.ndim - 2)
    *problem, reduction, alpha = rest
    plan = plan_of(x, y, mask, *problem)
    return _value(plan, launch.value(plan, x, y, mask, distance=alpha is not None), reduction, alpha)


def _ssim_map(x: Tensor, y: Tensor, mask: Tensor | None, *problem: Any) -> Tensor:
    launch = _launch(x.ndim - 2)
    plan = plan_of(x, y, mask, *problem)
    out = torch.empty(plan.map_shape, dtype=_dtype(x, y))
    launch.ssim_map(plan, x, y, mask, out)
    return out


def _ssim_mean_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    launch = _launch(x.ndim - 2)
    *problem, reduction, alpha, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = _gradients(x, y, both=both)
    scale = 1.0 if plan.masked else 1 / plan.count(reduction)
    l1 = None
    if alpha is not None:
        scale, l1 = -(1 - alpha) * scale, alpha / plan.pixels(reduction)
    sums = launch.value_and_gradient(plan, x, y, mask, scale, grad_x, grad_y if both else None, l1=l1)
    if plan.masked and reduction != "sum":  # only now is it known how many windows count
        count = torch.as_tensor(_reduced(sums.counted, reduction)).clamp(min=1)
        for gradient in (grad_x, grad_y)[: 1 + both]:
            gradient.div_(_spread(count, gradient))
    return _value(plan, sums, reduction, alpha), grad_x, grad_y


def _ssim_map_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    launch = _launch(x.ndim - 2)
    *problem, upstream, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = _gradients(x, y, both=both)
    launch.map_gradient(plan, x, y, mask, upstream, grad_x, grad_y if both else None)
    return grad_x, grad_y


for _name, _function in (
    ("ssim_mean", _ssim_mean),
    ("ssim_map", _ssim_map),
    ("ssim_mean_gradient", _ssim_mean_gradient),
    ("ssim_map_gradient", _ssim_map_gradient),
):
    _library.impl(_name, _function, "CPU")


# ------------------------------------------------------------------------------------------- shapes, for the compiler


@torch.library.register_fake("fastssim::ssim_mean", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> Tensor:
    return x.new_empty(reduced_shape(x, rest[-2]), dtype=_dtype(x, y))


@torch.library.register_fake("fastssim::ssim_map", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *problem: Any) -> Tensor:
    taps, padding = problem[:3], problem[5]
    cuts = [len(axis) - 1 if axis and padding == "valid" else 0 for axis in taps[5 - x.ndim :]]
    ends = [length - cut for length, cut in zip(x.shape[2:], cuts, strict=True)]
    return x.new_empty((*x.shape[:2], *ends), dtype=_dtype(x, y))


@torch.library.register_fake("fastssim::ssim_mean_gradient", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    value = x.new_empty(reduced_shape(x, rest[-3]), dtype=_dtype(x, y))
    return (value, *_gradients(x, y, both=rest[-1]))


@torch.library.register_fake("fastssim::ssim_map_gradient", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    return _gradients(x, y, both=rest[-1])


# -------------------------------------------------------------------------------------------------------- gradients

_ops = torch.ops.fastssim


def _refuse_second_order() -> None:
    """Stop a gradient of the gradient, which would silently come out as zero."""
    if torch.is_grad_enabled():  # in a backward only under create_graph=True
        raise NotImplementedError(
            "fastssim's SSIM has no second derivative: call backward or grad without create_graph=True"
        )


def _refuse_forward_mode(*images: Tensor) -> None:
    """Stop a forward-mode derivative, which would silently come out as zero."""
    if not torch.compiler.is_compiling() and any(unpack_dual(image).tangent is not None for image in images):
        raise NotImplementedError("fastssim's SSIM has no forward-mode derivative: use backward or torch.autograd.grad")


def _spread(weight: Tensor, images: Tensor) -> Tensor:
    """Give a number per batch, image or channel the axes of the images."""
    return weight.reshape(*weight.shape, *[1] * (images.ndim - weight.ndim)) if weight.ndim else weight


class _Mean(torch.autograd.Function):
    """SSIM reduced over all windows, each image's or each channel's; the gradient comes with the value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        mask: Tensor | None,
        problem: tuple[Any, ...],
        reduction: str,
        alpha: float | None,
    ) -> Tensor:
        ctx.dtypes = x.dtype, y.dtype
        ctx.swapped = not ctx.needs_input_grad[0]
        both = ctx.needs_input_grad[0] and ctx.needs_input_grad[1]
        first, second = (y, x) if ctx.swapped else (x, y)  # SSIM is symmetric
        value, *gradients = _ops.ssim_mean_gradient(first, second, mask, *problem, reduction, alpha, both)
        ctx.save_for_backward(*gradients[: 1 + both])
        return value  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        gradients = [_spread(upstream, gradient) * gradient for gradient in ctx.saved_tensors]
        by_x = None if ctx.swapped else gradients[0].to(ctx.dtypes[0])
        by_y = gradients[-1].to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return by_x, by_y, None, None, None, None


class _Map(torch.autograd.Function):
    """The SSIM map; backward computes again from the images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, mask: Tensor | None, problem: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, y, mask)
        ctx.problem = problem
        return _ops.ssim_map(x, y, mask, *problem)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        x, y, mask = ctx.saved_tensors
        to_x, to_y = ctx.needs_input_grad[:2]
        first, second = (x, y) if to_x else (y, x)
        gradients = _ops.ssim_map_gradient(first, second, mask, *ctx.problem, upstream, to_x and to_y)
        by_x = gradients[0].to(x.dtype) if to_x else None
        return by_x, gradients[1 if to_x else 0].to(y.dtype) if to_y else None, None, None


def ssim(
    x: Tensor, y: Tensor, mask: Tensor | None, problem: tuple[Any, ...], reduction: str, alpha: float | None = None
) -> Tensor:
    """SSIM with its gradient where one is wanted.

    `problem` is (taps into the depth of volumes, taps down, taps across, C1, C2, padding, factor of variances, whether
    integers are fractions); with `alpha`, the loss alpha L1 + (1 - alpha)(1 - SSIM).
    """
    _refuse_forward_mode(x, y)
    gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if reduction == "none":
        return _Map.apply(x, y, mask, problem) if gradient else _ops.ssim_map(x, y, mask, *problem)  # type: ignore[no-any-return, no-untyped-call]
    if gradient:
        return _Mean.apply(x, y, mask, problem, reduction, alpha)  # type: ignore[no-any-return, no-untyped-call]
    return _ops.ssim_mean(x, y, mask, *problem, reduction, alpha)  # type: ignore[no-any-return]
