"""Rows in strips: the layout in which filters across a row are as cheap as filters down the columns.

The columns of a tile are cut into as many strips as a SIMD vector has lanes, and every lane walks one strip: lane l of
vector j holds column l * strip + j. The right neighbour of every number of a vector then lies in the next vector, at
the same lane, at an aligned address; the formula does not care about the order at all. A row is transposed, square by
square, when it comes in and when it goes out.

Behind the last vector of a strip its halo goes on in the next strip: vector strip + i is vector i with its lanes
rotated. The last lane gets columns there that do not belong to it; windows that would touch them are not the tile's.

Numbers in a row: strip vectors, then those of the halo. Rows of a buffer lie a pitch (`fastssim.cpu.buffers`) apart.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from fastssim.cpu import buffers
from fastssim.cpu.buffers import ROWS
from fastssim.cpu.jit import inlined
from fastssim.cpu.simd import Code, Vector, lanes, wanted

ONE_ROW = (0,)
places, rows_kept, strip_of = map(register_jitable, (buffers.places, buffers.rows_kept, buffers.strip_of))


def tap_count(taps: Any) -> int:
    """How many taps a kernel's argument stands for; see `tap_vectors`."""
    return 2 * len(taps[0]) - 1 if isinstance(taps[0], types.BaseTuple) else len(taps)


def tap_vectors(code: Code, kind: Any, value: Any) -> list[Vector]:
    """Fill a vector with each tap: of a tuple of all, or of a tuple around those up to the middle of a mirrored window.

    A mirrored window's taps are half as many, and stay in registers.
    """
    if not isinstance(kind[0], types.BaseTuple):
        return code.splats(value, len(kind))
    half = code.splats(code.builder.extract_value(value, 0), len(kind[0]))
    return [*half, *half[-2::-1]]


@intrinsic
def _half_square(
    typing: Any, x: Any, y: Any, mask: Any, strip: Any, vector: Any, px: Any, py: Any, s: Any, d: Any, m: Any
) -> Any:
    """Turn half a square of pixels into s = (x - px) + (y - py) and d = (x - y) - (px - py), both 0 without a weight.

    x, y, mask or None: address of a row from column 0; s, d, m: the same in strips, from `vector` on.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, mask_t, _, _, _, _, s_t, d_t, m_t = signature.args
        x_v, y_v, mask_v, strip_v, vector_v, px_v, py_v, s_v, d_v, m_v = args
        code = Code(context, builder, s_t.dtype)
        target = builder.mul(vector_v, ir.Constant(vector_v.type, code.lanes))

        def rows(row: Any) -> list[Vector]:
            first = code.at(builder.inttoptr(row, code.scalar.as_pointer()), vector_v)
            return code.joined(lambda lane: code.at(first, builder.mul(strip_v, ir.Constant(strip_v.type, lane))))

        def write(kind: Any, value: Any, half_square: list[Vector]) -> None:
            start = code.at(code.data(kind, value), target)
            for number, column in enumerate(code.transpose(half_square)):
                code.store(column, code.at(start, number * code.lanes))

        first, second = rows(x_v), rows(y_v)
        pivot_x, pivot_y = code.splat(px_v), code.splat(py_v)
        weights = []
        if wanted(mask_t):
            weights = rows(mask_v)
            write(m_t, m_v, weights)

        def combined(sign: int) -> list[Vector]:
            half_square = []
            for number, (a, b) in enumerate(zip(first, second, strict=True)):
                value = (a - pivot_x) + (b - pivot_y) if sign > 0 else (a - b) - (pivot_x - pivot_y)
                half_square.append(
                    code.select(code.above(weights[number], code.zero()), value, code.zero()) if weights else value
                )
            return half_square

        write(s_t, s_v, combined(1))
        write(d_t, d_v, combined(-1))
        return context.get_dummy_value()

    return types.void(x, y, mask, strip, vector, px, py, s, d, m), codegen


@intrinsic
def _exchange(typing: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """Transpose a square: its rows lie `source_step` numbers apart, its columns are put `target_step` apart."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_t, _, target_t, _ = signature.args
        source_v, from_v, target_v, to_v = args
        code = Code(context, builder, target_t.dtype)

        def place(kind: Any, value: Any, step: Any, number: int) -> Any:
            return code.at(code.data(kind, value), builder.mul(step, ir.Constant(step.type, number)))

        square = [code.load(place(source_t, source_v, from_v, number)) for number in range(code.lanes)]
        for number, column in enumerate(code.transpose(square)):
            code.store(column, place(target_t, target_v, to_v, number))
        return context.get_dummy_value()

    return types.void(source, source_step, target, target_step), codegen


@intrinsic
def _rotate(typing: Any, buffer: Any, like: Any, source: Any, target: Any, step: Any, rows: Any) -> Any:
    """Put the vector at the place `source`, its lanes rotated, at the place `target`; as many lanes as `like` has.

    So in as many rows, `step` numbers apart, as the tuple `rows` has entries.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        buffer_t, like_t, _, _, _, rows_t = signature.args
        buffer_v, _, source_v, target_v, step_v, _ = args
        code = Code(context, builder, buffer_t.dtype, lanes(like_t.dtype))
        for row in range(len(rows_t)):
            start = code.at(code.data(buffer_t, buffer_v), builder.mul(step_v, ir.Constant(step_v.type, row)))
            code.store(code.rotate(code.load(code.at(start, source_v))), code.at(start, target_v))
        return context.get_dummy_value()

    return types.void(buffer, like, source, target, step, rows), codegen


@register_jitable
def numbers_read(strip: int, width: int) -> int:
    """Return how many numbers of a row `enter` reads, as many as strips hold or, of very short ones, a few more."""
    return (width - 1) * strip + max(strip, width // 2)


@inlined
def enter(
    x: Any, y: Any, mask: Any, strip: int, width: int, halo: int, px: Any, py: Any, s: Any, d: Any, m: Any
) -> None:
    """Put a row of pixels, from column 0, in strips with their halo: s = x' + y', d = x' - y' and the mask.

    x, y, mask or None: addresses. width: lanes of a vector. Of a row `numbers_read` are read.
    """
    for vector in range(0, strip, width // 2):
        _half_square(x, y, mask, strip, max(min(vector, strip - width // 2), 0), px, py, s, d, m)
    continue_strips(s, s, strip, width, halo, 0, ONE_ROW)
    continue_strips(d, d, strip, width, halo, 0, ONE_ROW)
    if mask is not None:
        continue_strips(m, m, strip, width, halo, 0, ONE_ROW)


@inlined
def into_strips(line: Any, strip: int, width: int, row: Any) -> None:
    """Put a line of numbers in strips, without a halo."""
    for vector in range(0, strip, width):
        first = max(min(vector, strip - width), 0)
        _exchange(line[first:], strip, row[first * width :], width)


@inlined
def out_of_strips(row: Any, strip: int, width: int, line: Any) -> None:
    """Put a row in strips back in the order of its columns."""
    for vector in range(0, strip, width):
        first = max(min(vector, strip - width), 0)
        _exchange(row[first * width :], width, line[first:], strip)


@inlined
def continue_strips(buffer: Any, like: Any, strip: int, width: int, halo: int, step: int, rows: Any) -> None:
    """Append to every strip the first `halo` columns of the next; `like`: an array of the images' numbers.

    So in as many rows, `step` numbers apart, as the tuple `rows` has entries.
    """
    for i in range(halo):
        _rotate(buffer, like, i * width, (strip + i) * width, step, rows)


def entries(least: Any, another: Any) -> Any:
    """Return a tuple of zeros, with one more where there is `another`."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(entries)
def _(least: Any, another: Any) -> Any:
    zeros = (0,) * (len(least) + wanted(another))

    def zeros_of(least: Any, another: Any) -> Any:
        return zeros

    return zeros_of


def entries_of_rows(entries: Any) -> Any:
    """Return a tuple of zeros, as many for each of ROWS rows as there are entries."""
    raise NotImplementedError  # kernels call what follows


@overload(entries_of_rows)
def _(entries: Any) -> Any:
    zeros = (0,) * (ROWS * len(entries))

    def zeros_of(entries: Any) -> Any:
        return zeros

    return zeros_of
