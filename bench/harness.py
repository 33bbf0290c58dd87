"""Time several functions fairly: interleaved rounds in one process, medians and ratios."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUND_SECONDS = 0.02  # a sample repeats a short function until it lasts this long


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
        Seconds of one call, `rounds` samples each.

    Examples
    --------
    >>> samples = interleaved({"sum": lambda: sum(range(10))}, rounds=3)
    >>> len(samples["sum"])
    3
    """
    repeats = {}
    for name, function in functions.items():
        function()
        repeats[name] = max(1, round(ROUND_SECONDS / max(_seconds(function, 1), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            samples[name].append(_seconds(function, repeats[name]))
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


def _seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call, averaged over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
