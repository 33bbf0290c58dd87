"""Has fastssim become slower? Two results are compared by ratios to other libraries in the same run.

Absolute times differ from machine to machine and hour to hour; how many times as long as fastssim another library
takes, interleaved in one run, does so far less. fastssim is slower where the mean of these changed by more than the
tolerance, and not even what the best samples leave open allows that it did not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.measure import OWN
from bench.results import read

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 0.15  # a change of a ratio that the machine's noise explains


@dataclass(frozen=True)
class Change:
    """How one measurement of fastssim changed, against every library that both runs have in the same version."""

    suite: str
    case: str
    kind: str
    speed: dict[str, float]  # by library: ratio in the new run over that in the old; below 1, fastssim is slower
    at_best: dict[str, float]  # likewise: the most it may be in the new run over the least in the old
    on_average: dict[str, float] = field(default_factory=dict)  # likewise, of mean ratios; where both have them

    @property
    def mean(self) -> float:
        """Geometric mean over the libraries: a library's own noise counts for little."""
        return _mean(self.speed)

    @property
    def noisy(self) -> bool:
        """Whether fastssim may have lost nothing, by what the samples leave open."""
        return _mean(self.at_best) >= 1


def compare(old: Path, new: Path) -> list[Change]:
    """Match two result files, or two folders of them.

    Raises
    ------
    ValueError
        If a file cannot be read or nothing is in both.
    """
    before, after = _ratios(old), _ratios(new)
    changes: dict[tuple[str, str, str], Change] = {}
    for key in sorted(before.keys() & after.keys()):
        change = changes.setdefault(key[:3], Change(*key[:3], {}, {}))
        peer = key[3]
        change.speed[peer] = after[key].ratio / before[key].ratio
        change.at_best[peer] = after[key].upper / before[key].lower
        was, now = before[key].average, after[key].average
        if was and now:
            change.on_average[peer] = now / was
    if not changes:
        raise ValueError(
            f"{old} and {new} have no measurement in common: same format, suite, width of vectors, case, library"
            " and version"
        )
    return list(changes.values())


def table(changes: list[Change], tolerance: float) -> str:
    """Write the changes as a Markdown table, the slower ones marked."""
    lines = [
        "| suite | case | kind | fastssim's speed, new / old | against each library | |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for change in changes:
        each = ", ".join(f"{peer} {speed:.2f}" for peer, speed in change.speed.items())
        lost = change.mean < 1 / (1 + tolerance)
        mark = "slower" if slower(change, tolerance) else "noisy: measure again" if lost else ""
        lines.append(f"| {change.suite} | {change.case} | {change.kind} | {change.mean:.2f} | {each} | {mark} |")
    return "\n".join(lines)


def agreement(changes: list[Change], tolerance: float) -> str:
    """Say how many ratios to single libraries are the same in both runs, within the tolerance either way.

    Examples
    --------
    >>> agreement([Change("ssim", "c", "k", {"p": 1.1, "q": 0.8}, {})], 0.15)
    '1 of 2 ratios agree within 15%'
    >>> agreement([Change("ssim", "c", "k", {"p": 1.1, "q": 0.8}, {}, {"p": 1.0, "q": 0.9})], 0.15)
    '1 of 2 ratios agree within 15%, 2 of 2 mean ratios'
    """
    leasts = [speed for change in changes for speed in change.speed.values()]
    means = [speed for change in changes for speed in change.on_average.values()]
    line = f"{_same(leasts, tolerance)} of {len(leasts)} ratios agree within {tolerance:.0%}"
    return f"{line}, {_same(means, tolerance)} of {len(means)} mean ratios" if means else line


def _same(speeds: list[float], tolerance: float) -> int:
    return sum(abs(math.log(speed)) <= math.log1p(tolerance) for speed in speeds)


def slower(change: Change, tolerance: float) -> bool:
    """Whether fastssim lost more than the tolerance, and more than the rounds of a run differ.

    Examples
    --------
    >>> changes = [Change("ssim", "c", "k", {"p": p}, {"p": best}) for p, best in ((0.8, 0.9), (0.9, 0.95), (0.8, 1.1))]
    >>> [slower(change, 0.15) for change in changes]
    [True, False, False]
    """
    return change.mean < 1 / (1 + tolerance) and not change.noisy


def _mean(speed: dict[str, float]) -> float:
    return math.exp(sum(map(math.log, speed.values())) / len(speed))


_Key = tuple[str, str, str, str, str, int | None]


class _Ratio(NamedTuple):
    lower: float  # by the least but two of ours
    ratio: float
    upper: float  # by the least but two of the library's
    average: float | None  # over all samples; older results have none


def _ratios(path: Path) -> dict[_Key, _Ratio]:
    """Read the ratios by suite, case, kind, library, version and format: another's ratios are others."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no result (*.json)")
    found = {}
    for file in files:  # of two with one suite and width the last by name counts: ssim.json comes after ssim-zen4.json
        content = read(file)
        try:
            found.update(_ratios_of(content))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no result of python -m bench: {error!r}") from error
    return found


def _ratios_of(content: dict[str, Any]) -> dict[_Key, _Ratio]:
    """Take the ratios of one file; with wider vectors they are others, so that the suite is named with the width."""
    found = {}
    bits = content.get("machine", {}).get("vector_bits")
    suite = content["suite"] if bits is None else f"{content['suite']}, {bits} bits"
    for row in content["rows"]:
        if row["peer"] != OWN and "times_fastssim" in row:
            key = suite, row["case"], row["kind"], row["peer"], row["version"], content.get("format")
            ratio = _positive(row, "times_fastssim")
            lower, upper = (_positive(row, name) if name in row else ratio for name in ("times_lower", "times_upper"))
            average = _positive(row, "times_mean") if row.get("times_mean") is not None else None
            found[key] = _Ratio(lower, ratio, upper, average)
    return found


def _positive(row: dict[str, Any], name: str) -> float:
    """Take a ratio out of a row."""
    value = float(row[name])
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}")
    return value
