"""MS-SSIM's scales as operators of torch: every scale's mean with its gradient, and the way back to the images.

One operator goes through all scales: the pass over a scale's images also gives those of the next, of half the height
and width, and the gradient of the scale's own mean. How much that mean counts is known in backward only: there a second
operator adds up the gradients of all scales in one pass over the images.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastssim import autograd
from fastssim.autograd import (
    PROBLEM,
    arithmetic_dtype,
    filled,
    in_forward_mode,
    is_batched,
    plan_of,
    refuse_second_order,
    watched,
)
from fastssim.cpu.dispatch import launch_of
from fastssim.interop import readable
from fastssim.plan import scales as scale_plans

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fastssim.plan import Plan

    Images = tuple[Tensor, Tensor]
    # One scale: its plan, images, memory for the gradients, shape of the next scale or None at the last -> the mean of
    # each plane (N, C), and the images of the next scale.
    OneScale = Callable[[Plan, Tensor, Tensor, list[Tensor], tuple[int, ...] | None], tuple[Tensor, Images | None]]

_library = torch.library.Library("fastssim", "FRAGMENT")
_library.define(
    f"ssim_scales({PROBLEM}, float contrast_c1, int count, int gradients) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define("ssim_deliver(Tensor(a!) gradient, Tensor coarser, Tensor upstream) -> ()")
_ops = torch.ops.fastssim


def _shapes(shape: torch.Size, count: int) -> list[tuple[int, ...]]:
    """Shapes of all scales but the finest."""
    n, c, height, width = shape
    return [(n, c, height >> scale, width >> scale) for scale in range(1, count)]


def split(coarser: Tensor, shape: torch.Size, count: int) -> list[Tensor]:
    """View what holds all scales but the finest, one behind the other."""
    shapes = _shapes(shape, count)
    parts = coarser.split([math.prod(part) for part in shapes]) if shapes else ()
    return [part.view(one) for part, one in zip(parts, shapes, strict=True)]


def sum_of_scales(finest: Tensor, coarser: Tensor, upstream: Tensor) -> Tensor:
    """Return what `ssim_deliver` makes of a gradient, composed of operators that torch can batch."""
    *coarse, total = (
        part * weight[..., None, None]
        for part, weight in zip([finest, *split(coarser, finest.shape, len(upstream))], upstream.unbind(), strict=True)
    )
    for part in reversed(coarse):
        total = part + _quarters(total, part.shape)
    return total


def _quarters(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Give a quarter of each number to each of the 2 x 2 pixels that it is the mean of, of an image of this shape."""
    height, width = gradient.shape[-2:]
    quarter = (gradient / 4)[..., :, None, :, None].expand(*gradient.shape[:-2], height, 2, width, 2)
    odd = shape[-2] - 2 * height, shape[-1] - 2 * width  # left out when the image was halved
    return F.pad(quarter.reshape(*gradient.shape[:-2], 2 * height, 2 * width), (0, odd[1], 0, odd[0]))


def _memory(x: Tensor, y: Tensor, count: int, gradients: int) -> list[Tensor | None]:
    """Make room for the gradients: of the finest scale and of all others, by one image or both."""
    others = sum(map(math.prod, _shapes(x.shape, count)))
    wanted: list[Tensor | None] = [
        x.new_empty(size, dtype=arithmetic_dtype(x, y)) for size in (x.shape, (others,)) * gradients
    ]
    return wanted + [None] * (4 - len(wanted))


def over_scales(one: OneScale, x: Tensor, y: Tensor, mask: None, *rest: Any) -> tuple[Tensor | None, ...]:
    """Go through all scales; return their means (count, N, C), and for each image the gradients of `_memory`."""
    *problem, contrast_c1, count, gradients = rest
    plans = scale_plans(plan_of(x, y, mask, *problem), count, contrast_c1)
    memory = _memory(x, y, count, gradients)
    by_image = [
        [finest, *split(coarser, x.shape, count)]
        for finest, coarser in zip(memory[::2], memory[1::2], strict=True)
        if finest is not None and coarser is not None
    ]
    means = []
    for scale, plan in enumerate(plans):
        next_shape = plans[scale + 1].shape if scale < count - 1 else None
        mean, halves = one(plan, x, y, [parts[scale] for parts in by_image], next_shape)
        means.append(mean)
        x, y = halves or (x, y)
    return (torch.stack(means), *memory)


def _one_on_cpu(
    plan: Plan, x: Tensor, y: Tensor, gradients: list[Tensor], next_shape: tuple[int, ...] | None
) -> tuple[Tensor, Images | None]:
    launch, windows = launch_of(2), plan.count("channel")
    if gradients:
        sums = launch.value_and_gradient(plan, x, y, None, 1 / windows, *gradients, *[None] * (2 - len(gradients)))
    else:
        sums = launch.value(plan, x, y, None)
    mean = torch.from_numpy(sums.ssim / windows).to(arithmetic_dtype(x, y))
    if next_shape is None:
        return mean, None
    halves = x.new_empty(next_shape, dtype=mean.dtype), x.new_empty(next_shape, dtype=mean.dtype)
    for image, half in zip((x, y), halves, strict=True):
        launch_of("scales").halve(image, half, fractions=plan.fractions)
    return mean, halves


def _deliver(gradient: Tensor, coarser: Tensor, upstream: Tensor) -> None:
    launch_of("scales").deliver(gradient, coarser, upstream)


def _scales_on_cuda(*arguments: Any) -> Any:
    from fastssim.cuda.operators import one_scale  # noqa: PLC0415  # loaded at the first use

    return over_scales(one_scale, *arguments)


def _deliver_on_cuda(*arguments: Tensor) -> None:
    from fastssim.cuda.launch import deliver  # noqa: PLC0415  # loaded at the first use

    deliver(*arguments)


_library.impl("ssim_scales", filled(partial(over_scales, _one_on_cpu)), "CPU")
_library.impl("ssim_scales", filled(_scales_on_cuda), "CUDA")
_library.impl("ssim_deliver", _deliver, "CPU")
_library.impl("ssim_deliver", _deliver_on_cuda, "CUDA")


def _fake_scales(x: Tensor, y: Tensor, mask: None, *rest: Any) -> tuple[Tensor | None, ...]:
    *_, count, gradients = rest
    return (x.new_empty((count, *x.shape[:2]), dtype=arithmetic_dtype(x, y)), *_memory(x, y, count, gradients))


torch.library.register_fake("fastssim::ssim_scales", filled(_fake_scales), lib=_library)
torch.library.register_fake("fastssim::ssim_deliver", lambda *_: None, lib=_library)


class _Scales(torch.autograd.Function):
    """The means of all scales; their gradients come with them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, problem: tuple[Any, ...], contrast_c1: float, count: int) -> Tensor:
        ctx.to_x, ctx.to_y, *_ = ctx.needs_input_grad
        ctx.rest = *problem, contrast_c1, count, ctx.to_x + ctx.to_y
        means: Tensor
        means, *ctx.gradients = _run(x, y, ctx)
        ctx.save_for_backward(x, y)
        return means

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        x, y = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # given away by a backward before, on a graph that was retained
            _, *gradients = _run(x, y, ctx)
        finest = gradients[: 2 * (ctx.to_x + ctx.to_y) : 2]
        if is_batched(upstream):
            finest = [sum_of_scales(*pair, upstream) for pair in zip(finest, gradients[1::2], strict=False)]
        else:
            for gradient, coarser in zip(finest, gradients[1::2], strict=False):
                _ops.ssim_deliver(gradient, coarser, upstream.contiguous())
        by_x = finest[0].to(x.dtype) if ctx.to_x else None
        return by_x, finest[-1].to(y.dtype) if ctx.to_y else None, None, None, None


def _run(x: Tensor, y: Tensor, ctx: Any) -> Any:
    """Run the operator for the gradients that are wanted."""
    first, second = (x, y) if ctx.to_x else (y, x)  # SSIM is symmetric
    return _ops.ssim_scales(first, second, None, *ctx.rest)


def _scale_by_scale(x: Tensor, y: Tensor, problem: tuple[Any, ...], contrast_c1: float, count: int) -> Tensor:
    """Compose the same of operators that torch can transform."""
    contrast = *problem[:3], contrast_c1, *problem[4:]
    means = []
    for scale in range(count):
        means.append(autograd.ssim(x, y, None, problem if scale == count - 1 else contrast, "channel"))
        x, y = (
            (F.avg_pool2d(readable(image, fractions=problem[-1]), 2) for image in (x, y))
            if scale < count - 1
            else (x, y)
        )
    return torch.stack(means)


def means(x: Tensor, y: Tensor, problem: tuple[Any, ...], contrast_c1: float, count: int) -> Tensor:
    """Return the mean of each of `count` scales, (count, N, C), differentiable in both images.

    `problem` as for `fastssim.autograd.ssim`. SSIM is taken at the last scale, with `contrast_c1` for C1 at all others.
    """
    if torch._C._are_functorch_transforms_active() or in_forward_mode(x, y):  # noqa: SLF001  # no public word for it
        return _scale_by_scale(x, y, problem, contrast_c1, count)
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return _Scales.apply(x, y, problem, contrast_c1, count)  # type: ignore[no-any-return, no-untyped-call]
    result: Tensor = _ops.ssim_scales(x, y, None, *problem, contrast_c1, count, 0)[0]
    return result


class _Halved(torch.autograd.Function):
    """The means of 2 x 2 pixels, on the CPU."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        n, c, height, width = ctx.shape = image.shape
        ctx.dtype = image.dtype
        half = image.new_empty((n, c, height // 2, width // 2), dtype=arithmetic_dtype(image, image))
        launch_of("scales").halve(image, half, fractions=False)
        return half

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        refuse_second_order()
        if is_batched(upstream) or watched(upstream, upstream, None):
            return _quarters(upstream, ctx.shape).to(ctx.dtype)
        gradient = upstream.new_zeros(ctx.shape)
        weights = torch.ones((2, *ctx.shape[:2]), dtype=upstream.dtype)
        _deliver(gradient, upstream.contiguous().flatten(), weights)  # the kernel asks for no strides
        return gradient.to(ctx.dtype)


def halve(image: Tensor) -> Tensor:
    """Return the means of 2 x 2 pixels of an image (N, C, H, W) of floats; an odd last row or column is left out."""
    if watched(image, image, None) or not image.is_cpu or in_forward_mode(image):
        return F.avg_pool2d(image, 2)
    return _Halved.apply(image)  # type: ignore[no-any-return, no-untyped-call]
