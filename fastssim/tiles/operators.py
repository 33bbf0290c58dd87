"""Blending and cutting out as operators of torch, and their gradients.

Both are linear, and each is the other's adjoint: `gather` takes tiles to an image with the plan's weights, `scatter`
takes an image to tiles with the same weights; with the window "sum" these are all 1 and scatter cuts tiles out. Hence
the gradient of either is one call of the other, and gradients of gradients come by themselves. As in
`fastssim.autograd`, the operators are opaque to torch and the ``autograd.Function`` around them is plain Python that a
compiler traces.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from fastssim.autograd import in_forward_mode, is_batched, one_by_one, unobserved
from fastssim.cpu.dispatch import launch_of
from fastssim.tiles.grid import Geometry
from fastssim.tiles.plan import SUM, make_plan
from fastssim.tiles.storage import bits, deviation_dtype, empty, on_gpu, stored

if TYPE_CHECKING:
    from torch import Tensor

    from fastssim.tiles.plan import Plan

_PLAN = "int[] geometry, str window, float[] weights"
_library = torch.library.Library("fastssim", "FRAGMENT")
_library.define(f"tiles_gather(Tensor tiles, {_PLAN}, str reduction) -> Tensor")
_library.define(f"tiles_gather_deviation(Tensor tiles, {_PLAN}) -> (Tensor, Tensor)")
_library.define(f"tiles_scatter(Tensor canvas, {_PLAN}) -> Tensor")

Key = tuple[list[int], str, list[float]]  # the arguments of a plan as the operators take them


def _blended(tiles: Tensor, geometry: Any, window: str, weights: Any, reduction: str) -> tuple[Tensor, Tensor]:
    plan = make_plan(tuple(geometry), window, tuple(weights))
    shape, both = _image_shape(tiles, geometry), reduction == "mean_std"
    if on_gpu(tiles):
        from fastssim.tiles import gpu  # noqa: PLC0415  # only where there is one

        out = tiles.new_empty(shape)
        deviation = tiles.new_empty(shape if both else 0, dtype=deviation_dtype(tiles.dtype))
        gpu.gather(plan, tiles, reduction, out, deviation if both else None)
        return out, deviation
    out, deviation = empty(shape, tiles.dtype), empty(shape, deviation_dtype(tiles.dtype))
    source, mean, spread = stored(tiles.contiguous()), stored(out), stored(deviation)
    for n in range(len(tiles)):
        launch_of("tiles").gather(plan, source[n], reduction, mean[n], spread[n] if both else None)
    return out, deviation


def _gather(tiles: Tensor, geometry: Any, window: str, weights: Any, reduction: str) -> Tensor:
    return _blended(tiles, geometry, window, weights, reduction)[0]


def _gather_deviation(tiles: Tensor, geometry: Any, window: str, weights: Any) -> tuple[Tensor, Tensor]:
    return _blended(tiles, geometry, window, weights, "mean_std")


def _scatter(canvas: Tensor, geometry: Any, window: str, weights: Any) -> Tensor:
    plan = make_plan(tuple(geometry), window, tuple(weights))
    if window == SUM:
        return _cut(plan, canvas)
    if plan.full is None:  # 16-bit floats are computed in float32 and rounded once more
        floats = canvas if canvas.dtype in (torch.float32, torch.float64) else canvas.float()
    else:  # in float64: where few tiles fade out, the sum of their weights is no float32
        norm = torch.from_numpy(plan.norm()).to(canvas.device)
        floats = torch.where(norm > 0, canvas / norm, 0)
    if on_gpu(canvas):
        from fastssim.tiles import gpu  # noqa: PLC0415

        tiles: Tensor = floats.new_empty(_tiles_shape(floats, geometry))
        gpu.scatter(plan, floats, tiles)
        return tiles.to(canvas.dtype)
    tiles = empty(_tiles_shape(floats, geometry), floats.dtype)
    for n in range(len(canvas)):
        launch_of("tiles").scatter(plan, floats[n].detach().numpy(), tiles[n].numpy())
    return tiles.to(canvas.dtype)


def _cut(plan: Plan, canvas: Tensor) -> Tensor:
    if on_gpu(canvas):
        from fastssim.tiles import gpu  # noqa: PLC0415

        return gpu.cut(canvas, plan.geometry, 0, _tiles_shape(canvas, plan.geometry)[1])
    tiles: Tensor = empty(_tiles_shape(canvas, plan.geometry), canvas.dtype)
    for n in range(len(canvas)):
        launch_of("tiles").copy(bits(canvas)[n], plan.origins, bits(tiles)[n])
    return tiles


def _image_shape(tiles: Tensor, geometry: Any) -> tuple[int, ...]:
    g = Geometry(*geometry)
    return tiles.shape[0], tiles.shape[2], g.height, g.width


def _tiles_shape(canvas: Tensor, geometry: Any) -> tuple[int, ...]:
    g = Geometry(*geometry)
    return canvas.shape[0], len(g.rows) * len(g.columns), canvas.shape[1], g.tile_height, g.tile_width


_FUNCTIONS = {
    "tiles_gather": _gather,
    "tiles_gather_deviation": _gather_deviation,
    "tiles_scatter": _scatter,
}
for _name, _function in _FUNCTIONS.items():
    for _where in ("CPU", "CUDA"):
        _library.impl(_name, _function, _where)


@torch.library.register_fake("fastssim::tiles_gather", lib=_library)
def _(tiles: Tensor, geometry: Any, window: str, weights: Any, reduction: str) -> Tensor:
    return tiles.new_empty(_image_shape(tiles, geometry))


@torch.library.register_fake("fastssim::tiles_gather_deviation", lib=_library)
def _(tiles: Tensor, geometry: Any, window: str, weights: Any) -> tuple[Tensor, Tensor]:
    shape = _image_shape(tiles, geometry)
    return tiles.new_empty(shape), tiles.new_empty(shape, dtype=deviation_dtype(tiles.dtype))


@torch.library.register_fake("fastssim::tiles_scatter", lib=_library)
def _(canvas: Tensor, geometry: Any, window: str, weights: Any) -> Tensor:
    return canvas.new_empty(_tiles_shape(canvas, geometry))


_ops = torch.ops.fastssim

if hasattr(torch.library, "register_vmap"):  # torch 2.5; before it, torch does the same with a warning
    for _name in _FUNCTIONS:
        torch.library.register_vmap(f"fastssim::{_name}", partial(one_by_one, getattr(_ops, _name)), lib=_library)


class _Gather(torch.autograd.Function):
    """The blended mean; its adjoint spreads the image over the tiles with the same weights."""

    @staticmethod
    def forward(tiles: Tensor, key: Key) -> Tensor:
        return _operator("tiles_gather", tiles)(tiles, *key, "mean")  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Key], _: Tensor) -> None:
        ctx.key = inputs[1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        g = Geometry(*ctx.key[0])
        below, right = g.canvas_height - g.top - g.height, g.canvas_width - g.left - g.width
        canvas = torch.nn.functional.pad(upstream, (g.left, right, g.top, below))
        return scatter(canvas, ctx.key), None


class _Scatter(torch.autograd.Function):
    """The tiles of a canvas times the weights; its adjoint sums them up."""

    @staticmethod
    def forward(canvas: Tensor, key: Key) -> Tensor:
        return _operator("tiles_scatter", canvas)(canvas, *key)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Key], _: Tensor) -> None:
        ctx.key = inputs[1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        geometry, window, weights = ctx.key
        g = Geometry(*geometry)
        whole = g._replace(top=0, left=0, height=g.canvas_height, width=g.canvas_width)
        return gather(upstream, (list(whole), window, weights)), None


class _TransformedGather(_Gather):
    """`_Gather` for torch.func's transforms and forward mode; apart, for no compiler traces a ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return gather(tangent, ctx.key)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], tiles: Tensor, key: Key) -> tuple[Tensor, int]:
        return _together(gather, tiles.movedim(in_dims[0], 0), key), 0


class _TransformedScatter(_Scatter):
    """`_Scatter` for the same."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return scatter(tangent, ctx.key)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], canvas: Tensor, key: Key) -> tuple[Tensor, int]:
        return _together(scatter, canvas.movedim(in_dims[0], 0), key), 0


def _together(function: Any, examples: Tensor, key: Key) -> Tensor:
    """Take many batches as one."""
    return function(examples.flatten(0, 1), key).unflatten(0, examples.shape[:2])  # type: ignore[no-any-return]


def wants_derivative(array: Tensor) -> bool:
    """Tell whether a derivative, backward or forward, is to go through a tensor."""
    return (torch.is_grad_enabled() and array.requires_grad) or in_forward_mode(array)


def gather(tiles: Tensor, key: Key) -> Tensor:
    """Blend tiles (N, T, C, h, w) to images (N, C, H, W) by their mean, differentiable."""
    if _is_transformed(tiles):
        return _TransformedGather.apply(tiles, key)  # type: ignore[no-any-return, no-untyped-call]
    if torch.is_grad_enabled() and tiles.requires_grad:
        return _Gather.apply(tiles, key)  # type: ignore[no-any-return, no-untyped-call]
    return _operator("tiles_gather", tiles)(tiles, *key, "mean")  # type: ignore[no-any-return]


def scatter(canvas: Tensor, key: Key) -> Tensor:
    """Take the tiles (N, T, C, h, w) of canvases (N, C, H, W), times the weights, differentiable."""
    if _is_transformed(canvas):
        return _TransformedScatter.apply(canvas, key)  # type: ignore[no-any-return, no-untyped-call]
    if torch.is_grad_enabled() and canvas.requires_grad:
        return _Scatter.apply(canvas, key)  # type: ignore[no-any-return, no-untyped-call]
    return _operator("tiles_scatter", canvas)(canvas, *key)  # type: ignore[no-any-return]


def _operator(name: str, array: Tensor) -> Any:
    """Return an operator, or its function itself where nothing looks on, as in `fastssim.autograd`."""
    plain = unobserved(array, array, None) and not is_batched(array)
    return _FUNCTIONS[name] if plain else getattr(_ops, name)


def _is_transformed(array: Tensor) -> bool:
    """Whether a transform of torch.func, any of which may bring forward mode, or forward mode itself is at work."""
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001  # no public word for it
        return True
    return not is_batched(array) and in_forward_mode(array)  # torch looks into no tangent of many


def reduce(tiles: Tensor, key: Key, reduction: str) -> Tensor | tuple[Tensor, Tensor]:
    """Blend tiles (N, T, C, h, w) to images (N, C, H, W) by any reduction, without a gradient."""
    if reduction == "mean_std":
        return _operator("tiles_gather_deviation", tiles)(tiles, *key)  # type: ignore[no-any-return]
    return _operator("tiles_gather", tiles)(tiles, *key, reduction)  # type: ignore[no-any-return]
