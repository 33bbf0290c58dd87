"""From a plan and tensors to the kernels of `fastssim.cpu.ssim`."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cpu import pixels
from fastssim.cpu import ssim as kernels
from fastssim.cpu.kinds import CALL, PLAN, Fold, March, packer
from fastssim.cpu.machine_code import entry
from fastssim.cpu.pool import run_slabs
from fastssim.cpu.simd import vector_bytes
from fastssim.interop import LARGEST
from fastssim.plan import Sums, source, tiles
from fastssim.window import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from fastssim.plan import Plan

SLAB_PIXELS = 1 << 15  # below this a second thread costs more than it brings
KINDS = {
    torch.float32: pixels.FLOAT32,
    torch.float64: pixels.FLOAT64,
    torch.float16: pixels.FLOAT16,
    torch.bfloat16: pixels.BFLOAT16,
    torch.uint8: pixels.UINT8,
    torch.bool: pixels.UINT8,
    torch.uint16: pixels.UINT16,
}
_PLAN, _CALL = packer(PLAN), packer(CALL)
_NO_IMAGE = (0,) * 6
_scratch = threading.local()


def value(plan: Plan, x: Tensor, y: Tensor, mask: Tensor | None, *, distance: bool = False) -> Sums:
    """Return sums over the windows and, where `distance` is wanted, the pixels of each plane."""
    return _march(plan, x, y, mask, l1=0.0 if distance else None)


def ssim_map(plan: Plan, x: Tensor, y: Tensor, mask: Tensor | None, out: Tensor) -> None:
    """Write the SSIM map, `out` (N, C, H', W') contiguous."""
    _march(plan, x, y, mask, ssim_map=out)


def value_and_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    scale: float,
    grad_x: Tensor,
    grad_y: Tensor | None,
    *,
    l1: float | None = None,
) -> Sums:
    """As `value`, and in the same march write the gradient of scale * sum(SSIM) + l1 * sum|x - y|; contiguous."""
    return _march(plan, x, y, mask, scale=scale, l1=l1, grad_x=grad_x, grad_y=grad_y)


def map_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    upstream: Tensor,
    grad_x: Tensor,
    grad_y: Tensor | None,
) -> None:
    """Write the gradient of sum(upstream * SSIM map) by x and, unless None, by y; upstream (N, C, H', W')."""
    _march(plan, x, y, mask, upstream=upstream, grad_x=grad_x, grad_y=grad_y)


def _march(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    *,
    scale: float = 1.0,
    l1: float | None = None,
    upstream: Tensor | None = None,
    ssim_map: Tensor | None = None,
    grad_x: Tensor | None = None,
    grad_y: Tensor | None = None,
) -> Sums:
    """Run every tile of every plane; return the planes' sums."""
    ready = _ready(
        plan, upstream is not None, l1 is not None, ssim_map is not None, grad_x is not None, grad_y is not None
    )
    run, at, edges = ready.run, ready.at, ready.layout.slabs
    sums = np.empty(ready.sums)
    rim_x, rim_y = (_rim(ready, gradient) for gradient in (grad_x, grad_y)) if ready.rims else (None, None)
    fractions = plan.fractions
    call = _CALL.pack(
        *_image(x), *_image(y),
        *(_NO_IMAGE if mask is None else _image(mask)), *(_NO_IMAGE if upstream is None else _image(upstream)),
        sums.ctypes.data, 0 if ssim_map is None else ssim_map.data_ptr(),
        0 if grad_x is None else grad_x.data_ptr(), 0 if grad_y is None else grad_y.data_ptr(),
        0 if rim_x is None else rim_x.data_ptr(), 0 if rim_y is None else rim_y.data_ptr(),
        LARGEST.get(x.dtype, 1) if fractions else 1, LARGEST.get(y.dtype, 1) if fractions else 1,
        scale, 0 if l1 is None else l1,
    )  # fmt: skip

    def slab(i: int) -> None:
        if run(at, call, edges[i], edges[i + 1], *_workspace(plan)):
            raise MemoryError("no memory for the pivots of a tile")

    if len(edges) == 2:
        slab(0)
    else:
        run_slabs(slab, len(edges) - 1)
    if rim_x is not None:
        _fold(plan, ready, rim_x, grad_x)
    if rim_y is not None:
        _fold(plan, ready, rim_y, grad_y)
    n, c = plan.shape[:2]
    return Sums(*np.add.reduce(sums, 1).reshape(n, c, 3).transpose(2, 0, 1))


def _rim(ready: _Ready, gradient: Tensor | None) -> Tensor | None:
    """Memory for the gradients of padded pixels."""
    return None if gradient is None else gradient.new_empty(ready.rims)


def _fold(plan: Plan, ready: _Ready, rim: Tensor, gradient: Any) -> None:
    """Add the gradients of padded pixels to those of their sources."""
    run, planes = entry(Fold(plan.dtype)), plan.shape[0] * plan.shape[1]
    slabs = min(len(ready.layout.slabs) - 1, planes)
    edges = [planes * i // slabs for i in range(slabs + 1)]
    addresses = rim.data_ptr(), gradient.data_ptr()
    run_slabs(lambda i: run(ready.at, edges[i], edges[i + 1], *addresses), slabs)


def _image(tensor: Tensor) -> tuple[int, ...]:
    """Address, kind and strides of a tensor (N, C, H, W), as the kernels take them."""
    item = tensor.element_size()
    n, c, row, column = tensor.stride()
    return tensor.data_ptr(), KINDS[tensor.dtype], n * item, c * item, row * item, column


class _Ready(NamedTuple):
    """A kind of march over a plan, ready to run."""

    run: Callable[..., int]
    at: int  # address of the plan's block
    layout: _Layout
    sums: tuple[int, int, int]  # their shape
    rims: int  # gradients of padded pixels of all planes
    kept: tuple[Any, ...]  # what the plan's block points to, and itself


@lru_cache(maxsize=1024)
def _ready(plan: Plan, upstream: bool, l1: bool, ssim_map: bool, grad_x: bool, grad_y: bool) -> _Ready:  # noqa: FBT001  # by position, for the cache
    """Prepare what every call on a plan shares, see `fastssim.cpu.kinds`."""
    layout = _layout(plan, gradient=grad_x)
    rows, columns, *pads = layout.edges
    down, across, *_ = layout.taps
    taps = np.array([*down, *across], plan.dtype)
    planes = plan.shape[0] * plan.shape[1]
    kind = March(plan.dtype, len(down), len(across), plan.masked, upstream, l1, ssim_map, grad_x, grad_y)
    _, _, work, total = _buffers(len(down), len(across), plan.dtype)
    block = np.frombuffer(
        _PLAN.pack(
            rows.ctypes.data, len(rows), columns.ctypes.data, len(columns), *pads,
            layout.tiles.ctypes.data, len(layout.tiles), planes, plan.shape[1], layout.pitch,
            taps.ctypes.data, work.size, total.size, *layout.constants,
        ),
        np.uint8,
    )  # fmt: skip
    kept = (rows, columns, layout.tiles, taps, block)
    return _Ready(entry(kind), block.ctypes.data, layout, (planes, len(layout.tiles), 3), planes * layout.rim, kept)


class _Layout(NamedTuple):
    """What follows from a plan alone, as the kernels take it."""

    edges: tuple[Any, ...]
    tiles: NDArray[np.int64]
    slabs: list[int]  # edges of the parts that threads take, in planes x tiles
    number: Any  # NumPy's type of the arithmetic
    pitch: int
    taps: tuple[Any, ...]
    constants: tuple[Any, ...]
    rim: int  # gradients of padded pixels of one plane


@lru_cache(maxsize=1024)
def _layout(plan: Plan, *, gradient: bool) -> _Layout:
    """Tiles, taps and constants of a plan."""
    number: Callable[[float], Any] = np.dtype(plan.dtype).type
    n, c, height, width = plan.shape
    pad_y, pad_x = plan.pad
    down, across = rounded(plan.taps_y, plan.dtype), rounded(plan.taps_x, plan.dtype)
    first_y = first_x = rim = 0
    most = kernels.TILE_COLUMNS
    covered = plan.map_shape[2:]
    if gradient:
        # A gradient tile computes the windows of its left neighbour that reach into it, too.
        most = max(kernels.TILE_COLUMNS - len(across) + 1, kernels.TILE_COLUMNS // 4)
        if plan.padding == "zeros":  # no pixel takes the gradient of a padded zero
            covered, first_y, first_x = (height, width), pad_y, pad_x
        else:
            covered = plan.padded
            rim = 2 * pad_y * covered[1] + height * 2 * pad_x
    cut = np.array(tiles(*covered, most), np.int64) + np.array((first_y, first_y, first_x, first_x), np.int64)
    items = n * c * len(cut)
    slabs = min(items, max(1, n * c * height * width // SLAB_PIXELS))
    places = [np.array(source(*line, plan.padding), np.int64) for line in ((height, pad_y), (width, pad_x))]
    return _Layout(
        (*places, pad_y, pad_x, first_y, first_x),
        cut,
        [items * i // slabs for i in range(slabs + 1)],
        number,
        kernels.pitch(len(across)),
        (down, across, down[::-1], across[::-1]),
        (number(plan.c1), number(plan.c2), number(plan.unbiased)),
        rim,
    )


def _workspace(plan: Plan) -> tuple[int, int]:
    """Return the addresses of this thread's rolling buffers and lanes of sums."""
    kept = _scratch.__dict__
    if kept.get("plan") is not plan:
        key = (len(plan.taps_y), len(plan.taps_x), plan.dtype)
        if kept.get("key") != key:
            kept.update(key=key, buffers=_buffers(*key))
        kept["plan"] = plan
    addresses: tuple[int, int] = kept["buffers"][:2]
    return addresses


def _buffers(taps_y: int, taps_x: int, dtype: str) -> tuple[int, int, NDArray[Any], NDArray[Any]]:
    """Make rolling buffers and lanes of sums; their addresses come first."""
    work = kernels.workspace(taps_y, taps_x, np.dtype(dtype))
    total = np.zeros(3 * vector_bytes() // np.dtype(dtype).itemsize, dtype)
    return work.ctypes.data, total.ctypes.data, work, total
