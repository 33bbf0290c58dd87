"""Vectors of pixels of any kind, and the running numbers of a block of them, for blending (Numba).

Stored values: sums are rounded to the nearest float32, then to float16 or bfloat16 (nearest, ties to even), or to the
nearest whole number for uint8 (ties to even). float16 comes as int16, bfloat16 as uint16, see `fastssim.tiles.storage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastssim.cpu.simd import Code, Vector

if TYPE_CHECKING:
    from collections.abc import Callable

# A tuple's length is part of its type, so these tell the compiler what to compile.
MEAN: tuple[int, ...] = ()
MAX, MIN, STD = (0,), (0, 0), (0, 0, 0)

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Pixels(Code):
    """Float64 vectors of `count` pixels, loaded from and stored as any kind of pixel."""

    def __init__(self, context: Any, builder: ir.IRBuilder, count: int) -> None:
        super().__init__(context, builder, types.float64)
        self.lanes = count
        self.type = ir.VectorType(self.scalar, count)

    def take(self, kind: Any, pointer: ir.Value) -> Vector:
        """Load pixels of Numba type `kind`."""
        builder = self.builder
        if kind == types.float64:
            return self.load(pointer)
        stored = ir.VectorType(self.context.get_value_type(kind), self.lanes)
        value = builder.load(builder.bitcast(pointer, stored.as_pointer()), align=kind.bitwidth // 8)
        floats = ir.VectorType(ir.FloatType(), self.lanes)
        if kind == types.uint8:
            return Vector(builder, builder.uitofp(value, self.type))
        if kind == types.int16:
            value = builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), self.lanes)), floats)
        elif kind == types.uint16:
            wide = builder.zext(value, ir.VectorType(_I32, self.lanes))
            value = builder.bitcast(builder.shl(wide, self._whole(16)), floats)
        return Vector(builder, builder.fpext(value, self.type))

    def put(self, kind: Any, vector: Vector, pointer: ir.Value) -> None:
        """Round to pixels of Numba type `kind` and store."""
        builder = self.builder
        value = vector.value
        if kind == types.uint8:
            whole = self._call("llvm.rint", vector).value
            value = builder.trunc(builder.fptosi(whole, ir.VectorType(_I32, self.lanes)), self._stored(kind))
        elif kind != types.float64:
            value = builder.fptrunc(value, ir.VectorType(ir.FloatType(), self.lanes))
        if kind == types.int16:
            half = builder.fptrunc(value, ir.VectorType(ir.HalfType(), self.lanes))
            value = builder.bitcast(half, self._stored(kind))
        elif kind == types.uint16:
            bits = builder.bitcast(value, ir.VectorType(_I32, self.lanes))
            odd = builder.and_(builder.lshr(bits, self._whole(16)), self._whole(1))
            rounded = builder.add(bits, builder.add(odd, self._whole(0x7FFF)))
            no_number = builder.fcmp_unordered("uno", value, value)
            kept = builder.select(no_number, builder.or_(bits, self._whole(0x400000)), rounded)
            value = builder.trunc(builder.lshr(kept, self._whole(16)), self._stored(kind))
        builder.store(value, builder.bitcast(pointer, self._stored(kind).as_pointer()), align=kind.bitwidth // 8)

    def root(self, vector: Vector) -> Vector:
        """Return the square root."""
        return self._call("llvm.sqrt", vector)

    def pick(self, order: str, a: Vector, b: Vector) -> Vector:
        """Return `b` where it stands in `order` to `a` or is NaN, else `a`."""
        builder = self.builder
        chosen = builder.or_(
            builder.fcmp_ordered(order, b.value, a.value), builder.fcmp_unordered("uno", b.value, b.value)
        )
        return self.select(chosen, b, a)

    def some_nan(self, vector: Vector) -> ir.Value:
        """Return 1 where a lane is NaN, else 0."""
        builder = self.builder
        found = builder.fcmp_unordered("uno", vector.value, vector.value)
        one = builder.icmp_unsigned("!=", builder.bitcast(found, ir.IntType(self.lanes)), ir.IntType(self.lanes)(0))
        return builder.zext(one, _I64)

    def fill(self, number: float) -> Vector:
        """Fill a vector with a number known now."""
        return Vector(self.builder, ir.Constant(self.type, [number] * self.lanes))

    def _stored(self, kind: Any) -> ir.VectorType:
        return ir.VectorType(self.context.get_value_type(kind), self.lanes)

    def _whole(self, number: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(_I32, self.lanes), [number] * self.lanes)

    def _call(self, name: str, vector: Vector) -> Vector:
        function = self.builder.module.declare_intrinsic(
            f"{name}.v{self.lanes}f64", fnty=ir.FunctionType(self.type, [self.type])
        )
        return Vector(self.builder, self.builder.call(function, [vector.value]))


class Running:
    """The running numbers of one block of pixels: one per vector, or p, s1, s2 per vector."""

    def __init__(self, code: Pixels, how: int, vectors: int) -> None:
        self._code = code
        self._how = how
        self._slots = [
            [cgutils.alloca_once(code.builder, code.type) for _ in range(3 if how == len(STD) else 1)]
            for _ in range(vectors)
        ]

    def __getitem__(self, place: tuple[int, int]) -> Vector:
        vector, state = place
        return Vector(self._code.builder, self._code.builder.load(self._slots[vector][state]))

    def __setitem__(self, place: tuple[int, int], value: Vector) -> None:
        vector, state = place
        self._code.builder.store(value.value, self._slots[vector][state])

    def clear(self, *, pivots: bool) -> None:
        """Begin a sum, a maximum or a minimum; p as well, or only s1 and s2."""
        start = {len(MAX): float("-inf"), len(MIN): float("inf")}.get(self._how, 0.0)
        for vector, slots in enumerate(self._slots):
            for state in range(0 if pivots or len(slots) == 1 else 1, len(slots)):
                self[vector, state] = self._code.fill(start)

    def copy_pivots(self, other: Running) -> None:
        """Take p of other sums."""
        if self._how == len(STD):
            for vector in range(len(self._slots)):
                self[vector, 0] = other[vector, 0]

    def add(self, vector: int, pixels: Vector, weight: Vector) -> None:
        """Take in one tile's pixels."""
        if self._how == len(MEAN):
            self[vector, 0] = weight * pixels + self[vector, 0]
        elif self._how == len(STD):
            off = pixels - self[vector, 0]
            weighted = weight * off
            self[vector, 1] = self[vector, 1] + weighted
            self[vector, 2] = weighted * off + self[vector, 2]
        else:
            self[vector, 0] = self._code.pick(">" if self._how == len(MAX) else "<", self[vector, 0], pixels)

    def add_row(self, row: Running, weight: Vector | None) -> None:
        """Take in the sums over one row of tiles."""
        for vector, slots in enumerate(self._slots):
            if self._how in (len(MAX), len(MIN)):
                self.add(vector, row[vector, 0], row[vector, 0])
                continue
            for state in range(0 if len(slots) == 1 else 1, len(slots)):
                term = row[vector, state]
                self[vector, state] = self[vector, state] + (term if weight is None else weight * term)

    def minus_themselves(self) -> Vector:
        """Return the sum of s - s over all sums s but the pivots."""
        total = self._code.zero()
        for vector, slots in enumerate(self._slots):
            for state in range(0 if len(slots) == 1 else 1, len(slots)):
                total = total + (self[vector, state] - self[vector, state])
        return total

    def load(self, pointer: ir.Value, step: ir.Value) -> None:
        """Take up what an earlier piece handed on; `step` numbers lie between the states."""
        self._each(pointer, step, lambda place, address: self.__setitem__(place, self._code.load(address)))

    def store(self, pointer: ir.Value, step: ir.Value) -> None:
        """Hand on."""
        self._each(pointer, step, lambda place, address: self._code.store(self[place], address))

    def _each(self, pointer: ir.Value, step: ir.Value, act: Callable[[tuple[int, int], ir.Value], None]) -> None:
        for vector, slots in enumerate(self._slots):
            address = self._code.at(pointer, vector * self._code.lanes)
            for state in range(len(slots)):
                act((vector, state), address)
                address = self._code.at(address, step)
