"""Time several functions fairly: in interleaved rounds, each beside the one that it is compared with.

What disturbs a time makes it longer: another process on a core, a cold cache, an interrupt. So the least of the samples
is what tells of the function, and a ratio is one of leasts, each from the same minutes; how far the least but two lies
above the least says how well it is known, and ends the sampling.
"""

from __future__ import annotations

import gc
import heapq
import math
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAMPLE_SECONDS = 0.04  # a sample repeats a short function until it lasts about this long
PAUSE_SECONDS = 0.02  # OpenMP's threads of the function before keep a core busy for up to about so long, waiting
WARM_SECONDS = 0.03  # a shorter function is called before its sample is taken: caches are filled, threads are awake
WARM_CALLS = 3  # at most: measured, the fourth call in a row takes what any later one takes
ROUND_SECONDS = 0.13  # of one function's samples on average: what takes longer has fewer than the rounds
LEAST = 8  # samples before a function can be settled
BEST = 3  # samples that must agree
PRECISION = 0.02  # by which they may differ


@runtime_checkable
class Timed(Protocol):
    """A function that is timed where it runs: in another process, or on a GPU."""

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call, averaged over `repeats`."""


class Samples(NamedTuple):
    """What was measured of one function."""

    seconds: list[float]  # of one call
    beside: list[float]  # of one call of the function beside it, before and after each; none where there is no such

    def ratio(self) -> tuple[float, float, float]:
        """Least seconds over the least beside, between what it is with the least but two below and above.

        Examples
        --------
        >>> Samples([8.0, 6.0, 9.0, 7.0], [2.0, 3.0, 1.0, 4.0, 2.0]).ratio()
        (3.0, 6.0, 8.0)
        """
        (least, third), (own, own_third) = best(self.seconds), best(self.beside)
        return least / own_third, least / own, third / own

    def mean_ratio(self) -> float:
        """Geometric mean of every sample over the mean of those right before and after it.

        What slows a machine for seconds is in all three: two runs agree better by it than by their leasts.

        Examples
        --------
        >>> round(Samples([4.0, 9.0], [1.0, 3.0, 2.0, 2.5]).mean_ratio(), 6)  # 4 / 2 and 9 / 2.25
        2.828427
        """
        pairs = zip(self.seconds, self.beside[::2], self.beside[1::2], strict=True)
        return statistics.geometric_mean(2 * taken / (before + after) for taken, before, after in pairs)


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, beside: str | None = None
) -> dict[str, Samples]:
    """Call each function in turn, round by round, so that a noisy moment of the machine meets all of them.

    Parameters
    ----------
    functions : mapping of str to callable
        What to time; each is called once beforehand, so that compilation and allocation are not timed.
    rounds : int
        Samples of each, at most. A function has fewer, at least one, when its samples have taken `ROUND_SECONDS` times
        as many seconds, or when its best samples agree, and the best beside them with all of that function's.
    beside : str, optional
        The function that is timed before and after every sample of the others, to which their ratios are taken.

    Returns
    -------
    dict of str to Samples
        By name.

    Examples
    --------
    >>> found = interleaved({"sum": lambda: sum(range(10)), "none": lambda: None}, rounds=2, beside="none")
    >>> len(found["sum"].seconds), len(found["sum"].beside)
    (2, 4)
    """
    sampled = {name: _Sampled(function) for name, function in functions.items()}
    own = None if beside is None else sampled[beside]
    going = [one for one in sampled.values() if one is not own] or [*sampled.values()]
    for _ in range(rounds):
        before = 0.0 if own is None else own.take()
        for one in going:
            one.take()
            if own is not None:
                after = own.take()
                one.beside += before, after
                before = after
        going = [one for one in going if one.needs_more(rounds * ROUND_SECONDS, own)]
        if not going:
            break
    return {name: Samples(one.samples, one.beside) for name, one in sampled.items()}


class _Sampled:
    """A function with its samples so far."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._spent = 0.0
        self.samples: list[float] = []
        self.beside: list[float] = []
        function()
        self._short = math.inf  # seconds of one call, where it is short

    def take(self) -> float:
        """Take a sample, after a pause; of a short function, after calls that fill the caches, too."""
        time.sleep(PAUSE_SECONDS)
        repeats = max(1, min(WARM_CALLS, int(WARM_SECONDS / self._short)))
        taken = seconds(self._function, repeats)
        if taken < WARM_SECONDS:
            self._short = max(taken, 1e-7)
            repeats = math.ceil(SAMPLE_SECONDS / self._short)
            taken = seconds(self._function, repeats)
        self._spent += taken * repeats
        self.samples.append(taken)
        return taken

    def needs_more(self, most: float, own: _Sampled | None) -> bool:
        """Whether more samples would tell more, within so many seconds."""
        known = settled(self.samples) and (own is None or settled(self.beside, min(own.samples)))
        return self._spent < most and not known


def best(samples: list[float]) -> tuple[float, float]:
    """Return the least sample and the least but two, or the largest of fewer.

    Examples
    --------
    >>> best([4.0, 1.0, 3.0, 2.0]), best([1.0])
    ((1.0, 3.0), (1.0, 1.0))
    """
    found = heapq.nsmallest(BEST, samples)
    return found[0], found[-1]


def settled(samples: list[float], seen: float = math.inf) -> bool:
    """Whether the best samples agree, also with the least that was seen elsewhere: noise makes few of them alike.

    Examples
    --------
    >>> settled([1.0, 1.5, 1.01, 1.7, 1.02] + 3 * [2.0]), settled([1.0, 1.1, 1.2] + 5 * [1.3]), settled([1.0] * 3)
    (True, False, False)
    >>> settled([1.0] * 8, seen=0.9)
    False
    """
    least, third = best(samples)
    return len(samples) >= LEAST and third <= (1 + PRECISION) * min(least, seen)


def summary(samples: list[float]) -> dict[str, float]:
    """Least, median and quartiles in milliseconds, and how many there are.

    Examples
    --------
    >>> summary([0.001, 0.002, 0.003])
    {'median_ms': 2.0, 'least_ms': 1.0, 'lower_ms': 1.5, 'upper_ms': 2.5, 'samples': 3}
    """
    lower, median, upper = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    )
    found = {"median_ms": median, "least_ms": min(samples), "lower_ms": lower, "upper_ms": upper}
    return {**{name: 1e3 * value for name, value in found.items()}, "samples": len(samples)}


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call, averaged over `repeats`; Python's collector of cycles waits meanwhile."""
    timed: object = function
    if isinstance(timed, Timed):
        return timed.seconds(repeats)
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        return (time.perf_counter() - start) / repeats
    finally:
        if collecting:
            gc.enable()
