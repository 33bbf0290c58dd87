"""Windowed SSIM on one tile of an image, value and gradient in one march (Numba).

With pivots px, py, x' = x - px, y' = y - py, and a separable window w:

    s = x' + y'      d = x' - y'
    m_s = w*s   m_d = w*d   e_s = w*s^2   e_d = w*d^2        four filtered maps
    v_s = e_s - m_s^2       v_d = e_d - m_d^2
    M = mu_x + mu_y = m_s + px + py         Q = mu_x - mu_y = m_d + px - py
    A = 2 mu_x mu_y + C1 = (M^2 - Q^2)/2 + C1          B = mu_x^2 + mu_y^2 + C1         = A + Q^2
    C = 2 sigma_xy + C2  = (v_s - v_d)/2 + C2          D = sigma_x^2 + sigma_y^2 + C2   = C + v_d
    SSIM = A C / (B D)

B and D are written as A and C plus a square, so that SSIM(x, x) is exactly 1. Its derivatives by the maps, also exactly
zero in Q and v_d where x = y:

    f_ms = C/D M Q^2 / B^2          q_s = df/dv_s =  A/B v_d / (2 D^2)          p_s = f_ms - 2 m_s q_s
    f_md = -C/D Q (A + B) / B^2     q_d = df/dv_d = -A/B (C + D) / (2 D^2)      p_d = f_md - 2 m_d q_d

and the adjoint of the filters, w' being w mirrored:

    dL/dx = w'*(p_s + p_d) + 2 s (w'*q_s) + 2 d (w'*q_d)
    dL/dy = w'*(p_s - p_d) + 2 s (w'*q_s) - 2 d (w'*q_d)

A pivot per tile is taken off every pixel. Filters in the images' own precision make means and variances one axis at a
time, so that no square of a mean is taken off one much larger than the difference: with w = w_y w_x,

    down     m_c = w_y*(s - p) + p              v_c = w_y*(s - p)^2 - (w_y*(s - p))^2
    across   m_s = w_x*(m_c - p) + p            v_s = w_x*(v_c + (m_c - p)^2) - (w_x*(m_c - p))^2

each about a pivot p of its own: a pixel, or a column's mean, near the middle of all the windows that share it. Its
weight in them, w_p, bounds what is taken off: (m - p)^2 <= v (1 - w_p) / w_p, whatever lies around it.

Unbiased variances carry a factor u: v_s = u (e_s - m_s^2), and q_s, q_d are the derivatives times u.
With a mask m, n = w*m, every filtered map is w*(m ...) / n, every derivative is divided by n before it is filtered
back and the gradient is multiplied by m; a window with n at most LEAST_WEIGHT has nothing to compare: SSIM 1, not
counted. Down the columns n_c = w_y*m, and v_c is n_c times a variance.

The march goes down the tile, ROWS window rows at a time. Pixel rows are turned into s and d, laid out in strips
(`fastssim.cpu.strips`), as they are reached; a filter makes ROWS rows, or BLOCK vectors, of a map at a time, and adds
what shares a tap of a mirrored window before it multiplies; the horizontal one ends in the formula above; its
derivatives go into a rolling buffer of rows, and the gradient's rows leave as soon as the last window that covers them
is done. Only the rolling buffers exist besides input and output, whatever the image's height.

Strips go round: behind the last column comes the first. A pixel's gradient is made at the column of the first window
that covers it; where that is left of all windows, among the last columns, whose derivatives are zeros. So an image
takes no more columns with its gradient than without.

Symbols: (y0, y1, x0, x1) is the tile, in the padded image; in gradient mode its pixels: every window that covers one
of them is computed, but a window counts in the sum of one tile only; in value mode the tile's windows themselves.
Gradients of padded pixels go to the rim and are folded onto their sources when all tiles are done.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastssim.cpu.buffers import BLOCK, MAPS, ROWS, amid, pitch, sharing
from fastssim.cpu.jit import inlined, jit, merged, unmanaged
from fastssim.cpu.pixels import address_of, ask_for, read, read_padded, row_of, to_come
from fastssim.cpu.simd import SETTLED, Code, Vector, few_registers, given, wanted
from fastssim.cpu.strips import (
    ONE_ROW,
    continue_strips,
    enter,
    into_strips,
    numbers_read,
    out_of_strips,
    places,
    rows_kept,
    strip_of,
    tap_count,
    tap_vectors,
)
from fastssim.cpu.sums import FINITE, LARGEST_SQUARE, across, add_maps, add_moments, within
from fastssim.plan import LEAST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Term = Callable[[int, Any], Vector]  # the vector at a place, of that of the map before or None
    Averaged = tuple[Callable[[int], Vector], Callable[[int], Vector] | None]  # the mean and the variance at a place

FAR = 4  # of v + C2: what the square of a mean about its pivot may be, for an error of 1e-7 or so of them
LEAST_PART = 1e-30  # a masked column that keeps less has no mean, and no part in a window that keeps LEAST_WEIGHT

# ---------------------------------------------------------------------------------------------------------- vectors


def _filter(code: Code, taps: list[Vector], outputs: int, maps: list[Term]) -> list[list[Vector]]:
    """Filter several maps; return [map][output].

    maps: each gives its vector at a place, and may make it of that of the map before.

    sums[i][r] = sum over k of taps[k] values[i][r + k],  values[i][place] = maps[i](place, values[i - 1][place]).
    """
    if few_registers():
        for count in (4, 2):
            if len(taps) + count - 1 + count <= SETTLED:  # what a turn reaches, and its sums
                return _filter_by_turns(code, taps, outputs, maps, count)
    values: list[list[Vector]] = [[] for _ in maps]
    for place in range(len(taps) + outputs - 1):
        before = None
        for vectors, term in zip(values, maps, strict=True):
            before = term(place, before)
            vectors.append(before)

    def total(vectors: list[Vector]) -> Vector:
        terms = _terms(taps, vectors)
        return _dot([tap for tap, _ in terms], [reduce(Vector.__add__, alike) for _, alike in terms])

    return [[total(vectors[r : r + len(taps)]) for r in range(outputs)] for vectors in values]


def _filter_by_turns(code: Code, taps: list[Vector], outputs: int, maps: list[Term], count: int) -> list[list[Vector]]:
    """Filter as `_filter` does, one map after the other and `count` outputs at a time.

    What these reach, all of one map, stays in registers, most of it for the next outputs; so every other map starts at
    the end of the one before.
    """
    turns = [range(first, min(first + count, outputs)) for first in range(0, outputs, count)]
    results = []
    values: dict[int, Vector] = {}
    for term in maps:
        before, values = values, {}
        sums: dict[int, Vector] = {}
        for turn in turns:
            reach = range(turn[0], turn[-1] + len(taps))
            for place in reach:
                if place not in values:
                    values[place] = term(place, before.get(place))
            values.update(zip(reach, code.settled([values[place] for place in reach]), strict=True))
            neighbours = [[values[r + k] for k in range(len(taps))] for r in turn]
            sums.update(zip(turn, code.settled(_side_by_side(code, taps, neighbours)), strict=True))
        results.append([sums[r] for r in range(outputs)])
        turns.reverse()
    return results


def _side_by_side(code: Code, taps: list[Vector], neighbours: list[list[Vector]]) -> list[Vector]:
    """Add up the vectors of several neighbours times taps, a tap at a time."""
    sums: list[Vector] = []
    for terms in zip(*(_terms(taps, vectors) for vectors in neighbours), strict=True):
        (tap,) = code.settled([terms[0][0]])
        products = [tap * reduce(Vector.__add__, alike) for _, alike in terms]
        sums = list(map(Vector.__add__, sums, products)) if sums else products
    return sums


def _terms(taps: list[Vector], vectors: list[Vector]) -> list[tuple[Vector, list[Vector]]]:
    """List the taps and what each multiplies, to be added first: many processors add beside multiplying."""
    if taps[0] is not taps[-1]:
        return [(tap, [vector]) for tap, vector in zip(taps, vectors, strict=True)]
    half = len(taps) // 2
    pairs = map(list, zip(vectors[:half], vectors[:half:-1], strict=True))
    return list(zip(taps[: half + 1], [*pairs, [vectors[half]]], strict=True))


class Averages(NamedTuple):
    """Means and variances of one map along one axis, of neighbouring outputs."""

    inner: list[Vector]  # means about the pivots
    pivots: list[Vector]
    variances: list[Vector]

    def means(self, base: Vector | None = None) -> list[Vector]:
        """Return the means, and `base` added to the pivots first: it may be all but their opposite."""
        pivots = self.pivots if base is None else [pivot + base for pivot in self.pivots]
        return [mean + pivot for mean, pivot in zip(self.inner, pivots, strict=True)]


def averages(code: Code, taps: list[Vector], outputs: int, maps: list[Averaged]) -> list[Averages]:
    """Filter means and variances along one axis, about pivots of their own; return those of each map."""
    count = sharing(len(taps), outputs)
    results = []
    for averaged in maps:
        pivots = [averaged[0](first + amid(len(taps), count)) for first in range(0, outputs, count)]
        inner, squares, pivots = _sums_about(code, taps, outputs, pivots, averaged)
        # Of a single pixel nothing is left.
        variances = [square - mean.times(mean) for mean, square in zip(inner, squares, strict=True)]
        results.append(Averages(inner, pivots, variances))
    return results


def weighted_averages(
    code: Code,
    taps: list[Vector],
    outputs: int,
    maps: list[Averaged],
    weight: Callable[[int], Vector],
    c2: Vector,
    put: Callable[[list[Averages], list[Vector]], None],
    *,
    last: bool,
) -> None:
    """As `averages` with n at each place for a weight; `put` is given the results, and n, to store them.

    Variances come times n, and are left so but after the `last` axis. Neighbours that have their weight on different
    sides of a hole have no pivot in common: where one's mean lies too far from it, each is taken to be its own pivot.
    """
    (n,) = _filter(code, taps, outputs, [lambda place, _: weight(place)])
    something = [code.above(total, code.number(LEAST_PART)) for total in n]
    inverse = [code.select(some, code.one() / total, code.zero()) for some, total in zip(something, n, strict=True)]

    def own_mean(mean_of: Callable[[int], Vector], output: int) -> Vector:
        places = range(output, output + len(taps))
        mean = _dot(_products(taps, map(weight, places)), map(mean_of, places)) * inverse[output]
        return code.select(code.finite(mean), mean, code.zero())

    def about_means_of(chosen: Iterable[int]) -> list[Averages]:
        results = []
        for averaged in maps:
            pivots = [own_mean(averaged[0], output) for output in chosen]
            totals, squares, pivots = _sums_about(code, taps, outputs, pivots, averaged, weight)
            inner = _products(totals, inverse)
            variances = [square - total * mean for total, mean, square in zip(totals, inner, squares, strict=True)]
            results.append(Averages(inner, pivots, _products(variances, inverse) if last else variances))
        return results

    shared = about_means_of([1])
    put(shared, n)
    far = [
        code.above(mean * mean, code.number(FAR) * (c2 + variance))
        for one in shared
        for mean, variance in zip(one.inner, one.variances if last else _products(one.variances, inverse), strict=True)
    ]
    with code.builder.if_then(code.any(far), likely=False):
        put(about_means_of(range(outputs)), n)


def _sums_about(
    code: Code,
    taps: list[Vector],
    outputs: int,
    pivots: list[Vector],
    averaged: Averaged,
    weight: Callable[[int], Vector] | None = None,
) -> tuple[list[Vector], list[Vector], list[Vector]]:
    """Filter x - p and variance + (x - p)^2, both times n under a weight; return these and every output's pivot p.

    pivots: one for each so many neighbouring outputs.
    """
    mean_of, variance_of = averaged
    count = outputs // len(pivots)
    totals, squares = [], []
    for group, pivot in enumerate(pivots):

        def inner(place: int, first: int = group * count, pivot: Vector = pivot) -> Vector:
            return mean_of(first + place) - pivot

        def weighted(place: int, _: None, first: int = group * count) -> Vector:
            return inner(place) if weight is None else weight(first + place) * inner(place)

        def square(place: int, weighted: Vector, first: int = group * count) -> Vector:
            value = weighted * (weighted if weight is None else inner(place))
            return value if variance_of is None else variance_of(first + place) + value

        found = _filter(code, taps, count, [weighted, square])
        totals += found[0]
        squares += found[1]
    return totals, squares, [pivot for pivot in pivots for _ in range(count)]


def _products(first: Iterable[Vector], second: Iterable[Vector]) -> list[Vector]:
    """Multiply vectors with others."""
    return [a * b for a, b in zip(first, second, strict=True)]


def _dot(first: Iterable[Vector], second: Iterable[Vector]) -> Vector:
    """Add up vectors times others."""
    return reduce(Vector.__add__, _products(first, second))


@intrinsic
def _down(
    typing: Any, s: Any, d: Any, m: Any, start: Any, column: Any, taps: Any, taps_x: Any, constants: Any, out: Any
) -> Any:
    """Filter ROWS window rows down the columns at one vector of columns; s, d, m [row][pitch], out [ROWS][maps][pitch].

    out holds m_c, v_c of s, then of d and, unless the mask m is None, n_c; `start`: place of the first window row's
    first pixel row. constants: as `_ssim` takes them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, m_type, _, _, taps_type, taps_x_type, _, out_type = signature.args
        s_value, d_value, m_value, start_value, column_value, taps_value, _, constants_value, out_value = args
        code = Code(context, builder, s_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        target = code.at(code.data(out_type, out_value), column_value)

        def rows(array_type: Any, array: Any) -> Callable[[int], Vector]:
            first = code.at(code.at(code.data(array_type, array), start_value), column_value)
            return lambda row: code.load(code.at(first, row * step))

        pixels: list[Averaged] = [(rows(s_type, s_value), None), (rows(d_type, d_value), None)]
        if wanted(m_type):
            c2 = code.splat(builder.extract_value(constants_value, 3))

            def put(results: list[Averages], n: list[Vector]) -> None:
                put_rows(code, [*means_and_variances(results), n], target, step)

            weighted_averages(code, weights, ROWS, pixels, rows(m_type, m_value), c2, put, last=False)
        else:
            put_rows(code, means_and_variances(averages(code, weights, ROWS, pixels)), target, step)
        return context.get_dummy_value()

    return types.void(s, d, m, start, column, taps, taps_x, constants, out), codegen


def means_and_variances(results: list[Averages]) -> list[list[Vector]]:
    """Lay out what comes of several maps."""
    return [outputs for result in results for outputs in (result.means(), result.variances)]


def put_rows(code: Code, maps: list[list[Vector]], target: Any, step: int) -> None:
    """Store ROWS rows of several maps, [ROWS][maps][pitch]."""
    for number, rows in enumerate(maps):
        for r, row in enumerate(rows):
            code.store(row, code.at(target, (len(maps) * r + number) * step))


@intrinsic
def _windows(
    typing: Any, rows: Any, mask: Any, start: Any, vector: Any, taps: Any, constants: Any, grad_x: Any, out: Any
) -> Any:
    """Filter BLOCK vectors of a row across, [maps][pitch] from `start` on as `_down` left them.

    out, constants: as `_ssim` takes them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, mask_type, _, _, taps_type, constants_type, grad_x_type, out_type = signature.args
        rows_value, _, start_value, vector_value, taps_value, constants_value, _, out_value = args
        code = Code(context, builder, rows_type.dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        column = builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes))
        source = code.at(code.at(code.data(rows_type, rows_value), start_value), column)
        target = code.at(code.data(out_type, out_value), column)

        def row(number: int) -> Callable[[int], Vector]:
            return lambda place: code.load(code.at(source, number * step + place * code.lanes))

        columns: list[Averaged] = [(row(0), row(1)), (row(2), row(3))]
        weights = tap_vectors(code, taps_type, taps_value)
        bases = code.splats(constants_value, len(constants_type))

        def put(results: list[Averages], n: list[Vector] | None = None) -> None:
            absolute = [
                vectors
                for one, base in zip(results, bases, strict=False)
                for vectors in (one.means(base), one.variances)
            ]
            about_pivots = [one.means() for one in results] if wanted(grad_x_type) else []
            for number, vectors in enumerate(absolute + about_pivots + ([n] if n else [])):
                for place, total in enumerate(vectors):
                    code.store(total, code.at(target, number * step + place * code.lanes))

        if wanted(mask_type):
            weighted_averages(code, weights, BLOCK, columns, row(4), bases[3], put, last=True)
        else:
            put(averages(code, weights, BLOCK, columns))
        return context.get_dummy_value()

    return types.void(rows, mask, start, vector, taps, constants, grad_x, out), codegen


@intrinsic
def _across(typing: Any, rows: Any, start: Any, vector: Any, taps: Any, maps: Any, out: Any) -> Any:
    """Filter BLOCK vectors of a row of maps across, [map][pitch] from `start` to the same place of out [map][pitch].

    `maps`: a tuple with one entry for each.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, _, _, taps_type, maps_type, out_type = signature.args
        rows_value, start_value, vector_value, taps_value, _, out_value = args
        code = Code(context, builder, rows_type.dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        column = builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes))
        source = code.at(code.at(code.data(rows_type, rows_value), start_value), column)
        target = code.at(code.data(out_type, out_value), column)
        count = len(maps_type)

        def row(plane: int) -> Term:
            return lambda place, _: code.load(code.at(source, plane * step + place * code.lanes))

        for first in range(0, count, 2):
            pair = range(first, min(first + 2, count))

            for plane, sums in zip(pair, _filter(code, weights, BLOCK, list(map(row, pair))), strict=True):
                for number, total in enumerate(sums):
                    code.store(total, code.at(target, plane * step + number * code.lanes))
        return context.get_dummy_value()

    return types.void(rows, start, vector, taps, maps, out), codegen


@intrinsic
def _ssim(
    typing: Any, windows: Any, mask: Any, taps: Any, strip: Any, vector: Any, constants: Any, ranges: Any, total: Any,
    upstream: Any, weights: Any, ssim_map: Any, grad_x: Any, grad_y: Any, derivatives: Any, derivatives_start: Any,
) -> Any:  # fmt: skip
    """Apply the formula to one vector of windows of one row; write what is asked for.

    windows: a row of maps [pitch]: M, v_s, Q, v_d, m_s and m_d unless grad_x is None, n unless the mask is None.
    constants: what the pivots leave of x + y, of x - y, C1, C2, u / 2, u. ranges: columns (valid from, to, counted
    from, to). total [3][lanes] += SSIM and, unless the mask is None, windows counted. ssim_map: a row, or None. Unless
    grad_x is None, derivatives [maps][pitch] from `derivatives_start` take q_s, q_d, p_s + p_d and, unless grad_y is
    None, p_s - p_d; unless upstream is None, each multiplied by a row of weights.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _Arguments(*signature.args)
        value = _Arguments(*args)
        code = Code(context, builder, kind.windows.dtype)
        step = pitch(tap_count(kind.taps), code.lanes)
        masked = wanted(kind.mask)
        column = builder.mul(value.vector, ir.Constant(value.vector.type, code.lanes))
        source = code.at(code.data(kind.windows, value.windows), column)
        m, v_s, q, v_d = (code.load(code.at(source, plane * step)) for plane in range(4))
        _, _, c1, c2, half_u, u = code.splats(value.constants, len(kind.constants))
        limits = [builder.extract_value(value.ranges, i) for i in range(4)]
        valid = code.strip_mask(value.strip, value.vector, limits[0], limits[1])
        counted = builder.and_(valid, code.strip_mask(value.strip, value.vector, limits[2], limits[3]))
        if masked:
            n = code.load(code.at(source, (6 if wanted(kind.grad_x) else 4) * step))
            something = code.above(n, code.number(LEAST_WEIGHT))
            inverse_n = code.select(something, code.one() / n, code.zero())
        v_s, v_d = u * v_s, u * v_d
        q2 = q * q
        a = code.number(0.5) * (m * m - q2) + c1
        b = a + q2
        c = code.number(0.5) * (v_s - v_d) + c2
        d = c + v_d
        ssim = (a * c) / (b * d)

        sums = code.data(kind.total, value.total)
        if masked:
            ssim = code.select(something, ssim, code.one())
            counted = builder.and_(counted, something)
            counts = code.at(sums, code.lanes)
            code.store(code.load(counts) + code.select(counted, code.one(), code.zero()), counts)
        code.store(code.load(sums) + code.select(counted, ssim, code.zero()), sums)
        if wanted(kind.ssim_map):
            code.store(ssim, code.at(code.data(kind.ssim_map, value.ssim_map), column))
        if wanted(kind.grad_x):
            r = code.one() / (b * d)
            inverse_b = d * r
            inverse_d = b * r
            factors = [inverse_n] if masked else []
            if wanted(kind.upstream):
                factors.append(code.load(code.at(code.data(kind.weights, value.weights), column)))
            for factor in factors:
                r = r * factor
            by_means = (c * r) * (inverse_b * q)  # C/D Q / B^2
            f_ms = by_means * (m * q)
            f_md = code.zero() - by_means * (a + b)
            by_variances = (a * r) * (half_u * inverse_d)  # A/B / (2 D^2)
            q_s = by_variances * v_d
            q_d = code.zero() - by_variances * (c + d)
            m_s, m_d = (code.load(code.at(source, plane * step)) for plane in (4, 5))
            p_s = f_ms - (m_s + m_s) * q_s
            p_d = f_md - (m_d + m_d) * q_d
            maps = [q_s, q_d, p_s + p_d]
            if wanted(kind.grad_y):
                maps.append(p_s - p_d)
            target = code.at(code.data(kind.derivatives, value.derivatives), value.derivatives_start)
            target = code.at(target, column)
            for plane, derivative in enumerate(maps):
                code.store(code.select(valid, derivative, code.zero()), code.at(target, plane * step))
        return context.get_dummy_value()

    return (
        types.void(
            windows, mask, taps, strip, vector, constants, ranges, total, upstream, weights, ssim_map, grad_x, grad_y,
            derivatives, derivatives_start,
        ),
        codegen,
    )  # fmt: skip


class _Arguments(NamedTuple):
    """What `_ssim` is given: Numba types at one time, LLVM values at another."""

    windows: Any
    mask: Any
    taps: Any
    strip: Any
    vector: Any
    constants: Any
    ranges: Any
    total: Any
    upstream: Any
    weights: Any
    ssim_map: Any
    grad_x: Any
    grad_y: Any
    derivatives: Any
    derivatives_start: Any


@intrinsic
def _vertical_adjoint(
    typing: Any, derivatives: Any, start: Any, column: Any, taps: Any, taps_x: Any, grad_y: Any, out: Any
) -> Any:
    """Filter ROWS rows of the derivatives down two vectors of columns; [row][maps][pitch] to out [ROWS][maps][pitch].

    `start` is the place of the first tap's row; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        derivatives_type, _, _, taps_type, taps_x_type, grad_y_type, out_type = signature.args
        derivatives_value, start_value, column_value, taps_value, _, _, out_value = args
        code = Code(context, builder, derivatives_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        maps = 4 if wanted(grad_y_type) else 3
        weights = tap_vectors(code, taps_type, taps_value)
        source = code.at(code.at(code.data(derivatives_type, derivatives_value), start_value), column_value)
        target = code.at(code.data(out_type, out_value), column_value)

        def rows(number: int, i: int) -> Term:
            return lambda row, _: code.load(code.at(source, (row * maps + number) * step + i * code.lanes))

        for number in range(maps):
            for i, sums in enumerate(_filter(code, weights, ROWS, [rows(number, i) for i in range(2)])):
                for r in range(ROWS):
                    code.store(sums[r], code.at(target, (r * maps + number) * step + i * code.lanes))
        return context.get_dummy_value()

    return types.void(derivatives, start, column, taps, taps_x, grad_y, out), codegen


@intrinsic
def _gradient(
    typing: Any, filtered: Any, taps: Any, strip: Any, vector: Any, s: Any, d: Any, mask: Any, pixel: Any, scale: Any,
    l1: Any, ranges: Any, grad_y: Any, line_x: Any, line_y: Any,
) -> Any:  # fmt: skip
    """Finish one vector of gradient pixels of a row: combine filtered derivatives [maps][pitch] with s and d, write.

    s, d, mask: `pixel` is the place of the first vector's pixels, the mask may be None; scale of the gradient of SSIM;
    l1: None, or (scale of the sign of x - y, what d misses of x - y) for columns of `ranges`, two of from and to;
    line_x, line_y: rows for the gradients, nothing by y where grad_y is None.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        filtered_t, taps_t, _, _, s_t, d_t, mask_t, _, _, l1_t, _, grad_y_t, line_x_t, line_y_t = signature.args
        (
            filtered_v, _, strip_v, vector_v, s_v, d_v, mask_v, pixel_v, scale_v, l1_v, ranges_v, _, line_x_v, line_y_v,
        ) = args  # fmt: skip
        code = Code(context, builder, filtered_t.dtype)
        step = pitch(tap_count(taps_t), code.lanes)
        column = builder.mul(vector_v, ir.Constant(vector_v.type, code.lanes))
        source = code.at(code.data(filtered_t, filtered_v), column)

        def load(kind: Any, array: Any) -> Vector:
            return code.load(code.at(code.at(code.data(kind, array), pixel_v), column))

        def write(kind: Any, array: Any, gradient: Vector) -> None:
            code.store(gradient, code.at(code.data(kind, array), column))

        q_s, q_d, to_x = (code.load(code.at(source, plane * step)) for plane in range(3))
        d = load(d_t, d_v)
        by_s = load(s_t, s_v) * q_s
        by_d = d * q_d
        factor = code.splat(scale_v)
        if wanted(mask_t):
            factor = factor * load(mask_t, mask_v)
        sign = None
        if wanted(l1_t):
            by_sign, missing = code.splats(l1_v, 2)
            equal = code.zero() - missing  # d where x = y
            positive, negative = code.above(d, equal), code.above(equal, d)
            sign = code.select(positive, by_sign, code.select(negative, code.zero() - by_sign, code.zero()))
            limits = [builder.extract_value(ranges_v, i) for i in range(4)]
            chosen = [code.strip_mask(strip_v, vector_v, *limits[i : i + 2]) for i in (0, 2)]
            sign = code.select(builder.or_(*chosen), sign, code.zero())
        by_x = factor * (to_x + ((by_s + by_d) + (by_s + by_d)))
        write(line_x_t, line_x_v, by_x if sign is None else by_x + sign)
        if wanted(grad_y_t):
            to_y = code.load(code.at(source, 3 * step))
            by_y = factor * (to_y + ((by_s - by_d) + (by_s - by_d)))
            write(line_y_t, line_y_v, by_y if sign is None else by_y - sign)
        return context.get_dummy_value()

    signature = types.void(
        filtered, taps, strip, vector, s, d, mask, pixel, scale, l1, ranges, grad_y, line_x, line_y
    )  # fmt: skip
    return signature, codegen


@intrinsic
def _add_distances(
    typing: Any, d: Any, place: Any, strip: Any, vector: Any, first: Any, last: Any, missing: Any, total: Any
) -> Any:
    """Add |d + missing| of one vector, of which columns first .. last-1 count, to the lanes total [2]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        d_type, total_type = signature.args[0], signature.args[7]
        d_value, place_value, strip_value, vector_value, first_value, last_value, missing_value, total_value = args
        code = Code(context, builder, d_type.dtype)
        start = code.at(code.data(d_type, d_value), place_value)
        start = code.at(start, builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes)))
        distance = code.absolute(code.load(start) + code.splat(missing_value))
        sums = code.at(code.data(total_type, total_value), 2 * code.lanes)
        chosen = code.strip_mask(strip_value, vector_value, first_value, last_value)
        code.store(code.load(sums) + code.select(chosen, distance, code.zero()), sums)
        return context.get_dummy_value()

    return types.void(d, place, strip, vector, first, last, missing, total), codegen


# ---------------------------------------------------------------------------------------------------------- the march


@jit
def _pivot(plane: Any, mask: Any, y0: int, y1: int, x0: int, x1: int, divisor: Any, cell: Any) -> float:
    """Return the mean of up to 8 x 8 finite pixels with a weight spread over a part of the plane, or 0."""
    step_y = max(1, (y1 - y0) // 8)
    step_x = max(1, (x1 - x0) // 8)
    total = 0.0
    count = 0
    for y in range(y0, y1, step_y):
        for x in range(x0, x1, step_x):
            if mask is not None:
                read(mask, y, x, 1, type(divisor)(1), cell)
                if cell[0] == 0:
                    continue
            read(plane, y, x, 1, divisor, cell)
            if np.isfinite(cell[0]):
                total += float(cell[0])
                count += 1
    return total / count if count else 0.0


@inlined
def _copy(source: Any, count: int, target: Any) -> None:
    """Copy numbers, in a loop that is vectorised: its index cannot be negative."""
    for i in range(count):
        target[i] = source[i]


@inlined
def _wind_back(buffer: Any, first: int, last: int, step: int, used: int) -> None:
    """Move the rows first .. last-1 of a buffer, `step` numbers apart, to its front; `used` numbers of each count."""
    for row in range(first, last):
        _copy(buffer[row * step :], used, buffer[(row - first) * step :])


@intrinsic
def _take(typing: Any, total: Any, number: Any) -> Any:
    """Return the sum of the lanes total [number] and clear them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder, signature.args[0].dtype)
        place = builder.mul(args[1], ir.Constant(args[1].type, code.lanes))
        sums = code.at(code.data(signature.args[0], args[0]), place)
        result = code.sum_lanes(code.load(sums))
        code.store(code.zero(), sums)
        return result

    return total.dtype(total, number), codegen


def _plane(image: Any, n: int, c: int) -> Any:
    """Return one plane of an image as `read` takes it, or None."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_plane)
def _(image: Any, n: int, c: int) -> Any:
    def nothing(image: Any, n: int, c: int) -> None:
        return None

    def something(image: Any, n: int, c: int) -> Any:
        return image[0] + n * image[2] + c * image[3], image[1], image[4], image[5]

    return something if wanted(image) else nothing


def _entries(least: Any, another: Any) -> Any:
    """Return a tuple of zeros, with one more where there is `another`."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_entries)
def _(least: Any, another: Any) -> Any:
    zeros = (0,) * (len(least) + wanted(another))

    def entries(least: Any, another: Any) -> Any:
        return zeros

    return entries


def _of_rows(entries: Any) -> Any:
    """Return a tuple of zeros, as many for each of ROWS rows as there are entries."""
    raise NotImplementedError  # kernels call what follows


@overload(_of_rows)
def _(entries: Any) -> Any:
    zeros = (0,) * (ROWS * len(entries))

    def of_rows(entries: Any) -> Any:
        return zeros

    return of_rows


def _sign(l1: Any, counts: bool, missing: Any) -> Any:
    """Return what `_gradient` takes as l1."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_sign)
def _(l1: Any, counts: bool, missing: Any) -> Any:
    def nothing(l1: Any, counts: bool, missing: Any) -> None:
        return None

    def something(l1: Any, counts: bool, missing: Any) -> Any:
        return l1 if counts else type(missing)(0), missing

    return something if wanted(l1) else nothing


@inlined
def _round_strips(columns: int, first: int, last: int) -> tuple[int, int, int, int]:
    """Return two ranges, of which one may be empty, for first .. last-1, where -1 is the last of the columns."""
    return max(first, 0), last, columns + first, columns + min(last, 0)


@inlined
def _in_order(row: Any, strip: int, lanes: int, halo: int, ahead: int, line: Any) -> int:
    """Put a row in strips in order, its last `ahead` columns, of at most `halo`, first; return where `line` begins."""
    start = -(-halo // lanes) * lanes  # so much room before keeps vectors within cache lines
    out_of_strips(row, strip, lanes, line[start:])
    _copy(line[start + strip * lanes - ahead :], ahead, line[start - ahead :])
    return start - ahead


@jit
def _deliver(
    line: Any, row: int, edges: Any, x0: int, x1: int, gradient: Any, start: int, rim: Any, rim_start: int
) -> None:
    """Copy a row of gradients, columns x0 .. x1-1 of the padded image, to the image's pixels and to the rim's."""
    rows_of, columns_of, pad_y, pad_x = edges[0], edges[1], edges[2], edges[3]
    height, width = len(rows_of) - 2 * pad_y, len(columns_of)
    inner = width - 2 * pad_x
    row -= pad_y  # of the image
    if not 0 <= row < height:
        border = row + pad_y if row < 0 else row - height + pad_y
        _copy(line, x1 - x0, rim[rim_start + border * width + x0 :])
        return
    left, right = max(x0, pad_x), min(x1, width - pad_x)
    _copy(line[left - x0 :], right - left, gradient[start + row * inner + left - pad_x :])
    if pad_x:
        border = rim_start + 2 * pad_y * width + row * 2 * pad_x
        _copy(line, min(x1, pad_x) - x0, rim[border + x0 :])
        right = max(x0, width - pad_x)
        _copy(line[right - x0 :], x1 - right, rim[border + right - inner :])


@inlined
def _ours(row: int, own: Any, columns: int) -> Any:
    """Return the columns of a row of windows that are valid, from and to, and those that count, from and to."""
    return (0, columns, own[2], own[3]) if own[0] <= row < own[1] else (0, columns, 0, 0)


@unmanaged
def _tile(
    plane_x: Any, plane_y: Any, plane_mask: Any, plane_upstream: Any, edges: Any, tile: Any, step: int,
    taps_y: Any, taps_x: Any, back_y: Any, back_x: Any, numbers: Any, scale: Any, l1: Any,
    work: Any, exact: Any, total: Any, results: Any, ssim_map: Any, map_start: int,
    grad_x: Any, grad_y: Any, grad_start: int, rim_x: Any, rim_y: Any, rim_start: int,
) -> None:  # fmt: skip
    """Compute one tile of one plane; add the sums over its own windows and pixels to `results`.

    plane_x, plane_y, plane_mask, plane_upstream as `read` takes them, the last two may be None. edges: (rows, columns,
    pad_y, pad_x, first_y, first_x, halo_y, halo_x): source of every padded row and column; padding on each side; the
    first padded row and column that tiles cover; rows and columns of a window but one. tile: (y0, y1, x0, x1), of
    pixels where a gradient is wanted, of windows elsewhere. back_y, back_x: mirrored taps. numbers: (C1, C2, u,
    divisors of integers in x, in y, what padding puts outside). l1: None, or the scale of the sign of x - y. exact:
    None, or (room for sums, taps down, across, both mirrored, factor of taps, whether they are all alike) for filters
    in float64 (`fastssim.cpu.sums`); taps_x only tell the pitch of rows then. ssim_map, grad_x, grad_y: flat or None;
    this plane begins at map_start, grad_start. rim_x, rim_y: gradients of padded pixels, this plane from rim_start:
    [pad_y above, pad_y below][padded width], [height][pad_x on the left, pad_x on the right].
    """
    rows_of, columns_of, pad_y, pad_x, first_y, first_x, halo_y, halo_x = edges
    c1, c2, u, divisor_x, divisor_y, outside = numbers
    height, width = len(rows_of), len(columns_of)
    zero, one = type(outside)(0), type(outside)(1)
    lanes = len(total) // 3
    y0, y1, x0, x1 = tile[0], tile[1], tile[2], tile[3]
    rows = rows_kept(halo_y + 1, grad_x is not None)
    # Window rows first .. last-1 and columns left .. right-1 are computed; buffers begin at column `left`.
    # Windows own_top .. own_bottom-1, own_left .. own_right-1 are counted; of pixels, near_top .. and so on, for l1.
    first, last, left, right = y0, y1, x0, x1
    own_top, own_bottom, own_left, own_right = y0, y1, x0, x1
    near_bottom = y1 + (halo_y if grad_x is None and y1 == height - halo_y else 0)
    near_right = x1 + (halo_x if grad_x is None and x1 == width - halo_x else 0)
    near_top, near_bottom = max(y0, pad_y), min(near_bottom, height - pad_y)
    near_left, near_right = max(x0, pad_x), min(near_right, width - pad_x)
    if grad_x is not None:
        first, last = max(0, y0 - halo_y), min(height - halo_y, y1)
        left, right = max(0, x0 - halo_x), min(width - halo_x, x1)
        own_top, own_bottom, own_left, own_right = y0 - first_y, y1 - first_y, x0 - first_x, x1 - first_x
    own = (own_top, own_bottom, own_left - left, own_right - left)
    columns = right + halo_x - left  # of pixels that are read
    strip = strip_of(columns, lanes)
    ahead = left + halo_x - x0  # gradients made among the last columns
    signed = _round_strips(strip * lanes, near_left - left - halo_x, near_right - left - halo_x)
    pixel_rows, taken = height - 2 * pad_y, numbers_read(strip, lanes)
    pixel_halo = halo_x if exact is None or grad_x is not None else 0  # sums have one of their own
    maps = 3 if grad_y is None else 4
    kinds = _entries((0, 0, 0, 0), plane_mask)  # one for each moment
    row_kinds = _of_rows(kinds)
    back_kinds = _entries((0, 0, 0), grad_y)

    (
        at_d, at_mask, at_derivatives, at_moments, at_filtered, at_weights, at_windows, at_line_x, at_line_y,
        at_line_mask, at_out_x, at_out_y, _,
    ) = places(rows, grad_x is not None)  # fmt: skip
    s = work[: rows * step]
    d = work[at_d * step : at_mask * step]
    mask_rows = work[at_mask * step :]
    mask = given(plane_mask, mask_rows)
    derivatives = work[at_derivatives * step :]
    moments = work[at_moments * step :]
    filtered = work[at_filtered * step :]
    weights = work[at_weights * step :]
    windows = work[at_windows * step :]
    line_x = work[at_line_x * step :]
    line_y = work[at_line_y * step :]
    line_mask = given(plane_mask, work[at_line_mask * step :])
    out_x = work[at_out_x * step :]
    out_y = work[at_out_y * step :]

    px = py = zero
    one_pixel = halo_y + halo_x == 0  # such a window has no variance: a pivot would only cost its mean's precision
    spread = zero if one_pixel else u
    if not one_pixel:
        part = (
            max(first - pad_y, 0), max(min(last + halo_y, height - pad_y) - pad_y, 1),
            max(left - pad_x, 0), max(min(right + halo_x, width - pad_x) - pad_x, 1),
        )  # fmt: skip
        px = s.dtype.type(_pivot(plane_x, plane_mask, part[0], part[1], part[2], part[3], divisor_x, weights))
        py = s.dtype.type(_pivot(plane_y, plane_mask, part[0], part[1], part[2], part[3], divisor_y, weights))
    calm = False  # running sums stay exact; see `fastssim.cpu.sums`
    if exact is not None:
        sums, down, across_taps, back_down, back_across, share, uniform = exact
        most = type(outside)(np.sqrt(LARGEST_SQUARE * c2))
        calm = uniform and c1 > 0 and c2 > 0 and abs(px) <= most and abs(py) <= most
        back = sums[(MAPS + 1) * step :]
        back[: maps * step] = 0
    first_column = max(left - pad_x, 0)  # of the image, that the tile reads
    image_columns = min(right + halo_x - pad_x, width - 2 * pad_x) - first_column
    missing = px - py
    constants = (px + py, missing, c1, c2, type(outside)(0.5) * spread, spread)
    line_x[: strip * lanes] = px
    line_y[: strip * lanes] = py
    if plane_mask is not None:
        line_mask[: strip * lanes] = 0
    mask_line = given(plane_mask, address_of(work[at_line_mask * step :]))
    base = loaded = first  # pixel rows base .. loaded-1 are in s and d
    base_windows = first - halo_y  # the window row at the front of `derivatives`
    if grad_x is not None:
        derivatives[: halo_y * maps * step] = 0

    for row in range(first, y1, ROWS):
        count = min(ROWS, last - row)  # window rows of this step; none below the last, where only gradient rows are due
        if exact is None and grad_x is not None and row + ROWS - base_windows > rows:
            wound = (row - halo_y - base_windows) * maps, (row - base_windows) * maps
            _wind_back(derivatives, wound[0], wound[1], step, strip * lanes)
            base_windows = row - halo_y
        if count > 0:
            if exact is None and row + ROWS + halo_y - base > rows:
                used = (strip + halo_x) * lanes
                _wind_back(s, row - base, loaded - base, step, used)
                _wind_back(d, row - base, loaded - base, step, used)
                if plane_mask is not None:
                    _wind_back(mask, row - base, loaded - base, step, used)
                base = row
            for pixel_row in range(loaded, row + count + halo_y):
                place = (pixel_row - base) % rows * step
                source = (rows_of[pixel_row], columns_of, pad_x, left, right + halo_x)
                if exact is None:
                    row_x = row_of(plane_x, pixel_rows, source, taken, divisor_x, outside, line_x)
                    row_y = row_of(plane_y, pixel_rows, source, taken, divisor_y, outside, line_y)
                else:  # other pixels would have a part in running sums
                    read_padded(plane_x, source, divisor_x, outside, line_x)
                    read_padded(plane_y, source, divisor_y, outside, line_y)
                    row_x, row_y = address_of(line_x), address_of(line_y)
                row_mask = given(plane_mask, mask_rows[place:])
                if plane_mask is not None:
                    read_padded(plane_mask, source, one, one, line_mask)
                if exact is not None:
                    calm = calm and within(line_x, columns, most) and within(line_y, columns, most)
                    if plane_mask is not None:
                        calm = calm and within(line_mask, columns, type(outside)(FINITE))
                enter(row_x, row_y, mask_line, strip, lanes, pixel_halo, px, py, s[place:], d[place:], row_mask)
                if l1 is not None and near_top <= pixel_row < near_bottom:
                    for vector in range(strip):
                        _add_distances(d, place, strip, vector, near_left - left, near_right - left, missing, total)
            loaded = row + count + halo_y
            if plane_mask is not None:
                for pixel_row in range(loaded, row + ROWS + halo_y):  # below the last, whose windows are not there
                    place = (pixel_row - base) % rows * step
                    s[place : place + step] = 0  # or an earlier row's would have a part in a pivot
                    d[place : place + step] = 0
                    mask_rows[place : place + step] = 0
            if exact is None:
                for vector in range(strip):
                    _down(s, d, mask, (row - base) * step, vector * lanes, taps_y, taps_x, constants, moments)
                continue_strips(moments, s, strip, lanes, halo_x, step, row_kinds)
            if plane_upstream is not None:
                for r in range(count):
                    read(plane_upstream, row + r, left, right - left, one, line_x)
                    if exact is not None:
                        calm = calm and within(line_x, right - left, type(outside)(FINITE))
                    into_strips(line_x, strip, lanes, weights[r * step :])
        for r in range(count):
            if exact is None:
                for vector in range(0, strip, BLOCK):
                    _windows(moments, mask, len(kinds) * r * step, vector, taps_x, constants, grad_x, windows)
            else:
                top = row + r - base  # rows go round the buffers here
                first_tap = halo_y
                if row + r == first or not calm:
                    sums[: len(kinds) * step] = 0
                    first_tap = 0
                for k in range(first_tap, halo_y + 1):
                    add_moments(sums, step, s, d, mask, (top + k) % rows * step, strip, lanes, down[k])
                across(sums, step, strip, lanes, across_taps, share, calm, kinds, constants, grad_x, windows)
                if calm:
                    add_moments(sums, step, s, d, mask, top % rows * step, strip, lanes, -down[0])
            place = (row + r - base_windows) % rows * maps * step
            row_map = given(ssim_map, filtered[r * step :])
            ours = _ours(row + r, own, right - left)
            next_x = to_come(plane_x, rows_of, loaded + r, first_column, image_columns)
            next_y = to_come(plane_y, rows_of, loaded + r, first_column, image_columns)
            for vector in range(strip):
                ask_for(next_x, vector)
                ask_for(next_y, vector)
                _ssim(
                    windows, mask, taps_x, strip, vector, constants, ours, total,
                    plane_upstream, weights[r * step :], row_map, grad_x, grad_y, derivatives, place,
                )  # fmt: skip
            results[0] += _take(total, 0)  # row by row: equal numbers are all rounded to the same side
        if plane_mask is not None:
            results[1] += _take(total, 1)
        if l1 is not None:
            results[2] += _take(total, 2)
        if ssim_map is not None:
            for r in range(count):
                out_of_strips(filtered[r * step :], strip, lanes, out_x)
                place = map_start + (row + r) * (width - halo_x) + left
                _copy(out_x, right - left, ssim_map[place:])
        if grad_x is not None:
            for r in range(max(count, 0), ROWS):
                place = (row + r - base_windows) % rows * maps * step
                derivatives[place : place + maps * step] = 0
            if exact is None and row + ROWS > y0:
                place = (row - halo_y - base_windows) * maps * step
                for vector in range(0, strip, 2):
                    _vertical_adjoint(derivatives, place, vector * lanes, back_y, back_x, grad_y, filtered)
            for r in range(min(ROWS, y1 - row)):
                if exact is not None:
                    top = row + r - halo_y - base_windows
                    first_tap = halo_y
                    if not calm:
                        back[: maps * step] = 0
                        first_tap = 0
                    for k in range(first_tap, halo_y + 1):
                        add_maps(
                            back, step, derivatives, (top + k) % rows * maps * step, strip, lanes, grad_y, back_down[k]
                        )
                if row + r < y0:
                    continue
                if exact is not None:
                    across(back, step, strip, lanes, back_across, share, calm, back_kinds, None, None, windows)
                    if calm:
                        add_maps(back, step, derivatives, top % rows * maps * step, strip, lanes, grad_y, -back_down[0])
                else:
                    place = r * maps * step
                    for plane in range(maps):
                        continue_strips(filtered[place + plane * step :], s, strip, lanes, halo_x, step, ONE_ROW)
                    for vector in range(0, strip, BLOCK):
                        _across(filtered, place, vector, back_x, back_kinds, windows)
                pixel = (row + r - base) % rows * step + halo_x * lanes
                sign = _sign(l1, near_top <= row + r < near_bottom, missing)
                for vector in range(strip):
                    _gradient(
                        windows, taps_x, strip, vector, s, d, mask, pixel, scale, sign, signed, grad_y, out_x, out_y
                    )
                place = _in_order(out_x, strip, lanes, halo_x, ahead, weights)
                _deliver(weights[place:], row + r, edges, x0, x1, grad_x, grad_start, rim_x, rim_start)
                if grad_y is not None:
                    place = _in_order(out_y, strip, lanes, halo_x, ahead, weights)
                    _deliver(weights[place:], row + r, edges, x0, x1, grad_y, grad_start, rim_y, rim_start)


@merged
def ssim_tiles(
    x: Any, y: Any, mask: Any, upstream: Any, divisors: Any, edges: Any, tiles: Any, begin: int, end: int,
    channels: int, step: int, taps: Any,
    constants: Any, scale: Any, l1: Any, work: Any, exact: Any, total: Any, sums: Any, ssim_map: Any,
    grad_x: Any, grad_y: Any, rim_x: Any, rim_y: Any,
) -> None:  # fmt: skip
    """Compute work items begin .. end-1, item = (plane n C + c) * len(tiles) + tile, of images x, y [N, C, H, W].

    x, y, mask or None, upstream [N, C, H', W'] or None: each (address, kind, bytes from image to image, from channel to
    channel, from row to row, numbers from column to column). divisors of integers in x, in y. edges: see `_tile`. tiles
    [T, 4]; taps: (down, across, down mirrored, across mirrored), see `tap_vectors`; constants: (C1, C2, u). exact: see
    `_tile`. sums [N C, T, 3]: of SSIM, of windows counted under a mask, of |x - y| where l1 is not None. ssim_map,
    grad_x, grad_y, rim_x, rim_y flat and contiguous: each may be None.
    """
    taps_y, taps_x, back_y, back_x = taps
    rows, columns, pad_y, pad_x = edges[0], edges[1], edges[2], edges[3]
    windows = (len(rows) - edges[6]) * (len(columns) - edges[7])
    pixels = (len(rows) - 2 * pad_y) * (len(columns) - 2 * pad_x)
    rim = 2 * pad_y * len(columns) + (len(rows) - 2 * pad_y) * 2 * pad_x
    zero = type(scale)(0)
    numbers = (constants[0], constants[1], constants[2], divisors[0], divisors[1], zero)
    for item in range(begin, end):
        plane, tile = divmod(item, len(tiles))
        n, c = divmod(plane, channels)
        sums[plane, tile] = 0
        _tile(
            _plane(x, n, c), _plane(y, n, c), _plane(mask, n, c), _plane(upstream, n, c), edges, tiles[tile], step,
            taps_y, taps_x, back_y, back_x, numbers, scale, l1, work, exact, total, sums[plane, tile],
            ssim_map, plane * windows, grad_x, grad_y, plane * pixels, rim_x, rim_y, plane * rim,
        )  # fmt: skip


@jit
def fold(rows: Any, columns: Any, pad_y: int, pad_x: int, first: int, last: int, rim: Any, gradient: Any) -> None:
    """Add the gradients of padded pixels, planes first .. last-1, to those of their sources; layout as in `_tile`."""
    height, width = len(rows) - 2 * pad_y, len(columns) - 2 * pad_x
    size = 2 * pad_y * len(columns) + height * 2 * pad_x
    for plane in range(first, last):
        start, place = plane * height * width, plane * size
        for border in range(2 * pad_y):
            row = rows[border if border < pad_y else height + border]
            for column in range(len(columns)):
                gradient[start + row * width + columns[column]] += rim[place]
                place += 1
        for row in range(height):
            for border in range(2 * pad_x):
                column = columns[border if border < pad_x else width + border]
                gradient[start + row * width + column] += rim[place]
                place += 1
