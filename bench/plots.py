"""Plots of results: `bench.scaling`'s on logarithmic axes, `bench.gpu`'s as bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

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
            figure = _bars(content) if axis == "case" else _curves(content, kind, axis)
            path = folder / name
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _bars(content: dict[str, Any]) -> Figure:
    """Draw what each library takes for a pixel, a panel for each kind; hatched, who does other work."""
    timed = [row for row in content["rows"] if "ns_per_pixel" in row]
    kinds, peers = (list(dict.fromkeys(row[key] for row in timed)) for key in ("kind", "peer"))
    width = 0.8 / len(peers)
    figure = Figure(figsize=(8.0, 0.6 + 2.6 * len(kinds)), layout="constrained")
    figure.suptitle(f"{content['gpu']}: ns per pixel of every channel")
    for panel, kind in zip(figure.subplots(len(kinds), squeeze=False)[:, 0], kinds, strict=True):
        rows = [row for row in timed if row["kind"] == kind]
        cases = list(dict.fromkeys(row["case"] for row in rows))
        for row in rows:
            number = peers.index(row["peer"])
            panel.bar(
                cases.index(row["case"]) + (number - (len(peers) - 1) / 2) * width,
                row["ns_per_pixel"],
                width,
                color=f"C{number % 10}",
                hatch=None if row.get("comparable", True) else "///",
            )
        least = min(row["ns_per_pixel"] for row in rows)
        panel.set(yscale="log", title=kind, ylim=(least / 4, None))  # so that the shortest bar can be seen
        panel.set_xticks(range(len(cases)), cases)
        panel.grid(visible=True, axis="y", alpha=0.3)
    handles = [Patch(color=f"C{number % 10}", label=peer) for number, peer in enumerate(peers)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _curves(content: dict[str, Any], kind: str, axis: str) -> Figure:
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
    return figure


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
