"""Filter passes of an image: moments of its pixels down and across, derivatives back down and across (Numba).

`fastssim.cpu.filters` has the formulae, `fastssim.cpu.ssim` the march that calls these, a few vectors at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.buffers import BLOCK, ROWS, pitch
from fastssim.cpu.filters import averages, filter_maps, means_and_variances, weighted_averages
from fastssim.cpu.formula import Formula, apply_formula
from fastssim.cpu.simd import Code, Vector, wanted
from fastssim.cpu.strips import tap_count, tap_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastssim.cpu.filters import Averaged, Averages, Term


@intrinsic
def moments_down(
    typing: Any, s: Any, d: Any, m: Any, start: Any, column: Any, taps: Any, taps_x: Any, constants: Any, out: Any
) -> Any:
    """Filter ROWS window rows down the columns at one vector of columns; s, d, m [row][pitch], out [ROWS][maps][pitch].

    out holds m_c, v_c of s, then of d and, unless the mask m is None, n_c; `start`: place of the first window row's
    first pixel row. constants: as `ssim_and_derivatives` takes them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, d_type, m_type, _, _, taps_type, taps_x_type, _, out_type = signature.args
        s_value, d_value, m_value, start_value, column_value, taps_value, _, constants_value, out_value = args
        code = Code(context, builder, s_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        target = code.at(code.data(out_type, out_value), column_value)

        def rows(array_type: Any, array: Any) -> Callable[[int], Vector]:
            first = code.at(code.at(code.data(array_type, array), start_value), column_value)
            return lambda row: code.load(code.at(first, row * step))

        pixels: list[Averaged] = [(rows(s_type, s_value), None), (rows(d_type, d_value), None)]
        if wanted(m_type):
            c2 = code.splat(builder.extract_value(constants_value, 3))

            def put(results: list[Averages], n: list[Vector]) -> None:
                put_rows(code, [*means_and_variances(results), n], target, step)

            weighted_averages(code, weights, ROWS, pixels, rows(m_type, m_value), c2, put, last=False)
        else:
            put_rows(code, means_and_variances(averages(code, weights, ROWS, pixels)), target, step)
        return context.get_dummy_value()

    return types.void(s, d, m, start, column, taps, taps_x, constants, out), codegen


@intrinsic
def moments_across(
    typing: Any, rows: Any, mask: Any, start: Any, vector: Any, taps: Any, constants: Any, grad_x: Any, out: Any
) -> Any:
    """Filter BLOCK vectors of a row across, [maps][pitch] from `start` on as `moments_down` left them.

    out, constants: as `ssim_and_derivatives` takes them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, mask_type, _, _, taps_type, constants_type, grad_x_type, out_type = signature.args
        rows_value, _, start_value, vector_value, taps_value, constants_value, _, out_value = args
        code = Code(context, builder, rows_type.dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        column = builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes))
        row = _row_of_maps(code, code.at(code.at(code.data(rows_type, rows_value), start_value), column), step)
        target = code.at(code.data(out_type, out_value), column)
        columns: list[Averaged] = [(row(0), row(1)), (row(2), row(3))]
        weights = tap_vectors(code, taps_type, taps_value)
        bases = code.splats(constants_value, len(constants_type))

        def put(results: list[Averages], n: list[Vector] | None = None) -> None:
            absolute = [
                vectors
                for one, base in zip(results, bases, strict=False)
                for vectors in (one.means(base), one.variances)
            ]
            about_pivots = [one.means() for one in results] if wanted(grad_x_type) else []
            for number, vectors in enumerate(absolute + about_pivots + ([n] if n else [])):
                for place, total in enumerate(vectors):
                    code.store(total, code.at(target, number * step + place * code.lanes))

        if wanted(mask_type):
            weighted_averages(code, weights, BLOCK, columns, row(4), bases[3], put, last=True)
        else:
            put(averages(code, weights, BLOCK, columns))
        return context.get_dummy_value()

    return types.void(rows, mask, start, vector, taps, constants, grad_x, out), codegen


@intrinsic
def ssim_across(
    typing: Any, rows: Any, start: Any, taps: Any, strip: Any, vector: Any, constants: Any, ranges: Any, total: Any,
    upstream: Any, weights: Any, ssim_map: Any, grad_x: Any, grad_y: Any, derivatives: Any, derivatives_start: Any,
) -> Any:  # fmt: skip
    """Filter BLOCK vectors as `moments_across` does without a mask, and apply the formula at once.

    From the strip on as for `ssim_and_derivatives`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, _, taps_type = signature.args[:3]
        rows_value, start_value, taps_value = args[:3]
        kind, value = Formula(*signature.args[3:]), Formula(*args[3:])
        code = Code(context, builder, rows_type.dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        column = builder.mul(value.vector, ir.Constant(value.vector.type, code.lanes))
        row = _row_of_maps(code, code.at(code.at(code.data(rows_type, rows_value), start_value), column), step)
        bases = code.splats(value.constants, len(kind.constants))
        s, d = averages(code, tap_vectors(code, taps_type, taps_value), BLOCK, [(row(0), row(1)), (row(2), row(3))])
        maps = [s.means(bases[0]), s.variances, d.means(bases[1]), d.variances]
        if wanted(kind.grad_x):
            maps += [s.means(), d.means()]
        sums = code.data(kind.total, value.total)
        total = code.load(sums)
        for place, vectors in enumerate(zip(*maps, strict=True)):
            here = value._replace(vector=builder.add(value.vector, ir.Constant(value.vector.type, place)))
            ssim, counted = apply_formula(code, step, kind, here, vectors)
            total = total + code.select(counted, ssim, code.zero())
        code.store(total, sums)
        return context.get_dummy_value()

    return (
        types.void(
            rows, start, taps, strip, vector, constants, ranges, total, upstream, weights, ssim_map, grad_x, grad_y,
            derivatives, derivatives_start,
        ),
        codegen,
    )  # fmt: skip


def _row_of_maps(code: Code, source: Any, step: int) -> Callable[[int], Callable[[int], Vector]]:
    """Return what loads the vector at a place of a map, of maps that lie `step` numbers apart."""
    return lambda number: lambda place: code.load(code.at(source, number * step + place * code.lanes))


@intrinsic
def adjoint_down(
    typing: Any, derivatives: Any, start: Any, column: Any, taps: Any, taps_x: Any, grad_y: Any, out: Any
) -> Any:
    """Filter ROWS rows of the derivatives down two vectors of columns; [row][maps][pitch] to out [ROWS][maps][pitch].

    `start` is the place of the first tap's row; `taps` come mirrored.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        derivatives_type, _, _, taps_type, taps_x_type, grad_y_type, out_type = signature.args
        derivatives_value, start_value, column_value, taps_value, _, _, out_value = args
        code = Code(context, builder, derivatives_type.dtype)
        step = pitch(tap_count(taps_x_type), code.lanes)
        maps = 4 if wanted(grad_y_type) else 3
        weights = tap_vectors(code, taps_type, taps_value)
        source = code.at(code.at(code.data(derivatives_type, derivatives_value), start_value), column_value)
        target = code.at(code.data(out_type, out_value), column_value)

        def rows(number: int, i: int) -> Term:
            return lambda row, _: code.load(code.at(source, (row * maps + number) * step + i * code.lanes))

        for number in range(maps):
            for i, sums in enumerate(filter_maps(code, weights, ROWS, [rows(number, i) for i in range(2)])):
                for r in range(ROWS):
                    code.store(sums[r], code.at(target, (r * maps + number) * step + i * code.lanes))
        return context.get_dummy_value()

    return types.void(derivatives, start, column, taps, taps_x, grad_y, out), codegen


@intrinsic
def adjoint_across(typing: Any, rows: Any, start: Any, vector: Any, taps: Any, maps: Any, out: Any) -> Any:
    """Filter BLOCK vectors of a row of maps across, [map][pitch] from `start` to the same place of out [map][pitch].

    `maps`: a tuple with one entry for each.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, _, _, taps_type, maps_type, out_type = signature.args
        rows_value, start_value, vector_value, taps_value, _, out_value = args
        code = Code(context, builder, rows_type.dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        weights = tap_vectors(code, taps_type, taps_value)
        column = builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes))
        source = code.at(code.at(code.data(rows_type, rows_value), start_value), column)
        target = code.at(code.data(out_type, out_value), column)
        count = len(maps_type)

        def row(plane: int) -> Term:
            return lambda place, _: code.load(code.at(source, plane * step + place * code.lanes))

        for first in range(0, count, 2):
            pair = range(first, min(first + 2, count))

            for plane, sums in zip(pair, filter_maps(code, weights, BLOCK, list(map(row, pair))), strict=True):
                for number, total in enumerate(sums):
                    code.store(total, code.at(target, plane * step + number * code.lanes))
        return context.get_dummy_value()

    return types.void(rows, start, vector, taps, maps, out), codegen


def put_rows(code: Code, maps: list[list[Vector]], target: Any, step: int) -> None:
    """Store ROWS rows of several maps, [ROWS][maps][pitch]."""
    for number, rows in enumerate(maps):
        for r, row in enumerate(rows):
            code.store(row, code.at(target, (len(maps) * r + number) * step))
