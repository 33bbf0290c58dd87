"""From a plan and tensors to the kernels of `fastssim.cpu.ssim`."""

from __future__ import annotations

import threading
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cpu import buffers, pixels, team
from fastssim.cpu.kinds import CALL, PLAN, March, Step, packer
from fastssim.cpu.machine_code import address_of, entry, nothing
from fastssim.cpu.pages import LINE, from_line, in_large_pages
from fastssim.cpu.pool import run_in_turns, run_slabs
from fastssim.cpu.simd import vector_bytes
from fastssim.interop import LARGEST
from fastssim.plan import Sums, source, spans, tiles
from fastssim.window import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from fastssim.plan import Plan

SLAB_PIXELS = 1 << 14  # below this a second thread costs more than it brings
LARGE_SLAB = 1 << 18  # where threads have slabs enough: two that come to one large page of a gradient both clear it
_SLABS = 8  # for each thread are enough
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
_NO_MEMORY = "no memory for a kernel of SSIM"
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
    run, at = ready.run, ready.at
    planes, tile_count, _ = ready.sums
    sums = array("d", bytes(8 * 3 * planes * tile_count))  # whose address is had sooner than that of NumPy's
    threads = torch.get_num_threads()
    slabs = slab_count(*ready.layout.work, threads)
    rim_x, rim_y = (_rim(ready, gradient) for gradient in (grad_x, grad_y)) if ready.rims else (None, None)
    for fresh in (ssim_map, grad_x, grad_y):
        if fresh is not None:
            in_large_pages(fresh)
    fractions = plan.fractions
    call = _CALL.pack(
        *image_arguments(x), *image_arguments(y),
        *(_NO_IMAGE if mask is None else image_arguments(mask)),
        *(_NO_IMAGE if upstream is None else image_arguments(upstream)),
        sums.buffer_info()[0], 0 if ssim_map is None else ssim_map.data_ptr(),
        0 if grad_x is None else grad_x.data_ptr(), 0 if grad_y is None else grad_y.data_ptr(),
        0 if rim_x is None else rim_x.data_ptr(), 0 if rim_y is None else rim_y.data_ptr(),
        LARGEST.get(x.dtype, 1) if fractions else 1, LARGEST.get(y.dtype, 1) if fractions else 1,
        scale, 0 if l1 is None else l1,
    )  # fmt: skip

    filters = ready.layout.filters
    take_turns(
        run, ready.address, at, call, slabs, threads, ready.layout.work[1],
        lambda count: _workspaces(plan, filters, count), gradient=grad_x is not None,
    )  # fmt: skip
    if rim_x is not None:
        _fold(plan, ready, rim_x, grad_x)
    if rim_y is not None:
        _fold(plan, ready, rim_y, grad_y)
    by_plane = np.frombuffer(sums)
    if tile_count > 1:
        by_plane = np.add.reduce(by_plane.reshape(ready.sums), 1)
    by_plane = by_plane.reshape(*plan.shape[:2], 3)
    return Sums(by_plane[..., 0], by_plane[..., 1], by_plane[..., 2])


def take_turns(
    run: Callable[..., int],
    address: int,
    at: int,
    call: bytes,
    slabs: int,
    threads: int,
    pixels: int,
    workspaces: Callable[[int], list[tuple[int, ...]]],
    *,
    gradient: bool,
) -> None:
    """Let threads take turns at the slabs of a call: torch's where they are there for it, else the pool's.

    Parameters
    ----------
    run, address : callable, int
        An entry, and where its machine code lies.
    at, call : int, bytes
        Address of the plan's block; the call's.
    slabs, threads, pixels : int
        How many; the pixels are those of all slabs together.
    workspaces : callable
        Returns the addresses of memory for so many threads; asked in the thread that works, or calls a team.
    gradient : bool
        Whether one is computed.
    """

    def kernel(counts: int, threads: int, leads: int) -> None:
        if run(at, call, counts, slabs, threads, leads, *workspaces(1)[0]):
            raise MemoryError(_NO_MEMORY)

    if not team.is_there(threads, slabs, pixels, gradient=gradient):
        run_in_turns(kernel, slabs)
        return
    held = array("b", call)
    fixed = (*nothing(), at, held.buffer_info()[0])
    if team.work_together(address, fixed, slabs, threads, workspaces(threads)[:threads]):
        raise MemoryError(_NO_MEMORY)


def _rim(ready: _Ready, gradient: Tensor | None) -> Tensor | None:
    """Memory for the gradients of padded pixels."""
    return None if gradient is None else gradient.new_empty(ready.rims)


def _fold(plan: Plan, ready: _Ready, rim: Tensor, gradient: Any) -> None:
    """Add the gradients of padded pixels to those of their sources."""
    run, planes = entry(Step("fold", plan.dtype)), plan.shape[0] * plan.shape[1]
    edges = shared_out(planes, ready.layout.work[1])
    addresses = rim.data_ptr(), gradient.data_ptr()
    run_slabs(lambda i: run(ready.at, edges[i], edges[i + 1], *addresses), len(edges) - 1)


def image_arguments(tensor: Tensor) -> tuple[int, ...]:
    """Address, kind and strides of a tensor (N, C, H, W), as the kernels take them."""
    item = tensor.element_size()
    n, c, row, column = tensor.stride()
    return tensor.data_ptr(), KINDS[tensor.dtype], n * item, c * item, row * item, column


def shared_out(items: int, pixels: int) -> list[int]:
    """Return the edges of the parts of `items`, together of so many pixels, that threads take."""
    return _edges(items, pixels, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _edges(items: int, pixels: int, threads: int) -> list[int]:
    slabs = slab_count(items, pixels, threads)
    return [items * i // slabs for i in range(slabs + 1)]


def slab_count(items: int, pixels: int, threads: int) -> int:
    """Return how many such parts there are."""
    return max(1, min(items, pixels // SLAB_PIXELS, max(_SLABS * threads, pixels // LARGE_SLAB)))


class _Ready(NamedTuple):
    """A kind of march over a plan, ready to run."""

    run: Callable[..., int]
    address: int  # of its machine code
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
    filters = layout.filters
    planes = plan.shape[0] * plan.shape[1]
    kind = March(plan.dtype, *filters.kind, plan.masked, upstream, l1, ssim_map, grad_x, grad_y)
    block = np.frombuffer(
        _PLAN.pack(
            rows.ctypes.data, len(rows), columns.ctypes.data, len(columns), *pads,
            layout.tiles.ctypes.data, len(layout.tiles), planes, plan.shape[1],
            buffers.pitch(filters.room, lanes_of(plan.dtype)),
            filters.taps.ctypes.data, filters.exact_taps.ctypes.data, filters.uniform,
            *_sizes(plan, filters), *layout.constants, filters.share,
        ),
        np.uint8,
    )  # fmt: skip
    kept = (rows, columns, layout.tiles, filters, block)
    run = entry(kind)
    return _Ready(
        run, address_of(run), block.ctypes.data, layout, (planes, len(layout.tiles), 3), planes * layout.rim, kept
    )


class _Layout(NamedTuple):
    """What follows from a plan alone, as the kernels take it."""

    edges: tuple[Any, ...]
    tiles: NDArray[np.int64]
    work: tuple[int, int]  # planes x tiles, and the pixels of all images
    constants: tuple[float, float, float]
    rim: int  # gradients of padded pixels of one plane
    filters: _Filters


@lru_cache(maxsize=1024)
def _layout(plan: Plan, *, gradient: bool) -> _Layout:
    """Tiles, taps and constants of a plan."""
    n, c, height, width = plan.shape
    pad_y, pad_x = plan.pad
    filters = _filters(plan)
    first_y = first_x = rim = 0
    halo_y, halo_x = len(plan.taps_y) - 1, len(plan.taps_x) - 1
    covered = plan.map_shape[2:]
    if gradient:
        if plan.padding == "zeros":  # no pixel takes the gradient of a padded zero
            covered, first_y, first_x = (height, width), pad_y, pad_x
        else:
            covered = plan.padded
            rim = 2 * pad_y * covered[1] + height * 2 * pad_x
    rows = covered[0]
    lanes = lanes_of(plan.dtype)
    narrow = gradient and buffers.few(rows, n * c)
    across = buffers.tile_spans(
        (first_x, first_x + covered[1]),
        plan.padded[1],
        halo_x,
        halo_x if gradient else 0,  # a gradient tile computes the windows of its left neighbour that reach into it, too
        lanes,
        (buffers.longest(filters.room, lanes, gradient=narrow), covered[1]),
    )
    high = buffers.exact_tile_rows(len(plan.taps_y)) if filters.exact else buffers.tile_rows(rows, n * c * len(across))
    cut = np.array(tiles(spans(first_y, first_y + rows, high), across), np.int64)
    places = [np.array(source(*line, plan.padding), np.int64) for line in ((height, pad_y), (width, pad_x))]
    return _Layout(
        (*places, pad_y, pad_x, first_y, first_x, halo_y, halo_x),
        cut,
        (n * c * len(cut), n * c * height * width),
        (plan.c1, plan.c2, plan.unbiased),
        rim,
        filters,
    )


class _Filters(NamedTuple):
    """The window as the kernels take it."""

    taps: NDArray[Any]  # down, then across; of a mirrored window those up to the middle
    kind: tuple[int, int, bool, bool, bool]  # taps down, across, whether they are mirrored; whether in float64
    room: int  # taps across that buffers have room for
    exact_taps: NDArray[np.float64]  # down, across, then both mirrored
    share: float  # what these are multiplied by
    uniform: bool  # they are all alike

    @property
    def exact(self) -> bool:
        """Filter in float64."""
        return self.kind[4]


def _filters(plan: Plan) -> _Filters:
    """Choose between filters in float64 and those in the images' own precision.

    The first are as fast for uniform windows of any size, and serve windows that neighbours' pivots do not suit.
    """
    y, x = (np.array(taps) for taps in (plan.taps_y, plan.taps_x))
    uniform = bool((y == y[0]).all() and (x == x[0]).all())
    if uniform:  # whole numbers: what comes into a sum goes out of it again
        exact_taps, share = np.ones(2 * (len(y) + len(x))), 1 / (len(y) * len(x))
    else:
        exact_taps, share = np.concatenate([y, x, y[::-1], x[::-1]]), 1.0
    if uniform or not (_shares_pivots(y) and _shares_pivots(x)):
        room = buffers.room(len(x))  # that kernel serves all windows with as much room: its taps only tell how much
        kind = (1, room // 2 + 1, True, True, True)
        return _Filters(np.zeros(sum(kind[:2]), plan.dtype), kind, room, exact_taps, share, uniform)
    (down, mirrored_y), (across, mirrored_x) = (up_to_middle(taps, plan.dtype) for taps in plan.taps)
    kind = (len(down), len(across), mirrored_y, mirrored_x, False)
    return _Filters(np.array([*down, *across], plan.dtype), kind, len(x), exact_taps, share, uniform)


def _shares_pivots(taps: NDArray[np.float64]) -> bool:
    """Tell whether a pivot has a good part of the weight in every window that shares it: then no variance is lost."""
    count = buffers.sharing(len(taps), buffers.ROWS)
    place = buffers.amid(len(taps), count)
    least = buffers.LEAST_SHARE if len(taps) > buffers.SMALL else buffers.LEAST_SHARE_SMALL
    return bool(min(taps[place - count + 1 : place + 1]) >= least * max(taps))


def up_to_middle(taps: tuple[float, ...], dtype: str) -> tuple[tuple[Any, ...], bool]:
    """Round taps; return those of a mirrored window up to the middle, of another all, and whether it is mirrored."""
    right = rounded(taps, dtype)
    mirrored = right == right[::-1]
    return right[: len(right) // 2 + 1] if mirrored else right, mirrored


def _workspaces(plan: Plan, filters: _Filters, threads: int) -> list[tuple[int, ...]]:
    """Return the addresses of rolling buffers, room for sums in float64 and lanes of sums, for each of some threads."""
    return kept_workspaces(_scratch.__dict__, filters, lambda: _sizes(plan, filters), plan.dtype, threads)


def kept_workspaces(
    kept: dict[str, Any], owner: object, sizes: Callable[[], tuple[int, int, int]], dtype: str, threads: int
) -> list[tuple[int, ...]]:
    """Return the addresses of three arrays for each of some threads, the second in float64.

    `kept`: this thread's, which works in the first of them or gives all to its team; made anew where another `owner`
    wants other `sizes`.
    """
    if kept.get("owner") is not owner:
        key = (dtype, *sizes())
        if kept.get("key") != key:
            kept.update(owner=owner, key=key, arrays=[], addresses=[])  # at once: Ctrl-C may come between
        kept["owner"] = owner
    addresses: list[tuple[int, ...]] = kept["addresses"]
    while len(addresses) < threads:
        made = [_aligned(size, kind) for size, kind in zip(kept["key"][1:], (dtype, "float64", dtype), strict=True)]
        kept["arrays"] += made
        addresses.append(tuple(array.ctypes.data for array in made))
    return addresses


def _sizes(plan: Plan, filters: _Filters) -> tuple[int, int, int]:
    """Numbers in the rolling buffers, in the room for sums and in the lanes of sums."""
    lanes = lanes_of(plan.dtype)
    rolling = buffers.rolling(len(plan.taps_y), filters.room, lanes)
    return rolling, buffers.summed(filters.room, lanes) if filters.exact else 0, 3 * lanes


def lanes_of(dtype: str) -> int:
    """How many numbers one vector holds."""
    return vector_bytes() // np.dtype(dtype).itemsize


def _aligned(size: int, dtype: str) -> NDArray[Any]:
    """Make an array of zeros in which no vector lies across two cache lines."""
    return from_line(np.zeros(size + LINE // np.dtype(dtype).itemsize, dtype), size)
