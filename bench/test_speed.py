"""The CPU cases for pytest-benchmark: ``pytest bench --benchmark-only``, ``--benchmark-autosave`` to compare later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench.calls import Calls
from bench.cases import CASES, Case, images
from bench.measure import attempt
from bench.ssim import KINDS
from bench.worker import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Kind
    from bench.peers import Peer

QUICK = [case for case in CASES if case.quick]
MEASURED = [
    pytest.param(kind, peer, id=f"{kind.name}-{peer.name}")
    for kind in KINDS
    for peer in find(kind.table)
    if "cpu" in peer.devices and (peer.gradient or not kind.task.endswith(":gradient"))
]


@pytest.fixture(scope="module", params=QUICK, ids=lambda case: case.name)
def calls(request: Any) -> Iterator[Calls]:
    """Make calls on one case's images."""
    case: Case = request.param
    x, y = images(case)
    with Calls() as made:
        made.inputs(x=x, y=y)
        yield made


@pytest.mark.parametrize(("kind", "peer"), MEASURED)
def test_speed(benchmark: Any, calls: Calls, kind: Kind, peer: Peer) -> None:
    """Time one library, the message to another process included where it needs one."""
    made = attempt(lambda: calls.make(peer, kind.table, kind.task, window=kind.window))
    if isinstance(made, str):
        pytest.skip(made)
    benchmark.group = kind.name
    benchmark.extra_info["version"] = peer.version
    benchmark(made)
