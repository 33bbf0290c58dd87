"""Pixels of any dtype and strides, padded and converted row by row as a kernel reaches them (Numba).

A plane is (address, kind, bytes from row to row, numbers from column to column): no specialisation of a kernel for a
dtype or a memory layout, and no converted copy of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastssim.cpu.jit import inlined, jit
from fastssim.cpu.simd import Code, wanted

FLOAT32, FLOAT64, FLOAT16, BFLOAT16, UINT8, UINT16 = range(6)
CACHE_LINE = 64
_I32 = ir.IntType(32)


_BFLOAT16 = np.int16  # stands for bfloat16, which NumPy does not have; no image has signed pixels


@intrinsic
def _fetch(typing: Any, address: Any, index: Any, like: Any) -> Any:  # noqa: ARG001  # an intrinsic's first argument
    """Load number `index` of the type `like` behind an address; half-width floats come as float32."""
    stored = like.instance_type
    given = types.float32 if stored in {types.float16, types.int16} else stored

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        narrow = stored in {types.float16, types.int16}
        kind = ir.IntType(16) if narrow else context.get_value_type(stored)
        pointer = builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        number = builder.load(pointer, align=stored.bitwidth // 8)
        if not narrow:
            return number
        bits = builder.zext(number, _I32)
        if stored == types.int16:
            return builder.bitcast(builder.shl(bits, _I32(16)), ir.FloatType())
        return _from_half(builder, bits)

    return given(types.int64, types.int64, like), codegen


def _from_half(builder: Any, bits: Any) -> Any:
    """Widen a float16, also without the processor's help: its exponent counts from 15, that of a float32 from 127."""
    magnitude = builder.shl(builder.and_(bits, _I32(0x7FFF)), _I32(13))
    scaled = builder.fmul(builder.bitcast(magnitude, ir.FloatType()), ir.FloatType()(2.0**112))
    finite = builder.icmp_unsigned("<", magnitude, _I32(0x7C00 << 13))
    wide = builder.select(finite, builder.bitcast(scaled, _I32), builder.or_(magnitude, _I32(0x7F800000)))
    sign = builder.shl(builder.and_(bits, _I32(0x8000)), _I32(16))
    return builder.bitcast(builder.or_(wide, sign), ir.FloatType())


@jit
def _convert(address: int, step: int, count: int, like: Any, divisor: Any, out: Any) -> None:
    number = out.dtype.type
    if step == 1:  # neighbours are vectorised
        for i in range(count):
            value = number(_fetch(address, i, like))
            out[i] = value if divisor is None else value / divisor
    else:
        for i in range(count):
            value = number(_fetch(address, i * step, like))
            out[i] = value if divisor is None else value / divisor


@jit
def read(plane: Any, row: int, column: int, count: int, divisor: Any, out: Any) -> None:
    """Put `count` pixels of a row from a column on into `out`; integers are divided by `divisor`, of out's dtype."""
    start, kind, row_bytes, step = plane
    address = start + row * row_bytes
    if kind == FLOAT32:
        _convert(address + 4 * column * step, step, count, np.float32, None, out)
    elif kind == FLOAT64:
        _convert(address + 8 * column * step, step, count, np.float64, None, out)
    elif kind == FLOAT16:
        _convert(address + 2 * column * step, step, count, np.float16, None, out)
    elif kind == BFLOAT16:
        _convert(address + 2 * column * step, step, count, _BFLOAT16, None, out)
    elif kind == UINT8:
        _convert(address + column * step, step, count, np.uint8, divisor, out)
    else:
        _convert(address + 2 * column * step, step, count, np.uint16, divisor, out)


@inlined
def _bytes_of(kind: int) -> int:
    """Return how many bytes a pixel takes."""
    return 4 if kind == FLOAT32 else 8 if kind == FLOAT64 else 1 if kind == UINT8 else 2


@inlined
def _every(plane: Any, step: int, column: int) -> tuple[int, int, int, int]:
    """Return a plane of every so many columns of a plane from one on, as `read` takes it."""
    start, kind, row_bytes, size = plane
    return start + column * size * _bytes_of(kind), kind, row_bytes, size * step


@jit
def pivot_of(plane: Any, mask: Any, y0: int, y1: int, x0: int, x1: int, divisor: Any, cells: Any) -> float:
    """Return the mean of some 8 x 8 finite pixels with a weight spread over a part of the plane, or 0.

    cells: room for two times 16 numbers.
    """
    step_y = max(1, (y1 - y0) // 8)
    step_x = max(1, (x1 - x0) // 8)
    columns = -(-(x1 - x0) // step_x)
    pixels, weights = cells, cells[16:]
    total = 0.0
    count = 0
    for y in range(y0, y1, step_y):
        read(_every(plane, step_x, x0), y, 0, columns, divisor, pixels)
        if mask is not None:
            read(_every(mask, step_x, x0), y, 0, columns, type(divisor)(1), weights)
        for i in range(columns):
            if mask is not None and weights[i] == 0:
                continue
            if np.isfinite(pixels[i]):
                total += float(pixels[i])
                count += 1
    return total / count if count else 0.0


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:  # noqa: ARG001  # as above
    """Take an address as a pointer to numbers of the type `like`."""
    kind = types.CPointer(like.instance_type)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), codegen


@intrinsic
def address_of(typing: Any, array: Any) -> Any:  # noqa: ARG001  # as above
    """Return the address of an array's first number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), codegen


@jit
def view(address: int, like: Any, shape: Any) -> Any:
    """View memory as an array of the type `like`; nothing here checks the shape."""
    return carray(_pointer(address, like), shape)


@intrinsic
def _ask_for(typing: Any, address: Any, to_write: Any) -> Any:  # noqa: ARG001  # as above
    """Ask for the memory at an address, to write it or, where that is None, to read it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        Code(context, builder, types.float32).prefetch(pointer, to_write=wanted(signature.args[1]))
        return context.get_dummy_value()

    return types.void(address, to_write), codegen


@inlined
def to_come(plane: Any, rows: Any, row: int, column: int, count: int) -> tuple[int, int]:
    """Return where `count` pixels of a padded row lie from a column on, and in how many cache lines; none outside."""
    start, kind, row_bytes, step = plane
    if row >= len(rows) or rows[row] < 0 or step != 1:
        return 0, 0
    size = _bytes_of(kind)
    return start + rows[row] * row_bytes + column * size, -(-count * size // CACHE_LINE)


@inlined
def ask_for(place: tuple[int, int], line: int, to_write: Any) -> None:
    """Ask for one of the cache lines `to_come`, so that it has come when it is read or, unless None, written.

    A processor does so by itself along a row, but not from a page to the next, where the row below often lies. It has
    many loads under way at a time, but not a row's: they are asked for one by one between other work.
    """
    if line < place[1]:
        _ask_for(place[0] + line * CACHE_LINE, to_write)


@inlined
def ask_for_both(x: tuple[int, int], y: tuple[int, int], first: int, count: int) -> None:
    """Ask for some of the lines of two rows `to_come`, to read them."""
    for line in range(first, first + count):
        ask_for(x, line, None)
        ask_for(y, line, None)


@jit
def read_padded(plane: Any, place: Any, divisor: Any, outside: Any, out: Any) -> None:
    """Put a part of a padded row into `out`, `outside` where padding is no pixel.

    place: (source row or OUTSIDE, source of every padded column, columns padded on each side, first, last + 1).
    """
    row, columns, pad, first, last = place
    if row < 0:
        for i in range(last - first):
            out[i] = outside
        return
    left = min(max(first, pad), last)
    right = max(min(last, len(columns) - pad), left)
    read(plane, row, left - pad, right - left, divisor, out[left - first :])
    for begin, end in ((first, left), (right, last)):
        for column in range(begin, end):
            if columns[column] < 0:
                out[column - first] = outside
            else:
                read(plane, row, columns[column], 1, divisor, out[column - first :])


@inlined
def row_of(plane: Any, rows: int, place: Any, count: int, divisor: Any, outside: Any, line: Any) -> int:
    """Return the address of a part of a padded row, read into `line` if need be.

    It stays where it lies if nothing is padded or converted and the `count` numbers from there on are the plane's, of
    `rows` rows: what follows the part is other pixels there, and in `line` what it held. place, outside: as for
    `read_padded`.
    """
    row, columns, pad, first, last = place
    start, kind, row_bytes, step = plane
    size = line.itemsize
    if kind == (FLOAT32 if size == 4 else FLOAT64) and step == 1 and row >= 0 and first >= pad:
        width = len(columns) - 2 * pad
        offset = row * row_bytes + (first - pad) * size
        if last - pad <= width and offset >= 0 and offset + count * size <= (rows - 1) * row_bytes + width * size:
            return start + offset  # type: ignore[no-any-return]
    read_padded(plane, place, divisor, outside, line)
    return address_of(line)  # type: ignore[no-any-return]
