"""Log-log plots of `bench.scaling`'s committed results."""

from __future__ import annotations

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
    """Draw them all; return their paths. A cross marks a library's last point before it died or refused."""
    drawn = []
    with mpl.rc_context({"svg.hashsalt": "fastssim", "font.size": 9}):
        for name, kind, axis in pictures(content):
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            axes = figure.subplots()
            for peer in dict.fromkeys(row["peer"] for row in content["rows"]):
                _curve(axes, content, (kind, axis, peer))
            axes.set(xscale="log", yscale="log", xlabel=TITLES.get(axis, axis), ylabel="ms", title=kind)
            axes.set_xscale("log", base=2)
            axes.grid(visible=True, which="major", alpha=0.3)
            axes.legend(fontsize=7)
            path = folder / name
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _curve(axes: Any, content: dict[str, Any], key: tuple[str, str, str]) -> None:
    """Draw one library's curve, its fitted exponent in the legend."""
    rows = [row for row in content["rows"] if (row["kind"], row["axis"], row["peer"]) == key]
    measured = [(row["value"], row["least_ms"]) for row in rows if "least_ms" in row]
    if not measured:
        return
    slope = [fit["exponent"] for fit in content["fits"] if (fit["kind"], fit["axis"], fit["peer"]) == key]
    label = key[2] + "".join(f", exponent {exponent:.2f}" for exponent in slope)
    width = 2.2 if key[2] == "fastssim" else 1.0
    (line,) = axes.plot(*zip(*measured, strict=True), marker="o", markersize=3, linewidth=width, label=label)
    if "absent" in rows[-1]:
        axes.plot(*measured[-1], marker="x", markersize=9, color=line.get_color())
