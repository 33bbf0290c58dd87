"""Peak growth of a fresh process for every library: what one call needs beyond its inputs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.calls import Calls
from bench.cases import images, selected
from bench.measure import chosen, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bench.cases import Case
    from bench.measure import Row
    from bench.peers import Peer

TABLES = ("bench.peers:SSIM",)
KINDS = {"forward": "bench.tasks:forward", "forward + gradient": "bench.tasks:gradient"}
MIB = 1 << 20


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,  # noqa: ARG001  # nothing is timed
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure the named peers on the largest case; as `bench.ssim.run`, without times.

    A process loads the library and the images, calls once, so that what is compiled and loaded is there, hands freed
    memory back, and calls again: the peak of the second call counts, and the result is in it.
    """
    case = max(selected(quick=quick), key=lambda case: case.pixels)
    x, y = images(case)
    jobs = [
        (peer, kind, task)
        for peer in chosen(TABLES[0], peers)
        for kind, task in KINDS.items()
        if peer.gradient or task != KINDS["forward + gradient"]
    ]

    def row(job: tuple[Peer, str, str]) -> Row:
        peer, kind, task = job
        announce(f"{peer.name}, {kind}")
        return figures(case.name, kind, peer, partial(_peak, calls, peer, task, case))

    with Calls() as calls:
        calls.inputs(x=x, y=y)
        return {"rows": side_by_side(row, jobs)}


def side_by_side(measure: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """Measure two processes at a time: most of the time they start, and memory does not depend on who runs beside."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(measure, jobs))


def _peak(calls: Calls, peer: Peer, task: str, case: Case) -> Row:
    with calls.worker(peer) as worker:
        number = calls.prepare(worker, peer, TABLES[0], task)["number"]
        first, second = (worker.ask("memory", number=number) for _ in range(2))
    return {
        "peak_mib": second["peak"] / MIB,
        "bytes_per_pixel": second["peak"] / case.pixels,
        "kept_mib": max(first["kept"], 0) / MIB,
    }
