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

The march goes down the tile, ROWS window rows at a time. Pixel rows are turned into s and d as they are reached; the
vertical filter keeps ROWS sums per map in registers; the horizontal filter ends in the formula above; its derivatives
go into a rolling buffer of rows, and the gradient's rows leave as soon as the last window that covers them is done.
Only the rolling buffers exist besides input and output, whatever the image's height.

Symbols: (y0, y1, x0, x1) is the tile; in gradient mode its pixels: every window that covers one of them is computed,
but only windows whose first pixel lies in the tile count in the sum; in value mode the tile's windows themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.jit import jit
from fastssim.cpu.simd import Code, Vector, wanted

if TYPE_CHECKING:
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
    rows = 6 * (taps_y + SPARE_ROWS) + 9 * ROWS
    return np.zeros(rows * pitch(taps_x) + _SLACK, dtype)


# ---------------------------------------------------------------------------------------------------------- vectors


def _rows(
    code: Code, taps: list[Vector], pointer: Any, step: int, *, squares_about: Vector | None = None
) -> list[list[Vector]]:
    """Filter down the columns: sums r = 0 .. ROWS-1 of taps[k] v[r + k].

    With a pivot `squares_about`, sums of taps[k] (v[r + k] - pivot), and sums of the squares.
    """
    squares = squares_about is not None
    sums: list[list[Vector | None]] = [[None] * ROWS for _ in range(1 + squares)]
    for row in range(len(taps) + ROWS - 1):
        value = code.load(code.at(pointer, row * step))
        if squares_about is not None:
            value = value - squares_about
        for total, term in zip(sums, (value, value * value) if squares else (value,), strict=True):
            for r in range(ROWS):
                if 0 <= row - r < len(taps):
                    product = taps[row - r] * term
                    before = total[r]
                    total[r] = product if before is None else before + product
    return sums  # type: ignore[return-value]  # every sum has met at least one tap


@intrinsic
def _vertical_moments(
    typing: Any, s: Any, d: Any, start: Any, column: Any, taps: Any, taps_x: Any, pivots: Any, out: Any
) -> Any:
    """Filter ROWS window rows down the columns at one vector of columns; s, d [row][pitch], out [ROWS][4][pitch].

    out holds m_s, e_s, m_d, e_d about `pivots` (of s, of d); `start`: place of the first window row's first pixel row.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, _, _, taps_type, taps_x_type, _, out_type = signature.args
        s_value, d_value, start_value, column_value, taps_value, _, pivots_value, out_value = args
        code = Code(context, builder, s_type.dtype)
        step = pitch(len(taps_x_type))
        weights = code.splats(taps_value, len(taps_type))
        target = code.at(code.data(out_type, out_value), column_value)
        for plane, (array_type, array) in enumerate(((s_type, s_value), (d_type, d_value))):
            source = code.at(code.at(code.data(array_type, array), start_value), column_value)
            pivot = code.splat(builder.extract_value(pivots_value, plane))
            for moment, sums in enumerate(_rows(code, weights, source, step, squares_about=pivot)):
                for r in range(ROWS):
                    code.store(sums[r], code.at(target, (4 * r + 2 * plane + moment) * step))
        return context.get_dummy_value()

    return types.void(s, d, start, column, taps, taps_x, pivots, out), codegen


@intrinsic
def _mean_of_row(typing: Any, row: Any, start: Any, first: Any, last: Any) -> Any:
    """Return the mean of the columns first .. last-1, at most a vector, of a row; 0 where it is not finite."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row_type = signature.args[0]
        row_value, start_value, first_value, last_value = args
        code = Code(context, builder, row_type.dtype)
        count = builder.sub(last_value, first_value)
        chosen = code.lane_mask(ir.Constant(count.type, 0), count)
        place = code.at(code.at(code.data(row_type, row_value), start_value), first_value)
        total = code.sum_lanes(code.select(chosen, code.load(place), code.zero()))
        mean = builder.fdiv(total, builder.sitofp(count, code.scalar))
        zero = ir.Constant(code.scalar, 0)
        finite = builder.fcmp_ordered("==", builder.fsub(mean, mean), zero)  # NaN and infinity minus themselves are NaN
        return builder.select(finite, mean, zero)

    return row.dtype(row, start, first, last), codegen


@intrinsic
def _move_pivots(typing: Any, moments: Any, column: Any, taps_x: Any, before: Any, after: Any) -> Any:
    """Take one vector of columns of [ROWS][4][pitch] from pivots `before` to `after` (of s, of d).

    With t = before - after: m' = m + t and e' = e + 2 t m + t^2 = e + t (m + m').
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        moments_type, _, taps_type, _, _ = signature.args
        moments_value, column_value, _, before_value, after_value = args
        code = Code(context, builder, moments_type.dtype)
        step = pitch(len(taps_type))
        source = code.at(code.data(moments_type, moments_value), column_value)
        for plane in range(2):
            before_plane, after_plane = (
                code.splat(builder.extract_value(pivots, plane)) for pivots in (before_value, after_value)
            )
            t = before_plane - after_plane
            for r in range(ROWS):
                place = code.at(source, (4 * r + 2 * plane) * step)
                m, e = code.load(place), code.load(code.at(place, step))
                moved = m + t
                code.store(moved, place)
                code.store(e + t * (m + moved), code.at(place, step))
        return context.get_dummy_value()

    return types.void(moments, column, taps_x, before, after), codegen


@intrinsic
def _horizontal_ssim(
    typing: Any, moments: Any, start: Any, column: Any, taps: Any, constants: Any, ranges: Any, total: Any,
    upstream: Any, weights: Any, weights_start: Any, ssim_map: Any, map_start: Any,
    grad_x: Any, grad_y: Any, derivatives: Any, derivatives_start: Any,
) -> Any:  # fmt: skip
    """Finish one vector of windows of one row: filter across, apply the formula, write what is asked for.

    moments: [4][pitch] from `start`. ranges: columns (valid from, to, counted from, to). total [lanes] += SSIM.
    ssim_map: flat, this row from `map_start`, or None. Unless grad_x is None, derivatives [maps][pitch] from
    `derivatives_start` take q_s, q_d, p_s + p_d and, unless grad_y is None, p_s - p_d; unless upstream is None, each
    multiplied by weights [pitch] from `weights_start`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _Arguments(*signature.args)
        value = _Arguments(*args)
        code = Code(context, builder, kind.moments.dtype)
        step = pitch(len(kind.taps))
        taps_x = code.splats(value.taps, len(kind.taps))
        source = code.at(code.at(code.data(kind.moments, value.moments), value.start), value.column)
        limits = [builder.sub(builder.extract_value(value.ranges, i), value.column) for i in range(4)]
        valid = code.lane_mask(limits[0], limits[1])

        def across(plane: int) -> Vector:
            return code.dot(taps_x, [code.load(code.at(source, plane * step + k)) for k in range(len(taps_x))])

        pivot_s, pivot_d, mean_s, mean_d, c1, c2, half, spread = code.splats(value.constants, len(kind.constants))
        m_s, e_s, m_d, e_d = (across(plane) for plane in range(4))
        v_s = e_s - m_s.times(m_s)
        v_d = e_d - m_d.times(m_d)
        m = m_s + mean_s
        q = m_d + mean_d
        q2 = q * q
        a = half * (m * m - q2) + c1
        b = a + q2
        c = spread * (v_s - v_d) + c2
        d = c + v_d
        ssim = (a * c) / (b * d)

        sums = code.data(kind.total, value.total)
        counted = builder.and_(valid, code.lane_mask(limits[2], limits[3]))
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
            if wanted(kind.upstream):
                row = code.at(code.data(kind.weights, value.weights), value.weights_start)
                weight = code.load(code.at(row, value.column))
                luminance = luminance * weight
                structure = structure * weight
            by_means = structure * q * inverse_b * inverse_b
            f_ms = by_means * m * q
            f_md = code.zero() - by_means * (a + b)
            by_variances = luminance * spread * inverse_d * inverse_d
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
            moments, start, column, taps, constants, ranges, total, upstream, weights, weights_start,
            ssim_map, map_start, grad_x, grad_y, derivatives, derivatives_start,
        ),
        codegen,
    )  # fmt: skip


class _Arguments(NamedTuple):
    """What `_horizontal_ssim` is given: Numba types at one time, LLVM values at another."""

    moments: Any
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
            (sums,) = _rows(code, weights, code.at(source, number * step), maps * step)
            for r in range(ROWS):
                code.store(sums[r], code.at(target, (r * maps + number) * step))
        return context.get_dummy_value()

    return types.void(derivatives, start, column, taps, taps_x, grad_y, out), codegen


@intrinsic
def _horizontal_adjoint(
    typing: Any, filtered: Any, row: Any, column: Any, taps: Any, s: Any, d: Any, pixel: Any, scale: Any, end: Any,
    grad_x: Any, grad_y: Any, place: Any,
) -> Any:  # fmt: skip
    """Finish one vector of gradient pixels of one row: filter across, combine with s and d, write.

    filtered [ROWS][maps][pitch]; s, d: flat, `pixel` the place of column 0; grad_x, grad_y: flat, `place` that of
    column 0, grad_y may be None; columns from `end` on are not written; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        filtered_t, _, _, taps_t, s_t, d_t, _, _, _, grad_x_t, grad_y_t, _ = signature.args
        (
            filtered_v,
            row_v,
            column_v,
            taps_v,
            s_v,
            d_v,
            pixel_v,
            scale_v,
            end_v,
            grad_x_v,
            grad_y_v,
            place_v,
        ) = args
        code = Code(context, builder, filtered_t.dtype)
        step = pitch(len(taps_t))
        maps = 4 if wanted(grad_y_t) else 3
        weights = code.splats(taps_v, len(taps_t))
        row_start = builder.mul(row_v, ir.Constant(row_v.type, maps * step))
        source = code.at(code.at(code.data(filtered_t, filtered_v), row_start), column_v)

        def across(number: int) -> Vector:
            return code.dot(weights, [code.load(code.at(source, number * step + k)) for k in range(len(weights))])

        q_s, q_d, to_x = (across(number) for number in range(3))
        by_s = code.load(code.at(code.at(code.data(s_t, s_v), pixel_v), column_v)) * q_s
        by_d = code.load(code.at(code.at(code.data(d_t, d_v), pixel_v), column_v)) * q_d
        factor = code.splat(scale_v)
        zero = ir.Constant(column_v.type, 0)
        valid = code.lane_mask(zero, builder.sub(end_v, column_v))

        def write(kind: Any, array: Any, gradient: Vector) -> None:
            start = code.at(code.at(code.data(kind, array), place_v), column_v)
            code.store_where(valid, factor * gradient, start)

        write(grad_x_t, grad_x_v, to_x + ((by_s + by_d) + (by_s + by_d)))
        if wanted(grad_y_t):
            write(grad_y_t, grad_y_v, across(3) + ((by_s - by_d) + (by_s - by_d)))
        return context.get_dummy_value()

    return types.void(filtered, row, column, taps, s, d, pixel, scale, end, grad_x, grad_y, place), codegen


# ---------------------------------------------------------------------------------------------------------- the march


@jit
def _pivot(plane: Any, y0: int, y1: int, x0: int, x1: int) -> float:
    """Return the mean of up to 8 x 8 finite pixels spread over a part of the plane, 0 where there are none."""
    step_y = max(1, (y1 - y0) // 8)
    step_x = max(1, (x1 - x0) // 8)
    total = 0.0
    count = 0
    for y in range(y0, y1, step_y):
        for x in range(x0, x1, step_x):
            value = float(plane[y, x])
            if np.isfinite(value):
                total += value
                count += 1
    return total / count if count else 0.0


@jit
def _load_row(x_row: Any, y_row: Any, first: int, last: int, px: Any, py: Any, s: Any, d: Any) -> None:
    """Turn pixels first .. last-1 of a row into s = (x - px) + (y - py) and d = (x - px) - (y - py)."""
    for i in range(last - first):
        x = s.dtype.type(x_row[first + i]) - px
        y = s.dtype.type(y_row[first + i]) - py
        s[i] = x + y
        d[i] = x - y


@jit
def _wind_back(buffer: Any, first: int, last: int) -> None:
    """Move the numbers first .. last-1 of a buffer to its front."""
    for i in range(last - first):
        buffer[i] = buffer[first + i]


@jit
def _take_total(total: Any) -> float:
    """Return the sum of the lanes in float64 and clear them."""
    result = 0.0
    for lane in range(len(total)):
        result += float(total[lane])
        total[lane] = 0
    return result


@jit
def _tile(
    x: Any, y: Any, tile: Any, step: int, taps_y: Any, taps_x: Any, back_y: Any, back_x: Any, c1: Any, c2: Any,
    half: Any, scale: Any, work: Any, total: Any, upstream: Any, ssim_map: Any, map_start: int,
    grad_x: Any, grad_y: Any, grad_start: int,
) -> float:  # fmt: skip
    """Compute one tile of one plane x, y [H, W]; return the sum of SSIM over the tile's own windows.

    tile: (y0, y1, x0, x1), of pixels where a gradient is wanted, of windows elsewhere. back_y, back_x: mirrored taps.
    upstream [H', W'] or None. ssim_map, grad_x, grad_y: flat or None; this plane begins at map_start, grad_start.
    """
    height, width = x.shape
    vector = len(total)
    halo_y, halo_x = len(taps_y) - 1, len(taps_x) - 1
    y0, y1, x0, x1 = tile[0], tile[1], tile[2], tile[3]
    rows = len(taps_y) + SPARE_ROWS
    # Window rows first .. last-1 and columns left .. right-1 are computed; buffers begin at column `origin`.
    first, last, left, right, origin = y0, y1, x0, x1, x0
    if grad_x is not None:
        first, last = max(0, y0 - halo_y), min(height - halo_y, y1)
        left, right = max(0, x0 - halo_x), min(width - halo_x, x1)
        origin = x0 - halo_x
    columns = x1 - origin
    maps = 3 if grad_y is None else 4

    s = work[: rows * step]
    d = work[rows * step : 2 * rows * step]
    moments = work[2 * rows * step :]
    filtered = work[(2 * rows + 4 * ROWS) * step :]
    weights = work[(2 * rows + 8 * ROWS) * step :]
    derivatives = work[(2 * rows + 9 * ROWS) * step :]
    pivots = np.zeros(((columns + 2 * halo_x) // vector + 3, 2), s.dtype)  # of s and d, for each vector of columns

    px = py = s.dtype.type(0)
    one_pixel = halo_y + halo_x == 0  # such a window has no variance: a pivot would only cost its mean's precision
    spread = half - half if one_pixel else half
    if not one_pixel:
        px = s.dtype.type(_pivot(x, first, last + halo_y, left, right + halo_x))
        py = s.dtype.type(_pivot(y, first, last + halo_y, left, right + halo_x))
    result = 0.0
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
                base = row
            for pixel_row in range(loaded, row + count + halo_y):
                place = (pixel_row - base) * step + left - origin
                _load_row(x[pixel_row], y[pixel_row], left, right + halo_x, px, py, s[place:], d[place:])
            loaded = row + count + halo_y
            middle = row - base + (halo_y + count) // 2
            for column in range(0, columns + halo_x, vector):
                begin = min(max(column + halo_x // 2, left - origin), right - origin + halo_x - 1)
                end = begin if one_pixel else min(begin + vector, right - origin + halo_x)
                pivot = (
                    _mean_of_row(s, middle * step, begin, end),
                    _mean_of_row(d, middle * step, begin, end),
                )
                pivots[column // vector, 0], pivots[column // vector, 1] = pivot
                _vertical_moments(s, d, (row - base) * step, column, taps_y, taps_x, pivot, moments)
            if upstream is not None:
                for r in range(count):
                    for column in range(left - origin, right - origin):
                        weights[r * step + column] = upstream[row + r, origin + column]
        for chunk in range(-(-columns // vector) - 1 if count > 0 else -1, -1, -1):
            pivot = (pivots[chunk, 0], pivots[chunk, 1])
            for other in range(chunk + 1, chunk + 1 + -(-halo_x // vector)):
                _move_pivots(moments, other * vector, taps_x, (pivots[other, 0], pivots[other, 1]), pivot)
                pivots[other, 0], pivots[other, 1] = pivot
            constants = (pivot[0], pivot[1], pivot[0] + (px + py), pivot[1] + (px - py), c1, c2, half, spread)
            for r in range(count):
                counted_from = x0 - origin if row + r >= y0 else columns
                ranges = (left - origin, right - origin, counted_from, columns)
                map_row = map_start + (row + r) * (width - halo_x) + origin
                place = (row + r - base_windows) * maps * step
                _horizontal_ssim(
                    moments, 4 * r * step, chunk * vector, taps_x, constants, ranges, total, upstream, weights,
                    r * step, ssim_map, map_row, grad_x, grad_y, derivatives, place,
                )  # fmt: skip
        result += _take_total(total)
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
                place = grad_start + (row + r) * width + x0
                for column in range(0, x1 - x0, vector):
                    _horizontal_adjoint(filtered, r, column, back_x, s, d, pixel, scale, x1 - x0, grad_x, grad_y, place)
    return result


@jit
def ssim_tiles(
    x: Any, y: Any, tiles: Any, begin: int, end: int, step: int, taps: Any, constants: Any, scale: Any,
    work: Any, total: Any, sums: Any, upstream: Any, ssim_map: Any, grad_x: Any, grad_y: Any,
) -> None:  # fmt: skip
    """Compute work items begin .. end-1, item = (plane n C + c) * len(tiles) + tile, of x, y [N, C, H, W].

    tiles [T, 4]; taps: (down, across, down mirrored, across mirrored), tuples; constants: (C1, C2, 1/2); sums [N C, T];
    upstream [N, C, H', W'], ssim_map, grad_x, grad_y flat and contiguous: each may be None.
    """
    channels, height, width = x.shape[1:]
    taps_y, taps_x, back_y, back_x = taps
    windows = (height - len(taps_y) + 1) * (width - len(taps_x) + 1)
    for item in range(begin, end):
        plane, tile = divmod(item, len(tiles))
        n, c = divmod(plane, channels)
        sums[plane, tile] = _tile(
            x[n, c], y[n, c], tiles[tile], step, taps_y, taps_x, back_y, back_x, constants[0], constants[1],
            constants[2], scale, work, total, None if upstream is None else upstream[n, c], ssim_map,
            plane * windows, grad_x, grad_y, plane * height * width,
        )  # fmt: skip
