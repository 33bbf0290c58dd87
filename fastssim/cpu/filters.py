"""Filters along one axis, vector by vector: sums, and means and variances about pivots.

With a separable window w = w_y w_x, means m and variances v of a map s are made one axis at a time, so that no square
of a mean is taken off one much larger than the difference:

    down     m_c = w_y*(s - p) + p              v_c = w_y*(s - p)^2 - (w_y*(s - p))^2
    across   m_s = w_x*(m_c - p) + p            v_s = w_x*(v_c + (m_c - p)^2) - (w_x*(m_c - p))^2

each about a pivot p of its own: a pixel, or a column's mean, near the middle of all the windows that share it. Its
weight in them, w_p, bounds what is taken off: (m - p)^2 <= v (1 - w_p) / w_p, whatever lies around it.

With a mask m, n_c = w_y*m down the columns, and v_c is n_c times a variance.

These are Python functions that write machine code (`fastssim.cpu.simd`); what shares a tap of a mirrored window is
added before it is multiplied.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from fastssim.cpu.buffers import amid, sharing
from fastssim.cpu.simd import SETTLED, Code, Vector, few_registers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Term = Callable[[int, Any], Vector]  # the vector at a place, of that of the map before or None
    Averaged = tuple[Callable[[int], Vector], Callable[[int], Vector] | None]  # the mean and the variance at a place

FAR = 4  # of v + C2: what the square of a mean about its pivot may be, for an error of 1e-7 or so of them
LEAST_PART = 1e-30  # a masked column that keeps less has no mean, and no part in a window that keeps LEAST_WEIGHT


def filter_maps(code: Code, taps: list[Vector], outputs: int, maps: list[Term]) -> list[list[Vector]]:
    """Filter several maps; return [map][output].

    maps: each gives its vector at a place, and may make it of that of the map before.

    sums[i][r] = sum over k of taps[k] values[i][r + k],  values[i][place] = maps[i](place, values[i - 1][place]).
    """
    if few_registers():
        for count in (4, 2):
            if len(taps) + count - 1 + count <= SETTLED:  # what a turn reaches, and its sums
                return _filter_by_turns(code, taps, outputs, maps, count)
    values: list[list[Vector]] = [[] for _ in maps]
    for place in range(len(taps) + outputs - 1):
        before = None
        for vectors, term in zip(values, maps, strict=True):
            before = term(place, before)
            vectors.append(before)

    def total(vectors: list[Vector]) -> Vector:
        terms = _terms(taps, vectors)
        return _dot([tap for tap, _ in terms], [reduce(Vector.__add__, alike) for _, alike in terms])

    return [[total(vectors[r : r + len(taps)]) for r in range(outputs)] for vectors in values]


def _filter_by_turns(code: Code, taps: list[Vector], outputs: int, maps: list[Term], count: int) -> list[list[Vector]]:
    """Filter as `filter_maps` does, one map after the other and `count` outputs at a time.

    What these reach, all of one map, stays in registers, most of it for the next outputs; so every other map starts at
    the end of the one before.
    """
    turns = [range(first, min(first + count, outputs)) for first in range(0, outputs, count)]
    results = []
    values: dict[int, Vector] = {}
    for term in maps:
        before, values = values, {}
        sums: dict[int, Vector] = {}
        for turn in turns:
            reach = range(turn[0], turn[-1] + len(taps))
            for place in reach:
                if place not in values:
                    values[place] = term(place, before.get(place))
            values.update(zip(reach, code.settled([values[place] for place in reach]), strict=True))
            neighbours = [[values[r + k] for k in range(len(taps))] for r in turn]
            sums.update(zip(turn, code.settled(_side_by_side(code, taps, neighbours)), strict=True))
        results.append([sums[r] for r in range(outputs)])
        turns.reverse()
    return results


def _side_by_side(code: Code, taps: list[Vector], neighbours: list[list[Vector]]) -> list[Vector]:
    """Add up the vectors of several neighbours times taps, a tap at a time."""
    sums: list[Vector] = []
    for terms in zip(*(_terms(taps, vectors) for vectors in neighbours), strict=True):
        (tap,) = code.settled([terms[0][0]])
        products = [tap * reduce(Vector.__add__, alike) for _, alike in terms]
        sums = list(map(Vector.__add__, sums, products)) if sums else products
    return sums


def _terms(taps: list[Vector], vectors: list[Vector]) -> list[tuple[Vector, list[Vector]]]:
    """List the taps and what each multiplies, to be added first: many processors add beside multiplying."""
    if taps[0] is not taps[-1]:
        return [(tap, [vector]) for tap, vector in zip(taps, vectors, strict=True)]
    half = len(taps) // 2
    pairs = map(list, zip(vectors[:half], vectors[:half:-1], strict=True))
    return list(zip(taps[: half + 1], [*pairs, [vectors[half]]], strict=True))


class Averages(NamedTuple):
    """Means and variances of one map along one axis, of neighbouring outputs."""

    inner: list[Vector]  # means about the pivots
    pivots: list[Vector]
    variances: list[Vector]

    def means(self, base: Vector | None = None) -> list[Vector]:
        """Return the means, and `base` added to the pivots first: it may be all but their opposite."""
        pivots = self.pivots if base is None else [pivot + base for pivot in self.pivots]
        return [mean + pivot for mean, pivot in zip(self.inner, pivots, strict=True)]


def averages(code: Code, taps: list[Vector], outputs: int, maps: list[Averaged]) -> list[Averages]:
    """Filter means and variances along one axis, about pivots of their own; return those of each map."""
    count = sharing(len(taps), outputs)
    results = []
    for averaged in maps:
        pivots = [averaged[0](first + amid(len(taps), count)) for first in range(0, outputs, count)]
        inner, squares, pivots = _sums_about(code, taps, outputs, pivots, averaged)
        # Of a single pixel nothing is left.
        variances = [square - mean.times(mean) for mean, square in zip(inner, squares, strict=True)]
        results.append(Averages(inner, pivots, variances))
    return results


def weighted_averages(
    code: Code,
    taps: list[Vector],
    outputs: int,
    maps: list[Averaged],
    weight: Callable[[int], Vector],
    c2: Vector,
    put: Callable[[list[Averages], list[Vector]], None],
    *,
    last: bool,
) -> None:
    """As `averages` with n at each place for a weight; `put` is given the results, and n, to store them.

    Variances come times n, and are left so but after the `last` axis. Neighbours that have their weight on different
    sides of a hole have no pivot in common: where one's mean lies too far from it, each is taken to be its own pivot.
    """
    (n,) = filter_maps(code, taps, outputs, [lambda place, _: weight(place)])
    something = [code.above(total, code.number(LEAST_PART)) for total in n]
    inverse = [code.select(some, code.one() / total, code.zero()) for some, total in zip(something, n, strict=True)]

    def own_mean(mean_of: Callable[[int], Vector], output: int) -> Vector:
        places = range(output, output + len(taps))
        mean = _dot(_products(taps, map(weight, places)), map(mean_of, places)) * inverse[output]
        return code.select(code.finite(mean), mean, code.zero())

    def about_means_of(chosen: Iterable[int]) -> list[Averages]:
        results = []
        for averaged in maps:
            pivots = [own_mean(averaged[0], output) for output in chosen]
            totals, squares, pivots = _sums_about(code, taps, outputs, pivots, averaged, weight)
            inner = _products(totals, inverse)
            variances = [square - total * mean for total, mean, square in zip(totals, inner, squares, strict=True)]
            results.append(Averages(inner, pivots, _products(variances, inverse) if last else variances))
        return results

    shared = about_means_of([1])
    put(shared, n)
    far = [
        code.above(mean * mean, code.number(FAR) * (c2 + variance))
        for one in shared
        for mean, variance in zip(one.inner, one.variances if last else _products(one.variances, inverse), strict=True)
    ]
    with code.builder.if_then(code.any(far), likely=False):
        put(about_means_of(range(outputs)), n)


def _sums_about(
    code: Code,
    taps: list[Vector],
    outputs: int,
    pivots: list[Vector],
    averaged: Averaged,
    weight: Callable[[int], Vector] | None = None,
) -> tuple[list[Vector], list[Vector], list[Vector]]:
    """Filter x - p and variance + (x - p)^2, both times n under a weight; return these and every output's pivot p.

    pivots: one for each so many neighbouring outputs.
    """
    mean_of, variance_of = averaged
    count = outputs // len(pivots)
    totals, squares = [], []
    for group, pivot in enumerate(pivots):

        def inner(place: int, first: int = group * count, pivot: Vector = pivot) -> Vector:
            return mean_of(first + place) - pivot

        def weighted(place: int, _: None, first: int = group * count) -> Vector:
            return inner(place) if weight is None else weight(first + place) * inner(place)

        def square(place: int, weighted: Vector, first: int = group * count) -> Vector:
            value = weighted * (weighted if weight is None else inner(place))
            return value if variance_of is None else variance_of(first + place) + value

        found = filter_maps(code, taps, count, [weighted, square])
        totals += found[0]
        squares += found[1]
    return totals, squares, [pivot for pivot in pivots for _ in range(count)]


def means_and_variances(results: list[Averages]) -> list[list[Vector]]:
    """Lay out what comes of several maps."""
    return [outputs for result in results for outputs in (result.means(), result.variances)]


def _products(first: Iterable[Vector], second: Iterable[Vector]) -> list[Vector]:
    """Multiply vectors with others."""
    return [a * b for a, b in zip(first, second, strict=True)]


def _dot(first: Iterable[Vector], second: Iterable[Vector]) -> Vector:
    """Add up vectors times others."""
    return reduce(Vector.__add__, _products(first, second))
