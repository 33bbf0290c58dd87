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

Two kinds of pivot keep e - m^2 from cancelling: one per tile, taken off every pixel, and a local mean taken off s and d
for every vector of columns in every step; sums pass from one to the next by m' = m + t, e' = e + t (m + m').

Unbiased variances carry a factor u: v_s = u (e_s - m_s^2), and q_s, q_d are the derivatives times u.
With a mask m, n = w*m, every filtered map is w*(m ...) / n, every derivative is divided by n before it is filtered
back and the gradient is multiplied by m; a window with n at most LEAST_WEIGHT has nothing to compare: SSIM 1, not
counted.

The march goes down the tile, ROWS window rows at a time. Pixel rows are turned into s and d as they are reached; the
vertical filter keeps ROWS sums per map in registers; the horizontal filter ends in the formula above; its derivatives
go into a rolling buffer of rows, and the gradient's rows leave as soon as the last window that covers them is done.
Only the rolling buffers exist besides input and output, whatever the image's height.

Symbols: (y0, y1, x0, x1) is the tile, in the padded image; in gradient mode its pixels: every window that covers one
of them is computed, but a window counts in the sum of one tile only; in value mode the tile's windows themselves.
Gradients of padded pixels go to the rim and are folded onto their sources when all tiles are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastssim.cpu.jit import jit
from fastssim.cpu.pixels import read, read_padded
from fastssim.cpu.simd import Code, Vector, wanted
from fastssim.plan import LEAST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROWS = 4  # window rows per step: 2 maps x 4 sums stay in registers
SPARE_ROWS = 28  # rows marched before a rolling buffer is wound back
TILE_COLUMNS = 256  # columns of windows in a tile: the rolling buffers stay in the second-level cache
_SLACK = 32  # columns that a whole last vector may read or write behind a row's end


def pitch(taps: int) -> int:
    """Numbers from one buffer row to the next, for windows `taps` wide.

    A multiple of 16 that is no multiple of 64, so that rows do not fall on the same cache sets.
    """
    columns = -(-(TILE_COLUMNS + 2 * (taps - 1) + _SLACK) // 16) * 16
    return columns if columns % 64 else columns + 16


def workspace(taps_y: int, taps_x: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate the rolling buffers for `tile_ssim`."""
    rows = 7 * (taps_y + SPARE_ROWS) + 10 * ROWS
    return np.zeros(rows * pitch(taps_x) + _SLACK, dtype)


# ---------------------------------------------------------------------------------------------------------- vectors


def _rows(code: Code, taps: list[Vector], terms: Callable[[int], list[Vector]]) -> list[list[Vector]]:
    """Filter down the columns: for each of the vectors that `terms` gives for a row, sums r = 0 .. ROWS-1.

    sums[i][r] = sum over k of taps[k] terms(r + k)[i].
    """
    sums: list[list[Any]] = []
    for row in range(len(taps) + ROWS - 1):
        for number, term in enumerate(terms(row)):
            if row == 0:
                sums.append([None] * ROWS)
            total = sums[number]
            for r in range(ROWS):
                if 0 <= row - r < len(taps):
                    product = taps[row - r] * term
                    total[r] = product if total[r] is None else total[r] + product
    return sums


@intrinsic
def _vertical_moments(
    typing: Any, s: Any, d: Any, m: Any, start: Any, column: Any, taps: Any, taps_x: Any, pivots: Any, out: Any
) -> Any:
    """Filter ROWS window rows down the columns at one vector of columns; s, d, m [row][pitch], out [ROWS][maps][pitch].

    out holds m_s, e_s, m_d, e_d about `pivots` (of s, of d) and, unless the mask m is None, n, by which no map is
    divided yet; `start`: place of the first window row's first pixel row.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, m_type, _, _, taps_type, taps_x_type, _, out_type = signature.args
        s_value, d_value, m_value, start_value, column_value, taps_value, _, pivots_value, out_value = args
        code = Code(context, builder, s_type.dtype)
        step = pitch(len(taps_x_type))
        masked = wanted(m_type)
        maps = 4 + masked
        weights = code.splats(taps_value, len(taps_type))
        target = code.at(code.data(out_type, out_value), column_value)

        def place(array_type: Any, array: Any) -> Any:
            return code.at(code.at(code.data(array_type, array), start_value), column_value)

        def mask(row: int) -> Vector:
            return code.load(code.at(place(m_type, m_value), row * step))

        def write(number: int, sums: list[Vector]) -> None:
            for r in range(ROWS):
                code.store(sums[r], code.at(target, (maps * r + number) * step))

        for plane, (array_type, array) in enumerate(((s_type, s_value), (d_type, d_value))):
            source = place(array_type, array)
            pivot = code.splat(builder.extract_value(pivots_value, plane))

            def powers(row: int, source: Any = source, pivot: Vector = pivot) -> list[Vector]:
                value = code.load(code.at(source, row * step)) - pivot
                weighted = mask(row) * value if masked else value
                return [weighted, weighted * value]

            for moment, sums in enumerate(_rows(code, weights, powers)):
                write(2 * plane + moment, sums)
        if masked:
            write(4, _rows(code, weights, lambda row: [mask(row)])[0])
        return context.get_dummy_value()

    return types.void(s, d, m, start, column, taps, taps_x, pivots, out), codegen


@intrinsic
def _mean_of_row(typing: Any, row: Any, mask: Any, start: Any, first: Any, last: Any) -> Any:
    """Return the mean of the columns first .. last-1, at most a vector, of a row; 0 where it is not finite.

    Unless the mask is None, only of columns with a weight.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row_type, mask_type = signature.args[:2]
        row_value, mask_value, start_value, first_value, last_value = args
        code = Code(context, builder, row_type.dtype)
        count = builder.sub(last_value, first_value)
        chosen = code.lane_mask(ir.Constant(count.type, 0), count)

        def load(array_type: Any, array: Any) -> Vector:
            return code.load(code.at(code.at(code.data(array_type, array), start_value), first_value))

        if wanted(mask_type):
            chosen = builder.and_(chosen, code.above(load(mask_type, mask_value), code.zero()))
            number = code.sum_lanes(code.select(chosen, code.one(), code.zero()))
        else:
            number = builder.sitofp(count, code.scalar)
        total = code.sum_lanes(code.select(chosen, load(row_type, row_value), code.zero()))
        mean = builder.fdiv(total, number)
        zero = ir.Constant(code.scalar, 0)
        finite = builder.fcmp_ordered("==", builder.fsub(mean, mean), zero)  # NaN and infinity minus themselves are NaN
        return builder.select(finite, mean, zero)

    return row.dtype(row, mask, start, first, last), codegen


@intrinsic
def _move_pivots(typing: Any, moments: Any, mask: Any, column: Any, taps_x: Any, before: Any, after: Any) -> Any:
    """Take one vector of columns of [ROWS][maps][pitch] from pivots `before` to `after` (of s, of d).

    With t = before - after and n = 1 or the mask's: m' = m + t n and e' = e + 2 t m + t^2 n = e + t (m + m').
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        moments_type, mask_type, _, taps_type, _, _ = signature.args
        moments_value, _, column_value, _, before_value, after_value = args
        code = Code(context, builder, moments_type.dtype)
        step = pitch(len(taps_type))
        maps = 4 + wanted(mask_type)
        source = code.at(code.data(moments_type, moments_value), column_value)
        for plane in range(2):
            before_plane, after_plane = (
                code.splat(builder.extract_value(pivots, plane)) for pivots in (before_value, after_value)
            )
            t = before_plane - after_plane
            for r in range(ROWS):
                place = code.at(source, (maps * r + 2 * plane) * step)
                m, e = code.load(place), code.load(code.at(place, step))
                moved = m + (t * code.load(code.at(source, (maps * r + 4) * step)) if maps == 5 else t)
                code.store(moved, place)
                code.store(e + t * (m + moved), code.at(place, step))
        return context.get_dummy_value()

    return types.void(moments, mask, column, taps_x, before, after), codegen


@intrinsic
def _horizontal_ssim(
    typing: Any, moments: Any, mask: Any, start: Any, column: Any, taps: Any, constants: Any, ranges: Any, total: Any,
    upstream: Any, weights: Any, weights_start: Any, ssim_map: Any, map_start: Any,
    grad_x: Any, grad_y: Any, derivatives: Any, derivatives_start: Any,
) -> Any:  # fmt: skip
    """Finish one vector of windows of one row: filter across, apply the formula, write what is asked for.

    moments: [maps][pitch] from `start`. ranges: columns (valid from, to, counted from, to). total [3][lanes] += SSIM
    and, unless the mask is None, windows counted. ssim_map: flat, this row from `map_start`, or None. Unless grad_x is
    None, derivatives [maps][pitch] from `derivatives_start` take q_s, q_d, p_s + p_d and, unless grad_y is None,
    p_s - p_d; unless upstream is None, each multiplied by weights [pitch] from `weights_start`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _Arguments(*signature.args)
        value = _Arguments(*args)
        code = Code(context, builder, kind.moments.dtype)
        step = pitch(len(kind.taps))
        masked = wanted(kind.mask)
        taps_x = code.splats(value.taps, len(kind.taps))
        source = code.at(code.at(code.data(kind.moments, value.moments), value.start), value.column)
        limits = [builder.sub(builder.extract_value(value.ranges, i), value.column) for i in range(4)]
        valid = code.lane_mask(limits[0], limits[1])

        def across(plane: int) -> Vector:
            return code.dot(taps_x, [code.load(code.at(source, plane * step + k)) for k in range(len(taps_x))])

        pivot_s, pivot_d, mean_s, mean_d, c1, c2, half_u, u = code.splats(value.constants, len(kind.constants))
        m_s, e_s, m_d, e_d = (across(plane) for plane in range(4))
        if masked:
            n = across(4)
            something = code.above(n, code.number(LEAST_WEIGHT))
            inverse_n = code.select(something, code.one() / n, code.zero())
            m_s, e_s, m_d, e_d = (moment.times(inverse_n) for moment in (m_s, e_s, m_d, e_d))
        v_s = u * (e_s - m_s.times(m_s))
        v_d = u * (e_d - m_d.times(m_d))
        m = m_s + mean_s
        q = m_d + mean_d
        q2 = q * q
        a = code.number(0.5) * (m * m - q2) + c1
        b = a + q2
        c = code.number(0.5) * (v_s - v_d) + c2
        d = c + v_d
        ssim = (a * c) / (b * d)

        sums = code.data(kind.total, value.total)
        counted = builder.and_(valid, code.lane_mask(limits[2], limits[3]))
        if masked:
            ssim = code.select(something, ssim, code.one())
            counted = builder.and_(counted, something)
            counts = code.at(sums, code.lanes)
            code.store(code.load(counts) + code.select(counted, code.one(), code.zero()), counts)
        code.store(code.load(sums) + code.select(counted, ssim, code.zero()), sums)
        if wanted(kind.ssim_map):
            row = code.at(code.data(kind.ssim_map, value.ssim_map), value.map_start)
            code.store_where(valid, ssim, code.at(row, value.column))
        if wanted(kind.grad_x):
            r = code.one() / (b * d)
            inverse_b = d * r
            inverse_d = b * r
            luminance = a * inverse_b
            structure = c * inverse_d
            factors = [inverse_n] if masked else []
            if wanted(kind.upstream):
                row = code.at(code.data(kind.weights, value.weights), value.weights_start)
                factors.append(code.load(code.at(row, value.column)))
            for factor in factors:
                luminance = luminance * factor
                structure = structure * factor
            by_means = structure * q * inverse_b * inverse_b
            f_ms = by_means * m * q
            f_md = code.zero() - by_means * (a + b)
            by_variances = luminance * half_u * inverse_d * inverse_d
            q_s = by_variances * v_d
            q_d = code.zero() - by_variances * (c + d)
            from_s, from_d = m_s + pivot_s, m_d + pivot_d
            p_s = f_ms - (from_s + from_s) * q_s
            p_d = f_md - (from_d + from_d) * q_d
            maps = [q_s, q_d, p_s + p_d]
            if wanted(kind.grad_y):
                maps.append(p_s - p_d)
            target = code.at(code.data(kind.derivatives, value.derivatives), value.derivatives_start)
            target = code.at(target, value.column)
            for number, values in enumerate(maps):
                code.store(code.select(valid, values, code.zero()), code.at(target, number * step))
        return context.get_dummy_value()

    return (
        types.void(
            moments, mask, start, column, taps, constants, ranges, total, upstream, weights, weights_start,
            ssim_map, map_start, grad_x, grad_y, derivatives, derivatives_start,
        ),
        codegen,
    )  # fmt: skip


class _Arguments(NamedTuple):
    """What `_horizontal_ssim` is given: Numba types at one time, LLVM values at another."""

    moments: Any
    mask: Any
    start: Any
    column: Any
    taps: Any
    constants: Any
    ranges: Any
    total: Any
    upstream: Any
    weights: Any
    weights_start: Any
    ssim_map: Any
    map_start: Any
    grad_x: Any
    grad_y: Any
    derivatives: Any
    derivatives_start: Any


@intrinsic
def _vertical_adjoint(
    typing: Any, derivatives: Any, start: Any, column: Any, taps: Any, taps_x: Any, grad_y: Any, out: Any
) -> Any:
    """Filter ROWS rows of the derivatives down the columns; derivatives [row][maps][pitch], out [ROWS][maps][pitch].

    `start` is the place of the first tap's row; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        derivatives_type, _, _, taps_type, taps_x_type, grad_y_type, out_type = signature.args
        derivatives_value, start_value, column_value, taps_value, _, _, out_value = args
        code = Code(context, builder, derivatives_type.dtype)
        step = pitch(len(taps_x_type))
        maps = 4 if wanted(grad_y_type) else 3
        weights = code.splats(taps_value, len(taps_type))
        source = code.at(code.at(code.data(derivatives_type, derivatives_value), start_value), column_value)
        target = code.at(code.data(out_type, out_value), column_value)
        for number in range(maps):

            def term(row: int, number: int = number) -> list[Vector]:
                return [code.load(code.at(source, (row * maps + number) * step))]

            (sums,) = _rows(code, weights, term)
            for r in range(ROWS):
                code.store(sums[r], code.at(target, (r * maps + number) * step))
        return context.get_dummy_value()

    return types.void(derivatives, start, column, taps, taps_x, grad_y, out), codegen


@intrinsic
def _horizontal_adjoint(
    typing: Any, filtered: Any, row: Any, column: Any, taps: Any, s: Any, d: Any, mask: Any, pixel: Any, scale: Any,
    l1: Any, begin: Any, end: Any, grad_x: Any, grad_y: Any, place: Any,
) -> Any:  # fmt: skip
    """Finish one vector of gradient pixels of one row: filter across, combine with s and d, write.

    filtered [ROWS][maps][pitch]; s, d, mask: flat, `pixel` the place of column 0, the mask may be None; scale of the
    gradient of SSIM; l1: None, or (scale of the sign of x - y, what d misses of x - y); grad_x, grad_y: flat, `place`
    that of column 0, grad_y may be None; only columns begin .. end-1 are written; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        filtered_t, _, _, taps_t, s_t, d_t, mask_t, _, _, l1_t, _, _, grad_x_t, grad_y_t, _ = signature.args
        (
            filtered_v, row_v, column_v, taps_v, s_v, d_v, mask_v, pixel_v, scale_v, l1_v, begin_v, end_v,
            grad_x_v, grad_y_v, place_v,
        ) = args  # fmt: skip
        code = Code(context, builder, filtered_t.dtype)
        step = pitch(len(taps_t))
        maps = 4 if wanted(grad_y_t) else 3
        weights = code.splats(taps_v, len(taps_t))
        row_start = builder.mul(row_v, ir.Constant(row_v.type, maps * step))
        source = code.at(code.at(code.data(filtered_t, filtered_v), row_start), column_v)

        def across(number: int) -> Vector:
            return code.dot(weights, [code.load(code.at(source, number * step + k)) for k in range(len(weights))])

        def load(kind: Any, array: Any) -> Vector:
            return code.load(code.at(code.at(code.data(kind, array), pixel_v), column_v))

        q_s, q_d, to_x = (across(number) for number in range(3))
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
        valid = code.lane_mask(builder.sub(begin_v, column_v), builder.sub(end_v, column_v))

        def write(kind: Any, array: Any, gradient: Vector) -> None:
            start = code.at(code.at(code.data(kind, array), place_v), column_v)
            code.store_where(valid, gradient, start)

        by_x = factor * (to_x + ((by_s + by_d) + (by_s + by_d)))
        write(grad_x_t, grad_x_v, by_x if sign is None else by_x + sign)
        if wanted(grad_y_t):
            by_y = factor * (across(3) + ((by_s - by_d) + (by_s - by_d)))
            write(grad_y_t, grad_y_v, by_y if sign is None else by_y - sign)
        return context.get_dummy_value()

    signature = types.void(
        filtered, row, column, taps, s, d, mask, pixel, scale, l1, begin, end, grad_x, grad_y, place
    )  # fmt: skip
    return signature, codegen


@intrinsic
def _add_distances(typing: Any, d: Any, place: Any, count: Any, column: Any, missing: Any, total: Any) -> Any:
    """Add |d + missing| of one vector of columns, of which `count` in all count, to the lanes total [2]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        d_type, total_type = signature.args[0], signature.args[5]
        d_value, place_value, count_value, column_value, missing_value, total_value = args
        code = Code(context, builder, d_type.dtype)
        start = code.at(code.at(code.data(d_type, d_value), place_value), column_value)
        distance = code.absolute(code.load(start) + code.splat(missing_value))
        left = builder.sub(count_value, column_value)
        chosen = code.lane_mask(ir.Constant(left.type, 0), left)
        sums = code.at(code.data(total_type, total_value), 2 * code.lanes)
        code.store(code.load(sums) + code.select(chosen, distance, code.zero()), sums)
        return context.get_dummy_value()

    return types.void(d, place, count, column, missing, total), codegen


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


@jit
def _combine(count: int, px: Any, py: Any, s: Any, d: Any, mask: Any) -> None:
    """Turn x in s and y in d into s = (x - px) + (y - py) and d = (x - y) - (px - py); both 0 without a weight."""
    missing = px - py
    for i in range(count):
        x, y = s[i], d[i]
        a, b = (x - px) + (y - py), (x - y) - missing
        if mask is not None:
            a, b = (a, b) if mask[i] > 0 else (s.dtype.type(0), s.dtype.type(0))
        s[i], d[i] = a, b


@jit
def _wind_back(buffer: Any, first: int, last: int) -> None:
    """Move the numbers first .. last-1 of a buffer to its front."""
    for i in range(last - first):
        buffer[i] = buffer[first + i]


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


def _part(plane: Any, work: Any, start: int) -> Any:
    """Return the buffer from `start` on where there is a plane for it, or None."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_part)
def _(plane: Any, work: Any, start: int) -> Any:
    def nothing(plane: Any, work: Any, start: int) -> None:
        return None

    def something(plane: Any, work: Any, start: int) -> Any:
        return work[start:]

    return something if wanted(plane) else nothing


def _sign(l1: Any, counts: bool, missing: Any) -> Any:
    """Return what `_horizontal_adjoint` takes as l1."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_sign)
def _(l1: Any, counts: bool, missing: Any) -> Any:
    def nothing(l1: Any, counts: bool, missing: Any) -> None:
        return None

    def something(l1: Any, counts: bool, missing: Any) -> Any:
        return l1 if counts else type(missing)(0), missing

    return something if wanted(l1) else nothing


@jit
def _tile(
    plane_x: Any, plane_y: Any, plane_mask: Any, plane_upstream: Any, edges: Any, tile: Any, step: int,
    taps_y: Any, taps_x: Any, back_y: Any, back_x: Any, numbers: Any, scale: Any, l1: Any,
    work: Any, total: Any, results: Any, ssim_map: Any, map_start: int,
    grad_x: Any, grad_y: Any, grad_start: int, rim_x: Any, rim_y: Any, rim_start: int,
) -> None:  # fmt: skip
    """Compute one tile of one plane; add the sums over its own windows and pixels to `results`.

    plane_x, plane_y, plane_mask, plane_upstream as `read` takes them, the last two may be None. edges: (rows, columns,
    pad_y, pad_x, first_y, first_x): source of every padded row and column; padding on each side; the first padded row
    and column that tiles cover. tile: (y0, y1, x0, x1), of pixels where a gradient is wanted, of windows elsewhere.
    back_y, back_x: mirrored taps. numbers: (C1, C2, u, divisors of integers in x, in y, what padding puts outside).
    l1: None, or the scale of the sign of x - y. ssim_map, grad_x, grad_y: flat or None; this plane begins at map_start,
    grad_start. rim_x, rim_y: gradients of padded pixels, this plane from rim_start: [pad_y above, pad_y below][padded
    width], [height][pad_x on the left, pad_x on the right].
    """
    rows_of, columns_of, pad_y, pad_x, first_y, first_x = edges
    c1, c2, u, divisor_x, divisor_y, outside = numbers
    height, width = len(rows_of), len(columns_of)
    zero, one = type(outside)(0), type(outside)(1)
    vector = len(total) // 3
    halo_y, halo_x = len(taps_y) - 1, len(taps_x) - 1
    y0, y1, x0, x1 = tile[0], tile[1], tile[2], tile[3]
    rows = len(taps_y) + SPARE_ROWS
    # Window rows first .. last-1 and columns left .. right-1 are computed; buffers begin at column `origin`.
    # Windows own_top .. own_bottom-1, own_left .. own_right-1 are counted; of pixels, near_top .. and so on, for l1.
    first, last, left, right, origin = y0, y1, x0, x1, x0
    own_top, own_bottom, own_left, own_right = y0, y1, x0, x1
    near_bottom = y1 + (halo_y if grad_x is None and y1 == height - halo_y else 0)
    near_right = x1 + (halo_x if grad_x is None and x1 == width - halo_x else 0)
    near_top, near_bottom = max(y0, pad_y), min(near_bottom, height - pad_y)
    near_left, near_right = max(x0, pad_x), min(near_right, width - pad_x)
    if grad_x is not None:
        first, last = max(0, y0 - halo_y), min(height - halo_y, y1)
        left, right = max(0, x0 - halo_x), min(width - halo_x, x1)
        origin = x0 - halo_x
        own_top, own_bottom, own_left, own_right = y0 - first_y, y1 - first_y, x0 - first_x, x1 - first_x
    columns = x1 - origin
    maps = 3 if grad_y is None else 4
    moment_maps = 4 if plane_mask is None else 5

    s = work[: rows * step]
    d = work[rows * step : 2 * rows * step]
    moments = work[2 * rows * step :]
    filtered = work[(2 * rows + 5 * ROWS) * step :]
    weights = work[(2 * rows + 9 * ROWS) * step :]
    derivatives = work[(2 * rows + 10 * ROWS) * step :]
    mask = _part(plane_mask, work, (6 * rows + 10 * ROWS) * step)
    pivots = np.zeros(((columns + 2 * halo_x) // vector + 3, 2), s.dtype)  # of s and d, for each vector of columns

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
    missing = px - py
    base = loaded = first  # pixel rows base .. loaded-1 are in s and d
    base_windows = first - halo_y  # the window row at the front of `derivatives`
    if grad_x is not None:
        derivatives[: halo_y * maps * step] = 0

    for row in range(first, y1, ROWS):
        count = min(ROWS, last - row)  # window rows of this step; none below the last, where only gradient rows are due
        if grad_x is not None and row + ROWS - base_windows > rows:
            _wind_back(derivatives, (row - halo_y - base_windows) * maps * step, (row - base_windows) * maps * step)
            base_windows = row - halo_y
        if count > 0:
            if row + ROWS + halo_y - base > rows:
                _wind_back(s, (row - base) * step, (loaded - base) * step)
                _wind_back(d, (row - base) * step, (loaded - base) * step)
                if plane_mask is not None:
                    _wind_back(mask, (row - base) * step, (loaded - base) * step)
                base = row
            for pixel_row in range(loaded, row + count + halo_y):
                place = (pixel_row - base) * step + left - origin
                end = right + halo_x
                source = (rows_of[pixel_row], columns_of, pad_x, left, end)
                read_padded(plane_x, source, divisor_x, outside, s[place:])
                read_padded(plane_y, source, divisor_y, outside, d[place:])
                if plane_mask is not None:
                    read_padded(plane_mask, source, one, one, mask[place:])
                    _combine(end - left, px, py, s[place:], d[place:], mask[place:])
                else:
                    _combine(end - left, px, py, s[place:], d[place:], None)
                if l1 is not None and near_top <= pixel_row < near_bottom:
                    for column in range(0, near_right - near_left, vector):
                        _add_distances(d, place + near_left - left, near_right - near_left, column, missing, total)
            loaded = row + count + halo_y
            middle = row - base + (halo_y + count) // 2
            for column in range(0, columns + halo_x, vector):
                begin = min(max(column + halo_x // 2, left - origin), right - origin + halo_x - 1)
                end = begin if one_pixel else min(begin + vector, right - origin + halo_x)
                pivot = (
                    _mean_of_row(s, mask, middle * step, begin, end),
                    _mean_of_row(d, mask, middle * step, begin, end),
                )
                pivots[column // vector, 0], pivots[column // vector, 1] = pivot
                _vertical_moments(s, d, mask, (row - base) * step, column, taps_y, taps_x, pivot, moments)
            if plane_upstream is not None:
                for r in range(count):
                    place = r * step + left - origin
                    read(plane_upstream, row + r, left, right - left, one, weights[place:])
        for chunk in range(-(-columns // vector) - 1 if count > 0 else -1, -1, -1):
            pivot = (pivots[chunk, 0], pivots[chunk, 1])
            for other in range(chunk + 1, chunk + 1 + -(-halo_x // vector)):
                _move_pivots(moments, mask, other * vector, taps_x, (pivots[other, 0], pivots[other, 1]), pivot)
                pivots[other, 0], pivots[other, 1] = pivot
            half_u = type(outside)(0.5) * spread
            constants = (pivot[0], pivot[1], pivot[0] + (px + py), pivot[1] + missing, c1, c2, half_u, spread)
            for r in range(count):
                ours = own_top <= row + r < own_bottom
                ranges = (
                    left - origin, right - origin,
                    own_left - origin if ours else columns, own_right - origin if ours else columns,
                )  # fmt: skip
                map_row = map_start + (row + r) * (width - halo_x) + origin
                place = (row + r - base_windows) * maps * step
                _horizontal_ssim(
                    moments, mask, moment_maps * r * step, chunk * vector, taps_x, constants, ranges, total,
                    plane_upstream, weights, r * step, ssim_map, map_row, grad_x, grad_y, derivatives, place,
                )  # fmt: skip
        results[0] += _take(total, 0)
        if plane_mask is not None:
            results[1] += _take(total, 1)
        if l1 is not None:
            results[2] += _take(total, 2)
        if grad_x is not None:
            for r in range(max(count, 0), ROWS):
                place = (row + r - base_windows) * maps * step
                derivatives[place : place + maps * step] = 0
            if row + ROWS > y0:
                place = (row - halo_y - base_windows) * maps * step
                for column in range(0, columns, vector):
                    _vertical_adjoint(derivatives, place, column, back_y, back_x, grad_y, filtered)
            for r in range(max(y0 - row, 0), min(ROWS, y1 - row)):
                pixel = (row + r - base) * step + halo_x
                line = row + r - pad_y  # of the image
                inside = 0 <= line < height - 2 * pad_y
                for piece in range(3 if inside else 1):  # the image's columns; on its left; on its right
                    begin, end, start = x0, x1, grad_start + line * (width - 2 * pad_x) - pad_x
                    out_x, out_y = grad_x, grad_y
                    if not inside:
                        out_x, out_y = rim_x, rim_y
                        border = line + pad_y if line < 0 else line - (height - 2 * pad_y) + pad_y
                        start = rim_start + border * width
                    elif piece == 0:
                        begin, end = max(x0, pad_x), min(x1, width - pad_x)
                    else:
                        out_x, out_y = rim_x, rim_y
                        start = rim_start + 2 * pad_y * width + line * 2 * pad_x
                        if piece == 1:
                            end = min(x1, pad_x)
                        else:
                            begin = max(x0, width - pad_x)
                            start += 2 * pad_x - width
                    sign = _sign(l1, inside and piece == 0, missing)
                    for column in range((begin - x0) // vector * vector, end - x0, vector):
                        _horizontal_adjoint(
                            filtered, r, column, back_x, s, d, mask, pixel, scale, sign, begin - x0, end - x0,
                            out_x, out_y, start + x0,
                        )  # fmt: skip


@jit
def ssim_tiles(
    x: Any, y: Any, mask: Any, upstream: Any, divisors: Any, edges: Any, tiles: Any, begin: int, end: int,
    channels: int, step: int, taps: Any,
    constants: Any, scale: Any, l1: Any, work: Any, total: Any, sums: Any, ssim_map: Any,
    grad_x: Any, grad_y: Any, rim_x: Any, rim_y: Any,
) -> None:  # fmt: skip
    """Compute work items begin .. end-1, item = (plane n C + c) * len(tiles) + tile, of images x, y [N, C, H, W].

    x, y, mask or None, upstream [N, C, H', W'] or None: each (address, kind, bytes from image to image, from
    channel to channel, from row to row, numbers from column to column). divisors of integers in x, in y. edges: see
    `_tile`. tiles [T, 4]; taps: (down, across, down mirrored, across mirrored), tuples; constants: (C1, C2, u).
    sums [N C, T, 3]: of SSIM, of windows counted under a mask, of |x - y| where l1 is not None. ssim_map, grad_x,
    grad_y, rim_x, rim_y flat and contiguous: each may be None.
    """
    taps_y, taps_x, back_y, back_x = taps
    rows, columns, pad_y, pad_x = edges[0], edges[1], edges[2], edges[3]
    windows = (len(rows) - len(taps_y) + 1) * (len(columns) - len(taps_x) + 1)
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
            taps_y, taps_x, back_y, back_x, numbers, scale, l1, work, total, sums[plane, tile],
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
