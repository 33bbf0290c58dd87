"""Windowed SSIM on one brick of a volume, value and gradient in one march into the depth (Numba).

The formulae, the pivots and the symbols are those of `fastssim.cpu.ssim`, whose filters across and down a plane serve
here, too; a window has a third axis, into the depth. The march goes PLANES window planes at a time:

    pixels       plane after plane into rings of s and d, as many planes as PLANES windows reach through
    depth        w_z * (s, s^2, d, d^2): four maps of PLANES window planes, a band of rows, about that band's pivots
    down, across as for images, ending in SSIM and its derivatives
    back         the derivatives go into a ring of planes; a gradient plane leaves as soon as the last window plane that
                 covers it is done: w_z' * into the depth, then down and across as for images

Bands go from the bottom of the brick to its top, so that the rows of the band below that windows reach into are at
hand; they are taken from its pivots to those of the band above, as columns are from the vector on the right to that on
the left. Nothing but the two rings and a band exists besides input and output, however deep the volume is.

Symbols: (z0, z1, y0, y1, x0, x1) is the brick, in the padded volume; in gradient mode its pixels, else its windows. A
cached kernel is compiled anew when this file changes, not when those that it imports do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.jit import jit
from fastssim.cpu.pixels import read, read_padded
from fastssim.cpu.simd import Code, Vector, wanted
from fastssim.cpu.ssim import (
    ROWS,
    _combine,
    _horizontal_adjoint,
    _horizontal_ssim,
    _mean_of_row,
    _move_pivots,
    _part,
    _pivot,
    _rows,
    _take,
    _vertical_adjoint,
    pitch,
)
from fastssim.plan import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANES = ROWS  # window planes per step: 2 maps x 4 sums stay in registers
BAND = 16  # window rows that share their pivots
BRICK_PLANES = 128  # pixel or window planes of a brick
BRICK_ROWS = 32  # pixel or window rows of a brick


class Sizes(NamedTuple):
    """How the buffers of one brick are laid out, in numbers of its dtype."""

    step: int  # from row to row
    pixels: int  # a plane of s or d
    windows: int  # a plane of derivatives
    deep: int  # a plane of a band, filtered into the depth
    ring: int  # planes in a ring

    @property
    def total(self) -> int:
        """All buffers, as `ssim_brick` cuts them."""
        rings = self.ring * (2 * self.pixels + self.windows)
        return rings + PLANES * (self.deep + self.windows) + (9 * ROWS + 2) * self.step


def sizes(taps_z: int, taps_y: int, taps_x: int) -> Sizes:
    """Sizes for windows of so many taps."""
    step, halo = pitch(taps_x), taps_y - 1
    return Sizes(
        step,
        (BRICK_ROWS + 2 * halo) * step,
        (BRICK_ROWS + halo + ROWS) * 4 * step,
        (BAND + halo + ROWS) * 4 * step,
        taps_z - 1 + PLANES,
    )


def workspace(size: Sizes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate the buffers for `ssim_brick`; pages that a brick does not reach take no memory."""
    return np.zeros(size.total + size.step, dtype)


# ---------------------------------------------------------------------------------------------------------- vectors


def _ring_places(builder: ir.IRBuilder, first: ir.Value, plane: ir.Value, ring: int) -> list[ir.Value]:
    """Where the planes of a ring begin, in order from plane `first` on."""
    places = []
    for k in range(ring):
        index = builder.add(first, ir.Constant(first.type, k))
        over = builder.icmp_signed(">=", index, ir.Constant(first.type, ring))
        index = builder.select(over, builder.sub(index, ir.Constant(first.type, ring)), index)
        places.append(builder.mul(index, plane))
    return places


@intrinsic
def _depth_moments(
    typing: Any, s: Any, d: Any, first: Any, plane: Any, place: Any, taps: Any, taps_x: Any, pivots: Any, out: Any,
    target: Any, stride: Any,
) -> Any:  # fmt: skip
    """Filter PLANES window planes into the depth at one vector of columns of one row; s, d are rings of planes.

    `first`: place in the ring of the first window plane's first pixel plane; `place`: of the vector in a plane of
    `plane` numbers. out takes m_s, e_s, m_d, e_d about `pivots` (of s, of d), a pitch apart, from `target` on, the next
    window plane's `stride` further.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, _, _, _, taps_type, taps_x_type, _, out_type = signature.args[:9]
        s_value, d_value, first_value, plane_value, place_value, taps_value, _, pivots_value, out_value = args[:9]
        target_value, stride_value = args[9:]
        code = Code(context, builder, s_type.dtype)
        step = pitch(len(taps_x_type))
        weights = code.splats(taps_value, len(taps_type))
        starts = _ring_places(builder, first_value, plane_value, len(taps_type) + PLANES - 1)
        output = code.at(code.data(out_type, out_value), target_value)
        for number, (array_type, array) in enumerate(((s_type, s_value), (d_type, d_value))):
            source = code.at(code.data(array_type, array), place_value)
            pivot = code.splat(builder.extract_value(pivots_value, number))

            def powers(k: int, source: Any = source, pivot: Vector = pivot) -> list[Vector]:
                value = code.load(code.at(source, starts[k])) - pivot
                return [value, value * value]

            for moment, sums in enumerate(_rows(code, weights, powers)):
                _store_planes(code, sums, code.at(output, (2 * number + moment) * step), stride_value)
        return context.get_dummy_value()

    return types.void(s, d, first, plane, place, taps, taps_x, pivots, out, target, stride), codegen


@intrinsic
def _depth_adjoint(
    typing: Any, derivatives: Any, first: Any, plane: Any, place: Any, taps: Any, taps_x: Any, grad_y: Any, out: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """Filter the derivatives, a ring of planes, into the depth: PLANES planes of one vector of columns of one row.

    `first`: place in the ring of the first tap's plane; `place`: of the vector in a plane of `plane` numbers, and in
    out, whose planes lie `stride` apart; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        derivatives_type, _, _, _, taps_type, taps_x_type, grad_y_type, out_type, _ = signature.args
        derivatives_value, first_value, plane_value, place_value, taps_value, _, _, out_value, stride_value = args
        code = Code(context, builder, derivatives_type.dtype)
        step = pitch(len(taps_x_type))
        weights = code.splats(taps_value, len(taps_type))
        starts = _ring_places(builder, first_value, plane_value, len(taps_type) + PLANES - 1)
        source = code.at(code.data(derivatives_type, derivatives_value), place_value)
        output = code.at(code.data(out_type, out_value), place_value)
        for number in range(4 if wanted(grad_y_type) else 3):

            def term(k: int, number: int = number) -> list[Vector]:
                return [code.load(code.at(code.at(source, starts[k]), number * step))]

            (sums,) = _rows(code, weights, term)
            _store_planes(code, sums, code.at(output, number * step), stride_value)
        return context.get_dummy_value()

    return types.void(derivatives, first, plane, place, taps, taps_x, grad_y, out, stride), codegen


def _store_planes(code: Code, sums: list[Vector], target: ir.Value, stride: ir.Value) -> None:
    """Store the vectors of PLANES planes, `stride` numbers apart."""
    for p in range(PLANES):
        code.store(sums[p], code.at(target, code.builder.mul(stride, ir.Constant(stride.type, p))))


# ---------------------------------------------------------------------------------------------------------- the march


@jit
def _slice(volume: Any, n: int, c: int, z: int) -> Any:
    """Return one plane of a volume as `read` takes it."""
    return volume[0] + n * volume[2] + c * volume[3] + z * volume[4], volume[1], volume[5], volume[6]


@jit
def _clear(buffer: Any, start: int, rows: int, step: int, count: int) -> None:
    """Put zeros into the first `count` columns of rows."""
    for row in range(rows):
        for i in range(start + row * step, start + row * step + count):
            buffer[i] = 0


@jit
def _copy(source: Any, start: int, target: Any, place: int, count: int) -> None:
    """Copy numbers."""
    for i in range(count):
        target[place + i] = source[start + i]


@jit
def _carry(deep: Any, halo: int, size: int, step: int, lanes: int, vectors: int, taps_x: Any, pivots: Any) -> None:
    """Take the rows of the band below that windows reach into behind the rows of this band, and to its pivots.

    deep [PLANES][row][4][step], `size` numbers a plane; pivots [2: this band's, the band below's][chunk][2].
    """
    shift = BAND * 4 * step
    chunks = pivots.shape[1]
    for p in range(PLANES):
        for row in range(halo - 1, -1, -1):  # rows may lie in both places
            start = p * size + row * 4 * step
            _copy(deep, start, deep, start + shift, 4 * step)
        for row in range(0, halo, ROWS):
            moved = deep[p * size + shift + row * 4 * step :]
            for v in range(vectors):
                chunk = min(v, chunks - 1)
                before, after = (pivots[1, chunk, 0], pivots[1, chunk, 1]), (pivots[0, chunk, 0], pivots[0, chunk, 1])
                _move_pivots(moved, None, v * lanes, taps_x, before, after)


@jit
def _put(row: Any, x0: int, x1: int, y: int, edges: Any, core: Any, core_start: int, rim: Any, rim_start: int) -> None:
    """Write the gradients of columns x0 .. x1-1 of padded row y: the plane's own to `core`, others to its `rim`.

    rim: [pad_y above, pad_y below][padded width], [height][pad_x on the left, pad_x on the right].
    """
    rows, columns, pad_y, pad_x = edges
    height, width = len(rows) - 2 * pad_y, len(columns) - 2 * pad_x
    line = y - pad_y
    if not 0 <= line < height:
        border = y if line < 0 else y - height
        _copy(row, 0, rim, rim_start + border * len(columns) + x0, x1 - x0)
        return
    begin, end = min(max(x0, pad_x), x1), max(min(x1, pad_x + width), x0)
    _copy(row, begin - x0, core, core_start + line * width + begin - pad_x, end - begin)
    side = rim_start + 2 * pad_y * len(columns) + line * 2 * pad_x
    _copy(row, 0, rim, side + x0, min(x1, pad_x) - x0)
    begin = max(x0, pad_x + width)
    _copy(row, begin - x0, rim, side + begin - width, x1 - begin)


@jit
def ssim_brick(
    x: Any, y: Any, upstream: Any, n: int, c: int, edges: Any, brick: Any, size: Any, taps: Any, numbers: Any,
    scale: Any, work: Any, total: Any, ssim_map: Any, map_start: int,
    grad_x: Any, grad_y: Any, outer_x: Any, outer_y: Any, rim_x: Any, rim_y: Any, volume: int,
) -> float:  # fmt: skip
    """Compute one brick of volume c of image n of x, y [N, C, D, H, W]; return the sum of SSIM over its own windows.

    x, y, upstream [N, C, D', H', W'] or None: each (address, kind, bytes from image to image, from channel to channel,
    from plane to plane, from row to row, numbers from column to column). edges: (planes, rows, columns, pad_z, pad_y,
    pad_x, first_z, first_y, first_x): source of every padded place along each axis; padding on each side; the first
    padded places that bricks cover. brick: (z0, z1, y0, y1, x0, x1). size: `Sizes`. taps: (into the depth, down,
    across, and the same mirrored). numbers: (C1, C2, u, divisors of integers in x, in y, what padding puts outside).
    ssim_map: flat, this volume from map_start, or None. grad_x, grad_y: flat, this is volume `volume`, or None;
    outer_x, outer_y: gradients of padded planes [volume][pad_z before, pad_z behind][height][width]; rim_x, rim_y: see
    `_put`, [volume][padded depth].
    """
    planes_of, rows_of, columns_of, pad_z, pad_y, pad_x, first_z, first_y, first_x = edges
    step, plane, window_plane, deep_plane, ring = size
    taps_z, taps_y, taps_x, back_z, back_y, back_x = taps
    c1, c2, u, divisor_x, divisor_y, outside = numbers
    depth, height, width = len(planes_of), len(rows_of), len(columns_of)
    zero, one = type(outside)(0), type(outside)(1)
    vector = len(total) // 3
    halo_z, halo_y, halo_x = len(taps_z) - 1, len(taps_y) - 1, len(taps_x) - 1
    z0, z1, y0, y1, x0, x1 = brick[0], brick[1], brick[2], brick[3], brick[4], brick[5]
    # Windows front .. back-1, top .. bottom-1, left .. right-1 are computed; buffers begin at the origins. Windows
    # own_front .. own_back-1 and so on are counted.
    front, back, top, bottom, left, right = z0, z1, y0, y1, x0, x1
    origin_z, origin_y, origin_x = z0, y0, x0
    own_front, own_back, own_top, own_bottom, own_left, own_right = z0, z1, y0, y1, x0, x1
    if grad_x is not None:
        front, back = max(0, z0 - halo_z), min(depth - halo_z, z1)
        top, bottom = max(0, y0 - halo_y), min(height - halo_y, y1)
        left, right = max(0, x0 - halo_x), min(width - halo_x, x1)
        origin_z, origin_y, origin_x = z0 - halo_z, y0 - halo_y, x0 - halo_x
        own_front, own_back = z0 - first_z, z1 - first_z
        own_top, own_bottom = y0 - first_y, y1 - first_y
        own_left, own_right = x0 - first_x, x1 - first_x
    columns = x1 - origin_x
    chunks, vectors = -(-columns // vector), -(-(columns + halo_x) // vector)
    maps = 3 if grad_y is None else 4
    bands = -(-(bottom - top) // BAND)

    s, d = work[: ring * plane], work[ring * plane : 2 * ring * plane]
    rest = work[2 * ring * plane :]
    derivatives, rest = rest[: ring * window_plane], rest[ring * window_plane :]
    spread_back, rest = rest[: PLANES * window_plane], rest[PLANES * window_plane :]
    deep, rest = rest[: PLANES * deep_plane], rest[PLANES * deep_plane :]
    moments, filtered, weights = rest, rest[4 * ROWS * step :], rest[8 * ROWS * step :]
    row_x, row_y = rest[9 * ROWS * step :], _part(grad_y, rest, (9 * ROWS + 1) * step)
    pivots = np.zeros((2, chunks, 2), s.dtype)  # of this band and the one below; for each vector of columns; of s and d

    px = py = zero
    one_pixel = halo_z + halo_y + halo_x == 0  # such a window has no variance: a pivot would only cost precision
    spread = zero if one_pixel else u
    if not one_pixel:
        inside = min(max((front + back + halo_z) // 2 - pad_z, 0), depth - 2 * pad_z - 1)
        y_begin, y_end = max(top - pad_y, 0), max(min(bottom + halo_y, height - pad_y) - pad_y, 1)
        x_begin, x_end = max(left - pad_x, 0), max(min(right + halo_x, width - pad_x) - pad_x, 1)
        slice_x, slice_y = _slice(x, n, c, inside), _slice(y, n, c, inside)
        px = s.dtype.type(_pivot(slice_x, None, y_begin, y_end, x_begin, x_end, divisor_x, weights))
        py = s.dtype.type(_pivot(slice_y, None, y_begin, y_end, x_begin, x_end, divisor_y, weights))
    missing = px - py
    half_u = type(outside)(0.5) * spread
    found = 0.0
    loaded = front  # pixel planes up to loaded-1 are in s and d
    if grad_x is not None:
        for z in range(origin_z, front):
            start = (z - origin_z) * window_plane + (top - origin_y) * maps * step
            _clear(derivatives, start, (bottom - top) * maps, step, columns)
        for p in range(PLANES):  # rows without windows
            start = p * window_plane
            _clear(spread_back, start, (top - origin_y) * maps, step, columns)
            _clear(spread_back, start + (bottom - origin_y) * maps * step, (y1 - bottom) * maps, step, columns)

    for z in range(front, z1, PLANES):
        count = min(PLANES, back - z)  # window planes of this step; none at the end, where only gradients are due
        for pixel_plane in range(loaded, z + count + halo_z if count > 0 else loaded):
            source_plane = planes_of[pixel_plane]
            for row in range(top, bottom + halo_y):
                place = (pixel_plane - front) % ring * plane + (row - top) * step + left - origin_x
                source = (
                    rows_of[row] if source_plane >= 0 else OUTSIDE, columns_of, pad_x, left, right + halo_x,
                )  # fmt: skip
                read_padded(_slice(x, n, c, source_plane), source, divisor_x, outside, s[place:])
                read_padded(_slice(y, n, c, source_plane), source, divisor_y, outside, d[place:])
                _combine(right + halo_x - left, px, py, s[place:], d[place:], None)
            loaded = pixel_plane + 1
        for band in range(bands - 1 if count > 0 else -1, -1, -1):
            begin, end = top + band * BAND, min(top + (band + 1) * BAND, bottom)
            lowest = band == bands - 1
            pivots[1] = pivots[0]
            middle = (z - front + (halo_z + count) // 2) % ring * plane
            middle += (begin - top + (end - begin + halo_y) // 2) * step
            for chunk in range(chunks):
                from_x = min(max(chunk * vector + halo_x // 2, left - origin_x), right - origin_x + halo_x - 1)
                to_x = from_x if one_pixel else min(from_x + vector, right - origin_x + halo_x)
                pivots[0, chunk, 0] = _mean_of_row(s, None, middle, from_x, to_x)
                pivots[0, chunk, 1] = _mean_of_row(d, None, middle, from_x, to_x)
            if not lowest:
                _carry(deep, halo_y, deep_plane, step, vector, vectors, taps_x, pivots)
            for row in range(end - begin + (halo_y if lowest else 0)):
                place = (begin - top + row) * step
                for v in range(vectors):
                    chunk = min(v, chunks - 1)
                    _depth_moments(
                        s, d, (z - front) % ring, plane, place + v * vector, taps_z, taps_x,
                        (pivots[0, chunk, 0], pivots[0, chunk, 1]), deep, row * 4 * step + v * vector, deep_plane,
                    )  # fmt: skip
            for p in range(count):
                for row in range(begin, end, ROWS):
                    rows = min(ROWS, end - row)
                    for v in range(vectors):  # four maps, as if of both gradients
                        place = p * deep_plane + (row - begin) * 4 * step
                        _vertical_adjoint(deep, place, v * vector, taps_y, taps_x, scale, moments)
                    if upstream is not None:
                        for r in range(rows):
                            window_row = weights[r * step + left - origin_x :]
                            read(_slice(upstream, n, c, z + p), row + r, left, right - left, one, window_row)
                    for chunk in range(chunks - 1, -1, -1):
                        pivot = (pivots[0, chunk, 0], pivots[0, chunk, 1])
                        if chunk < chunks - 1:
                            before = (pivots[0, chunk + 1, 0], pivots[0, chunk + 1, 1])
                            for other in range(chunk + 1, chunk + 1 + -(-halo_x // vector)):
                                _move_pivots(moments, None, other * vector, taps_x, before, pivot)
                        constants = (
                            pivot[0], pivot[1], pivot[0] + (px + py), pivot[1] + missing, c1, c2, half_u, spread,
                        )  # fmt: skip
                        for r in range(rows):
                            ours = own_front <= z + p < own_back and own_top <= row + r < own_bottom
                            ranges = (
                                left - origin_x, right - origin_x,
                                own_left - origin_x if ours else columns, own_right - origin_x if ours else columns,
                            )  # fmt: skip
                            line = (z + p) * (height - halo_y) + row + r
                            place = (z + p - origin_z) % ring * window_plane + (row + r - origin_y) * maps * step
                            _horizontal_ssim(
                                moments, None, 4 * r * step, chunk * vector, taps_x, constants, ranges, total,
                                upstream, weights, r * step, ssim_map, map_start + line * (width - halo_x) + origin_x,
                                grad_x, grad_y, derivatives, place,
                            )  # fmt: skip
                    found += _take(total, 0)
        if grad_x is not None:
            for p in range(max(count, 0), PLANES):
                start = (z + p - origin_z) % ring * window_plane + (top - origin_y) * maps * step
                _clear(derivatives, start, (bottom - top) * maps, step, columns)
            for row in range(top - origin_y, bottom - origin_y if z + PLANES > z0 else 0):
                for v in range(chunks):
                    _depth_adjoint(
                        derivatives, (z - z0) % ring, window_plane, row * maps * step + v * vector, back_z, taps_x,
                        grad_y, spread_back, window_plane,
                    )  # fmt: skip
            for p in range(max(z0 - z, 0), min(PLANES, z1 - z)):
                border = z + p - (0 if z + p < pad_z else depth - 2 * pad_z)  # among the padded planes
                inner = pad_z <= z + p < depth - pad_z
                core = (volume * (depth - 2 * pad_z) + z + p - pad_z) if inner else (volume * 2 * pad_z + border)
                core_start = core * (height - 2 * pad_y) * (width - 2 * pad_x)
                rim = 2 * pad_y * width + (height - 2 * pad_y) * 2 * pad_x
                rim_start = (volume * depth + z + p) * rim
                flat = (rows_of, columns_of, pad_y, pad_x)
                for row in range(y0, y1, ROWS):
                    for v in range(chunks):
                        place = p * window_plane + (row - y0) * maps * step
                        _vertical_adjoint(spread_back, place, v * vector, back_y, taps_x, grad_y, filtered)
                    for r in range(min(ROWS, y1 - row)):
                        pixel = (z + p - front) % ring * plane + (row + r - top) * step + halo_x
                        for column in range(0, x1 - x0, vector):
                            _horizontal_adjoint(
                                filtered, r, column, back_x, s, d, None, pixel, scale, None, 0, x1 - x0, row_x, row_y, 0
                            )
                        core_x = grad_x if inner else outer_x
                        _put(row_x, x0, x1, row + r, flat, core_x, core_start, rim_x, rim_start)
                        if grad_y is not None:
                            core_y = grad_y if inner else outer_y
                            _put(row_y, x0, x1, row + r, flat, core_y, core_start, rim_y, rim_start)
    return found
