"""From a plan and tensors to the kernels of `fastssim.cpu.ssim`."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cpu import pixels, strips, sums
from fastssim.cpu import ssim as kernels
from fastssim.cpu.pool import run_slabs
from fastssim.cpu.strips import lanes_of, pitch, strip_of
from fastssim.interop import LARGEST
from fastssim.plan import TILE_ROWS, Sums, source, tiles
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
    n, c = plan.shape[:2]
    planes = n * c
    layout = _layout(plan, gradient=grad_x is not None)
    number, edges = layout.number, layout.slabs
    results = np.empty((planes, len(layout.tiles), 3))
    rims = [None if gradient is None else np.empty(planes * layout.rim, number) for gradient in (grad_x, grad_y)]
    images = [None if image is None else _image(image) for image in (x, y, mask, upstream)]
    divisors = [number(LARGEST.get(image.dtype, 1) if plan.fractions else 1) for image in (x, y)]
    outputs = [None if array is None else _flat(array) for array in (ssim_map, grad_x, grad_y)]

    def slab(i: int) -> None:
        work, room, total = _workspace(len(plan.taps_y), layout.room, plan.dtype, exact=layout.exact is not None)
        exact = None if layout.exact is None else (room, *layout.exact)
        kernels.ssim_tiles(
            *images, tuple(divisors), layout.edges, layout.tiles, edges[i], edges[i + 1], c, layout.pitch, layout.taps,
            layout.constants, number(scale), None if l1 is None else number(l1), work, exact, total, results,
            *outputs, *rims,
        )  # fmt: skip

    run_slabs(slab, len(edges) - 1)
    if layout.rim:
        for rim, gradient in zip(rims, outputs[1:], strict=True):
            _fold(layout, rim, gradient, planes)
    totals = results.sum(axis=1).reshape(n, c, 3)
    return Sums(totals[..., 0], totals[..., 1], totals[..., 2])


def _fold(layout: _Layout, rim: Any, gradient: Any, planes: int) -> None:
    """Add the gradients of padded pixels to those of their sources."""
    if gradient is None:
        return
    rows, columns, pad_y, pad_x = layout.edges[:4]
    slabs = min(len(layout.slabs) - 1, planes)
    edges = [planes * i // slabs for i in range(slabs + 1)]
    run_slabs(lambda i: kernels.fold(rows, columns, pad_y, pad_x, edges[i], edges[i + 1], rim, gradient), slabs)


def _flat(tensor: Tensor) -> NDArray[Any]:
    """View a contiguous tensor as a flat array."""
    array: NDArray[Any] = tensor.detach().view(-1).numpy()
    return array


def _image(tensor: Tensor) -> tuple[int, ...]:
    """Address, kind and strides of a tensor (N, C, H, W), as the kernels take them."""
    item = tensor.element_size()
    n, c, row, column = tensor.stride()
    return tensor.data_ptr(), KINDS[tensor.dtype], n * item, c * item, row * item, column


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
    exact: tuple[Any, ...] | None  # what filters in float64 need to know
    room: int  # taps across that the rows of buffers have room for


@lru_cache(maxsize=1024)
def _layout(plan: Plan, *, gradient: bool) -> _Layout:
    """Tiles, taps and constants of a plan."""
    number: Callable[[float], Any] = np.dtype(plan.dtype).type
    n, c, height, width = plan.shape
    pad_y, pad_x = plan.pad
    down, across = rounded(plan.taps_y, plan.dtype), rounded(plan.taps_x, plan.dtype)
    exact = _exact(plan)
    # That kernel serves all windows with as much room; it does not look at the taps that the other one is made for.
    room = sums.room(len(across)) if exact else len(across)
    first_y = first_x = rim = 0
    halo_y, halo_x = len(down) - 1, len(across) - 1
    lanes = lanes_of(np.dtype(plan.dtype))
    covered = plan.map_shape[2:]
    if gradient:
        if plan.padding == "zeros":  # no pixel takes the gradient of a padded zero
            covered, first_y, first_x = (height, width), pad_y, pad_x
        else:
            covered = plan.padded
            rim = 2 * pad_y * covered[1] + height * 2 * pad_x
    # A gradient tile computes the windows of its left neighbour that reach into it, too.
    most = _tile_columns(covered[1], strips.longest(room, lanes), 2 * halo_x if gradient else halo_x, lanes)
    cut = np.array(tiles(*covered, most, sums.TILE_ROWS if exact else TILE_ROWS), np.int64) + np.array(
        (first_y, first_y, first_x, first_x), np.int64
    )
    items = n * c * len(cut)
    slabs = min(items, max(1, n * c * height * width // SLAB_PIXELS))
    places = [np.array(source(*line, plan.padding), np.int64) for line in ((height, pad_y), (width, pad_x))]
    return _Layout(
        (*places, pad_y, pad_x, first_y, first_x, halo_y, halo_x),
        cut,
        [items * i // slabs for i in range(slabs + 1)],
        number,
        pitch(room, lanes),
        4 * ((down[:1] * (room // 2 + 1),),)
        if exact
        else tuple(_taps(line) for line in (down, across, down[::-1], across[::-1])),
        (number(plan.c1), number(plan.c2), number(plan.unbiased)),
        rim,
        exact,
        room,
    )


def _taps(taps: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those up to the middle, where the others mirror them; see `fastssim.cpu.strips.tap_vectors`."""
    return (taps[: len(taps) // 2 + 1],) if taps == taps[::-1] else taps


def _tile_columns(width: int, longest: int, more: int, lanes: int) -> int:
    """How many columns a tile has, for the least vectors in all; `more` columns of a tile are computed besides."""

    def vectors(count: int) -> int:
        strip: int = strip_of(-(-width // count) + more, lanes)
        return count * strip

    least = 1
    while strip_of(-(-width // least) + more, lanes) > longest:
        least += 1
    return -(-width // min(range(least, 2 * least + 1), key=vectors))


def _exact(plan: Plan) -> tuple[Any, ...] | None:
    """Taps down, across, both mirrored, their factor, whether they are alike; None where float32 filters are right."""
    y, x = (np.array(taps) for taps in (plan.taps_y, plan.taps_x))
    uniform = (y == y[0]).all() and (x == x[0]).all()
    if not uniform and len(y) + len(x) >= sums.LARGE:
        return None
    if uniform:  # whole numbers: what comes into a sum goes out of it again
        return *(np.ones(len(taps)) for taps in (y, x, y, x)), 1 / (len(y) * len(x)), True
    return y, x, y[::-1].copy(), x[::-1].copy(), 1.0, False


def _workspace(
    taps_y: int, taps_x: int, dtype: str, *, exact: bool
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """Return this thread's rolling buffers, room for sums in float64 and lanes of sums."""
    kept = _scratch.__dict__
    key = (taps_y, taps_x, dtype, exact)
    if kept.get("key") != key:
        number = np.dtype(dtype)
        room = sums.workspace(taps_x, number) if exact else None
        totals = np.zeros(3 * lanes_of(number), number)
        kept.update(key=key, arrays=(kernels.workspace(taps_y, taps_x, number), room, totals))
    arrays: tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]] = kept["arrays"]
    return arrays
