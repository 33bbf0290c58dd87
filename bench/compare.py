"""Has fastssim become slower? Two results are compared by ratios to other libraries in the same run.

Absolute times differ from machine to machine and hour to hour; how many times as long as fastssim another library
takes, in one process and interleaved, does so far less.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.measure import OWN

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

    @property
    def mean(self) -> float:
        """Geometric mean over the libraries: a library's own noise counts for little."""
        return math.exp(sum(map(math.log, self.speed.values())) / len(self.speed))


def compare(old: Path, new: Path) -> list[Change]:
    """Match two result files, or two folders of them.

    Raises
    ------
    ValueError
        If a file cannot be read or nothing is in both.
    """
    before, after = _ratios(old), _ratios(new)
    changes: dict[tuple[str, str, str], dict[str, float]] = {}
    for key in before.keys() & after.keys():
        suite, case, kind, peer, _ = key
        changes.setdefault((suite, case, kind), {})[peer] = after[key] / before[key]
    if not changes:
        raise ValueError(f"{old} and {new} have no measurement in common: same suite, case, library and version")
    return [Change(*name, dict(sorted(speed.items()))) for name, speed in sorted(changes.items())]


def table(changes: list[Change], tolerance: float) -> str:
    """Write the changes as a Markdown table, the slower ones marked."""
    lines = [
        "| suite | case | kind | fastssim's speed, new / old | against each library | |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for change in changes:
        each = ", ".join(f"{peer} {speed:.2f}" for peer, speed in change.speed.items())
        mark = "slower" if slower(change, tolerance) else ""
        lines.append(f"| {change.suite} | {change.case} | {change.kind} | {change.mean:.2f} | {each} | {mark} |")
    return "\n".join(lines)


def slower(change: Change, tolerance: float) -> bool:
    """Whether fastssim lost more than the tolerance.

    Examples
    --------
    >>> slower(Change("ssim", "c", "k", {"p": 0.8}), 0.15), slower(Change("ssim", "c", "k", {"p": 0.9}), 0.15)
    (True, False)
    """
    return change.mean < 1 / (1 + tolerance)


def _ratios(path: Path) -> dict[tuple[str, str, str, str, str], float]:
    """Read the ratios by suite, case, kind, library and version."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no result (*.json)")
    found = {}
    for file in files:
        content = _read(file)
        for row in content["rows"]:
            if row["peer"] != OWN and "times_fastssim" in row:
                key = content["suite"], row["case"], row["kind"], row["peer"], row["version"]
                found[key] = float(row["times_fastssim"])
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if "suite" not in content or "rows" not in content:
        raise ValueError(f"{file} is no result of python -m bench: it has no suite or no rows")
    return content
