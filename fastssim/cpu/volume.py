"""Windowed SSIM on one brick of a volume, value and gradient in one march into the depth (Numba).

Formulae, pivots, strips and symbols are those of images (`fastssim.cpu.ssim`), whose filters across and down a plane
serve here, too; a window has a third axis, into the depth. The march goes PLANES window planes at a time:

    pixels       plane after plane into rings of s and d, as many planes as PLANES windows reach through
    depth        means and variances of s and of d along w_z: four maps of PLANES window planes, a band of rows
    down         those of their columns along w_y, ROWS window rows
    across       those along w_x, as for images, ending in SSIM and its derivatives
    back         the derivatives go into a ring of planes; a gradient plane leaves as soon as the last window plane that
                 covers it is done: w_z' * into the depth, then down and across as for images

Each of the three has pivots of its own and ends in means and variances, which depend on none.

Bands go from the bottom of the brick to its top, so that the rows of the band below that windows reach into are at
hand. Nothing but the rings and a band exists besides input and output, however deep the volume is.

Symbols: (z0, z1, y0, y1, x0, x1) is the brick, in the padded volume; in gradient mode its pixels, else its windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.borders import OUTSIDE
from fastssim.cpu.buffers import BLOCK, ROWS, TILE_COLUMNS, WINDOW_MAPS, pitch
from fastssim.cpu.delivery import copy, deliver, fold, in_order
from fastssim.cpu.filters import averages, filter_maps, means_and_variances
from fastssim.cpu.formula import columns_of_windows, gradients, take_sum
from fastssim.cpu.jit import jit, kept
from fastssim.cpu.passes import adjoint_across, adjoint_down, put_rows, ssim_across
from fastssim.cpu.pixels import pivot_of, read, row_of
from fastssim.cpu.simd import Code, Vector, given, wanted
from fastssim.cpu.strips import (
    ONE_ROW,
    continue_strips,
    enter,
    entries,
    entries_of_rows,
    into_strips,
    numbers_read,
    out_of_strips,
    strip_of,
    tap_count,
    tap_vectors,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastssim.cpu.filters import Averaged

PLANES = ROWS  # window planes per step
BAND = 16  # window rows filtered into the depth together
BRICK_PLANES = 128  # pixel or window planes of a brick, at most
BRICK_ROWS = 32  # its rows
BRICK_COLUMNS = TILE_COLUMNS


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
        return rings + PLANES * (self.deep + self.windows) + (9 * ROWS + WINDOW_MAPS + 4) * self.step


def sizes(taps_z: int, taps_y: int, taps_x: int, lanes: int) -> Sizes:
    """Sizes for windows of so many taps."""
    step, halo = pitch(taps_x, lanes), taps_y - 1
    return Sizes(
        step,
        (BRICK_ROWS + 2 * halo) * step,
        (BRICK_ROWS + halo + ROWS) * 4 * step,
        (BAND + halo + ROWS) * 4 * step,
        taps_z - 1 + PLANES,
    )


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
    typing: Any, s: Any, d: Any, first: Any, plane: Any, place: Any, taps: Any, taps_x: Any, out: Any, target: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """Filter PLANES window planes into the depth at one vector of columns of one row; s, d are rings of planes.

    `first`: place in the ring of the first window plane's first pixel plane; `place`: of the vector in a plane of
    `plane` numbers. out takes m_s, v_s, m_d, v_d, means and variances, a pitch apart, from `target` on, the next window
    plane's `stride` further.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, _, _, _, taps_type, taps_x_type, out_type, _, _ = signature.args
        (
            s_value,
            d_value,
            first_value,
            plane_value,
            place_value,
            taps_value,
            _,
            out_value,
            target_value,
            stride_value,
        ) = args
        code = Code(context, builder, s_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        starts = _ring_places(builder, first_value, plane_value, len(weights) + PLANES - 1)
        output = code.at(code.data(out_type, out_value), target_value)

        def planes(array_type: Any, array: Any) -> Callable[[int], Vector]:
            source = code.at(code.data(array_type, array), place_value)
            return lambda k: code.load(code.at(source, starts[k]))

        pixels: list[Averaged] = [(planes(s_type, s_value), None), (planes(d_type, d_value), None)]
        for number, sums in enumerate(means_and_variances(averages(code, weights, PLANES, pixels))):
            _store_planes(code, sums, code.at(output, number * step), stride_value)
        return context.get_dummy_value()

    return types.void(s, d, first, plane, place, taps, taps_x, out, target, stride), codegen


@intrinsic
def _down(typing: Any, deep: Any, place: Any, column: Any, taps: Any, taps_x: Any, out: Any) -> Any:
    """Filter ROWS window rows down the columns at one vector of columns; deep, out [row][m_s, v_s, m_d, v_d][pitch].

    `place`: of the first window row's first row.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        deep_type, _, _, taps_type, taps_x_type, out_type = signature.args
        deep_value, place_value, column_value, taps_value, _, out_value = args
        code = Code(context, builder, deep_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        source = code.at(code.at(code.data(deep_type, deep_value), place_value), column_value)
        target = code.at(code.data(out_type, out_value), column_value)

        def rows(number: int) -> Callable[[int], Vector]:
            return lambda row: code.load(code.at(source, (4 * row + number) * step))

        columns: list[Averaged] = [(rows(0), rows(1)), (rows(2), rows(3))]
        results = averages(code, tap_vectors(code, taps_type, taps_value), ROWS, columns)
        put_rows(code, means_and_variances(results), target, step)
        return context.get_dummy_value()

    return types.void(deep, place, column, taps, taps_x, out), codegen


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
        step = pitch(tap_count(taps_x_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        starts = _ring_places(builder, first_value, plane_value, len(weights) + PLANES - 1)
        source = code.at(code.data(derivatives_type, derivatives_value), place_value)
        output = code.at(code.data(out_type, out_value), place_value)
        for number in range(4 if wanted(grad_y_type) else 3):

            def term(k: int, _: None, number: int = number) -> Vector:
                return code.load(code.at(code.at(source, starts[k]), number * step))

            (sums,) = filter_maps(code, weights, PLANES, [term])
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
def _carry(deep: Any, halo: int, size: int, step: int) -> None:
    """Take the rows of the band below that windows reach into behind the rows of this band.

    deep [PLANES][row][4][step], `size` numbers a plane.
    """
    for p in range(PLANES):
        for row in range(halo - 1, -1, -1):  # rows may lie in both places
            start = p * size + row * 4 * step
            copy(deep[start:], 4 * step, deep[start + BAND * 4 * step :])


@jit
def ssim_brick(
    x: Any, y: Any, upstream: Any, n: int, c: int, edges: Any, brick: Any, size: Any, taps: Any, numbers: Any,
    scale: Any, work: Any, total: Any, ssim_map: Any, map_start: int,
    grad_x: Any, grad_y: Any, outer_x: Any, outer_y: Any, rim_x: Any, rim_y: Any, volume: int,
) -> float:  # fmt: skip
    """Compute one brick of volume c of image n of x, y [N, C, D, H, W]; return the sum of SSIM over its own windows.

    x, y, upstream [N, C, D', H', W'] or None: each (address, kind, bytes from image to image, from channel to channel,
    from plane to plane, from row to row, numbers from column to column). edges: (planes, rows, columns, pad_z, pad_y,
    pad_x, first_z, first_y, first_x, halo_z, halo_y, halo_x): source of every padded place along each axis; padding on
    each side; the first padded places that bricks cover; a window's places but one. brick: (z0, z1, y0, y1, x0, x1).
    size: `Sizes`. taps: (into the depth, down, across, and the same mirrored), see `tap_vectors`. numbers: (C1, C2, u,
    divisors of integers in x, in y, what padding puts outside). ssim_map: flat, this volume from map_start, or None.
    grad_x, grad_y: flat, this is volume `volume`, or None; outer_x, outer_y: gradients of padded planes
    [volume][pad_z before, pad_z behind][height][width]; rim_x, rim_y: of padded rows and columns, [volume][padded
    depth][as in `fastssim.cpu.delivery`].
    """
    planes_of, rows_of, columns_of, pad_z, pad_y, pad_x, first_z, first_y, first_x, halo_z, halo_y, halo_x = edges
    step, plane, window_plane, deep_plane, ring = size
    taps_z, taps_y, taps_x, back_z, back_y, back_x = taps
    c1, c2, u, divisor_x, divisor_y, outside = numbers
    depth, height, width = len(planes_of), len(rows_of), len(columns_of)
    zero, one = type(outside)(0), type(outside)(1)
    lanes = len(total) // 3
    z0, z1, y0, y1, x0, x1 = brick[0], brick[1], brick[2], brick[3], brick[4], brick[5]
    # Windows front .. back-1, top .. bottom-1, left .. right-1 are computed; buffers begin at the origins and `left`.
    # Windows own_front .. own_back-1 and so on are counted.
    front, back, top, bottom, left, right = z0, z1, y0, y1, x0, x1
    origin_z, origin_y = z0, y0
    own_front, own_back, own_top, own_bottom, own_left, own_right = z0, z1, y0, y1, x0, x1
    if grad_x is not None:
        front, back = max(0, z0 - halo_z), min(depth - halo_z, z1)
        top, bottom = max(0, y0 - halo_y), min(height - halo_y, y1)
        left, right = max(0, x0 - halo_x), min(width - halo_x, x1)
        origin_z, origin_y = z0 - halo_z, y0 - halo_y
        own_front, own_back = z0 - first_z, z1 - first_z
        own_top, own_bottom = y0 - first_y, y1 - first_y
        own_left, own_right = x0 - first_x, x1 - first_x
    strip = strip_of(right + halo_x - left, lanes)
    ahead = left + halo_x - x0  # gradients made among the last columns, see `fastssim.cpu.ssim`
    pixel_rows, taken = height - 2 * pad_y, numbers_read(strip, lanes)
    pixel_halo = 0 if grad_x is None else halo_x  # of pixels that a gradient is made of
    maps = 3 if grad_y is None else 4
    back_kinds = entries((0, 0, 0), grad_y)
    bands = -(-(bottom - top) // BAND)

    s, d = work[: ring * plane], work[ring * plane : 2 * ring * plane]
    rest = work[2 * ring * plane :]
    derivatives, rest = rest[: ring * window_plane], rest[ring * window_plane :]
    spread_back, rest = rest[: PLANES * window_plane], rest[PLANES * window_plane :]
    deep, rest = rest[: PLANES * deep_plane], rest[PLANES * deep_plane :]
    moments, filtered, weights = rest, rest[4 * ROWS * step :], rest[8 * ROWS * step :]
    windows, rest = rest[9 * ROWS * step :], rest[(9 * ROWS + WINDOW_MAPS) * step :]
    line_x, line_y, out_x, out_y = rest, rest[step:], rest[2 * step :], rest[3 * step :]

    px = py = zero
    one_pixel = halo_z + halo_y + halo_x == 0  # such a window has no variance: a pivot would only cost precision
    spread = zero if one_pixel else u
    if not one_pixel:
        inside = min(max((front + back + halo_z) // 2 - pad_z, 0), depth - 2 * pad_z - 1)
        y_begin, y_end = max(top - pad_y, 0), max(min(bottom + halo_y, height - pad_y) - pad_y, 1)
        x_begin, x_end = max(left - pad_x, 0), max(min(right + halo_x, width - pad_x) - pad_x, 1)
        slice_x, slice_y = _slice(x, n, c, inside), _slice(y, n, c, inside)
        px = s.dtype.type(pivot_of(slice_x, None, y_begin, y_end, x_begin, x_end, divisor_x, weights))
        py = s.dtype.type(pivot_of(slice_y, None, y_begin, y_end, x_begin, x_end, divisor_y, weights))
    constants = (px + py, px - py, c1, c2, type(outside)(0.5) * spread, spread)
    line_x[: strip * lanes] = px
    line_y[: strip * lanes] = py
    found = 0.0
    loaded = front  # pixel planes up to loaded-1 are in s and d
    if grad_x is not None:
        for z in range(origin_z, front):
            start = (z - origin_z) * window_plane
            derivatives[start + (top - origin_y) * maps * step : start + (bottom - origin_y) * maps * step] = 0
        for p in range(PLANES):  # rows without windows
            start = p * window_plane
            spread_back[start : start + (top - origin_y) * maps * step] = 0
            spread_back[start + (bottom - origin_y) * maps * step : start + (y1 - origin_y) * maps * step] = 0

    for z in range(front, z1, PLANES):
        count = min(PLANES, back - z)  # window planes of this step; none at the end, where only gradients are due
        for pixel_plane in range(loaded, z + count + halo_z if count > 0 else loaded):
            source_plane = planes_of[pixel_plane]
            for row in range(top, bottom + halo_y):
                place = (pixel_plane - front) % ring * plane + (row - top) * step
                source = (
                    rows_of[row] if source_plane >= 0 else OUTSIDE, columns_of, pad_x, left, right + halo_x,
                )  # fmt: skip
                plane_x, plane_y = _slice(x, n, c, source_plane), _slice(y, n, c, source_plane)
                row_x = row_of(plane_x, pixel_rows, source, taken, divisor_x, outside, line_x)
                row_y = row_of(plane_y, pixel_rows, source, taken, divisor_y, outside, line_y)
                enter(row_x, row_y, None, strip, lanes, pixel_halo, px, py, s[place:], d[place:], None)
            loaded = pixel_plane + 1
        for band in range(bands - 1 if count > 0 else -1, -1, -1):
            band_top, band_bottom = top + band * BAND, min(top + (band + 1) * BAND, bottom)
            lowest = band == bands - 1
            if not lowest:
                _carry(deep, halo_y, deep_plane, step)
            for row in range(band_bottom - band_top + (halo_y if lowest else 0)):
                place = (band_top - top + row) * step
                for vector in range(strip):
                    _depth_moments(
                        s, d, (z - front) % ring, plane, place + vector * lanes, taps_z, taps_x, deep,
                        row * 4 * step + vector * lanes, deep_plane,
                    )  # fmt: skip
            for p in range(count):
                own_rows = own_bottom if own_front <= z + p < own_back else own_top
                own = (own_top, own_rows, own_left - left, own_right - left)
                for row in range(band_top, band_bottom, ROWS):
                    rows = min(ROWS, band_bottom - row)
                    place = p * deep_plane + (row - band_top) * 4 * step
                    for vector in range(strip):
                        _down(deep, place, vector * lanes, taps_y, taps_x, moments)
                    continue_strips(moments, s, strip, lanes, halo_x, step, entries_of_rows((0, 0, 0, 0)))
                    if upstream is not None:
                        for r in range(rows):
                            read(_slice(upstream, n, c, z + p), row + r, left, right - left, one, line_x)
                            into_strips(line_x, strip, lanes, weights[r * step :])
                    for r in range(rows):
                        place = (z + p - origin_z) % ring * window_plane + (row + r - origin_y) * maps * step
                        row_map = given(ssim_map, filtered[r * step :])
                        ours = columns_of_windows(row + r, own, right - left)
                        for vector in range(0, strip, BLOCK):
                            ssim_across(
                                moments, 4 * r * step, taps_x, strip, vector, constants, ours, total, upstream,
                                weights[r * step :], row_map, grad_x, grad_y, derivatives, place,
                            )  # fmt: skip
                        found += take_sum(total, 0)
                    if ssim_map is not None:
                        for r in range(rows):
                            out_of_strips(filtered[r * step :], strip, lanes, out_x)
                            line = (z + p) * (height - halo_y) + row + r
                            place = map_start + line * (width - halo_x) + left
                            copy(out_x, right - left, ssim_map[place:])
        if grad_x is not None:
            for p in range(max(count, 0), PLANES):
                start = (z + p - origin_z) % ring * window_plane
                derivatives[start + (top - origin_y) * maps * step : start + (bottom - origin_y) * maps * step] = 0
            for row in range(top - origin_y, bottom - origin_y if z + PLANES > z0 else 0):
                for vector in range(strip):
                    _depth_adjoint(
                        derivatives, (z - z0) % ring, window_plane, row * maps * step + vector * lanes, back_z, taps_x,
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
                    place = p * window_plane + (row - y0) * maps * step
                    for vector in range(0, strip, 2):
                        adjoint_down(spread_back, place, vector * lanes, back_y, taps_x, grad_y, filtered)
                    for r in range(min(ROWS, y1 - row)):
                        place = r * maps * step
                        for number in range(maps):
                            continue_strips(filtered[place + number * step :], s, strip, lanes, halo_x, step, ONE_ROW)
                        for vector in range(0, strip, BLOCK):
                            adjoint_across(filtered, place, vector, back_x, back_kinds, windows)
                        pixel = (z + p - front) % ring * plane + (row + r - top) * step + halo_x * lanes
                        for vector in range(strip):
                            gradients(
                                windows, taps_x, strip, vector, s, d, None, pixel, scale, None, (0, 0, 0, 0), grad_y,
                                out_x, out_y,
                            )  # fmt: skip
                        core_x = grad_x if inner else outer_x
                        place = in_order(out_x, strip, lanes, halo_x, ahead, weights)
                        deliver(weights[place:], row + r, flat, x0, x1, core_x, core_start, rim_x, rim_start)
                        if grad_y is not None:
                            core_y = grad_y if inner else outer_y
                            place = in_order(out_y, strip, lanes, halo_x, ahead, weights)
                            deliver(weights[place:], row + r, flat, x0, x1, core_y, core_start, rim_y, rim_start)
    return found


@kept
def fold_planes(rows: Any, columns: Any, pad_y: int, pad_x: int, planes: int, rim: Any, gradient: Any) -> None:
    """Add the gradients of planes' padded rows and columns to those of their sources."""
    fold(rows, columns, pad_y, pad_x, 0, planes, rim, gradient)
