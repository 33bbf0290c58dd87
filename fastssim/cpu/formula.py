"""SSIM, its derivatives and the gradient's pixels, of filtered maps, vector by vector (Numba).

With pivots px, py, x' = x - px, y' = y - py, and a separable window w:

    s = x' + y'      d = x' - y'
    m_s = w*s   m_d = w*d   e_s = w*s^2   e_d = w*d^2        four filtered maps
    v_s = e_s - m_s^2       v_d = e_d - m_d^2
    M = mu_x + mu_y = m_s + px + py         Q = mu_x - mu_y = m_d + px - py
    A = 2 mu_x mu_y + C1 = (M^2 - Q^2)/2 + C1          B = mu_x^2 + mu_y^2 + C1         = A + Q^2
    C = 2 sigma_xy + C2  = (v_s - v_d)/2 + C2          D = sigma_x^2 + sigma_y^2 + C2   = C + v_d
    SSIM = A C / (B D)

B and D are written as A and C plus a square, so that SSIM(x, x) is exactly 1. Its derivatives by the maps, also exactly
zero in Q and v_d where x = y:

    f_ms = C/D M Q^2 / B^2          q_s = df/dv_s =  A/B v_d / (2 D^2)          p_s = f_ms - 2 m_s q_s
    f_md = -C/D Q (A + B) / B^2     q_d = df/dv_d = -A/B (C + D) / (2 D^2)      p_d = f_md - 2 m_d q_d

and the adjoint of the filters, w' being w mirrored:

    dL/dx = w'*(p_s + p_d) + 2 s (w'*q_s) + 2 d (w'*q_d)
    dL/dy = w'*(p_s - p_d) + 2 s (w'*q_s) - 2 d (w'*q_d)

Unbiased variances carry a factor u: v_s = u (e_s - m_s^2), and q_s, q_d are the derivatives times u.
With a mask m, n = w*m, every filtered map is w*(m ...) / n, every derivative is divided by n before it is filtered
back and the gradient is multiplied by m; a window with n at most LEAST_WEIGHT has nothing to compare: SSIM 1, not
counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastssim.cpu.buffers import pitch
from fastssim.cpu.jit import inlined
from fastssim.cpu.simd import Code, Vector, wanted
from fastssim.cpu.strips import tap_count
from fastssim.plan import LEAST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence


@inlined
def columns_of_windows(row: int, own: Any, columns: int) -> Any:
    """Return the columns of a row of windows that are valid, from and to, and those that count, from and to."""
    return (0, columns, own[2], own[3]) if own[0] <= row < own[1] else (0, columns, 0, 0)


@intrinsic
def ssim_and_derivatives(
    typing: Any, windows: Any, mask: Any, taps: Any, strip: Any, vector: Any, constants: Any, ranges: Any, total: Any,
    upstream: Any, weights: Any, ssim_map: Any, grad_x: Any, grad_y: Any, derivatives: Any, derivatives_start: Any,
) -> Any:  # fmt: skip
    """Apply the formula to one vector of windows of one row; write what is asked for.

    windows: a row of maps [pitch]: M, v_s, Q, v_d, m_s and m_d unless grad_x is None, n unless the mask is None.
    constants: what the pivots leave of x + y, of x - y, C1, C2, u / 2, u. ranges: columns (valid from, to, counted
    from, to). total [3][lanes] += SSIM and, unless the mask is None, windows counted. ssim_map: a row, or None. Unless
    grad_x is None, derivatives [maps][pitch] from `derivatives_start` take q_s, q_d, p_s + p_d and, unless grad_y is
    None, p_s - p_d; unless upstream is None, each multiplied by a row of weights.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        taps_type, masked = signature.args[2], wanted(signature.args[1])
        code = Code(context, builder, signature.args[0].dtype)
        step = pitch(tap_count(taps_type), code.lanes)
        kind, value = Formula(*signature.args[3:]), Formula(*args[3:])
        column = builder.mul(value.vector, ir.Constant(value.vector.type, code.lanes))
        source = code.at(code.data(signature.args[0], args[0]), column)
        count = 6 if wanted(kind.grad_x) else 4
        maps = [code.load(code.at(source, plane * step)) for plane in range(count + masked)]
        sums = code.data(kind.total, value.total)
        ssim, counted = apply_formula(code, step, kind, value, maps[:count], maps[count] if masked else None)
        if masked:
            counts = code.at(sums, code.lanes)
            code.store(code.load(counts) + code.select(counted, code.one(), code.zero()), counts)
        code.store(code.load(sums) + code.select(counted, ssim, code.zero()), sums)
        return context.get_dummy_value()

    return (
        types.void(
            windows, mask, taps, strip, vector, constants, ranges, total, upstream, weights, ssim_map, grad_x, grad_y,
            derivatives, derivatives_start,
        ),
        codegen,
    )  # fmt: skip


class Formula(NamedTuple):
    """What the formula is told and where it writes, see `ssim_and_derivatives`: Numba types, or LLVM values."""

    strip: Any
    vector: Any
    constants: Any
    ranges: Any
    total: Any
    upstream: Any
    weights: Any
    ssim_map: Any
    grad_x: Any
    grad_y: Any
    derivatives: Any
    derivatives_start: Any


def apply_formula(
    code: Code, step: int, kind: Formula, value: Formula, maps: Sequence[Vector], n: Vector | None = None
) -> tuple[Vector, Any]:
    """Apply the formula to M, v_s, Q, v_d and, for derivatives, m_s, m_d; return SSIM and the lanes that count."""
    builder = code.builder
    column = builder.mul(value.vector, ir.Constant(value.vector.type, code.lanes))
    _, _, c1, c2, half_u, u = code.splats(value.constants, len(kind.constants))
    m, v_s, q, v_d = maps[:4]
    v_s, v_d = u * v_s, u * v_d
    q2 = q * q
    a = code.number(0.5) * (m * m - q2) + c1
    b = a + q2
    c = code.number(0.5) * (v_s - v_d) + c2
    d = c + v_d
    ssim = (a * c) / (b * d)
    limits = [builder.extract_value(value.ranges, i) for i in range(4)]
    valid, counted = (code.strip_mask(value.strip, value.vector, *limits[i : i + 2]) for i in (0, 2))
    counted = builder.and_(valid, counted)
    factors = []
    if n is not None:
        something = code.above(n, code.number(LEAST_WEIGHT))
        ssim = code.select(something, ssim, code.one())
        counted = builder.and_(counted, something)
        factors.append(code.select(something, code.one() / n, code.zero()))
    if wanted(kind.ssim_map):
        code.store(ssim, code.at(code.data(kind.ssim_map, value.ssim_map), column))
    if wanted(kind.grad_x):
        if wanted(kind.upstream):
            factors.append(code.load(code.at(code.data(kind.weights, value.weights), column)))
        f_ms, f_md, q_s, q_d = _derivatives(code, _Terms(m, q, v_d, a, b, c, d), half_u, factors)
        m_s, m_d = maps[4:]
        p_s = f_ms - (m_s + m_s) * q_s
        p_d = f_md - (m_d + m_d) * q_d
        derivatives = [q_s, q_d, p_s + p_d]
        if wanted(kind.grad_y):
            derivatives.append(p_s - p_d)
        target = code.at(code.data(kind.derivatives, value.derivatives), value.derivatives_start)
        target = code.at(target, column)
        for plane, derivative in enumerate(derivatives):
            code.store(code.select(valid, derivative, code.zero()), code.at(target, plane * step))
    return ssim, counted


class _Terms(NamedTuple):
    """What the formula is made of, see above; variances times u."""

    m: Vector  # M
    q: Vector  # Q
    v_d: Vector
    a: Vector
    b: Vector
    c: Vector
    d: Vector


def _derivatives(
    code: Code, terms: _Terms, half_u: Vector, factors: list[Vector]
) -> tuple[Vector, Vector, Vector, Vector]:
    """Return f_ms, f_md, q_s and q_d, each times the factors."""
    m, q, v_d, a, b, c, d = terms
    r = code.one() / (b * d)
    inverse_b = d * r
    inverse_d = b * r
    for factor in factors:
        r = r * factor
    by_means = (c * r) * (inverse_b * q)  # C/D Q / B^2
    f_ms = by_means * (m * q)
    f_md = code.zero() - by_means * (a + b)
    by_variances = (a * r) * (half_u * inverse_d)  # A/B / (2 D^2)
    q_s = by_variances * v_d
    q_d = code.zero() - by_variances * (c + d)
    return f_ms, f_md, q_s, q_d


@intrinsic
def gradients(
    typing: Any, filtered: Any, taps: Any, strip: Any, vector: Any, s: Any, d: Any, mask: Any, pixel: Any, scale: Any,
    l1: Any, ranges: Any, grad_y: Any, line_x: Any, line_y: Any,
) -> Any:  # fmt: skip
    """Finish one vector of gradient pixels of a row: combine filtered derivatives [maps][pitch] with s and d, write.

    s, d, mask: `pixel` is the place of the first vector's pixels, the mask may be None; scale of the gradient of SSIM;
    l1: None, or (scale of the sign of x - y, what d misses of x - y) for columns of `ranges`, two of from and to;
    line_x, line_y: rows for the gradients, nothing by y where grad_y is None.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        filtered_t, taps_t, _, _, s_t, d_t, mask_t, _, _, l1_t, _, grad_y_t, line_x_t, line_y_t = signature.args
        (
            filtered_v, _, strip_v, vector_v, s_v, d_v, mask_v, pixel_v, scale_v, l1_v, ranges_v, _, line_x_v, line_y_v,
        ) = args  # fmt: skip
        code = Code(context, builder, filtered_t.dtype)
        step = pitch(tap_count(taps_t), code.lanes)
        column = builder.mul(vector_v, ir.Constant(vector_v.type, code.lanes))
        source = code.at(code.data(filtered_t, filtered_v), column)

        def load(kind: Any, array: Any) -> Vector:
            return code.load(code.at(code.at(code.data(kind, array), pixel_v), column))

        def write(kind: Any, array: Any, gradient: Vector) -> None:
            code.store(gradient, code.at(code.data(kind, array), column))

        q_s, q_d, to_x = (code.load(code.at(source, plane * step)) for plane in range(3))
        d = load(d_t, d_v)
        by_s = load(s_t, s_v) * q_s
        by_d = d * q_d
        factor = code.splat(scale_v)
        if wanted(mask_t):
            factor = factor * load(mask_t, mask_v)
        sign = None
        if wanted(l1_t):
            by_sign, missing = code.splats(l1_v, 2)
            equal = code.zero() - missing  # d where x = y
            positive, negative = code.above(d, equal), code.above(equal, d)
            sign = code.select(positive, by_sign, code.select(negative, code.zero() - by_sign, code.zero()))
            limits = [builder.extract_value(ranges_v, i) for i in range(4)]
            chosen = [code.strip_mask(strip_v, vector_v, *limits[i : i + 2]) for i in (0, 2)]
            sign = code.select(builder.or_(*chosen), sign, code.zero())
        by_x = factor * (to_x + ((by_s + by_d) + (by_s + by_d)))
        write(line_x_t, line_x_v, by_x if sign is None else by_x + sign)
        if wanted(grad_y_t):
            to_y = code.load(code.at(source, 3 * step))
            by_y = factor * (to_y + ((by_s - by_d) + (by_s - by_d)))
            write(line_y_t, line_y_v, by_y if sign is None else by_y - sign)
        return context.get_dummy_value()

    signature = types.void(
        filtered, taps, strip, vector, s, d, mask, pixel, scale, l1, ranges, grad_y, line_x, line_y
    )  # fmt: skip
    return signature, codegen


@intrinsic
def add_distances(
    typing: Any, d: Any, place: Any, strip: Any, vector: Any, first: Any, last: Any, missing: Any, total: Any
) -> Any:
    """Add |d + missing| of one vector, of which columns first .. last-1 count, to the lanes total [2]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        d_type, total_type = signature.args[0], signature.args[7]
        d_value, place_value, strip_value, vector_value, first_value, last_value, missing_value, total_value = args
        code = Code(context, builder, d_type.dtype)
        start = code.at(code.data(d_type, d_value), place_value)
        start = code.at(start, builder.mul(vector_value, ir.Constant(vector_value.type, code.lanes)))
        distance = code.absolute(code.load(start) + code.splat(missing_value))
        sums = code.at(code.data(total_type, total_value), 2 * code.lanes)
        chosen = code.strip_mask(strip_value, vector_value, first_value, last_value)
        code.store(code.load(sums) + code.select(chosen, distance, code.zero()), sums)
        return context.get_dummy_value()

    return types.void(d, place, strip, vector, first, last, missing, total), codegen


@intrinsic
def take_sum(typing: Any, total: Any, number: Any) -> Any:
    """Return the sum of the lanes total [number] and clear them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder, signature.args[0].dtype)
        place = builder.mul(args[1], ir.Constant(args[1].type, code.lanes))
        sums = code.at(code.data(signature.args[0], args[0]), place)
        result = code.sum_lanes(code.load(sums))
        code.store(code.zero(), sums)
        return result

    return total.dtype(total, number), codegen
