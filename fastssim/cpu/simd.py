"""SIMD vectors with Python's operators, for kernels that Numba's own loops do not vectorise well.

A kernel written as ``numba.extending.intrinsic`` emits LLVM IR; here a ``Vector`` holds one LLVM vector value and
``+ - * /`` emit the instruction, so that the formula in the kernel reads as it does on paper. A product whose
only use is a sum becomes one fused multiply-add (flag ``contract``); nothing else is re-ordered or relaxed, so NaN,
infinity and results are what the source says.
"""

from __future__ import annotations

import os
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload, register_jitable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FLAGS = ("contract",)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
X86 = llvm.get_process_triple().startswith("x86_64")
SETTLED = 14  # vectors at once, of 16: one for a tap, one for what is under way
_HURRY = 1500  # looks, some 70 us, before a thread that waits lets others have its core
_ATTENTION = 4000  # looks, some 190 us, before a thread that listens for the next call gives up


@cache
def vector_bytes() -> int:
    """Width of one SIMD register of the processor that Numba compiles for."""
    if config.CPU_NAME is None:
        return 64 if llvm.get_host_cpu_features().get("avx512f") else 32
    return 64 if "+avx512f" in (config.CPU_FEATURES or "") else 32


@cache
def few_registers() -> bool:
    """Tell whether there are just 16 SIMD registers, of 256 bits: LLVM then wants help to make do with them."""
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
    return X86 and vector_bytes() == 32 and "+avx" in features


def lanes(dtype: types.Float) -> int:
    """How many numbers of `dtype` one SIMD register holds."""
    return int(vector_bytes() * 8 // dtype.bitwidth)


def wanted(argument: types.Type) -> bool:
    """Tell whether an optional argument of a kernel is there (None has a type of its own)."""
    return not isinstance(argument, types.NoneType)


def given(there: Any, value: Any) -> Any:
    """Return a value, or None where `there` is None."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(given)
def _(there: Any, value: Any) -> Any:
    def nothing(there: Any, value: Any) -> None:
        return None

    def something(there: Any, value: Any) -> Any:
        return value

    return something if wanted(there) else nothing


class Vector:
    """One SIMD value inside a kernel under construction."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FLAGS))

    def times(self, other: Vector) -> Vector:
        """Multiply and round at once, whatever the product is used for."""
        return Vector(self.builder, self.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fdiv(self.value, other.value))


class Code:
    """Loads, stores and constants of one kernel under construction, for numbers of one floating-point type."""

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Float, count: int = 0) -> None:
        self.context = context
        self.builder = builder
        self.kind = dtype
        self.scalar = context.get_value_type(dtype)
        self.lanes = count or lanes(dtype)  # more than a register's are worked in several
        self.type = ir.VectorType(self.scalar, self.lanes)
        self._align = dtype.bitwidth // 8
        self._align_stack()

    def _align_stack(self) -> None:
        """Have vectors that leave the registers for a while lie within one cache line each.

        LLVM leaves the stack as the caller had it, at a multiple of 16 bytes, where one of 64 lies across two lines.
        """
        attributes = self.builder.function.attributes
        attributes.add("nounwind")  # llvmlite leaves alignment out where it is the only attribute
        attributes.alignstack = max(16, vector_bytes())

    def data(self, array_type: types.Array, array: ir.Value) -> ir.Value:
        """Pointer to the first number of a contiguous array."""
        return cgutils.create_struct_proxy(array_type)(self.context, self.builder, array).data

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Pointer `offset` numbers further."""
        return self.builder.gep(pointer, [ir.Constant(_I64, offset) if isinstance(offset, int) else offset])

    def load(self, pointer: ir.Value) -> Vector:
        """Load one vector; the address need not be aligned."""
        wide = self.builder.bitcast(pointer, self.type.as_pointer())
        return Vector(self.builder, self.builder.load(wide, align=self._align))

    def store(self, vector: Vector, pointer: ir.Value) -> None:
        """Store one vector; the address need not be aligned."""
        wide = self.builder.bitcast(pointer, self.type.as_pointer())
        self.builder.store(vector.value, wide, align=self._align)

    def widened(self, vector: Vector) -> Vector:
        """Convert narrower numbers."""
        same = vector.value.type == self.type
        return vector if same else Vector(self.builder, self.builder.fpext(vector.value, self.type))

    def narrowed(self, vector: Vector) -> Vector:
        """Round wider numbers."""
        same = vector.value.type == self.type
        return vector if same else Vector(self.builder, self.builder.fptrunc(vector.value, self.type))

    def prefetch(self, pointer: ir.Value, *, to_write: bool = False) -> None:
        """Ask for the memory at an address, which need not exist; for it alone, where it is to be written."""
        byte = ir.IntType(8).as_pointer()
        function = self.builder.module.declare_intrinsic(
            "llvm.prefetch.p0", fnty=ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        )
        write, keep, data = (ir.Constant(_I32, number) for number in (int(to_write), 3, 1))
        self.builder.call(function, [self.builder.bitcast(pointer, byte), write, keep, data])

    def settled(self, vectors: Sequence[Vector]) -> list[Vector]:
        """Have vectors, at most `SETTLED`, in registers here: what uses the result comes after all that they are.

        LLVM mixes independent sums to have more under way than registers hold, and stores and loads them many times. No
        instruction is emitted.
        """
        kinds = [vector.value.type for vector in vectors]
        places = ["=x"] * len(kinds) + [str(number) for number in range(len(kinds))]
        result = kinds[0] if len(kinds) == 1 else ir.LiteralStructType(kinds)
        values = [vector.value for vector in vectors]
        found = self.builder.asm(ir.FunctionType(result, kinds), "", ",".join(places), values, True)  # noqa: FBT003  # has effects: stays put
        if len(kinds) == 1:
            return [Vector(self.builder, found)]
        return [Vector(self.builder, self.builder.extract_value(found, number)) for number in range(len(kinds))]

    def splat(self, scalar: ir.Value) -> Vector:
        """Fill a vector with one number."""
        builder = self.builder
        one = builder.insert_element(ir.Constant(self.type, ir.Undefined), scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), None)
        return Vector(builder, builder.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), zeros))

    def splats(self, scalars: ir.Value, count: int) -> list[Vector]:
        """Fill one vector with each number of a tuple."""
        return [self.splat(self.builder.extract_value(scalars, index)) for index in range(count)]

    def zero(self) -> Vector:
        """Return the zero vector."""
        return Vector(self.builder, ir.Constant(self.type, None))

    def one(self) -> Vector:
        """Return the vector of ones."""
        return self.number(1)

    def strip_mask(self, strip: ir.Value, vector: ir.Value, first: ir.Value, last: ir.Value) -> ir.Value:
        """Choose the lanes l with first <= l * strip + vector < last."""
        builder = self.builder
        lane = ir.Constant(ir.VectorType(_I32, self.lanes), list(range(self.lanes)))
        # One comparison without signs, c - first < last - first, as one with signs: AVX2 has no other.
        least = ir.Constant(_I64, -(1 << 31))
        start = builder.sub(builder.mul(lane, self._integers(strip)), self._integers(builder.sub(first, least)))
        count = builder.sub(last, first)
        some = builder.icmp_signed(">", count, ir.Constant(_I64, 0))
        end = builder.select(some, builder.add(count, least), least)
        return builder.icmp_signed("<", builder.add(start, self._integers(vector)), self._integers(end))

    def _integers(self, number: ir.Value) -> ir.Value:
        """Fill a vector of 32-bit integers with one number."""
        builder = self.builder
        wide = ir.VectorType(_I32, self.lanes)
        small = builder.trunc(number, _I32)
        one = builder.insert_element(ir.Constant(wide, ir.Undefined), small, ir.Constant(_I32, 0))
        return builder.shuffle_vector(one, ir.Constant(wide, ir.Undefined), ir.Constant(wide, None))

    def rotate(self, vector: Vector) -> Vector:
        """Give every lane its right neighbour's number, and the last lane the first one's."""
        return self._pick(vector, vector, [*range(1, self.lanes), 0])

    def joined(self, half_row: Callable[[int], ir.Value]) -> list[Vector]:
        """Load as many rows as a vector has lanes, each half as long, for `transpose`: two in every vector.

        half_row: pointer to the row of a number.
        """
        block = 16 // self._align  # lanes of 128 bits
        half = Code(self.context, self.builder, self.kind, self.lanes // 2)
        firsts = [place // block * 2 * block + place % block for place in range(half.lanes)]
        both = list(range(self.lanes))
        return [self._pick(half.load(half_row(first)), half.load(half_row(first + block)), both) for first in firsts]

    def transpose(self, vectors: Sequence[Vector]) -> list[Vector]:
        """Transpose a square, as many vectors as one has lanes, or what `joined` gives: half as many columns.

        First inside blocks of 128 bits, numbers and then pairs of numbers of two vectors by turns; then whole blocks.
        Every step is one instruction on x86.
        """
        block = 16 // self._align  # lanes of 128 bits
        blocks = self.lanes // block
        starts = range(0, self.lanes, block)
        square = list(vectors)
        distance = 1
        while distance < block:
            halves = []
            for half in (0, block // 2):
                places = range(half, half + block // 2, distance)
                halves.append([
                    source + start + place + i
                    for start in starts
                    for place in places
                    for source in (0, self.lanes)
                    for i in range(distance)
                ])  # fmt: skip
            square = self._exchange(square, distance, 1, halves)
            distance *= 2
        steps = {1: (), 2: (((0,), (1,)),), 4: (((0, 1), (2, 3)), ((0, 2), (1, 3)))}[blocks]
        if len(square) < self.lanes:  # rows have been joined as the first of these steps would
            steps = steps[1:]
        for number, chosen in enumerate(steps):
            halves = [
                [source + place * block + i for source in (0, self.lanes) for place in places for i in range(block)]
                for places in chosen
            ]
            square = self._exchange(square, 1 << number, block, halves)
        return square

    def _exchange(
        self, square: list[Vector], distance: int, unit: int, halves: Sequence[Sequence[int]]
    ) -> list[Vector]:
        """Replace vectors i and i + distance, of units of vectors, by the two picks from them, side by side."""
        result = list(square)
        for start in range(0, len(square) // unit, 2 * distance):
            for i in range(distance):
                for row in range(unit):
                    first = square[(start + i) * unit + row]
                    second = square[(start + i + distance) * unit + row]
                    for which, places in enumerate(halves):
                        result[(start + 2 * i + which) * unit + row] = self._pick(first, second, places)
        return result

    def _pick(self, first: Vector, second: Vector, places: Sequence[int]) -> Vector:
        """Pick lanes of two vectors laid end to end."""
        mask = ir.Constant(ir.VectorType(_I32, self.lanes), list(places))
        return Vector(self.builder, self.builder.shuffle_vector(first.value, second.value, mask))

    def above(self, vector: Vector, other: Vector) -> ir.Value:
        """Choose the lanes in which `vector` is greater."""
        return self.builder.fcmp_ordered(">", vector.value, other.value)

    def any(self, masks: Sequence[ir.Value]) -> ir.Value:
        """Tell whether a lane is set in any of the masks."""
        bits = self.builder.bitcast(reduce(self.builder.or_, masks), ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    def finite(self, vector: Vector) -> ir.Value:
        """Choose the lanes that are neither NaN nor infinite."""
        nothing = vector - vector  # NaN and infinity minus themselves are NaN
        return self.builder.fcmp_ordered("==", nothing.value, self.zero().value)

    def sum(self, vectors: Sequence[Vector]) -> Vector:
        """Add vectors in pairs, then the pairs."""
        while len(vectors) > 1:
            pairs = [first + second for first, second in zip(vectors[::2], vectors[1::2], strict=False)]
            vectors = pairs + list(vectors[len(vectors) // 2 * 2 :])
        return vectors[0]

    def number(self, value: float) -> Vector:
        """Fill a vector with a number known now."""
        return self.splat(ir.Constant(self.scalar, value))

    def absolute(self, vector: Vector) -> Vector:
        """Return the vector without its signs."""
        kind = {4: "f32", 8: "f64"}[self._align]
        function = self.builder.module.declare_intrinsic(
            f"llvm.fabs.v{self.lanes}{kind}", fnty=ir.FunctionType(self.type, [self.type])
        )
        return Vector(self.builder, self.builder.call(function, [vector.value]))

    def select(self, mask: ir.Value, chosen: Vector, other: Vector) -> Vector:
        """Take `chosen` where the mask is set, `other` elsewhere."""
        return Vector(self.builder, self.builder.select(mask, chosen.value, other.value))

    def sum_lanes(self, vector: Vector) -> ir.Value:
        """Return the sum of a vector's lanes, halves added to halves."""
        total = vector
        width = self.lanes
        while width > 1:
            width //= 2
            lower, upper = (
                self.builder.shuffle_vector(
                    total.value,
                    ir.Constant(total.value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width))),
                )
                for start in (0, width)
            )
            total = Vector(self.builder, lower) + Vector(self.builder, upper)
        return self.builder.extract_element(total.value, ir.Constant(_I32, 0))


@intrinsic
def count_up(typing: Any, address: Any) -> Any:
    """Return the 64-bit number at an address and add one to it, as one step for all threads.

    What a thread wrote before is seen by one that sees the sum.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        number = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", number, ir.Constant(_I64, 1), "acq_rel")

    return types.int64(types.int64), codegen


@intrinsic
def look(typing: Any, address: Any) -> Any:
    """Return the 64-bit number at an address as other threads last left it, after a moment's pause."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if X86:
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=pause), [])
        return builder.load_atomic(builder.inttoptr(args[0], _I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def step_aside(typing: Any) -> Any:
    """Let another thread have this core, if one waits for it and the system can be asked to."""

    def codegen(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(_I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@register_jitable
def begin_turns(counts: int, leads: int) -> None:
    """Begin a kernel by turns: call the threads that listen.

    leads: 1 in the thread that called, 0 in another, -1 where there is no other; see `fastssim.cpu.pool.run_in_turns`.
    """
    if leads > 0:
        count_up(look(counts + 24))


@register_jitable
def next_slab(counts: int, slabs: int, stretches: int) -> int:
    """Take the next slab and return its number, or -1 where none is left.

    By turns of as many stretches of neighbouring slabs, so that threads work far apart as long as all are as fast.
    counts: address of how many slabs are taken, and how many done, see `count_up`.
    """
    turn = count_up(counts)
    if turn >= slabs:
        return -1
    step, stretch = divmod(turn, stretches)
    length, longer = divmod(slabs, stretches)
    return stretch * length + min(stretch, longer) + step  # type: ignore[no-any-return]


@register_jitable
def slab_done(counts: int) -> None:
    """Say that a slab is done."""
    count_up(counts + 8)


@register_jitable
def end_turns(counts: int, slabs: int, leads: int) -> None:
    """End a kernel by turns: wait for all slabs in the thread that `leads`, in another, for a while, for the next call.

    A forward is followed by its backward, a frame by the next, sooner than a thread that sleeps is woken. So that it
    hears of it here, the interpreter's lock is free when the next call begins.
    """
    looks = 0
    if leads:
        while look(counts + 8) < slabs:
            looks += 1
            if looks > _HURRY:
                step_aside()
        return
    bell = look(counts + 24)
    heard = look(bell)
    while looks < _ATTENTION and look(bell) == heard:
        looks += 1
        if looks % 16 == 0:
            step_aside()
