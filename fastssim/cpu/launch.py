"""From a plan and arrays to the kernels of `fastssim.cpu.ssim`."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastssim.cpu import ssim as kernels
from fastssim.cpu.pool import run_slabs
from fastssim.cpu.simd import vector_bytes
from fastssim.plan import tiles
from fastssim.window import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastssim.plan import Plan

SLAB_PIXELS = 1 << 15  # below this a second thread costs more than it brings
_scratch = threading.local()


def value(plan: Plan, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Sum of SSIM over the windows of each plane, (N, C), float64."""
    return _march(plan, x, y)


def ssim_map(plan: Plan, x: NDArray[Any], y: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the SSIM map, `out` (N, C, H', W') contiguous."""
    _march(plan, x, y, ssim_map=out.reshape(-1))


def value_and_gradient(
    plan: Plan,
    x: NDArray[Any],
    y: NDArray[Any],
    scale: float,
    grad_x: NDArray[Any],
    grad_y: NDArray[Any] | None,
) -> NDArray[np.float64]:
    """As `value`, and in the same march write scale * d(sum)/dx and, unless None, scale * d(sum)/dy; contiguous."""
    return _march(plan, x, y, scale=scale, grad_x=grad_x.reshape(-1), grad_y=_flat(grad_y))


def map_gradient(
    plan: Plan,
    x: NDArray[Any],
    y: NDArray[Any],
    upstream: NDArray[Any],
    grad_x: NDArray[Any],
    grad_y: NDArray[Any] | None,
) -> None:
    """Write the gradient of sum(upstream * SSIM map) by x and, unless None, by y; upstream (N, C, H', W')."""
    _march(plan, x, y, upstream=upstream, grad_x=grad_x.reshape(-1), grad_y=_flat(grad_y))


def _flat(array: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if array is None else array.reshape(-1)


def _march(
    plan: Plan,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    scale: float = 1.0,
    upstream: NDArray[Any] | None = None,
    ssim_map: NDArray[Any] | None = None,
    grad_x: NDArray[Any] | None = None,
    grad_y: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Run every tile of every plane; return the planes' sums."""
    n, c, height, width = plan.shape if grad_x is not None else plan.map_shape
    cut, taps, constants = _constants(plan, gradient=grad_x is not None)
    number = constants[0].dtype.type
    sums = np.empty((n * c, len(cut)))
    items = sums.size
    slabs = min(items, max(1, n * c * height * width // SLAB_PIXELS))
    edges = [items * i // slabs for i in range(slabs + 1)]
    step = kernels.pitch(len(plan.taps_x))

    def slab(i: int) -> None:
        work, total = _workspace(len(plan.taps_y), len(plan.taps_x), plan.dtype)
        kernels.ssim_tiles(
            x, y, cut, edges[i], edges[i + 1], step, taps, constants, number(scale), work, total, sums, upstream,
            ssim_map, grad_x, grad_y,
        )  # fmt: skip

    run_slabs(slab, slabs)
    totals: NDArray[np.float64] = sums.sum(axis=1).reshape(n, c)
    return totals


@lru_cache(maxsize=1024)
def _constants(plan: Plan, *, gradient: bool) -> tuple[NDArray[np.int64], tuple[Any, ...], tuple[Any, ...]]:
    """Tiles, taps and constants of a plan as the kernels take them."""
    number: Callable[[float], Any] = np.dtype(plan.dtype).type
    _, _, height, width = plan.shape if gradient else plan.map_shape
    # A gradient tile computes the windows of its left neighbour that reach into it, too.
    most = (
        max(kernels.TILE_COLUMNS - len(plan.taps_x) + 1, kernels.TILE_COLUMNS // 4)
        if gradient
        else kernels.TILE_COLUMNS
    )
    cut = np.array(tiles(height, width, most), np.int64).reshape(-1, 4)
    down, across = rounded(plan.taps_y, plan.dtype), rounded(plan.taps_x, plan.dtype)
    taps = (down, across, down[::-1], across[::-1])
    return cut, taps, (number(plan.c1), number(plan.c2), number(0.5))


def _workspace(taps_y: int, taps_x: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return this thread's rolling buffers and lanes of sums."""
    kept = _scratch.__dict__
    key = (taps_y, taps_x, dtype)
    if kept.get("key") != key:
        lanes = vector_bytes() // np.dtype(dtype).itemsize
        kept.update(key=key, arrays=(kernels.workspace(taps_y, taps_x, np.dtype(dtype)), np.zeros(lanes, dtype)))
    arrays: tuple[NDArray[Any], NDArray[Any]] = kept["arrays"]
    return arrays
