"""Filters in float64: running sums for uniform windows of any size, weighted sums for narrow ones.

With S[j] the sum of n neighbours from j on, a uniform window costs the same whatever its size:

    S[j + 1] = S[j] + v[j + n] - v[j]

down the columns as the march goes on, and then across. The square of a float32 is exact in float64, what one sum leaves
behind in the next is 2^-53 of the largest term, and e - m^2 needs no pivot. Where that would be too much, or a
number is not finite and would never leave a running sum, the march is `calm` no longer and every sum starts anew.

A window that is not uniform starts anew for every row and column. It comes here where so much of its weight lies in the
middle that the pivot which neighbours share (`fastssim.cpu.filters`) may weigh next to nothing in it.

Layouts as in `fastssim.cpu.ssim`; sums: [map][pitch] of float64, then the totals [map][lanes] across.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.buffers import BLOCK, MAPS
from fastssim.cpu.jit import inlined, jit
from fastssim.cpu.simd import Code, Vector, lanes, wanted
from fastssim.cpu.strips import continue_strips
from fastssim.plan import LEAST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    Terms = list[tuple[Vector, Vector]]

FINITE = 1e30  # weights beyond are no better than infinite
LARGEST_SQUARE = 1e6  # times C2: what a pixel's square of this size leaves behind does not show in a variance
_ONE, _BLOCK = (0,), (0,) * BLOCK  # an entry for each vector, see `_finish`


def _codes(context: Any, builder: Any, dtype: Any) -> tuple[Code, Code]:
    """Code for the numbers of rows and, as many lanes, for their sums."""
    return Code(context, builder, dtype), Code(context, builder, types.float64, lanes(dtype))


def _maps_at(code: Code, first: Any, step: Any, count: int) -> list[Any]:
    """Return the places of a vector in maps that lie `step` numbers apart."""
    return [code.at(first, code.builder.mul(step, ir.Constant(step.type, number))) for number in range(count)]


def _add_rows(code: Code, targets: list[Any], kind: Any, rows: Any, terms: Callable[[Any, Vector], Terms]) -> None:
    """Add to each of the sums its two factors' product, row by row.

    kind, rows: type and value of a tuple of (place of a row, its tap); terms: returns a row's factors, for each sum.
    """
    totals = [code.load(target) for target in targets]
    for number in range(len(kind)):
        place, tap = (code.builder.extract_value(rows, [number, part]) for part in range(2))
        factors = terms(place, code.splat(tap))
        totals = [total + first * second for total, (first, second) in zip(totals, factors, strict=True)]
    for total, target in zip(totals, targets, strict=True):
        code.store(total, target)


@intrinsic
def _add_moments(typing: Any, sums: Any, step: Any, s: Any, d: Any, mask: Any, column: Any, rows: Any) -> Any:
    """Add s, s^2, d, d^2 and the mask, each times the mask unless it is None, times a tap to the sums.

    rows: a tuple of (place of a row, its tap), added one after the other.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, s_t, d_t, mask_t, _, rows_t = signature.args
        sums_v, step_v, s_v, d_v, mask_v, column_v, rows_v = args
        narrow, wide = _codes(context, builder, s_t.dtype)
        masked = wanted(mask_t)

        def terms(place: Any, tap: Vector) -> Terms:
            def load(kind: Any, value: Any) -> Vector:
                return wide.widened(narrow.load(narrow.at(narrow.at(narrow.data(kind, value), place), column_v)))

            weight = load(mask_t, mask_v) if masked else None
            factors = []
            for value in (load(s_t, s_v), load(d_t, d_v)):
                weighted = value if weight is None else weight * value
                factors += [(tap, weighted), (tap * weighted, value)]
            return factors if weight is None else [*factors, (tap, weight)]

        targets = _maps_at(wide, wide.at(wide.data(sums_t, sums_v), column_v), step_v, 4 + masked)
        _add_rows(wide, targets, rows_t, rows_v, terms)
        return context.get_dummy_value()

    return types.void(sums, step, s, d, mask, column, rows), codegen


@intrinsic
def _add_maps(typing: Any, sums: Any, step: Any, maps: Any, column: Any, fourth: Any, rows: Any) -> Any:
    """Add rows of three or, unless `fourth` is None, four maps [map][pitch], each times a tap, to the sums.

    rows: as for `_add_moments`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, maps_t, _, fourth_t, rows_t = signature.args
        sums_v, step_v, maps_v, column_v, _, rows_v = args
        narrow, wide = _codes(context, builder, maps_t.dtype)
        count = 4 if wanted(fourth_t) else 3

        def terms(place: Any, tap: Vector) -> Terms:
            source = narrow.at(narrow.at(narrow.data(maps_t, maps_v), place), column_v)
            return [(tap, wide.widened(narrow.load(one))) for one in _maps_at(narrow, source, step_v, count)]

        targets = _maps_at(wide, wide.at(wide.data(sums_t, sums_v), column_v), step_v, count)
        _add_rows(wide, targets, rows_t, rows_v, terms)
        return context.get_dummy_value()

    return types.void(sums, step, maps, column, fourth, rows), codegen


@intrinsic
def _add_total(typing: Any, sums: Any, step: Any, column: Any, taps: Any, maps: Any, ahead: Any, out: Any) -> Any:
    """Add neighbouring vectors of every map's sums, each times its tap, to the totals; `maps` has an entry for each.

    Unless `ahead` is None they are also put so many numbers further on, their lanes rotated, where strips go on.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, _, taps_t, maps_t, ahead_t, out_t = signature.args
        sums_v, step_v, column_v, taps_v, _, ahead_v, _ = args
        _, wide = _codes(context, builder, out_t.dtype)
        data = wide.data(sums_t, sums_v)
        totals = wide.at(data, builder.mul(step_v, ir.Constant(step_v.type, MAPS)))
        sources = _maps_at(wide, wide.at(data, column_v), step_v, len(maps_t))
        for number, source in enumerate(sources):
            total = wide.at(totals, number * wide.lanes)
            vectors = [wide.load(wide.at(source, vector * wide.lanes)) for vector in range(len(taps_t))]
            terms = [tap * vector for tap, vector in zip(wide.splats(taps_v, len(taps_t)), vectors, strict=True)]
            wide.store(wide.load(total) + wide.sum(terms), total)
            if wanted(ahead_t):
                target = wide.at(source, ahead_v)
                for place, vector in enumerate(vectors):
                    wide.store(wide.rotate(vector), wide.at(target, place * wide.lanes))
        return context.get_dummy_value()

    return types.void(sums, step, column, taps, maps, ahead, out), codegen


@intrinsic
def _finish(
    typing: Any, sums: Any, step: Any, column: Any, ahead: Any, rotated: Any, share: Any, maps: Any, constants: Any,
    grad_x: Any, vectors: Any, out: Any,
) -> Any:  # fmt: skip
    """Write vectors of the filtered maps to out [map][pitch], and let the totals run on from each to the next.

    ahead: numbers to the column that comes in, its lanes rotated unless `rotated` is None. share: what every tap is
    multiplied by. Unless `constants` is None the maps are moments, and out is what `ssim_and_derivatives` of
    `fastssim.cpu.formula` takes. vectors: a tuple with one entry for each.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums_t, _, _, _, rotated_t, _, maps_t, constants_t, grad_x_t, vectors_t, out_t = signature.args
        sums_v, step_v, column_v, ahead_v, _, share_v, _, constants_v, _, _, out_v = args
        narrow, wide = _codes(context, builder, out_t.dtype)
        data = wide.data(sums_t, sums_v)
        weight = wide.splat(share_v)
        kept = wide.at(data, builder.mul(step_v, ir.Constant(step_v.type, MAPS)))
        places = [wide.at(kept, number * wide.lanes) for number in range(len(maps_t))]
        totals = [wide.load(place) for place in places]

        def coming(source: Any) -> Vector:
            vector = wide.load(wide.at(source, ahead_v))
            return wide.rotate(vector) if wanted(rotated_t) else vector

        for vector in range(len(vectors_t)):
            column = builder.add(column_v, ir.Constant(column_v.type, vector * wide.lanes))
            means = [total * weight for total in totals]
            sources = _maps_at(wide, wide.at(data, column), step_v, len(maps_t))
            totals = [
                total + (coming(source) - wide.load(source)) for total, source in zip(totals, sources, strict=True)
            ]
            if wanted(constants_t):
                n = means[4:]
                if n:
                    something = wide.above(n[0], wide.number(LEAST_WEIGHT))
                    inverse_n = wide.select(something, wide.one() / n[0], wide.zero())
                    means = [mean * inverse_n for mean in means[:4]]
                m_s, e_s, m_d, e_d = means[:4]
                bases = [wide.widened(base) for base in narrow.splats(constants_v, len(constants_t))]
                means = [m_s + bases[0], e_s - m_s * m_s, m_d + bases[1], e_d - m_d * m_d]
                means += [m_s, m_d] * wanted(grad_x_t) + n
            targets = _maps_at(narrow, narrow.at(narrow.data(out_t, out_v), column), step_v, len(means))
            for mean, target in zip(means, targets, strict=True):
                narrow.store(narrow.narrowed(mean), target)
        for total, place in zip(totals, places, strict=True):
            wide.store(total, place)
        return context.get_dummy_value()

    return types.void(sums, step, column, ahead, rotated, share, maps, constants, grad_x, vectors, out), codegen


@jit
def add_moments(sums: Any, step: int, s: Any, d: Any, mask: Any, strip: int, width: int, rows: Any) -> None:
    """Add rows of pixels to the sums down the columns, see `_add_moments`."""
    for column in range(0, strip * width, width):
        _add_moments(sums, step, s, d, mask, column, rows)


@jit
def add_maps(sums: Any, step: int, maps: Any, strip: int, width: int, fourth: Any, rows: Any) -> None:
    """Add rows of derivatives to the sums down the columns, see `_add_maps`."""
    for column in range(0, strip * width, width):
        _add_maps(sums, step, maps, column, fourth, rows)


@inlined
def _total(sums: Any, step: int, column: int, width: int, taps: Any, maps: Any, ahead: Any, out: Any) -> None:
    """Start the totals with the windows of one vector; ahead: see `_add_total`."""
    count = len(taps)
    sums[MAPS * step : MAPS * step + MAPS * width] = 0
    for k in range(0, count - 3, 4):
        four = (taps[k], taps[k + 1], taps[k + 2], taps[k + 3])
        _add_total(sums, step, column + k * width, four, maps, ahead, out)
    for k in range(count // 4 * 4, count):
        _add_total(sums, step, column + k * width, (taps[k],), maps, ahead, out)


@jit
def across(
    sums: Any, step: int, strip: int, width: int, taps: Any, share: float, calm: Any,
    maps: Any, constants: Any, grad_x: Any, out: Any,
) -> None:  # fmt: skip
    """Sum across a row and write the filtered maps; taps float64, other arguments as in `_finish`."""
    count = len(taps)
    near, far = count * width, (count - strip) * width
    edge = strip  # from here on, what comes in is read where the next strips begin, not copied behind this one
    if calm and count + BLOCK <= strip:
        halo = count % BLOCK  # so many are copied, or the last block before the edge would not be whole
        edge -= count - halo
        continue_strips(sums, out, strip, width, halo, step, maps)
        _total(sums, step, 0, width, taps, maps, None, out)
    else:
        _total(sums, step, 0, width, taps, maps, strip * width, out)
    if calm:
        for vector in range(0, edge, BLOCK):
            _finish(sums, step, vector * width, near, None, share, maps, constants, grad_x, _BLOCK, out)
        for vector in range(edge, strip, BLOCK):
            _finish(sums, step, vector * width, far, _ONE, share, maps, constants, grad_x, _BLOCK, out)
    else:
        for vector in range(strip):
            if vector > 0:
                _total(sums, step, vector * width, width, taps, maps, None, out)
            _finish(sums, step, vector * width, near, None, share, maps, constants, grad_x, _ONE, out)


@jit
def within(line: Any, count: int, most: Any) -> bool:
    """Tell whether the first `count` numbers of a line are at most so large; NaN is not."""
    outside = 0
    for i in range(count):
        outside += 0 if abs(line[i]) <= most else 1
    return outside == 0
