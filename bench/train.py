"""Train with each library's loss: the paper's autoencoder, and a fit of coloured blobs as in Gaussian splatting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bench.calls import Calls
from bench.cases import Case, images
from bench.measure import attempt, chosen, timed
from bench.memory import MIB, side_by_side
from bench.peers import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bench.measure import Row
    from bench.peers import Score

JOBS = (
    ("autoencoder, one step of Adam", "bench.tasks:train_step", Case((8, 1, 128, 128)), Case((32, 1, 128, 128))),
    ("fit of 1000 blobs, one step of Adam", "bench.tasks:fit_step", Case((1, 3, 512, 512)), Case((1, 3, 512, 512))),
)  # the cases with `quick` and without


def _squared_error() -> Score:
    return lambda x, y, *_: 1 - torch.nn.functional.mse_loss(x, y)


#  without an SSIM, the least that a step can take
PEERS = (Peer("squared error", "torch", _squared_error),)
TABLES = ("bench.peers:SSIM", "bench.train:PEERS")


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time a training step with every named peer that has a gradient; as `bench.ssim.run`.

    Memory is the peak growth of a fresh process during one step, as in `bench.memory`; ``quick``: none.
    """
    rows: list[Row] = []
    for kind, task, small, large in JOBS:
        announce(kind)
        case = small if quick else large
        x, _ = images(case)
        with Calls() as calls:
            calls.inputs(x=x)
            able = [(table, peer) for table in TABLES for peer in chosen(table, peers) if peer.gradient]
            make = {peer.name: partial(calls.make, peer, table, task) for table, peer in able}
            measured = timed({"case": case.name, "kind": kind}, [peer for _, peer in able], make, {}, rounds)
            timed_peers = [(row, *one) for row, one in zip(measured, able, strict=True)]
            rows += measured if quick else side_by_side(partial(_with_peak, calls, task), timed_peers)
    return {"rows": rows}


def _with_peak(calls: Calls, task: str, timed_peer: tuple[Row, str, Peer]) -> Row:
    """Add the peak of a fresh process to a library's row, where it could be timed."""
    row, table, peer = timed_peer
    peak = "absent" if "absent" in row else attempt(partial(_peak, calls, peer, table, task))
    return row if isinstance(peak, str) else row | {"peak_mib": peak}


def _peak(calls: Calls, peer: Peer, table: str, task: str) -> float:
    with calls.worker(peer) as worker:
        number = calls.prepare(worker, peer, table, task)["number"]
        worker.ask("call", number=number, out="")
        return float(worker.ask("memory", number=number)["peak"]) / MIB
