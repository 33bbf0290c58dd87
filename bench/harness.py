"""Time several functions fairly: in interleaved rounds, each beside the one that it is compared with."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAMPLE_SECONDS = 0.02  # a sample repeats a short function until it lasts about this long
ROUND_SECONDS = 0.2  # of one function's samples on average: what takes longer has fewer than the rounds
LEAST = 5  # samples before a function can be settled
PRECISION = 0.02  # half the width of the interval that holds a settled median, as a share of it


@runtime_checkable
class Timed(Protocol):
    """A function that is timed where it runs: in another process, or on a GPU."""

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call, averaged over `repeats`."""


class Samples(NamedTuple):
    """What was measured of one function."""

    seconds: list[float]  # of one call
    ratios: list[float]  # to the function beside it; none where there is no such


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
        as many seconds, or when its median is known to `PRECISION`.
    beside : str, optional
        The function that is timed before and after every sample of the others: a sample's ratio is taken to these two.

    Returns
    -------
    dict of str to Samples
        By name.

    Examples
    --------
    >>> found = interleaved({"sum": lambda: sum(range(10)), "none": lambda: None}, rounds=6, beside="none")
    >>> len(found["sum"].ratios) == len(found["sum"].seconds) in (5, 6)
    True
    """
    sampled = {name: _Sampled(function) for name, function in functions.items()}
    own = None if beside is None else sampled[beside]
    going = [one for one in sampled.values() if one is not own] or [*sampled.values()]
    for _ in range(rounds):
        before = 0.0 if own is None else own.take()
        for one in going:
            taken = one.take()
            if own is not None:
                after = own.take()
                one.ratios.append(2 * taken / (before + after))
                before = after
        going = [one for one in going if one.needs_more(rounds * ROUND_SECONDS)]
        if not going:
            break
    return {name: Samples(one.samples, one.ratios) for name, one in sampled.items()}


class _Sampled:
    """A function with its samples so far."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._repeats = 1
        self._spent = 0.0
        self.samples: list[float] = []
        self.ratios: list[float] = []
        function()

    def take(self) -> float:
        """Take a sample; what is too short to be one tells how often the function must be repeated."""
        taken = seconds(self._function, self._repeats)
        if taken * self._repeats < SAMPLE_SECONDS / 2:
            self._repeats = math.ceil(SAMPLE_SECONDS / max(taken, 1e-7))
            taken = seconds(self._function, self._repeats)
        self._spent += taken * self._repeats
        self.samples.append(taken)
        return taken

    def needs_more(self, most: float) -> bool:
        """Whether more samples would tell more, within so many seconds."""
        return self._spent < most and not settled(self.ratios or self.samples)


def settled(samples: list[float]) -> bool:
    """Whether the median lies within `PRECISION` of that of the samples, at about 94 %.

    Of n samples in order, those n/2 - sqrt(n) places from either end have the median between them so often, whatever
    the distribution; of five, the least and the largest.

    Examples
    --------
    >>> settled([1.0, 1.01, 1.02, 1.01, 1.0]), settled([1.0, 1.01, 1.2, 1.01, 1.0]), settled([1.0, 1.0])
    (True, False, False)
    """
    if len(samples) < LEAST:
        return False
    ordered = sorted(samples)
    k = math.floor(len(samples) / 2 - math.sqrt(len(samples)))
    return ordered[-1 - k] - ordered[k] <= 2 * PRECISION * statistics.median(samples)


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    Examples
    --------
    >>> quartiles([1.0, 2.0, 3.0]), quartiles([1.0])
    ((1.5, 2.0, 2.5), (1.0, 1.0, 1.0))
    """
    lower, median, upper = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    )
    return lower, median, upper


def summary(samples: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds.

    Examples
    --------
    >>> summary([0.001, 0.002, 0.003])
    {'median_ms': 2.0, 'lower_ms': 1.5, 'upper_ms': 2.5}
    """
    lower, median, upper = quartiles(samples)
    return {"median_ms": 1e3 * median, "lower_ms": 1e3 * lower, "upper_ms": 1e3 * upper}


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call, averaged over `repeats`."""
    timed: object = function
    if isinstance(timed, Timed):
        return timed.seconds(repeats)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
