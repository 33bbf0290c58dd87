"""Value and gradient of every library on hard images, against its own convention in float64."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.calls import Calls
from bench.cases import hard_cases
from bench.conventions import Convention
from bench.measure import chosen, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bench.cases import HardCase
    from bench.measure import Row
    from bench.peers import Peer

TABLES = ("bench.peers:SSIM",)


def run(
    peers: Collection[str],
    *,
    quick: bool,  # noqa: ARG001  # small images either way
    rounds: int,  # noqa: ARG001  # nothing is timed
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Compare the named peers; as `bench.ssim.run`, without times."""
    rows: list[Row] = []
    with Calls() as calls:
        for case in hard_cases():
            announce(case.name)
            calls.inputs(x=case.x, y=case.y)
            rows += [
                figures(case.name, "against float64", peer, partial(_errors, calls, peer, case))
                for peer in chosen(TABLES[0], peers)
            ]
    return {"rows": rows}


def _errors(calls: Calls, peer: Peer, case: HardCase) -> Row:
    """Return the value's error and the gradient's, as a share of its largest element and of its length."""
    x, y = case.x.numpy(), case.y.numpy()
    value = float(calls.make(peer, TABLES[0], "bench.tasks:forward", data_range=case.data_range)())
    errors: Row = {"convention": peer.convention.words}
    errors["value_error"] = abs(value - peer.convention.value(x, y, case.data_range))
    if peer.gradient and isinstance(peer.convention, Convention):
        gradient = calls.make(peer, TABLES[0], "bench.tasks:gradient", data_range=case.data_range)()
        expected = peer.convention.gradient(x, y, case.data_range)
        difference = np.asarray(gradient, np.float64) - expected
        errors["gradient_error"] = float(np.abs(difference).max() / np.abs(expected).max())
        errors["gradient_length_error"] = float(np.linalg.norm(difference) / np.linalg.norm(expected))
    return errors
