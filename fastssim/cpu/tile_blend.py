"""Blend overlapping tiles (Numba).

Blending gathers. For an output pixel (y, x), covered by the tiles (i, j) with origins r_i, c_j and pixels
t_ij = tiles[i, j, y - r_i, x - c_j], with weights a_i = a[i, y - r_i] and b_j = b[j, x - c_j] that sum to 1,

    mean = sum_i a_i (sum_j b_j t_ij)            max, min likewise, without weights
    s1 = sum_i a_i sum_j b_j (t_ij - p)          s2 = sum_i a_i sum_j b_j (t_ij - p)^2         p the first t_ij
    std  = sqrt(s2 - s1^2)                       mean = p + s1

One SIMD lane is one pixel, one loop the tiles that cover it, in row-major order; sums are float64 and stay in
registers. Nothing is added up in memory, so there is no zero-fill, no map of counts, and no order that threads could
change. A window W that is not separable has a_i = 1, W in place of b_j, and is divided by sum_ij W at the end.

Where tiles come piece by piece, the tiles i of ia .. ib-1 and j of ja .. jb-1 are at hand. A pixel whose earlier tiles
of the same row of tiles were in another piece takes up its inner sum from `carry`; one whose earlier rows of tiles were
takes up the outer sum from `band`; and each hands on in the same way what it cannot finish. Sums are therefore the
same to the last bit however the tiles were cut into pieces.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastssim.cpu.jit import kept as jit
from fastssim.cpu.simd import Vector, begin_turns, count_up, end_turns, lanes, next_slab, slab_done, wanted
from fastssim.cpu.tile_sums import MEAN, STD, Pixels, Running

if TYPE_CHECKING:
    from collections.abc import Iterator

# As MEAN and the others, these tell the compiler what to compile.
_SINGLE: tuple[int, ...] = ()  # one pixel, where few share the same tiles
_VECTOR, _WIDE = (0,), (0, 0)  # one register of pixels, VECTORS registers
VECTORS = 4

_I64 = ir.IntType(64)


class Cover(NamedTuple):
    """Tiles: rows of tiles i0 .. i1-1, columns of tiles j0 .. j1-1."""

    i0: Any
    i1: Any
    j0: Any
    j1: Any


class Flags(NamedTuple):
    """Whether a block is begun and finished here, or its sums are taken up and handed on."""

    first_rows: Any  # no rows of tiles came before
    first_tiles: Any  # no tiles of this row of tiles came before
    rows_to_come: Any
    tiles_to_come: Any


class Steps(NamedTuple):
    """Numbers between the states (p, s1, s2) of the sums that are taken up and handed on."""

    band_in: Any
    band_out: Any
    carry_in: Any
    carry_out: Any


class Places(NamedTuple):
    """Where pixel (y, x) is, in numbers from the beginning of each array."""

    tiles: Any  # of a tile that would begin at (0, 0)
    y: Any  # in the weights down
    x: Any  # in the weights across
    full: Any  # in the window that is not separable
    band_in: Any
    band_out: Any
    carry_in: Any
    carry_out: Any
    out: Any
    ahead: Any  # from here to what will be read soon: this place one row below


class Tables(NamedTuple):
    """Offsets and weights, flat or [.., 2]."""

    rows: Any  # [I, 2]: what a row of tiles adds to the place in tiles, and to that in its weights
    columns: Any  # [J, 2]: the same for a column of tiles
    weights_y: Any
    weights_x: Any
    full: Any  # or None


class Sinks(NamedTuple):
    """Arrays that sums are taken from and go to, flat."""

    band_in: Any
    band_out: Any
    carry_in: Any
    carry_out: Any
    out: Any
    deviation: Any  # or None


class _Block:
    """The code that blends one block of pixels of one row; the arguments are those of `_gather`."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> None:
        block, how, self._tiles_kind, tables, _, _, _, _, sinks, _ = kinds
        _, _, self._tiles_value, tables_value, cover, part, flags, places, sinks_value, steps = values

        def fields(form: Any, value: ir.Value) -> Any:
            return form(*(builder.extract_value(value, index) for index in range(len(form._fields))))

        self._builder = builder
        self._table_kinds, self._tables = Tables(*tables.types), fields(Tables, tables_value)
        self._sink_kinds, self._sinks = Sinks(*sinks.types), fields(Sinks, sinks_value)
        self._cover, self._part = fields(Cover, cover), fields(Cover, part)
        self._flags, self._at, self._steps = fields(Flags, flags), fields(Places, places), fields(Steps, steps)
        self._how = len(how)
        self._vectors = VECTORS if len(block) == len(_WIDE) else 1
        self._code = Pixels(context, builder, 1 if len(block) == len(_SINGLE) else lanes(types.float64))
        self._acc, self._row = (Running(self._code, self._how, self._vectors) for _ in range(2))
        self._zeros = cgutils.alloca_once(builder, self._code.type)

    def emit(self) -> ir.Value:
        """Blend the block as far as the tiles at hand allow; return 1 where a sum is NaN or infinite, else 0."""
        builder, flags = self._builder, self._flags
        builder.store(self._code.zero().value, self._zeros)
        self._begin()
        with self._loop(self._part.i0, self._part.i1) as i:
            self._begin_row()
            with self._loop(self._part.j0, self._part.j1) as j:
                weights = self._weights(i, j)
                for vector in range(self._vectors):
                    self._row.add(vector, self._pixels(i, j, vector), self._load(weights, vector))
                self._ask_for(self._code.at(self._tile(i, j), self._at.ahead))
            with builder.if_else(flags.tiles_to_come) as (then, otherwise):
                with then:
                    self._look_at(self._row)
                    self._row.store(self._sink("carry_out"), self._steps.carry_out)
                with otherwise:
                    self._acc.add_row(self._row, self._weight_down(i))
        with builder.if_then(builder.not_(flags.tiles_to_come)):
            self._look_at(self._acc)
            with builder.if_else(flags.rows_to_come) as (then, otherwise):
                with then:
                    self._acc.store(self._sink("band_out"), self._steps.band_out)
                with otherwise:
                    self._finish()
        return self._code.some_nan(Vector(builder, builder.load(self._zeros)))

    def _ask_for(self, pointer: ir.Value) -> None:
        """Ask for the memory of a block of pixels, every line of the cache that it may touch."""
        line = 512 // self._tiles_kind.dtype.bitwidth
        for pixel in range(0, self._vectors * self._code.lanes + line, line):
            self._code.prefetch(self._code.at(pointer, pixel))

    def _look_at(self, sums: Running) -> None:
        """Add s - s of every sum to the zeros: it is NaN where the sum is NaN or infinite."""
        if self._how in (len(MEAN), len(STD)):  # a maximum may drop what is infinite
            zeros = Vector(self._builder, self._builder.load(self._zeros))
            self._builder.store((zeros + sums.minus_themselves()).value, self._zeros)

    def _begin(self) -> None:
        """Begin the outer sum, or take it up."""
        with self._builder.if_else(self._flags.first_rows) as (then, otherwise):
            with then:
                self._acc.clear(pivots=True)
                if self._how == len(STD):
                    for vector in range(self._vectors):
                        self._acc[vector, 0] = self._pixels(self._part.i0, self._part.j0, vector)
            with otherwise:
                self._acc.load(self._sink("band_in"), self._steps.band_in)

    def _begin_row(self) -> None:
        """Begin the inner sum, or take it up."""
        with self._builder.if_else(self._flags.first_tiles) as (then, otherwise):
            with then:
                self._row.clear(pivots=False)
                self._row.copy_pivots(self._acc)
            with otherwise:
                self._row.load(self._sink("carry_in"), self._steps.carry_in)
                with self._builder.if_then(self._flags.first_rows):
                    self._acc.copy_pivots(self._row)

    def _finish(self) -> None:
        """Divide where the weights were not divided beforehand, and write."""
        code = self._code
        norm = self._norm() if wanted(self._table_kinds.full) and self._how in (len(MEAN), len(STD)) else None
        for vector in range(self._vectors):
            states = [self._acc[vector, state] for state in range(3 if self._how == len(STD) else 1)]
            if norm is not None:
                states = [*states[:-2], *(state / norm[vector, 0] for state in states[-2:])]
            value = states[0]
            if self._how == len(STD):
                pivot, s1, s2 = states
                value = pivot + s1
                variance = code.pick(">", code.zero(), s2 - s1 * s1)  # rounding may leave it below 0
                code.put(self._sink_kinds.deviation.dtype, code.root(variance), self._output("deviation", vector))
            code.put(self._sink_kinds.out.dtype, value, self._output("out", vector))

    def _norm(self) -> Running:
        """Sum the weights of all tiles that cover the block."""
        norm = Running(self._code, len(MEAN), self._vectors)
        norm.clear(pivots=True)
        with self._loop(self._cover.i0, self._cover.i1) as i, self._loop(self._cover.j0, self._cover.j1) as j:
            weights = self._weights(i, j)
            for vector in range(self._vectors):
                norm[vector, 0] = norm[vector, 0] + self._load(weights, vector)
        return norm

    @contextmanager
    def _loop(self, begin: ir.Value, end: ir.Value) -> Iterator[ir.Value]:
        with cgutils.for_range_slice(self._builder, begin, end, ir.Constant(_I64, 1), inc=True) as (index, _):
            yield index

    def _entry(self, table: str, index: ir.Value, which: int) -> ir.Value:
        """Entry [index, which] of the offsets of rows or columns of tiles."""
        data = self._code.data(getattr(self._table_kinds, table), getattr(self._tables, table))
        place = self._builder.add(self._builder.mul(index, ir.Constant(_I64, 2)), ir.Constant(_I64, which))
        return self._builder.load(self._code.at(data, place))

    def _tile(self, i: ir.Value, j: ir.Value) -> ir.Value:
        """Address of the block in tile (i, j)."""
        offset = self._builder.add(self._entry("rows", i, 0), self._entry("columns", j, 0))
        return self._code.at(
            self._code.data(self._tiles_kind, self._tiles_value), self._builder.add(offset, self._at.tiles)
        )

    def _pixels(self, i: ir.Value, j: ir.Value, vector: int) -> Vector:
        return self._code.take(self._tiles_kind.dtype, self._code.at(self._tile(i, j), vector * self._code.lanes))

    def _weights(self, i: ir.Value, j: ir.Value) -> ir.Value:
        """Address of the block's weights in tile (i, j): b_j, or W."""
        builder = self._builder
        name, offset = "weights_x", builder.add(self._entry("columns", j, 1), self._at.x)
        if wanted(self._table_kinds.full):
            name, offset = "full", builder.add(self._entry("columns", j, 1), self._at.full)
            offset = builder.add(offset, self._entry("rows", i, 1))
        return self._code.at(self._code.data(getattr(self._table_kinds, name), getattr(self._tables, name)), offset)

    def _weight_down(self, i: ir.Value) -> Vector | None:
        """a_i, or None where it is 1."""
        if wanted(self._table_kinds.full):
            return None
        data = self._code.data(self._table_kinds.weights_y, self._tables.weights_y)
        place = self._builder.add(self._entry("rows", i, 1), self._at.y)
        return self._code.splat(self._builder.load(self._code.at(data, place)))

    def _load(self, pointer: ir.Value, vector: int) -> Vector:
        return self._code.load(self._code.at(pointer, vector * self._code.lanes))

    def _sink(self, name: str) -> ir.Value:
        data = self._code.data(getattr(self._sink_kinds, name), getattr(self._sinks, name))
        return self._code.at(data, getattr(self._at, name))

    def _output(self, name: str, vector: int) -> ir.Value:
        data = self._code.data(getattr(self._sink_kinds, name), getattr(self._sinks, name))
        return self._code.at(self._code.at(data, self._at.out), vector * self._code.lanes)


@intrinsic
def _gather(
    typing: Any, block: Any, how: Any, tiles: Any, tables: Any, cover: Any, part: Any, flags: Any, places: Any,
    sinks: Any, steps: Any,
) -> Any:  # fmt: skip
    """Blend one block of pixels of one row as far as the tiles at hand allow; see `_Block.emit`.

    block: _SINGLE, _VECTOR or _WIDE. how: MEAN, MAX, MIN or STD. tiles: flat. cover: all tiles that cover the block;
    part: those at hand among them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _Block(context, builder, signature.args, args).emit()

    return types.int64(block, how, tiles, tables, cover, part, flags, places, sinks, steps), codegen


class Layout(NamedTuple):
    """How one call's arrays lie: the canvas row or column each begins at, its numbers a row, its channel's place."""

    band_in: Any  # the channel's places
    band_out: Any
    carry_in: Any
    carry_out: Any
    tiles: Any
    out: Any
    tile_pitch: Any
    band_pitch: Any
    carry_in_pitch: Any
    carry_out_pitch: Any
    out_pitch: Any
    band_in_row: Any
    band_out_row: Any
    carry_row: Any
    carry_in_column: Any
    carry_out_column: Any
    out_row: Any
    out_column: Any
    ahead: Any  # from a block's place in a tile to what will be read soon
    together: Any  # spans of columns that are taken down the rows together


@jit
def gather_rows(
    how: Any, tiles: Any, tables: Any, covered: Any, spans: Any, part: Any, y0: int, y1: int, layout: Any, sinks: Any,
    steps: Any,
) -> int:  # fmt: skip
    """Blend canvas rows y0 .. y1-1 of one channel as far as the tiles of `part`, a Cover, allow.

    Returns 1 where a sum is NaN or infinite; 0 where none is, and for MAX and MIN.

    how: MEAN, MAX, MIN or STD. tiles: flat. covered [Y, 2]: first covering row of tiles and the end. spans [S, 4]:
    columns with the same covering tiles, begin and end, and these tiles, begin and end.
    """
    at = layout
    count = lanes_of_double()
    not_finite = 0
    for group in range(0, len(spans), at.together):
        for y in range(y0, y1):
            i_first, i_last = covered[y, 0], covered[y, 1]
            i0, i1 = max(i_first, part.i0), min(i_last, part.i1)
            for span in range(group, min(group + at.together, len(spans))):
                x, x1, j_first, j_last = spans[span, 0], spans[span, 1], spans[span, 2], spans[span, 3]
                j0, j1 = max(j_first, part.j0), min(j_last, part.j1)
                if i0 >= i1 or j0 >= j1:
                    continue
                cover, here = Cover(i_first, i_last, j_first, j_last), Cover(i0, i1, j0, j1)
                flags = Flags(i0 == i_first, j0 == j_first, i1 < i_last, j1 < j_last)
                width = x1 - x
                step = count * VECTORS if width >= count * VECTORS else count if width >= count else 1
                while x < x1:
                    x = min(x, x1 - step)  # pixels met twice come out the same twice: nothing read is written
                    places = Places(
                        at.tiles + y * at.tile_pitch + x,
                        y,
                        x,
                        y * at.tile_pitch + x,
                        at.band_in + (y - at.band_in_row) * at.band_pitch + x,
                        at.band_out + (y - at.band_out_row) * at.band_pitch + x,
                        at.carry_in + (y - at.carry_row) * at.carry_in_pitch + x - at.carry_in_column,
                        at.carry_out + (y - at.carry_row) * at.carry_out_pitch + x - at.carry_out_column,
                        at.out + (y - at.out_row) * at.out_pitch + x - at.out_column,
                        at.ahead,
                    )
                    if step == count * VECTORS:
                        not_finite |= _gather(_WIDE, how, tiles, tables, cover, here, flags, places, sinks, steps)
                    elif step == count:
                        not_finite |= _gather(_VECTOR, how, tiles, tables, cover, here, flags, places, sinks, steps)
                    else:
                        not_finite |= _gather(_SINGLE, how, tiles, tables, cover, here, flags, places, sinks, steps)
                    x += step
    return not_finite


@jit
def gather_slabs(
    counts: int, slabs: int, leads: int, height: int, bounds: Any, how: Any, tiles: Any, tables: Any, covered: Any,
    spans: Any, part: Any, layout: Any, planes: Any, sinks: Any, steps: Any,
) -> None:  # fmt: skip
    """Blend slabs of `height` canvas rows of one channel, by turns, see `fastssim.cpu.pool.run_in_turns`.

    The third of the counts is how many slabs hold a sum that is NaN or infinite. bounds: canvas rows y0 .. y1-1; layout
    of the first channel; planes: numbers from one channel to the next of band_in, band_out, carry_in, carry_out, tiles
    and out.
    """
    y0, y1 = bounds
    at = layout
    blocks = -(-(y1 - y0) // height)
    begin_turns(counts, leads)
    slab = next_slab(counts, slabs, 1)
    while slab >= 0:
        channel, block = divmod(slab, blocks)
        first = y0 + block * height
        here = Layout(
            at.band_in + channel * planes[0], at.band_out + channel * planes[1], at.carry_in + channel * planes[2],
            at.carry_out + channel * planes[3], at.tiles + channel * planes[4], at.out + channel * planes[5],
            at.tile_pitch, at.band_pitch, at.carry_in_pitch, at.carry_out_pitch, at.out_pitch, at.band_in_row,
            at.band_out_row, at.carry_row, at.carry_in_column, at.carry_out_column, at.out_row, at.out_column,
            at.ahead, at.together,
        )  # fmt: skip
        end = min(first + height, y1)
        if gather_rows(how, tiles, tables, covered, spans, part, first, end, here, sinks, steps):
            count_up(counts + 16)
        slab_done(counts)
        slab = next_slab(counts, slabs, 1)
    end_turns(counts, slabs, leads)


@intrinsic
def lanes_of_double(typing: Any) -> Any:
    """Float64 numbers in one SIMD register."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_I64, lanes(types.float64))

    return types.int64(), codegen


@jit
def scatter_tiles(
    image: Any, rows: Any, columns: Any, begin: int, end: int, weights_y: Any, weights_x: Any, kinds_y: Any,
    kinds_x: Any, full: Any, out: Any,
) -> None:  # fmt: skip
    """Write a_i b_j image[y, x], the adjoint of the blended mean, into tiles begin .. end-1 of out [T, C, h, w].

    image [C, H, W]; weights_y [K, h], weights_x [K, w]; kinds_y, kinds_x: which of their rows is a tile's; full [h, w]
    or None stands in place of both.
    """
    for tile in range(begin, end):
        i, j = divmod(tile, len(columns))
        for channel in range(out.shape[1]):
            for row in range(out.shape[2]):
                source = image[channel, rows[i] + row, columns[j] : columns[j] + out.shape[3]]
                target = out[tile, channel, row]
                a = weights_y[kinds_y[i], row]
                b = weights_x[kinds_x[j]] if full is None else full[row]
                for column in range(out.shape[3]):
                    target[column] = a * b[column] * source[column]


@jit
def overflow(words: Any, exponents: Any, ones: Any) -> Any:
    """Add 1 to the exponent of every number in the 64-bit words: all bits set, as in NaN and infinity, it overflows.

    exponents: the bits of the exponents in a word; ones: the lowest of each. Returns all results combined by "or".
    """
    found = words.dtype.type(0)
    for word in words:
        found |= (word & exponents) + ones
    return found
