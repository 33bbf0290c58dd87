"""Windowed SSIM on one tile of an image, value and gradient in one march (Numba).

The formulae and their symbols stand in `fastssim.cpu.formula`, how maps are filtered in `fastssim.cpu.filters`. A pivot
per tile is taken off every pixel.

The march goes down the tile, ROWS window rows at a time. Pixel rows are turned into s and d, laid out in strips
(`fastssim.cpu.strips`), as they are reached; a filter makes ROWS rows, or BLOCK vectors, of a map at a time; the
horizontal one ends in the formula; its derivatives go into a rolling buffer of rows, and the gradient's rows leave as
soon as the last window that covers them is done. Only the rolling buffers exist besides input and output, whatever the
image's height.

Strips go round: behind the last column comes the first. A pixel's gradient is made at the column of the first window
that covers it; where that is left of all windows, among the last columns, whose derivatives are zeros. So an image
takes no more columns with its gradient than without.

Symbols: (y0, y1, x0, x1) is the tile, in the padded image; in gradient mode its pixels: every window that covers one
of them is computed, but a window counts in the sum of one tile only; in value mode the tile's windows themselves.
Gradients of padded pixels go to the rim (`fastssim.cpu.delivery`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from fastssim.cpu.buffers import BLOCK, MAPS, ROWS
from fastssim.cpu.delivery import copy, deliver, destination, in_order, round_strips
from fastssim.cpu.formula import add_distances, columns_of_windows, gradients, ssim_and_derivatives, take_sum
from fastssim.cpu.jit import inlined, merged, unmanaged
from fastssim.cpu.passes import adjoint_across, adjoint_down, moments_across, moments_down, ssim_across
from fastssim.cpu.pixels import address_of, ask_for, ask_for_both, pivot_of, read, read_padded, row_of, to_come
from fastssim.cpu.simd import given, wanted
from fastssim.cpu.strips import (
    ONE_ROW,
    continue_strips,
    enter,
    entries,
    entries_of_rows,
    into_strips,
    numbers_read,
    out_of_strips,
    places,
    rows_kept,
    strip_of,
)
from fastssim.cpu.sums import FINITE, LARGEST_SQUARE, across, add_maps, add_moments, within


@inlined
def _wind_back(buffer: Any, first: int, last: int, step: int, used: int) -> None:
    """Move the rows first .. last-1 of a buffer, `step` numbers apart, to its front; `used` numbers of each count."""
    for row in range(first, last):
        copy(buffer[row * step :], used, buffer[(row - first) * step :])


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


def _sign(l1: Any, counts: bool, missing: Any) -> Any:
    """Return what `gradients` takes as l1."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_sign)
def _(l1: Any, counts: bool, missing: Any) -> Any:
    def nothing(l1: Any, counts: bool, missing: Any) -> None:
        return None

    def something(l1: Any, counts: bool, missing: Any) -> Any:
        return l1 if counts else type(missing)(0), missing

    return something if wanted(l1) else nothing


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
    signed = round_strips(strip * lanes, near_left - left - halo_x, near_right - left - halo_x)
    pixel_rows, taken = height - 2 * pad_y, numbers_read(strip, lanes)
    pixel_halo = 0 if grad_x is None else halo_x  # of pixels that a gradient is made of; what is filtered has its own
    maps = 3 if grad_y is None else 4
    kinds = entries((0, 0, 0, 0), plane_mask)  # one for each moment
    row_kinds = entries_of_rows(kinds)
    back_kinds = entries((0, 0, 0), grad_y)

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
        px = s.dtype.type(pivot_of(plane_x, plane_mask, part[0], part[1], part[2], part[3], divisor_x, weights))
        py = s.dtype.type(pivot_of(plane_y, plane_mask, part[0], part[1], part[2], part[3], divisor_y, weights))
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
                used = (strip + pixel_halo) * lanes
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
                        add_distances(d, place, strip, vector, near_left - left, near_right - left, missing, total)
            loaded = row + count + halo_y
            if plane_mask is not None:
                for pixel_row in range(loaded, row + ROWS + halo_y):  # below the last, whose windows are not there
                    place = (pixel_row - base) % rows * step
                    s[place : place + step] = 0  # or an earlier row's would have a part in a pivot
                    d[place : place + step] = 0
                    mask_rows[place : place + step] = 0
            if exact is None:
                for vector in range(strip):
                    moments_down(s, d, mask, (row - base) * step, vector * lanes, taps_y, taps_x, constants, moments)
                continue_strips(moments, s, strip, lanes, halo_x, step, row_kinds)
            if plane_upstream is not None:
                for r in range(count):
                    read(plane_upstream, row + r, left, right - left, one, line_x)
                    if exact is not None:
                        calm = calm and within(line_x, right - left, type(outside)(FINITE))
                    into_strips(line_x, strip, lanes, weights[r * step :])
        for r in range(count):
            next_x = to_come(plane_x, rows_of, loaded + r, first_column, image_columns)
            next_y = to_come(plane_y, rows_of, loaded + r, first_column, image_columns)
            ours = columns_of_windows(row + r, own, right - left)
            place = (row + r - base_windows) % rows * maps * step
            row_map = given(ssim_map, filtered[r * step :])
            if exact is None and plane_mask is None:
                for vector in range(0, strip, BLOCK):
                    ask_for_both(next_x, next_y, vector, BLOCK)  # beside filters, which wait for no memory
                    ssim_across(
                        moments, len(kinds) * r * step, taps_x, strip, vector, constants, ours, total,
                        plane_upstream, weights[r * step :], row_map, grad_x, grad_y, derivatives, place,
                    )  # fmt: skip
                results[0] += take_sum(total, 0)
                continue
            if exact is None:
                for vector in range(0, strip, BLOCK):
                    moments_across(moments, mask, len(kinds) * r * step, vector, taps_x, constants, grad_x, windows)
            else:
                top = row + r - base  # rows go round the buffers here
                if row + r == first or not calm:
                    sums[: len(kinds) * step] = 0
                    for k in range(halo_y + 1):
                        add_moments(sums, step, s, d, mask, strip, lanes, (((top + k) % rows * step, down[k]),))
                else:
                    gone, added = ((top - 1) % rows * step, -down[0]), ((top + halo_y) % rows * step, down[halo_y])
                    add_moments(sums, step, s, d, mask, strip, lanes, (gone, added))
                across(sums, step, strip, lanes, across_taps, share, calm, kinds, constants, grad_x, windows)
            for vector in range(strip):
                ask_for_both(next_x, next_y, vector, 1)
                ssim_and_derivatives(
                    windows, mask, taps_x, strip, vector, constants, ours, total,
                    plane_upstream, weights[r * step :], row_map, grad_x, grad_y, derivatives, place,
                )  # fmt: skip
            results[0] += take_sum(total, 0)  # row by row: equal numbers are all rounded to the same side
        if plane_mask is not None:
            results[1] += take_sum(total, 1)
        if l1 is not None:
            results[2] += take_sum(total, 2)
        if ssim_map is not None:
            for r in range(count):
                out_of_strips(filtered[r * step :], strip, lanes, out_x)
                place = map_start + (row + r) * (width - halo_x) + left
                copy(out_x, right - left, ssim_map[place:])
        if grad_x is not None:
            for r in range(max(count, 0), ROWS):
                place = (row + r - base_windows) % rows * maps * step
                derivatives[place : place + maps * step] = 0
            if exact is None and row + ROWS > y0:
                place = (row - halo_y - base_windows) * maps * step
                for vector in range(0, strip, 2):
                    adjoint_down(derivatives, place, vector * lanes, back_y, back_x, grad_y, filtered)
            for r in range(min(ROWS, y1 - row)):
                if exact is not None:
                    top = row + r - halo_y - base_windows
                    first_tap = halo_y
                    if not calm:
                        back[: maps * step] = 0
                        first_tap = 0
                    if calm and row + r > y0:
                        gone = (top - 1) % rows * maps * step, -back_down[0]
                        added = (top + halo_y) % rows * maps * step, back_down[halo_y]
                        add_maps(back, step, derivatives, strip, lanes, grad_y, (gone, added))
                    else:
                        for k in range(first_tap, halo_y + 1):
                            added = (top + k) % rows * maps * step, back_down[k]
                            add_maps(back, step, derivatives, strip, lanes, grad_y, (added,))
                if row + r < y0:
                    continue
                if exact is not None:
                    across(back, step, strip, lanes, back_across, share, calm, back_kinds, None, None, windows)
                else:
                    place = r * maps * step
                    for plane in range(maps):
                        continue_strips(filtered[place + plane * step :], s, strip, lanes, halo_x, step, ONE_ROW)
                    for vector in range(0, strip, BLOCK):
                        adjoint_across(filtered, place, vector, back_x, back_kinds, windows)
                pixel = (row + r - base) % rows * step + halo_x * lanes
                sign = _sign(l1, near_top <= row + r < near_bottom, missing)
                to_x = destination(row + r + 1, edges, x0, x1, grad_x, grad_start)
                for vector in range(strip):
                    ask_for(to_x, vector, grad_x)
                    gradients(
                        windows, taps_x, strip, vector, s, d, mask, pixel, scale, sign, signed, grad_y, out_x, out_y
                    )
                place = in_order(out_x, strip, lanes, halo_x, ahead, weights)
                deliver(weights[place:], row + r, edges, x0, x1, grad_x, grad_start, rim_x, rim_start)
                if grad_y is not None:
                    place = in_order(out_y, strip, lanes, halo_x, ahead, weights)
                    deliver(weights[place:], row + r, edges, x0, x1, grad_y, grad_start, rim_y, rim_start)


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
