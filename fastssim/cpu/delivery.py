"""Rows of the gradient on their way from strips to the image, and from padding to its sources (Numba).

Gradients of padded pixels go to the rim, [pad_y above, pad_y below][padded width], then [height][pad_x on the left,
pad_x on the right], and are folded onto their sources when all tiles are done.
"""

from __future__ import annotations

from typing import Any

from fastssim.cpu.jit import inlined, jit
from fastssim.cpu.pixels import CACHE_LINE, address_of
from fastssim.cpu.strips import out_of_strips


@inlined
def copy(source: Any, count: int, target: Any) -> None:
    """Copy numbers, in a loop that is vectorised: its index cannot be negative."""
    for i in range(count):
        target[i] = source[i]


@inlined
def round_strips(columns: int, first: int, last: int) -> tuple[int, int, int, int]:
    """Return two ranges, of which one may be empty, for first .. last-1, where -1 is the last of the columns."""
    return max(first, 0), last, columns + first, columns + min(last, 0)


@inlined
def in_order(row: Any, strip: int, lanes: int, halo: int, ahead: int, line: Any) -> int:
    """Put a row in strips in order, its last `ahead` columns, of at most `halo`, first; return where `line` begins."""
    start = -(-halo // lanes) * lanes  # so much room before keeps vectors within cache lines
    out_of_strips(row, strip, lanes, line[start:])
    copy(line[start + strip * lanes - ahead :], ahead, line[start - ahead :])
    return start - ahead


@inlined
def _of_image(row: int, edges: Any, x0: int, x1: int) -> tuple[int, int]:
    """Return where in a plane the image's pixels of a padded row lie, columns x0 .. x1-1, and how many; -1 if none."""
    pad_y, pad_x = edges[2], edges[3]
    height, width = len(edges[0]) - 2 * pad_y, len(edges[1]) - 2 * pad_x
    left, right = max(x0 - pad_x, 0), min(x1 - pad_x, width)
    return (row - pad_y) * width + left if pad_y <= row < pad_y + height else -1, right - left


@inlined
def destination(row: int, edges: Any, x0: int, x1: int, gradient: Any, start: int) -> tuple[int, int]:
    """Return where the image's pixels of a row that is to be delivered lie, as `pixels.to_come` does."""
    place, count = _of_image(row, edges, x0, x1)
    if place < 0:
        return 0, 0
    return address_of(gradient) + (start + place) * gradient.itemsize, -(-count * gradient.itemsize // CACHE_LINE)


@jit
def deliver(
    line: Any, row: int, edges: Any, x0: int, x1: int, gradient: Any, start: int, rim: Any, rim_start: int
) -> None:
    """Copy a row of gradients, columns x0 .. x1-1 of the padded image, to the image's pixels and to the rim's."""
    rows_of, columns_of, pad_y, pad_x = edges[0], edges[1], edges[2], edges[3]
    height, width = len(rows_of) - 2 * pad_y, len(columns_of)
    place, count = _of_image(row, edges, x0, x1)
    if place < 0:
        border = row if row < pad_y else row - height
        copy(line, x1 - x0, rim[rim_start + border * width + x0 :])
        return
    copy(line[max(pad_x - x0, 0) :], count, gradient[start + place :])
    if pad_x:
        border = rim_start + 2 * pad_y * width + (row - pad_y) * 2 * pad_x
        copy(line, min(x1, pad_x) - x0, rim[border + x0 :])
        right = max(x0, width - pad_x)
        copy(line[right - x0 :], x1 - right, rim[border + right - (width - 2 * pad_x) :])


@jit
def fold(rows: Any, columns: Any, pad_y: int, pad_x: int, first: int, last: int, rim: Any, gradient: Any) -> None:
    """Add the gradients of padded pixels, planes first .. last-1, to those of their sources; layout as above."""
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
