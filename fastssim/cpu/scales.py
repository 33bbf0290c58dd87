"""From one of MS-SSIM's scales to the next and, with the gradients, back (Numba).

A pixel of scale s + 1 is the mean of 2 x 2 of scale s; an odd last row or column is left out. With g_s the gradient of
scale s's mean by its pixels and u_s the gradient of the result by that mean, one for each plane:

    G_s[i, j] = u_s g_s[i, j] + G_(s+1)[i / 2, j / 2] / 4        and nothing from where a scale leaves a pixel out

and G_0 is the gradient of MS-SSIM.
"""

from __future__ import annotations

from typing import Any

from fastssim.cpu.buffers import CHUNK
from fastssim.cpu.jit import jit
from fastssim.cpu.pixels import read


@jit
def halve(
    image: Any, divisor: Any, channels: int, height: int, width: int, begin: int, end: int, work: Any, out: Any
) -> None:
    """Write rows begin .. end-1 of the halved planes, counted through all planes.

    image: (address, kind, bytes from image to image, channel to channel, row to row, numbers from column to column),
    (N, C, H, W); integers are divided by `divisor`. work: 2 * CHUNK numbers. out: (N, C, H / 2, W / 2).
    """
    start, kind, image_bytes, channel_bytes, row_bytes, step = image
    rows, columns = height // 2, width // 2
    quarter = out.dtype.type(0.25)
    upper, lower = work[:CHUNK], work[CHUNK:]
    for item in range(begin, end):
        plane, row = divmod(item, rows)
        n, c = divmod(plane, channels)
        pixels = (start + n * image_bytes + c * channel_bytes, kind, row_bytes, step)
        for first in range(0, columns, CHUNK // 2):
            count = min(columns - first, CHUNK // 2)
            read(pixels, 2 * row, 2 * first, 2 * count, divisor, upper)
            read(pixels, 2 * row + 1, 2 * first, 2 * count, divisor, lower)
            half = out[item * columns + first :]
            for j in range(count):
                half[j] = quarter * (((upper[2 * j] + upper[2 * j + 1]) + lower[2 * j]) + lower[2 * j + 1])


@jit
def deliver(
    gradient: Any,
    coarser: Any,
    upstream: Any,
    count: int,
    planes: int,
    height: int,
    width: int,
    begin: int,
    end: int,
    work: Any,
) -> None:
    """Turn g_0 into G_0 in pairs of rows begin .. end-1, counted through all planes.

    gradient: g_0, (planes, H, W). coarser: g_1, g_2 .. one behind the other. upstream: u_s, (count, planes).
    work: 2 * W numbers. Pairs of rows share what comes from coarser scales, of which each row is computed anew.
    """
    quarter = gradient.dtype.type(0.25)
    pairs = (height + 1) // 2
    shared, finer = work[:width], work[width:]  # G_(s+1) / 4 and G_s / 4 along the row that covers the pair
    for item in range(begin, end):
        plane, pair = divmod(item, pairs)
        known = 0  # pixels of `shared`
        place = 0
        for scale in range(1, count):
            place += planes * (height >> scale) * (width >> scale)
        for scale in range(count - 1, 0, -1):
            rows, columns = height >> scale, width >> scale
            place -= planes * rows * columns
            row = pair >> (scale - 1)
            if row >= rows:
                continue
            weight = quarter * upstream[scale * planes + plane]
            g = coarser[place + (plane * rows + row) * columns :]
            _spread(g, weight, shared, quarter, known, columns, finer)
            shared, finer, known = finer, shared, columns
        for row in range(2 * pair, min(2 * pair + 2, height)):
            g = gradient[(plane * height + row) * width :]
            _spread(g, upstream[plane], shared, gradient.dtype.type(1), known, width, g)


@jit
def _spread(g: Any, weight: Any, shared: Any, share: Any, known: int, count: int, out: Any) -> None:
    """Write out[j] = weight g[j] + share shared[j // 2], without the latter where it is not known."""
    for j in range(known):
        more = share * shared[j]
        out[2 * j] = weight * g[2 * j] + more
        out[2 * j + 1] = weight * g[2 * j + 1] + more
    for j in range(2 * known, count):
        out[j] = weight * g[j]
