"""SSIM as operators of torch, and its gradients.

The operators are opaque to torch (``torch.library``, no autograd formula), so a compiled training step calls them as
they are; the ``autograd.Function`` around them is plain Python that the compiler traces. Where the map is reduced, the
upstream gradient is one number per batch, image or channel: the gradient is computed with the value, in one pass, and
backward only scales it. Where the map itself is returned, backward computes again from x and y: nothing else is kept.

Each operator takes the images as they are, of any dtype and strides, and computes in float64 where one of them is, else
in float32; gradients come in that dtype and are rounded to the images' own when the upstream gradient is known.
"""

from __future__ import annotations

from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch._compile import _disable_dynamo as untraced  # torch.compiler.disable would load the compiler at once
from torch.autograd import forward_ad

from fastssim.cpu.dispatch import launch_of
from fastssim.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PROBLEM = (
    "Tensor x, Tensor y, Tensor? mask, float[] taps_z, float[] taps_y, float[] taps_x, float c1, float c2, str padding,"
    " float unbiased, bool fractions"  # taps_z: of volumes (N, C, D, H, W); empty for images (N, C, H, W)
)
_library = torch.library.Library("fastssim", "DEF")
# alpha: None for SSIM; else the loss alpha L1 + (1 - alpha)(1 - SSIM), without L1 where it is 0
_library.define(f"ssim_mean({PROBLEM}, str reduction, float? alpha) -> Tensor")
_library.define(f"ssim_map({PROBLEM}) -> Tensor")
_library.define(f"ssim_mean_gradient({PROBLEM}, str reduction, float? alpha, bool both) -> (Tensor, Tensor, Tensor)")
_library.define(f"ssim_map_gradient({PROBLEM}, Tensor upstream, bool both) -> (Tensor, Tensor)")


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


def arithmetic_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return the dtype of the arithmetic on two images."""
    return torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32


def plan_of(x: Tensor, y: Tensor, mask: Tensor | None, taps_z: Any, taps_y: Any, taps_x: Any, *rest: Any) -> Plan:
    """Return the plan of an operator's problem."""
    return _plan(x.shape, arithmetic_dtype(x, y), tuple(taps_z), tuple(taps_y), tuple(taps_x), *rest, mask is not None)


def reduced_shape(x: Tensor, reduction: str) -> tuple[int, ...]:
    """Shape of a reduction: of all, of each image, of each channel of each image."""
    return {"image": (x.shape[0],), "channel": (x.shape[0], x.shape[1])}.get(reduction, ())


def empty_gradients(x: Tensor, y: Tensor, *, both: bool) -> tuple[Tensor, Tensor | None]:
    """Memory for the gradients; the second is None where only one is wanted."""
    dtype = arithmetic_dtype(x, y)
    if dtype == x.dtype and x.is_contiguous():  # as ever; this way is the shorter
        return torch.empty_like(x), torch.empty_like(x) if both else None
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape, dtype=dtype) if both else None


def filled(function: Any) -> Any:
    """Make an operator of a function: where that returns None, the operator must return a tensor, an empty one."""

    def operator(x: Tensor, *arguments: Any) -> Any:
        results = function(x, *arguments)
        if isinstance(results, tuple):
            return tuple(x.new_empty((0,), dtype=results[0].dtype) if result is None else result for result in results)
        return results

    return operator


# ------------------------------------------------------------------------------------------------------------- CPU


def _reduced(planes: Any, reduction: str) -> Any:
    """Add up what the planes hold, (N, C): an array, or a number of Python's."""
    if reduction == "channel":
        return planes
    return planes.sum(axis=1) if reduction == "image" else float(planes.item() if planes.size == 1 else planes.sum())


def _value(plan: Plan, sums: Any, reduction: str, alpha: float | None) -> Tensor:
    """Reduced SSIM, or the loss with L1, from the planes' sums."""
    value = _reduced(sums.ssim, reduction)
    if plan.masked and reduction != "sum":
        count = _reduced(sums.counted, reduction)
        value = (value + (count == 0)) / (count + (count == 0))  # nothing to compare is no difference: 1
    else:
        value = value / plan.count(reduction)
    if alpha:
        value = alpha * _reduced(sums.distance, reduction) / plan.pixels(reduction) + (1 - alpha) * (1 - value)
    rounded = np.asarray(value, plan.dtype)
    if alpha == 0:
        np.subtract(1, rounded, out=rounded)  # as 1 - ssim(...) is rounded
    return torch.from_numpy(rounded)  # on the CPU whatever torch's default device


def _ssim_mean(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> Tensor:
    launch = launch_of(x.ndim - 2)
    *problem, reduction, alpha = rest
    plan = plan_of(x, y, mask, *problem)
    return _value(plan, launch.value(plan, x, y, mask, distance=bool(alpha)), reduction, alpha)


def _ssim_map(x: Tensor, y: Tensor, mask: Tensor | None, *problem: Any) -> Tensor:
    launch = launch_of(x.ndim - 2)
    plan = plan_of(x, y, mask, *problem)
    out = x.new_empty(plan.map_shape, dtype=arithmetic_dtype(x, y))
    launch.ssim_map(plan, x, y, mask, out)
    return out


def _ssim_mean_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    launch = launch_of(x.ndim - 2)
    *problem, reduction, alpha, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = empty_gradients(x, y, both=both)
    scale = 1.0 if plan.masked else 1 / plan.count(reduction)
    l1 = None
    if alpha is not None:
        scale = -(1 - alpha) * scale
        l1 = alpha / plan.pixels(reduction) if alpha else None
    sums = launch.value_and_gradient(plan, x, y, mask, scale, grad_x, grad_y, l1=l1)
    if plan.masked and reduction != "sum":  # only now is it known how many windows count
        count = torch.from_numpy(np.asarray(np.maximum(_reduced(sums.counted, reduction), 1)))
        for gradient in (grad_x, grad_y):
            if gradient is not None:
                gradient.div_(spread(count, gradient))
    return _value(plan, sums, reduction, alpha), grad_x, grad_y


def _ssim_map_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    launch = launch_of(x.ndim - 2)
    *problem, upstream, both = rest
    plan = plan_of(x, y, mask, *problem)
    grad_x, grad_y = empty_gradients(x, y, both=both)
    launch.map_gradient(plan, x, y, mask, upstream, grad_x, grad_y)
    return grad_x, grad_y


def _on_cuda(name: str, *arguments: Any) -> Any:
    """Run an operator on a GPU; its module is loaded at the first use."""
    return getattr(import_module("fastssim.cuda.operators"), name)(*arguments)


_ON_CPU = {
    "ssim_mean": _ssim_mean,
    "ssim_map": _ssim_map,
    "ssim_mean_gradient": _ssim_mean_gradient,
    "ssim_map_gradient": _ssim_map_gradient,
}
for _name, _function in _ON_CPU.items():
    _library.impl(_name, filled(_function), "CPU")
    _library.impl(_name, filled(partial(_on_cuda, _name)), "CUDA")


# ------------------------------------------------------------------------------------------- shapes, for the compiler


@torch.library.register_fake("fastssim::ssim_mean", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> Tensor:
    return x.new_empty(reduced_shape(x, rest[-2]), dtype=arithmetic_dtype(x, y))


@torch.library.register_fake("fastssim::ssim_map", lib=_library)
def _(x: Tensor, y: Tensor, mask: Tensor | None, *problem: Any) -> Tensor:
    taps, padding = problem[:3], problem[5]
    cuts = [len(axis) - 1 if padding == "valid" else 0 for axis in taps[5 - x.ndim :]]
    ends = [length - cut for length, cut in zip(x.shape[2:], cuts, strict=True)]
    return x.new_empty((*x.shape[:2], *ends), dtype=arithmetic_dtype(x, y))


def _fake_mean_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    value = x.new_empty(reduced_shape(x, rest[-3]), dtype=arithmetic_dtype(x, y))
    return (value, *empty_gradients(x, y, both=rest[-1]))


def _fake_map_gradient(x: Tensor, y: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    return empty_gradients(x, y, both=rest[-1])


for _name, _function in (("ssim_mean_gradient", _fake_mean_gradient), ("ssim_map_gradient", _fake_map_gradient)):
    torch.library.register_fake(f"fastssim::{_name}", filled(_function), lib=_library)


@untraced
def one_by_one(operator: Any, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    """Run an operator for every example of torch.func.vmap: each is a batch of images already."""
    examples = [
        [
            argument.select(axis, i) if isinstance(axis, int) else argument
            for argument, axis in zip(arguments, in_dims, strict=True)
        ]
        for i in range(info.batch_size)
    ]
    results = [operator(*example) for example in examples]
    if isinstance(results[0], torch.Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])


for _name in _ON_CPU:
    if hasattr(torch.library, "register_vmap"):  # torch 2.5; before it, torch does the same with a warning
        torch.library.register_vmap(
            f"fastssim::{_name}", partial(one_by_one, getattr(torch.ops.fastssim, _name)), lib=_library
        )


# -------------------------------------------------------------------------------------------------------- gradients

_ops = torch.ops.fastssim
_PLAIN = {torch.Tensor, torch.nn.Parameter}
_NO_SECOND = (
    "fastssim's SSIM has no second derivative: call backward or grad without create_graph=True, and do not nest"
    " transforms of torch.func that differentiate"
)


def _operator(name: str, x: Tensor, y: Tensor, mask: Tensor | None) -> Any:
    """Return an operator, or its function itself where nothing looks on: torch's dispatch takes 30 us.

    What looks on are a compiler, a tracer, a profiler, a mode, a subclass, a transform (whose tensors are torch's own).
    """
    return _ON_CPU[name] if unobserved(x, y, mask) else getattr(_ops, name)


def unobserved(x: Tensor, y: Tensor, mask: Tensor | None) -> bool:
    """Whether plain images on the CPU are computed with, now, and nothing looks on.

    Not plain are also those that `is_lazy`: torch's dispatch turns them into memory.
    """
    return not (watched(x, y, mask) or not x.is_cpu or torch._C._autograd._profiler_enabled())  # noqa: SLF001  # as below


def is_lazy(tensor: Tensor) -> bool:
    """Whether memory is not what a tensor says: torch negates it as it is read, or takes zeros that are nowhere."""
    return tensor.is_neg() or tensor._is_zerotensor()  # noqa: SLF001  # no public word for it


def watched(x: Tensor, y: Tensor, mask: Tensor | None) -> bool:
    """Whether images, wherever they lie, are not plain, or something looks on that must see an operator."""
    return bool(
        torch.compiler.is_compiling()
        or type(x) not in _PLAIN
        or type(y) not in _PLAIN
        or is_lazy(x)
        or is_lazy(y)
        or (mask is not None and (type(mask) not in _PLAIN or is_lazy(mask)))
        or torch._C._len_torch_dispatch_stack()  # noqa: SLF001  # torch has no public words for these
        or torch._C._are_functorch_transforms_active()  # noqa: SLF001
        or torch._C._is_tracing()  # noqa: SLF001
    )


def is_batched(upstream: Tensor) -> bool:
    """Whether it stands for many, as for ``torch.autograd.grad(..., is_grads_batched=True)``."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_legacy_batchedtensor(upstream)  # noqa: SLF001  # no public word for it


def _is_one(upstream: Tensor) -> bool:
    """Whether a factor is known to be 1, as it is for ``ssim(...).backward()``; asked only where no one waits."""
    return upstream.ndim == 0 and unobserved(upstream, upstream, None) and upstream.item() == 1


def refuse_second_order() -> None:
    """Stop a gradient of the gradient, which would silently come out as zero."""
    if torch.is_grad_enabled():  # in a backward only under create_graph=True
        raise NotImplementedError(_NO_SECOND)


def _beneath(image: Tensor) -> Tensor:
    """Return what torch.func.vmap holds in its own kind of tensor, which never says that a derivative is wanted."""
    while torch._C._functorch.is_batchedtensor(image):  # noqa: SLF001  # no public word for it
        image = torch._C._functorch.get_unwrapped(image)  # noqa: SLF001  # as above
    return image


def in_forward_mode(*images: Tensor) -> bool:
    """Whether a forward-mode derivative is on its way through the images."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:  # noqa: SLF001  # as unpack_dual itself does
        return False
    return any(forward_ad.unpack_dual(_beneath(image)).tangent is not None for image in images)


def spread(weight: Tensor, images: Tensor) -> Tensor:
    """Give a number per batch, image or channel the axes of the images."""
    return weight.reshape(*weight.shape, *[1] * (images.ndim - weight.ndim)) if weight.ndim else weight


def _with_gradients(x: Tensor, y: Tensor, mask: Tensor | None, ctx: Any) -> list[Tensor]:
    """Return the value and the gradients that are wanted."""
    to_x, to_y, *_ = ctx.wanted
    first, second = (x, y) if to_x else (y, x)  # SSIM is symmetric
    results = _operator("ssim_mean_gradient", first, second, mask)(first, second, mask, *ctx.rest)
    return list(results[: 2 + (to_x and to_y)])


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
        to_x, to_y, *_ = ctx.needs_input_grad
        ctx.wanted = to_x, to_y, x.dtype, y.dtype
        ctx.rest = *problem, reduction, alpha, to_x and to_y
        value, *ctx.gradients = _with_gradients(x, y, mask, ctx)
        ctx.save_for_backward(x, y, mask)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        to_x, to_y, dtype_x, dtype_y = ctx.wanted
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # scaled in place and given away by a backward before, on a graph that was retained
            x, y, mask = ctx.saved_tensors
            _, *gradients = _with_gradients(x, y, mask, ctx)
        if is_batched(upstream):
            gradients = [gradient * spread(upstream, gradient) for gradient in gradients]
        elif not _is_one(upstream):
            for gradient in gradients:
                gradient.mul_(spread(upstream, gradient))
        by_x = gradients[0].to(dtype_x) if to_x else None
        by_y = gradients[-1].to(dtype_y) if to_y else None
        return by_x, by_y, None, None, None, None


#  What `_Mean.apply` calls in the end, where no transform is active.
_mean_apply: Any = super(torch.autograd.Function, _Mean).apply


class _Map(torch.autograd.Function):
    """The SSIM map; backward computes again from the images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, mask: Tensor | None, problem: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, y, mask)
        ctx.problem = problem
        return _operator("ssim_map", x, y, mask)(x, y, mask, *problem)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        x, y, mask = ctx.saved_tensors
        to_x, to_y = ctx.needs_input_grad[:2]
        first, second = (x, y) if to_x else (y, x)
        plain = unobserved(first, second, mask) and not (is_batched(upstream) or is_lazy(upstream))
        run: Any = _ssim_map_gradient if plain else _ops.ssim_map_gradient
        gradients = run(first, second, mask, *ctx.problem, upstream, to_x and to_y)
        by_x = gradients[0].to(x.dtype) if to_x else None
        return by_x, gradients[1 if to_x else 0].to(y.dtype) if to_y else None, None, None


class _Transformed(torch.autograd.Function):
    """`_Mean` for torch.func's transforms and forward mode: both gradients come out beside the value.

    A derivative of these gradients would be a second one, which there is not.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, mask: Tensor | None, compute: Callable[..., Any]) -> tuple[Tensor, ...]:
        return compute(x, y, mask)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.dtypes = inputs[0].dtype, inputs[1].dtype
        ctx.summed = tuple(range(output[0].ndim, inputs[0].ndim))
        ctx.save_for_backward(*output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *by_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if any(by_gradient is not None for by_gradient in by_gradients):
            raise NotImplementedError(_NO_SECOND)
        if upstream is None:
            return (None,) * 4
        gradients = [spread(upstream, gradient) * gradient for gradient in ctx.saved_tensors]
        return *(by.to(dtype) for by, dtype in zip(gradients, ctx.dtypes, strict=True)), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        products = [
            gradient * tangent
            for gradient, tangent in zip(ctx.saved_tensors, tangents, strict=False)
            if tangent is not None
        ]
        total: Any = sum(products)
        return total.sum(ctx.summed), *map(torch.zeros_like, ctx.saved_tensors)  # `_transform` refuses what takes these


@untraced
def _transform(
    x: Tensor, y: Tensor, mask: Tensor | None, problem: tuple[Any, ...], reduction: str, alpha: float | None
) -> Tensor:
    """SSIM with its derivative in forward mode or under a transform of torch.func."""
    if reduction == "none":
        raise NotImplementedError(
            "fastssim's SSIM map has no derivative in forward mode nor by torch.func's transforms: reduce it, or use"
            " backward or torch.autograd.grad"
        )
    stack = torch._C._functorch.get_interpreter_stack() or []  # noqa: SLF001  # no public word for it
    if sum(level.key().name in {"Grad", "Jvp"} for level in stack) > 1:
        raise NotImplementedError(_NO_SECOND)

    def compute(x: Tensor, y: Tensor, mask: Tensor | None) -> Any:  # torch's jvp of vmap miscounts tuples as arguments
        both = True
        return _ops.ssim_mean_gradient(x, y, mask, *problem, reduction, alpha, both)

    return _Transformed.apply(x, y, mask, compute)[0]  # type: ignore[no-any-return, no-untyped-call]


def ssim(
    x: Tensor, y: Tensor, mask: Tensor | None, problem: tuple[Any, ...], reduction: str, alpha: float | None = None
) -> Tensor:
    """SSIM with its gradient where one is wanted.

    `problem` is (taps into the depth of volumes, taps down, taps across, C1, C2, padding, factor of variances, whether
    integers are fractions); with `alpha`, the loss alpha L1 + (1 - alpha)(1 - SSIM).
    """
    gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if gradient and reduction != "none" and unobserved(x, y, mask) and not in_forward_mode(x, y):
        return _mean_apply(x, y, mask, problem, reduction, alpha)  # type: ignore[no-any-return]
    transformed = torch._C._are_functorch_transforms_active()  # noqa: SLF001  # no public word for it
    if transformed and torch.is_grad_enabled():
        if torch.compiler.is_dynamo_compiling():  # to which the tensors of torch.func.grad do not say what is wanted
            return _untraced_ssim(x, y, mask, problem, reduction, alpha)
        gradient = _beneath(x).requires_grad or _beneath(y).requires_grad
    forward_mode = in_forward_mode(x, y)
    if forward_mode or (transformed and gradient):
        return _transform(x, y, mask, problem, reduction, alpha)
    if reduction == "none":
        run = _Map.apply if gradient else _operator("ssim_map", x, y, mask)
        return run(x, y, mask, problem) if gradient else run(x, y, mask, *problem)  # type: ignore[no-any-return]
    if gradient:
        return _Mean.apply(x, y, mask, problem, reduction, alpha)  # type: ignore[no-any-return, no-untyped-call]
    return _operator("ssim_mean", x, y, mask)(x, y, mask, *problem, reduction, alpha)  # type: ignore[no-any-return]


_untraced_ssim = untraced(ssim)
