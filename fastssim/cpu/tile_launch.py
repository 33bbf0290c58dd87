"""From a plan of tiles and arrays to the kernels of `fastssim.cpu.tile_copy` and `fastssim.cpu.tile_blend`."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.cpu import tile_blend, tile_copy
from fastssim.cpu.pool import run_in_turns, run_slabs
from fastssim.cpu.tile_sums import MAX, MEAN, MIN, STD
from fastssim.tiles.plan import NO_SUMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastssim.tiles.plan import Plan, Sums

HOW = {"mean": MEAN, "max": MAX, "min": MIN, "mean_std": STD}
_ROWS = (16, 64)  # of a slab: many where a batch of tiles has few, and few where tiles come from memory
_SPANS = 16  # taken down the rows together: the rows that are asked for ahead stay in the first caches
_COPIED = (1 << 18, 1 << 21)  # bytes of a slab: small for a batch; else a large page, which two threads would clear
_STREAMED = 1 << 26  # bytes of tiles that no cache keeps: their lines are written without being read first
_WAKING = 1 << 17  # pixels of tiles that are blended in the 30 us that pass with another thread waking up
_WORDS = 1 << 17  # of a slab
_SLABS = 8  # of a batch


def gather(
    plan: Plan,
    tiles: NDArray[Any],  # (T, C, h, w) contiguous, those of `part`
    reduction: str,
    out: NDArray[Any],  # (C, rows, W), each row contiguous
    deviation: NDArray[Any] | None,  # the same, in such an array, for "mean_std"
    *,
    part: tuple[int, int, int, int] | None = None,
    rows: tuple[int, int] | None = None,
    band: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
    carry: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
) -> bool:
    """Blend the canvas rows `rows` as far as the tiles of `part` allow; tell whether all sums are finite.

    For "max" and "min", which may drop what is infinite, this is always true.

    Parameters
    ----------
    part : (int, int, int, int)
        Rows of tiles and columns of tiles that `tiles` holds: first, end, first, end. All, by default.
    rows : (int, int)
        First row, which is the first of `out`, and end, of those that are to be touched. The image's, by default.
    band, carry : (Sums, Sums)
        Sums over earlier rows of tiles, and over earlier tiles of this row, and where those that later parts finish go.
    """
    g = plan.geometry
    at_hand = tile_blend.Cover(*(part or (0, len(plan.down.origins), 0, len(plan.across.origins))))
    y0, y1 = rows or (g.top, g.top + g.height)
    channels = tiles.shape[1]
    tile_plane = g.tile_height * g.tile_width
    tile_step = channels * tile_plane
    row_step = tile_step * (at_hand.j1 - at_hand.j0)
    tables, covered = _tables(plan, row_step, tile_step)
    band_in, band_out, carry_in, carry_out = (sums.values for sums in (*band, *carry))
    sinks = tile_blend.Sinks(
        band_in.reshape(-1),
        band_out.reshape(-1),
        carry_in.reshape(-1),
        carry_out.reshape(-1),
        _lent(out),
        None if deviation is None else _lent(deviation),
    )
    out_step, out_pitch = (step // out.itemsize for step in out.strides[:2])
    planes = [values.shape[2] * values.shape[3] for values in (band_in, band_out, carry_in, carry_out)]
    steps = tile_blend.Steps(*(channels * plane for plane in planes))
    flat = _lent(tiles)
    layout = tile_blend.Layout(
        band_in=0,
        band_out=0,
        carry_in=0,
        carry_out=0,
        tiles=-at_hand.i0 * row_step - at_hand.j0 * tile_step,
        tile_pitch=g.tile_width,
        band_in_row=band[0].start,
        band_out_row=band[1].start,
        band_pitch=g.canvas_width,
        carry_row=int(plan.down.origins[at_hand.i0]),
        carry_in_column=carry[0].start,
        carry_out_column=carry[1].start,
        carry_in_pitch=carry_in.shape[3],
        carry_out_pitch=carry_out.shape[3],
        out=0,
        out_row=y0,
        out_column=g.left,
        out_pitch=out_pitch,
        ahead=g.tile_width,
        together=_SPANS,
    )
    channel_steps = (*planes, tile_plane, out_step)
    height = _between(_ROWS, (y1 - y0) * channels // _SLABS)
    slabs = -(-(y1 - y0) // height) * channels

    def kernel(counts: int, _: int, leads: int) -> None:
        tile_blend.gather_slabs(
            counts, slabs, leads, height, (y0, y1), HOW[reduction], flat, tables, covered, plan.spans,
            at_hand, layout, channel_steps, sinks, steps,
        )  # fmt: skip

    return not run_in_turns(kernel, slabs, _threads(tiles.size))


@lru_cache(maxsize=64)
def _tables(plan: Plan, row_step: int, tile_step: int) -> tuple[Any, NDArray[np.int64]]:
    """Return offsets and weights; the rows of tiles over each canvas row.

    row_step, tile_step: numbers from one row of tiles to the next, and from one tile to the next.
    """
    g, down, across = plan.geometry, plan.down, plan.across
    tile_rows = np.arange(len(down.origins), dtype=np.int64) * row_step - down.origins * g.tile_width
    tile_columns = np.arange(len(across.origins), dtype=np.int64) * tile_step - across.origins
    if plan.full is None:
        weight_rows = down.kinds * g.tile_height - down.origins
        weight_columns = across.kinds * g.tile_width - across.origins
    else:
        weight_rows, weight_columns = -down.origins * g.tile_width, -across.origins
    tables = tile_blend.Tables(
        np.stack([tile_rows, weight_rows], axis=1),
        np.stack([tile_columns, weight_columns], axis=1),
        down.weights.reshape(-1),
        across.weights.reshape(-1),
        None if plan.full is None else plan.full.reshape(-1),
    )
    return tables, np.stack([down.first, down.last], axis=1)


def copy(
    image: NDArray[Any],  # (C, H, W), any strides
    origins: NDArray[np.int64],  # (T, 2)
    out: NDArray[Any],  # (T, C, h, w) contiguous
) -> None:
    """Cut tiles out of an image of any dtype."""
    size = image.itemsize
    if image.strides[-1] != size:
        image = np.array(image, order="C")
    pixels = (image.ctypes.data, *image.strides[:2], len(image))
    places = origins * np.array([1, size])
    start, slabs, height, width = out.ctypes.data, _slab_count(out), out.shape[2], out.shape[3] * size
    stream = tile_copy.STREAMS and out.nbytes >= _STREAMED

    def kernel(counts: int, threads: int, leads: int) -> None:
        tile_copy.copy_tiles(counts, slabs, threads, leads, pixels, places, height, start, width, stream)

    run_in_turns(kernel, slabs, _threads(out.size))


def scatter(
    plan: Plan,
    image: NDArray[Any],  # (C, canvas H, canvas W), float32 or float64
    out: NDArray[Any],  # (T, C, h, w)
) -> None:
    """Write the adjoint of `gather` with "mean": every tile's weights times the image."""
    down, across = plan.down, plan.across
    slabs = _slab_count(out)

    def slab(number: int) -> None:
        first, end = (len(out) * edge // slabs for edge in (number, number + 1))
        tile_blend.scatter_tiles(
            image, down.origins, across.origins, first, end, down.weights, across.weights,
            down.kinds, across.kinds, plan.full, out,
        )  # fmt: skip

    _share(slab, slabs, out.size, apart=True)


def finite(pixels: NDArray[Any], exponent: tuple[int, int]) -> bool:
    """Tell whether no stored number has all bits of its exponent set, as NaN and infinity have.

    exponent: its lowest bit and the number of its bits.
    """
    lowest, width = exponent
    per_word = 8 // pixels.itemsize
    ones = sum(1 << (lowest + 8 * pixels.itemsize * k) for k in range(per_word))
    exponents = ones * ((1 << width) - 1)
    whole = pixels.size // per_word * per_word
    flat = pixels.reshape(-1)
    rest = np.zeros(per_word, pixels.dtype)
    rest[: pixels.size - whole] = flat[whole:]
    words = flat[:whole].view(np.uint64)
    edges = [*range(0, len(words), _WORDS), len(words)]
    found = [0] * len(edges)

    def slab(number: int) -> None:
        part = words[edges[number] : edges[number + 1]] if number + 1 < len(edges) else rest.view(np.uint64)
        found[number] = int(tile_blend.overflow(part, np.uint64(exponents), np.uint64(ones)))

    _share(slab, len(edges), pixels.size)
    overflown = ones << width
    return not any(bits & overflown for bits in found)


def _lent(array: NDArray[Any]) -> NDArray[Any]:
    """View memory from an array's first number to its last without holding it: a thread may outlive a call with it.

    The tensor that it may belong to would end in that thread, whom torch lets others interrupt meanwhile; where the
    interpreter ends then, so does the process, by an abort.
    """
    if not array.size:
        return np.empty(0, array.dtype)
    size = array.itemsize + sum((count - 1) * step for count, step in zip(array.shape, array.strides, strict=True))
    memory: Any = (ctypes.c_uint8 * size).from_address(array.ctypes.data)
    return np.frombuffer(memory, array.dtype)


def _slab_count(tiles: NDArray[Any]) -> int:
    """Return how many slabs tiles are written in."""
    return max(1, min(len(tiles), -(-tiles.nbytes // _between(_COPIED, tiles.nbytes // _SLABS))))


def _between(limits: tuple[int, int], size: int) -> int:
    """Return the size between the limits that is next to one."""
    return min(max(size, limits[0]), limits[1])


def _share(slab: Callable[[int], object], count: int, pixels: int, *, apart: bool = False) -> None:
    """Run slabs of so many pixels in all, by several threads where that saves more than it takes to wake them."""
    if _threads(pixels) > 1:
        run_slabs(slab, count, apart=apart)
    else:
        for number in range(count):
            slab(number)


def _threads(pixels: int) -> int:
    """Return how many threads so many pixels of tiles are worth."""
    threads = torch.get_num_threads()
    return threads if pixels * (threads - 1) > _WAKING * threads else 1
