"""Uniform windows by running sums: the cost of a filter does not depend on its size.

With S[j] the sum of n neighbours from j on,

    S[j + 1] = S[j] + v[j + n] - v[j]

down the columns as the march goes on, and then across. Sums are float64 about the tile's pivot: the square of a float32
is exact there, what one sum leaves behind in the next is 2^-53 of the largest term, and e - m^2 needs no local pivot.
Where that would be too much, or a number is not finite and would never leave a running sum, the march is `calm` no
longer and every sum from there on starts anew.

Layouts as in `fastssim.cpu.ssim`; sums: [map][pitch] of float64, then the running totals [map][lanes].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.jit import jit
from fastssim.cpu.simd import Code, Vector, lanes, wanted
from fastssim.cpu.strips import continue_strips, lanes_of, pitch
from fastssim.plan import LEAST_WEIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_ROWS = 256  # what a tile computes beside its own windows grows with the window: tiles are large
MAPS = 5  # at most: two moments of s and d, and the mask
FINITE = 1e30  # weights beyond are no better than infinite
LARGEST_SQUARE = 1e6  # times C2: what a pixel's square of this size leaves behind does not show in a variance


def _codes(context: Any, builder: Any, dtype: Any) -> tuple[Code, Code]:
    """Code for the numbers of rows and, as many lanes, for their sums."""
    return Code(context, builder, dtype), Code(context, builder, types.float64, lanes(dtype))


@intrinsic
def _add_moments(
    typing: Any, sums: Any, step: Any, s: Any, d: Any, mask: Any, place: Any, column: Any, leaving: Any
) -> Any:
    """Add s, s^2, d, d^2 and the mask, each times the mask unless it is None, to the sums; or take them off."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, s_t, d_t, mask_t, _, _, leaving_t = signature.args
        sums_v, step_v, s_v, d_v, mask_v, place_v, column_v, _ = args
        narrow, wide = _codes(context, builder, s_t.dtype)

        def load(kind: Any, value: Any) -> Vector:
            return wide.widened(narrow.load(narrow.at(narrow.at(narrow.data(kind, value), place_v), column_v)))

        terms = []
        weight = load(mask_t, mask_v) if wanted(mask_t) else None
        for value in (load(s_t, s_v), load(d_t, d_v)):
            weighted = value if weight is None else weight * value
            terms += [(weighted, None), (weighted, value)]
        if weight is not None:
            terms.append((weight, None))
        for number, (first, second) in enumerate(terms):
            start = wide.at(wide.data(sums_t, sums_v), builder.mul(step_v, ir.Constant(step_v.type, number)))
            target = wide.at(start, column_v)
            term = first if second is None else first * second
            before = wide.load(target)
            wide.store(before - term if wanted(leaving_t) else before + term, target)
        return context.get_dummy_value()

    return types.void(sums, step, s, d, mask, place, column, leaving), codegen


@intrinsic
def _add_maps(typing: Any, sums: Any, step: Any, rows: Any, place: Any, column: Any, fourth: Any, leaving: Any) -> Any:
    """Add a row of three or, unless `fourth` is None, four maps [map][pitch] to the sums; or take it off."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, rows_t, _, _, fourth_t, leaving_t = signature.args
        sums_v, step_v, rows_v, place_v, column_v, _, _ = args
        narrow, wide = _codes(context, builder, rows_t.dtype)
        for number in range(4 if wanted(fourth_t) else 3):
            offset = builder.add(builder.mul(step_v, ir.Constant(step_v.type, number)), column_v)
            target = wide.at(wide.data(sums_t, sums_v), offset)
            source = narrow.at(narrow.at(narrow.data(rows_t, rows_v), place_v), offset)
            before, term = wide.load(target), wide.widened(narrow.load(source))
            wide.store(before - term if wanted(leaving_t) else before + term, target)
        return context.get_dummy_value()

    return types.void(sums, step, rows, place, column, fourth, leaving), codegen


@intrinsic
def _add_total(typing: Any, sums: Any, step: Any, column: Any, vectors: Any, maps: Any, out: Any) -> Any:
    """Add vectors of every map's sums to the running totals; `vectors`, `maps`: tuples with one entry for each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, _, vectors_t, maps_t, out_t = signature.args
        sums_v, step_v, column_v, _, _, _ = args
        _, wide = _codes(context, builder, out_t.dtype)
        data = wide.data(sums_t, sums_v)
        totals = wide.at(data, builder.mul(step_v, ir.Constant(step_v.type, MAPS)))
        for number in range(len(maps_t)):
            total = wide.at(totals, number * wide.lanes)
            offset = builder.add(builder.mul(step_v, ir.Constant(step_v.type, number)), column_v)
            source = wide.at(data, offset)
            terms = [wide.load(wide.at(source, vector * wide.lanes)) for vector in range(len(vectors_t))]
            wide.store(wide.load(total) + wide.sum(terms), total)
        return context.get_dummy_value()

    return types.void(sums, step, column, vectors, maps, out), codegen


@intrinsic
def _finish(
    typing: Any, sums: Any, step: Any, column: Any, ahead: Any, share: Any, maps: Any, moments: Any, mask: Any, out: Any
) -> Any:
    """Write one vector of the filtered maps to out [map][pitch] and let the totals run on to the next.

    ahead: numbers to the column that comes in. share: the weight of one pixel. Where `moments` is not None: m_s,
    e_s - m_s^2, m_d, e_d - m_d^2 and, unless the mask is None, n, by which the moments are divided.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, _, _, _, maps_t, moments_t, mask_t, out_t = signature.args
        sums_v, step_v, column_v, ahead_v, share_v, _, _, _, out_v = args
        narrow, wide = _codes(context, builder, out_t.dtype)
        data = wide.data(sums_t, sums_v)
        totals = wide.at(data, builder.mul(step_v, ir.Constant(step_v.type, MAPS)))
        weight = wide.splat(share_v)
        places = [
            builder.add(builder.mul(step_v, ir.Constant(step_v.type, number)), column_v) for number in range(len(maps_t))
        ]
        means = []
        for number, place in enumerate(places):
            total = wide.at(totals, number * wide.lanes)
            now = wide.load(total)
            means.append(now * weight)
            source = wide.at(data, place)
            wide.store(now + (wide.load(wide.at(source, ahead_v)) - wide.load(source)), total)
        if wanted(moments_t):
            if wanted(mask_t):
                something = wide.above(means[4], wide.number(LEAST_WEIGHT))
                inverse_n = wide.select(something, wide.one() / means[4], wide.zero())
                means[:4] = [mean * inverse_n for mean in means[:4]]
            means[1] = means[1] - means[0] * means[0]
            means[3] = means[3] - means[2] * means[2]
        for place, mean in zip(places, means, strict=True):
            narrow.store(narrow.narrowed(mean), narrow.at(narrow.data(out_t, out_v), place))
        return context.get_dummy_value()

    return types.void(sums, step, column, ahead, share, maps, moments, mask, out), codegen


def workspace(taps: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate the sums of the moments and of the derivatives, for windows `taps` wide."""
    return np.zeros(2 * (MAPS + 1) * pitch(taps, lanes_of(dtype)))


def room(taps: int) -> int:
    """Return the size of windows that buffers are made for: one kernel serves many sizes."""
    return -(-(taps - 1) // 32) * 32 + 1


@jit
def add_moments(sums: Any, step: int, s: Any, d: Any, mask: Any, place: int, strip: int, width: int, leaving: Any) -> None:
    """Let a row of pixels into the sums down the columns, or out of them unless `leaving` is None."""
    for column in range(0, strip * width, width):
        _add_moments(sums, step, s, d, mask, place, column, leaving)


@jit
def add_maps(sums: Any, step: int, rows: Any, place: int, strip: int, width: int, fourth: Any, leaving: Any) -> None:
    """Let a row of derivatives into the sums down the columns, or out of them unless `leaving` is None."""
    for column in range(0, strip * width, width):
        _add_maps(sums, step, rows, place, column, fourth, leaving)


@jit
def across(
    sums: Any, step: int, strip: int, width: int, halo: int, share: float, calm: bool,
    maps: Any, moments: Any, mask: Any, out: Any,
) -> None:  # fmt: skip
    """Sum across a row and write the filtered maps; arguments as in `_finish`."""
    for number in range(len(maps)):
        continue_strips(sums[number * step :], out, strip, width, halo + 1)
    for vector in range(strip):
        if vector == 0 or not calm:
            sums[MAPS * step : MAPS * step + MAPS * width] = 0
            for k in range(0, halo - 2, 4):
                _add_total(sums, step, (vector + k) * width, (0, 0, 0, 0), maps, out)
            for k in range((halo + 1) // 4 * 4, halo + 1):
                _add_total(sums, step, (vector + k) * width, (0,), maps, out)
        _finish(sums, step, vector * width, (halo + 1) * width, share, maps, moments, mask, out)


@jit
def within(line: Any, begin: int, end: int, most: Any) -> bool:
    """Tell whether the numbers begin .. end-1 of a line are at most so large; NaN is not."""
    part = line[begin:end]
    outside = 0
    for i in range(end - begin):
        outside += 0 if abs(part[i]) <= most else 1
    return outside == 0
