"""SSIM as operators of torch, and its gradients.

The operators are opaque to torch (``torch.library``, no autograd formula), so a compiled training step calls them as
they are; the ``autograd.Function`` around them is plain Python that the compiler traces. Where the reduction is a mean,
the upstream gradient is one number per batch or image: the gradient is computed with the value, in one pass, and
backward only scales it. Where the map itself is returned, backward computes again from x and y: nothing else is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from fastssim.interop import DTYPES, as_array
from fastssim.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_PROBLEM = "Tensor x, Tensor y, float[] taps_y, float[] taps_x, float c1, float c2"
_library = torch.library.Library("fastssim", "DEF")
_library.define(f"ssim_mean({_PROBLEM}, bool per_image) -> Tensor")
_library.define(f"ssim_map({_PROBLEM}) -> Tensor")
_library.define(f"ssim_mean_gradient({_PROBLEM}, bool per_image, bool both) -> (Tensor, Tensor, Tensor)")
_library.define(f"ssim_map_gradient({_PROBLEM}, Tensor upstream, bool both) -> (Tensor, Tensor)")


@lru_cache(maxsize=1024)
def _plan(
    shape: torch.Size,
    dtype: torch.dtype,
    taps_y: tuple[float, ...],
    taps_x: tuple[float, ...],
    c1: float,
    c2: float,
) -> Plan:
    n, c, height, width = shape
    return Plan((n, c, height, width), DTYPES[dtype], taps_y, taps_x, c1, c2)


def _problem(x: Tensor, taps_y: Sequence[float], taps_x: Sequence[float], c1: float, c2: float) -> Plan:
    return _plan(x.shape, x.dtype, tuple(taps_y), tuple(taps_x), c1, c2)


def _windows(x: Tensor, taps_y: Sequence[float], taps_x: Sequence[float]) -> tuple[int, int]:
    return x.shape[2] - len(taps_y) + 1, x.shape[3] - len(taps_x) + 1


def _mean(x: Tensor, sums: Any, count: int, *, per_image: bool) -> Tensor:
    """Means of SSIM from the planes' sums (N, C): of each image, or of all."""
    total = sums.sum(axis=1) if per_image else sums.sum()
    return torch.as_tensor(total / count, dtype=x.dtype)


def _ssim_mean(x: Tensor, y: Tensor, taps_y: Any, taps_x: Any, c1: float, c2: float, per_image: bool) -> Tensor:
    from fastssim.cpu import launch  # noqa: PLC0415  # loads Numba, at the first use

    plan = _problem(x, taps_y, taps_x, c1, c2)
    n, c, height, width = plan.map_shape
    sums = launch.value(plan, as_array(x), as_array(y))
    return _mean(x, sums, c * height * width * (1 if per_image else n), per_image=per_image)


def _ssim_map(x: Tensor, y: Tensor, taps_y: Any, taps_x: Any, c1: float, c2: float) -> Tensor:
    from fastssim.cpu import launch  # noqa: PLC0415

    plan = _problem(x, taps_y, taps_x, c1, c2)
    out = torch.empty(plan.map_shape, dtype=x.dtype)
    launch.ssim_map(plan, as_array(x), as_array(y), as_array(out))
    return out


def _ssim_mean_gradient(
    x: Tensor,
    y: Tensor,
    taps_y: Any,
    taps_x: Any,
    c1: float,
    c2: float,
    per_image: bool,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from fastssim.cpu import launch  # noqa: PLC0415

    plan = _problem(x, taps_y, taps_x, c1, c2)
    n, c, height, width = plan.map_shape
    count = c * height * width * (1 if per_image else n)
    grad_x, grad_y = _gradients(x, both=both)
    sums = launch.value_and_gradient(
        plan, as_array(x), as_array(y), 1 / count, as_array(grad_x), as_array(grad_y) if both else None
    )
    return _mean(x, sums, count, per_image=per_image), grad_x, grad_y


def _ssim_map_gradient(
    x: Tensor,
    y: Tensor,
    taps_y: Any,
    taps_x: Any,
    c1: float,
    c2: float,
    upstream: Tensor,
    both: bool,
) -> tuple[Tensor, Tensor]:
    from fastssim.cpu import launch  # noqa: PLC0415

    plan = _problem(x, taps_y, taps_x, c1, c2)
    grad_x, grad_y = _gradients(x, both=both)
    launch.map_gradient(
        plan,
        as_array(x),
        as_array(y),
        as_array(upstream),
        as_array(grad_x),
        as_array(grad_y) if both else None,
    )
    return grad_x, grad_y


def _gradients(x: Tensor, *, both: bool) -> tuple[Tensor, Tensor]:
    """Memory for the gradients; the second is empty where only one is wanted."""
    return x.new_empty(x.shape), x.new_empty(x.shape if both else (0,))


for _name, _function in (
    ("ssim_mean", _ssim_mean),
    ("ssim_map", _ssim_map),
    ("ssim_mean_gradient", _ssim_mean_gradient),
    ("ssim_map_gradient", _ssim_map_gradient),
):
    _library.impl(_name, _function, "CPU")


@torch.library.register_fake("fastssim::ssim_mean", lib=_library)
def _(x: Tensor, y: Tensor, taps_y: Any, taps_x: Any, c1: float, c2: float, per_image: bool) -> Tensor:
    return x.new_empty((x.shape[0],) if per_image else ())


@torch.library.register_fake("fastssim::ssim_map", lib=_library)
def _(x: Tensor, y: Tensor, taps_y: Any, taps_x: Any, c1: float, c2: float) -> Tensor:
    return x.new_empty((*x.shape[:2], *_windows(x, taps_y, taps_x)))


@torch.library.register_fake("fastssim::ssim_mean_gradient", lib=_library)
def _(
    x: Tensor,
    y: Tensor,
    taps_y: Any,
    taps_x: Any,
    c1: float,
    c2: float,
    per_image: bool,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (x.new_empty((x.shape[0],) if per_image else ()), *_gradients(x, both=both))


@torch.library.register_fake("fastssim::ssim_map_gradient", lib=_library)
def _(
    x: Tensor,
    y: Tensor,
    taps_y: Any,
    taps_x: Any,
    c1: float,
    c2: float,
    upstream: Tensor,
    both: bool,
) -> tuple[Tensor, Tensor]:
    return _gradients(x, both=both)


_ops = torch.ops.fastssim


def _refuse_second_order() -> None:
    """Stop a gradient of the gradient, which would silently come out as zero."""
    if torch.is_grad_enabled():  # in a backward only under create_graph=True
        raise NotImplementedError(
            "fastssim's SSIM has no second derivative: call backward or grad without create_graph=True"
        )


class _Mean(torch.autograd.Function):
    """Mean of SSIM over all windows, or over each image's; the gradient comes with the value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, problem: tuple[Any, ...], per_image: bool) -> Tensor:
        ctx.per_image = per_image
        ctx.swapped = not ctx.needs_input_grad[0]
        both = ctx.needs_input_grad[0] and ctx.needs_input_grad[1]
        first, second = (y, x) if ctx.swapped else (x, y)  # SSIM is symmetric
        mean, *gradients = _ops.ssim_mean_gradient(first, second, *problem, per_image, both)
        ctx.save_for_backward(*gradients[: 1 + both])
        return mean  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        weight = upstream[:, None, None, None] if ctx.per_image else upstream
        gradients = [weight * gradient for gradient in ctx.saved_tensors]
        by_x = None if ctx.swapped else gradients[0]
        by_y = gradients[-1] if ctx.needs_input_grad[1] else None
        return by_x, by_y, None, None


class _Map(torch.autograd.Function):
    """The SSIM map; backward computes again from the images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, problem: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.problem = problem
        return _ops.ssim_map(x, y, *problem)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        x, y = ctx.saved_tensors
        to_x, to_y = ctx.needs_input_grad[:2]
        first, second = (x, y) if to_x else (y, x)
        gradients = _ops.ssim_map_gradient(first, second, *ctx.problem, upstream, to_x and to_y)
        return gradients[0] if to_x else None, gradients[1 if to_x else 0] if to_y else None, None


def ssim(x: Tensor, y: Tensor, problem: tuple[Any, ...], reduction: str) -> Tensor:
    """SSIM with its gradient where one is wanted; `problem` is (taps down, taps across, C1, C2)."""
    gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if reduction == "none":
        return _Map.apply(x, y, problem) if gradient else _ops.ssim_map(x, y, *problem)  # type: ignore[no-any-return, no-untyped-call]
    per_image = reduction == "image"
    if gradient:
        return _Mean.apply(x, y, problem, per_image)  # type: ignore[no-any-return, no-untyped-call]
    return _ops.ssim_mean(x, y, *problem, per_image)  # type: ignore[no-any-return]
