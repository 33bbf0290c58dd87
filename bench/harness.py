"""Time several functions fairly: interleaved rounds, medians, and ratios taken round by round."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUND_SECONDS = 0.02  # a sample repeats a short function until it lasts this long
LONGEST = 6.0  # seconds of one function's samples after which the rest of its rounds is left out
LONG = 2.0  # seconds of a call that is not made for nothing: the one that tells how long it takes is a sample, too


@runtime_checkable
class Timed(Protocol):
    """A function that is timed where it runs: in another process, or on a GPU."""

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call, averaged over `repeats`."""


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Call each function in turn, round by round, so that a noisy moment of the machine meets all of them.

    Parameters
    ----------
    functions : mapping of str to callable
        What to time; each is called once beforehand, so that compilation and allocation are not timed.
    rounds : int
        Samples of each.

    Returns
    -------
    dict of str to list of float
        Seconds of one call, `rounds` samples each; fewer, but at least one, of a function that takes long.

    Examples
    --------
    >>> samples = interleaved({"sum": lambda: sum(range(10))}, rounds=3)
    >>> len(samples["sum"])
    3
    """
    repeats = {}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for name, function in functions.items():
        function()
        once = seconds(function, 1)
        repeats[name] = max(1, round(ROUND_SECONDS / max(once, 1e-7))) if math.isfinite(once) else 1
        if once > LONG:
            samples[name].append(once)
    for _ in range(rounds):
        for name, function in functions.items():
            taken = samples[name]
            if sum(taken) * repeats[name] < LONGEST:
                taken.append(seconds(function, repeats[name]))
    return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds.

    Examples
    --------
    >>> summary([0.001, 0.002, 0.003])
    {'median_ms': 2.0, 'lower_ms': 1.5, 'upper_ms': 2.5}
    """
    lower, median, upper = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    )
    return {"median_ms": 1e3 * median, "lower_ms": 1e3 * lower, "upper_ms": 1e3 * upper}


def ratio(samples: list[float], to: list[float]) -> float:
    """Median of the ratios of the rounds that both took part in: what slows a whole round down cancels.

    Examples
    --------
    >>> ratio([2.0, 20.0, 4.0], to=[1.0, 10.0, 1.0])
    2.0
    """
    return statistics.median(a / b for a, b in zip(samples, to, strict=False))


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call, averaged over `repeats`."""
    timed: object = function
    if isinstance(timed, Timed):
        return timed.seconds(repeats)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
