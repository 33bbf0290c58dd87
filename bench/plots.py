"""Log-log plots of `bench.scaling`'s committed results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.results import pictures

if TYPE_CHECKING:
    from pathlib import Path

TITLES = {
    "pixels": "pixels",
    "window": "pixels of the window, down and across",
    "threads": "threads",
    "batch": "images",
}


def draw(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw them all; return their paths.

    A cross marks a library's last point before it died, a dashed curve one that does other work, so that its times do
    not compare.
    """
    drawn = []
    with mpl.rc_context({"svg.hashsalt": "fastssim", "font.size": 9}):
        for name, kind, axis in pictures(content):
            figure = Figure(figsize=(8.0, 4.2), layout="constrained")
            axes = figure.subplots()
            for peer in dict.fromkeys(row["peer"] for row in content["rows"]):
                _curve(axes, content, (kind, axis, peer))
            axes.set(yscale="log", xlabel=TITLES.get(axis, axis), ylabel="ms", title=f"{kind}, over {axis}")
            axes.set_xscale("log", base=2)
            values = sorted({row["value"] for row in content["rows"] if row["axis"] == axis})
            axes.set_xticks(values, [_power_of_two(value) if axis == "pixels" else str(value) for value in values])
            axes.minorticks_off()
            axes.grid(visible=True, which="major", alpha=0.3)
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            path = folder / name
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _power_of_two(value: int) -> str:
    return f"$2^{{{math.log2(value):g}}}$"


def _curve(axes: Any, content: dict[str, Any], key: tuple[str, str, str]) -> None:
    """Draw one library's curve, its fitted exponent in the legend."""
    rows = [row for row in content["rows"] if (row["kind"], row["axis"], row["peer"]) == key]
    measured = [(row["value"], row["least_ms"]) for row in rows if "least_ms" in row]
    if not measured:
        return
    slope = [fit["exponent"] for fit in content["fits"] if (fit["kind"], fit["axis"], fit["peer"]) == key]
    label = key[2] + "".join(f", exponent {exponent:.2f}" for exponent in slope)
    own = key[2] == "fastssim"
    style = {"linewidth": 2.4 if own else 1.0, "zorder": 3 if own else 2, "markersize": 3, "marker": "o"}
    dashed = "-" if rows[0].get("comparable", True) else "--"
    (line,) = axes.plot(*zip(*measured, strict=True), linestyle=dashed, label=label, **style)
    if any(row.get("died") for row in rows):
        axes.plot(*measured[-1], marker="x", markersize=9, color=line.get_color())
