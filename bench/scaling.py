"""How time grows with pixels, window, threads and batch, one process for each library; where one dies is a result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench import roofline
from bench.calls import Calls
from bench.cases import Case, images
from bench.measure import attempt, chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from bench.measure import Row
    from bench.peers import Peer

TABLES = ("bench.peers:SSIM",)
KINDS = {"forward": "bench.tasks:forward", "forward + gradient": "bench.tasks:gradient"}
SAMPLES = 3  # beside the first, of calls that take less than a second
POINT_SECONDS = 5.0  # a point that is expected to take longer is left out
SHARE = 0.75  # of the free memory that one process may take


@dataclass(frozen=True)
class Point:
    """One measurement of every library."""

    axis: str
    value: int
    case: Case
    window: int = 11
    threads: int | None = None


def points(*, quick: bool, full: bool) -> Iterator[Point]:
    """Return what is measured, axis by axis, in rising order."""
    largest = 28 if full else 20 if quick else 26
    for power in range(14, largest + 1, 2):
        side = 1 << (power // 2)
        yield Point("pixels", 1 << power, Case((1, 1, side, side)))
    middle = Case((1, 1, 512, 512))
    for window in (3, 11, 33) if quick else (3, 5, 7, 9, 11, 17, 25, 33):
        yield Point("window", window, middle, window=window)
    cores = os.cpu_count() or 1
    for threads in sorted({1, *(1 << power for power in range(1, cores.bit_length())), cores}):
        yield Point("threads", threads, middle if quick else Case((1, 1, 1024, 1024)), threads=threads)
    for batch in (1, 4, 16) if quick else (1, 4, 16, 64, 256):
        yield Point("batch", batch, Case((batch, 1, 128, 128)))


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,  # noqa: ARG001  # the fit takes the noise out
    announce: Callable[[str], object] = lambda _: None,
    full: bool = False,
) -> dict[str, Any]:
    """Time the named peers at every point; as `bench.ssim.run`.

    A process may take three quarters of the memory that is free at the start. A row has the least of a few times;
    ``absent`` says where a library died, refused, or would have taken too long. ``fits`` has the slopes of
    log(time) over log(axis).
    """
    rows: list[Row] = []
    limit = int(SHARE * _free())
    before = torch.get_num_threads()
    names = [peer for peer in chosen(TABLES[0], peers) if peer.name != "pytorch-msssim compiled"]  # compiles every size
    try:
        for peer in names:
            announce(peer.name)
            rows += _curves(peer, list(points(quick=quick, full=full)), limit, quick=quick)
        limits = []
        for threads in sorted({row["value"] for row in rows if row["axis"] == "threads"}):
            torch.set_num_threads(threads)
            limits.append(vars(roofline.measure()))
    finally:
        torch.set_num_threads(before)
    return {"rows": rows, "fits": fits(rows), "rooflines": limits, "memory_limit": limit}


def _curves(peer: Peer, wanted: list[Point], limit: int, *, quick: bool) -> list[Row]:
    """Measure one library at every point, in one process until it dies; if `quick`, gradients along one axis alone."""
    rows = []
    with Calls() as calls:
        for kind in KINDS if peer.gradient else ("forward",):
            for axis in dict.fromkeys(point.axis for point in wanted):
                if kind == "forward" or axis == "pixels" or not quick:
                    rows += _curve(calls, peer, [point for point in wanted if point.axis == axis], kind, limit)
    return rows


def _curve(calls: Calls, peer: Peer, wanted: list[Point], kind: str, limit: int) -> list[Row]:
    """Measure one library along one axis."""
    rows = []
    lost = ""  # why the library has no more points on this axis
    pixels, last = 1, 0.0
    for point in wanted:
        row: Row = {"case": f"{point.axis} {point.value}", "kind": kind, "axis": point.axis, "value": point.value}
        row |= {"peer": peer.name, "version": peer.version, "comparable": peer.convention.comparable}
        expected = last * point.case.pixels / pixels
        if not lost and point.window not in peer.windows:
            row["absent"] = "not a size of its window"
        elif lost or expected > POINT_SECONDS:
            row["absent"] = lost or f"left out: about {expected:.0f} s a call"
        else:
            found = attempt(partial(_least, calls, peer, point, KINDS[kind], limit))
            if isinstance(found, str):
                row["absent"] = lost = found
                row["died"] = True
                calls.end(peer)  # the next curve has a process of its own
            else:
                row |= {"least_ms": 1e3 * found, "ns_per_pixel": 1e9 * found / point.case.pixels}
                pixels, last = point.case.pixels, found
        rows.append(row)
    return rows


def _least(calls: Calls, peer: Peer, point: Point, task: str, limit: int) -> float:
    """Return the least seconds of a few calls in a process with so much memory."""
    x, y = images(point.case)
    calls.inputs(x=x, y=y)
    worker = calls.kept(peer)
    worker.ask("limit", size=limit)
    threads = {} if point.threads is None else {"threads": point.threads}
    call = calls.remote(worker, peer, TABLES[0], task, window=point.window, **threads)
    call.seconds(1)
    first = call.seconds(1)
    repeats = max(1, round(0.02 / first))
    return min([first, *(call.seconds(repeats) for _ in range(SAMPLES if first < 1 else 0))])


def fits(rows: list[Row]) -> list[Row]:
    """Fit log(time) = exponent log(axis) + constant to every curve of three points or more.

    Examples
    --------
    >>> row = {"kind": "forward", "axis": "pixels", "peer": "p"}
    >>> fits([row | {"value": n, "least_ms": 3 * n} for n in (1, 2, 4)])[0]["exponent"]
    1.0
    """
    found = []
    for kind, axis, peer in dict.fromkeys((row["kind"], row["axis"], row["peer"]) for row in rows):
        curve = [
            (row["value"], row["least_ms"])
            for row in rows
            if (row["kind"], row["axis"], row["peer"]) == (kind, axis, peer) and "least_ms" in row
        ]
        if len(curve) >= 3:
            value, time = np.log(np.array(curve, float).T)
            slope = float(np.polyfit(value, time, 1)[0])
            found.append({"kind": kind, "axis": axis, "peer": peer, "exponent": round(slope, 6), "points": len(curve)})
    return found


def _free() -> int:
    """Return the bytes of memory that processes can take."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable"):
            return 1024 * int(line.split()[1])
    raise OSError("this system does not say how much memory is free")
