"""How long a fresh process takes to its first value, with caches and without; what any later call costs by itself."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import roofline
from bench.calls import Calls
from bench.cases import Case, images
from bench.measure import chosen, figures, measure
from bench.ssim import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bench.measure import Row
    from bench.peers import Peer

TABLES = ("bench.peers:SSIM",)
CASE = Case((4, 3, 64, 64))
SMALL = Case((1, 1, 64, 64))  # so few pixels that a call's own cost shows
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}  # an installed library has it, so must one that runs from a checkout


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Start a process for the named peers, a few times each, and take the least; as `bench.ssim.run`.

    ``import_ms`` counts from a process that has imported torch. The first call takes the gradient where there is one.
    Unless ``quick``, calls on one small image are timed as in `bench.ssim`.
    """
    times = min(rounds, 2 if quick else 5)
    x, y = images(CASE)
    rows = []
    with Calls() as calls:
        calls.inputs(x=x, y=y)
        for peer in chosen(TABLES[0], peers):
            announce(peer.name)
            rows.append(figures(CASE.name, "fresh process", peer, partial(_times, calls, peer, times)))
    if quick:
        return {"rows": rows}
    limits = roofline.measure()
    kinds = [kind for kind in KINDS if kind.table in TABLES]
    rows += measure(kinds, [SMALL], peers, limits, rounds=rounds, announce=announce)
    return {"roofline": vars(limits), "rows": rows}


def _times(calls: Calls, peer: Peer, times: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="bench-") as empty:
        caches = {**dict.fromkeys(CACHES, empty), **BYTE_CODE}
        cold = _start(calls, peer, caches)  # fills them
        warm = [_start(calls, peer, caches) for _ in range(times)]
    least = {name: min(row[name] for row in warm) for name in warm[0]}
    return {**least, "cold_call_ms": cold["first_call_ms"]}


def _start(calls: Calls, peer: Peer, variables: dict[str, str]) -> Row:
    """Return the times of one process."""
    task = "bench.tasks:gradient" if peer.gradient else "bench.tasks:forward"
    with calls.worker(peer, variables) as worker:
        prepared = calls.prepare(worker, peer, TABLES[0], task)
        first, second = (worker.ask("seconds", number=prepared["number"], repeats=1)["seconds"] for _ in range(2))
    return {"import_ms": 1e3 * prepared["load_seconds"], "first_call_ms": 1e3 * first, "second_call_ms": 1e3 * second}
