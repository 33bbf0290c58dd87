"""Sizes of what the march of `fastssim.cpu.ssim` works in; nothing here needs a compiler."""

from __future__ import annotations

ROWS = 4  # window rows per step: the pixels of 14 rows stay in registers while one map of 4 is filtered
BLOCK = 4  # vectors of a strip that are filtered across together; strips are multiples of it
SPARE_ROWS = 28  # rows marched before a rolling buffer is wound back
SPARE_ROWS_OF_VALUES = 60  # the same without a gradient
TILE_COLUMNS = 320  # columns of a tile that rolling buffers in a second-level cache of 512 KiB allow
WIDE_TILE_COLUMNS = 512  # the same where vectors have 16 lanes: such processors have 1 MiB or more
WIDE_TILE_COLUMNS_OF_VALUES = 1024  # the same without a gradient, or where tiles are not `few`
MAPS = 5  # summed in float64, at most: two moments of s and d, and the mask
WINDOW_MAPS = MAPS + 2  # two means about the pivots and about zero, two variances, the mask
SMALL = 7  # taps of a filter of which only two neighbouring outputs share a pivot
LEAST_SHARE = 0.1  # of the largest tap: what a pivot weighs in a window, or filters are in float64
LEAST_SHARE_SMALL = 0.2  # the same for small windows, whose few pixels average less of the rounding away
CHUNK = 2048  # pixels of a row that are halved at a time: two rows stay in the first cache
TILE_ROWS = (128, 512)  # of a tile, between these: the higher, the less is computed twice
EXACT_TILE_ROWS = (256, 1024)  # of tiles with filters in float64: the higher the windows, between these
FEW, PLENTY = 8, 64  # tiles: fewer of a gradient are made narrower, more are made higher


def strip_of(columns: int, lanes: int) -> int:
    """Return the vectors of `lanes` lanes that so many columns take, see `fastssim.cpu.strips`."""
    return -(-columns // (BLOCK * lanes)) * BLOCK


def longest(taps: int, lanes: int, *, gradient: bool) -> int:
    """Return the longest strip that is worth its room in the cache; windows `taps` wide."""
    wide = WIDE_TILE_COLUMNS if gradient else WIDE_TILE_COLUMNS_OF_VALUES
    return strip_of((wide if lanes == 16 else TILE_COLUMNS) + 2 * (taps - 1), lanes)


def pitch(taps: int, lanes: int) -> int:
    """Numbers from one buffer row to the next, for windows `taps` wide.

    No multiple of 64, so that rows do not fall on the same cache sets. A row that is not in strips yet fits, too.
    """
    numbers = (longest(taps, lanes, gradient=False) + max(taps, lanes)) * lanes
    return numbers if numbers % 64 else numbers + 16


def sharing(taps: int, outputs: int) -> int:
    """Return how many neighbouring outputs of a filter share a pivot: few, where few taps are near the middle."""
    return outputs if taps > SMALL else min(taps, 2)


def amid(taps: int, outputs: int) -> int:
    """Return the place of the pivot that so many outputs share, from the first tap of the first on: all have it."""
    return min((taps - 1 + outputs) // 2, taps - 1)


def room(taps: int) -> int:
    """Return the size of windows that buffers for filters in float64 are made for: one kernel serves many sizes."""
    return -(-(taps - 1) // 32) * 32 + 1


def few(rows: int, planes: int) -> bool:
    """Tell whether tiles that are as wide as their planes of so many rows would be too few for many threads."""
    return planes * -(-rows // TILE_ROWS[0]) < FEW


def tile_rows(rows: int, beside: int) -> int:
    """Return the rows of a tile where `rows` are to be covered, by so many tiles `beside` one another in all planes.

    Examples
    --------
    >>> [tile_rows(rows, beside) for rows, beside in ((1024, 1), (1024, 16), (1024, 48), (100, 3))]
    [128, 256, 512, 100]
    """
    least, most = TILE_ROWS
    below = max(-(-rows // most), min(-(-rows // least), -(-PLENTY // beside)))
    return -(-rows // below)


def exact_tile_rows(taps_y: int) -> int:
    """Return the rows of a tile with filters in float64, of which those beside its own windows are a small part."""
    least, most = EXACT_TILE_ROWS
    return min(max(least, 18 * taps_y), most)


def rows_kept(taps_y: int, gradient: bool) -> int:  # noqa: FBT001  # kernels know no other way
    """Rows of pixels, or of derivatives, in a rolling buffer: more, where there are no derivatives."""
    return taps_y + (SPARE_ROWS if gradient else SPARE_ROWS_OF_VALUES)


def places(rows: int, gradient: bool) -> tuple[int, ...]:  # noqa: FBT001  # as above
    """Return the first row of every buffer but s, which comes first, of `rows` rows; the last number is how many rows.

    There are no derivatives without a `gradient`.

    d, mask, derivatives, moments, filtered, weights, windows, lines of x, of y, of the mask, of the gradients by x, by
    y.
    """
    mask = 2 * rows
    derivatives = mask + rows
    moments = derivatives + (4 * rows if gradient else 0)
    filtered = moments + MAPS * ROWS
    weights = filtered + 4 * ROWS
    windows = weights + ROWS
    lines = windows + WINDOW_MAPS
    return (
        rows, mask, derivatives, moments, filtered, weights, windows, lines, lines + 1, lines + 2, lines + 3, lines + 4,
        lines + 5,
    )  # fmt: skip


def rolling(taps_y: int, taps_x: int, lanes: int) -> int:
    """Numbers in the rolling buffers, enough for values and for gradients."""
    rows = max(places(rows_kept(taps_y, gradient), gradient)[-1] for gradient in (False, True))
    return rows * pitch(taps_x, lanes)


def summed(taps_x: int, lanes: int) -> int:
    """Numbers of float64 in the sums of the moments and of the derivatives, and their totals across."""
    return 2 * (MAPS + 1) * pitch(taps_x, lanes)


def tile_spans(
    covered: tuple[int, int], width: int, halo: int, before: int, lanes: int, most: tuple[int, int]
) -> list[tuple[int, int]]:
    """Cut the columns `covered`, from and to, into those of tiles that take the fewest vectors in all.

    A tile reads `halo` columns more on its right and `before` more on its left, as far as the padded image of `width`
    columns has them. most: vectors of a strip and columns of a tile.
    """
    longest, columns = most

    def cut(vectors: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Fill strips of so many vectors, one after the other; return the vectors and the tiles in all, and these."""
        spans, total, (x0, end) = [], 0, covered
        while x0 < end:
            first = max(x0 - before, 0)
            room = first + vectors * lanes
            x1 = min(end if room >= width else room - halo, end, x0 + columns)
            total += strip_of(min(x1 + halo, width) - first, lanes)
            spans.append((x0, x1))
            x0 = x1
        return total, len(spans), spans

    least = before + halo + BLOCK * lanes  # or tiles would be few columns beside those they share
    return min(cut(vectors) for vectors in range(BLOCK, longest + 1, BLOCK) if vectors * lanes >= least)[2]
