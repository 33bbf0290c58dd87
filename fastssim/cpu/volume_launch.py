"""From a plan of volumes and tensors to the kernel of `fastssim.cpu.volume`; offers what `fastssim.cpu.launch` does."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cpu import buffers
from fastssim.cpu import volume as kernels
from fastssim.cpu.kinds import VOLUME_CALL, VOLUME_PLAN, VolumeMarch, packer
from fastssim.cpu.launch import KINDS, kept_workspaces, lanes_of, slab_count, take_turns, up_to_middle
from fastssim.cpu.machine_code import address_of, entry
from fastssim.cpu.pages import in_large_pages
from fastssim.cpu.pool import run_slabs
from fastssim.interop import LARGEST
from fastssim.plan import Sums, source, spans, tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from fastssim.plan import Plan

_PLAN, _CALL = packer(VOLUME_PLAN), packer(VOLUME_CALL)
_NO_VOLUME = (0,) * 7
_scratch = threading.local()


def value(plan: Plan, x: Tensor, y: Tensor, mask: None, *, distance: bool = False) -> Sums:  # noqa: ARG001
    """Return sums of SSIM over the windows of each volume; neither masks nor distances are asked of volumes."""
    return _march(plan, (x, y, None), (None, None, None))


def ssim_map(plan: Plan, x: Tensor, y: Tensor, mask: None, out: Tensor) -> None:  # noqa: ARG001
    """Write the SSIM map, `out` (N, C, D', H', W') contiguous."""
    _march(plan, (x, y, None), (out, None, None))


def value_and_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: None,  # noqa: ARG001
    scale: float,
    grad_x: Tensor,
    grad_y: Tensor | None,
    *,
    l1: None = None,  # noqa: ARG001
) -> Sums:
    """As `value`, and in the same march write the gradient of scale * sum(SSIM); contiguous."""
    return _march(plan, (x, y, None), (None, grad_x, grad_y), scale)


def map_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: None,  # noqa: ARG001
    upstream: Tensor,
    grad_x: Tensor,
    grad_y: Tensor | None,
) -> None:
    """Write the gradient of sum(upstream * SSIM map) by x and, unless None, by y; upstream (N, C, D', H', W')."""
    _march(plan, (x, y, upstream), (None, grad_x, grad_y))


def _march(
    plan: Plan,
    images: tuple[Tensor, Tensor, Tensor | None],  # x, y, upstream
    outputs: tuple[Tensor | None, ...],  # SSIM map, gradients by x and y
    scale: float = 1.0,
) -> Sums:
    """Run every brick of every volume; return the volumes' sums."""
    n, c = plan.shape[:2]
    for fresh in outputs:
        if fresh is not None:
            in_large_pages(fresh)
    wanted = tuple(image is not None for image in (images[2], *outputs))
    ready = _ready(plan, *wanted)
    layout = ready.layout
    sums = np.empty((n * c, len(layout.bricks)))
    beyond = [_Beyond(None, None) if image is None else _beyond(plan, layout) for image in outputs[1:]]
    call = _CALL.pack(
        *(number for image in images for number in (_NO_VOLUME if image is None else _volume(image))),
        sums.ctypes.data, *(0 if image is None else image.data_ptr() for image in outputs),
        *(0 if outer is None else outer.ctypes.data for outer, _ in beyond),
        *(0 if rim is None else rim.ctypes.data for _, rim in beyond),
        *(LARGEST.get(image.dtype, 1) if plan.fractions else 1 for image in images[:2]), scale,
    )  # fmt: skip
    threads = torch.get_num_threads()
    slabs = slab_count(*layout.work, threads)
    take_turns(
        ready.run, ready.address, ready.at, call, slabs, threads, layout.work[1], ready.workspaces,
        gradient=outputs[1] is not None,
    )  # fmt: skip
    if layout.rim:
        for gradient, (outer, rim) in zip(outputs[1:], beyond, strict=True):
            if gradient is not None:
                _fold(plan, layout, gradient.detach().numpy(), outer, rim)
    none = np.zeros((n, c))
    return Sums(sums.sum(axis=1).reshape(n, c), none, none)


class _Ready(NamedTuple):
    """A kind of march over a plan, ready to run."""

    run: Callable[..., int]
    address: int  # of its machine code
    at: int  # address of the plan's block
    layout: _Layout
    workspaces: Callable[[int], list[tuple[int, ...]]]
    kept: tuple[Any, ...]  # what the plan's block points to, and itself


@lru_cache(maxsize=1024)
def _ready(plan: Plan, upstream: bool, ssim_map: bool, grad_x: bool, grad_y: bool) -> _Ready:  # noqa: FBT001  # by position, for the cache
    """Prepare what every call on a plan shares, see `fastssim.cpu.kinds`."""
    layout = _layout(plan, gradient=grad_x)
    places, taps = layout.edges[:3], [axis for axis, _ in layout.taps]
    numbers = np.array([tap for axis in taps for tap in axis], plan.dtype)
    sizes = (layout.size.total, 0, 3 * lanes_of(plan.dtype))
    block = np.frombuffer(
        _PLAN.pack(
            *(number for line in places for number in (line.ctypes.data, len(line))), *layout.edges[3:],
            layout.bricks.ctypes.data, len(layout.bricks), plan.shape[0] * plan.shape[1], plan.shape[1],
            math.prod(plan.map_shape[2:]), numbers.ctypes.data, *layout.size, sizes[0], sizes[2],
            plan.c1, plan.c2, plan.unbiased,
        ),
        np.uint8,
    )  # fmt: skip
    deep, down, across = map(len, taps)
    mirrored_z, mirrored_y, mirrored_x = (mirrored for _, mirrored in layout.taps)
    kind = VolumeMarch(
        plan.dtype, deep, down, across, mirrored_z, mirrored_y, mirrored_x, upstream, ssim_map, grad_x, grad_y
    )
    run = entry(kind)

    def workspaces(threads: int) -> list[tuple[int, ...]]:
        return kept_workspaces(_scratch.__dict__, layout, lambda: sizes, plan.dtype, threads)

    return _Ready(run, address_of(run), block.ctypes.data, layout, workspaces, (places, layout.bricks, numbers, block))


class _Beyond(NamedTuple):
    """Gradients of padded pixels: planes before and behind a volume, and the rims of all planes, flat."""

    outer: Any
    rim: Any


def _beyond(plan: Plan, layout: _Layout) -> _Beyond:
    """Memory for the gradients of padded pixels."""
    n, c, _, height, width = plan.shape
    if not layout.rim:
        return _Beyond(np.empty(0, layout.number), np.empty(0, layout.number))
    planes = n * c * 2 * plan.pad[0] * height * width
    return _Beyond(np.empty(planes, layout.number), np.empty(n * c * layout.rim, layout.number))


def _fold(plan: Plan, layout: _Layout, gradient: NDArray[Any], outer: NDArray[Any], rim: NDArray[Any]) -> None:
    """Add the gradients of padded pixels to those of their sources: first in every plane, then plane to plane."""
    n, c, depth, height, width = plan.shape
    planes, rows, columns, pad_z, pad_y, pad_x = layout.edges[:6]
    inner = gradient.reshape(n * c, depth, -1)
    outer = outer.reshape(n * c, 2 * pad_z, height * width)
    rim = rim.reshape(n * c, depth + 2 * pad_z, -1)

    def volume(i: int) -> None:
        parts = (
            (outer[i, :pad_z], rim[i, :pad_z]),
            (inner[i], rim[i, pad_z : pad_z + depth]),
            (outer[i, pad_z:], rim[i, pad_z + depth :]),
        )
        for gradients, rims in parts:
            kernels.fold_planes(rows, columns, pad_y, pad_x, len(rims), rims.reshape(-1), gradients.reshape(-1))
        for border in range(2 * pad_z):
            inner[i, planes[border if border < pad_z else depth + border]] += outer[i, border]

    run_slabs(volume, n * c)


def _volume(tensor: Tensor) -> tuple[int, ...]:
    """Address, kind and strides of a tensor (N, C, D, H, W), as the kernels take them."""
    item = tensor.element_size()
    *steps, column = tensor.stride()
    return tensor.data_ptr(), KINDS[tensor.dtype], *(step * item for step in steps), column


class _Layout(NamedTuple):
    """What follows from a plan alone, as the kernels take it."""

    edges: tuple[Any, ...]
    bricks: NDArray[np.int64]
    work: tuple[int, int]  # volumes x bricks, and the pixels of all volumes
    number: Any  # NumPy's type of the arithmetic
    size: kernels.Sizes
    taps: tuple[tuple[tuple[Any, ...], bool], ...]  # along each axis, of a mirrored window those up to the middle
    rim: int  # gradients of padded pixels of one volume, those of whole padded planes aside


@lru_cache(maxsize=1024)
def _layout(plan: Plan, *, gradient: bool) -> _Layout:
    """Bricks, edges and taps of a plan."""
    number: Any = np.dtype(plan.dtype).type
    n, c, *lengths = plan.shape
    halos = tuple(len(axis) - 1 for axis in plan.taps)
    covered, rim = plan.map_shape[2:], 0
    first: tuple[int, ...] = (0, 0, 0)
    if gradient:
        if plan.padding == "zeros":  # no pixel takes the gradient of a padded zero
            covered, first = plan.shape[2:], plan.pad
        else:
            covered = plan.padded
            _, pad_y, pad_x = plan.pad
            rim = covered[0] * (2 * pad_y * covered[2] + lengths[1] * 2 * pad_x)
    deep, down, last = ((start, start + length) for start, length in zip(first, covered, strict=True))
    lanes = lanes_of(plan.dtype)
    across = buffers.tile_spans(
        last,
        plan.padded[2],
        halos[2],
        halos[2] if gradient else 0,  # a gradient brick computes the windows on its left that reach into it, too
        lanes,
        (buffers.longest(len(plan.taps_x), lanes, gradient=True), kernels.BRICK_COLUMNS),
    )
    cut = tiles(spans(*deep, kernels.BRICK_PLANES), spans(*down, kernels.BRICK_ROWS), across)
    places = [
        np.array(source(length, pad, plan.padding), np.int64) for length, pad in zip(lengths, plan.pad, strict=True)
    ]
    return _Layout(
        (*places, *plan.pad, *first, *halos),
        np.array(cut, np.int64),
        (n * c * len(cut), n * c * math.prod(lengths)),
        number,
        kernels.sizes(len(plan.taps_z), len(plan.taps_y), len(plan.taps_x), lanes),
        tuple(up_to_middle(axis, plan.dtype) for axis in plan.taps),
        rim,
    )
