"""All of SSIM on an NVIDIA GPU: times, memory, and the card's own rates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bench import ms_ssim, ssim
from bench.calls import Calls
from bench.cases import images, selected
from bench.device import peak_bytes, require_gpu
from bench.measure import chosen, figures
from bench.memory import KINDS, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bench.measure import Row
    from bench.peers import Peer

TABLES = (*ssim.TABLES, *ms_ssim.TABLES)


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time the named peers on the GPU; as `bench.ssim.run`.

    Raises
    ------
    RuntimeError
        Where there is no GPU.
    """
    require_gpu()
    one = ssim.run(peers, quick=quick, rounds=rounds, announce=announce, device="cuda")
    many = ms_ssim.run(peers, quick=quick, rounds=rounds, announce=announce, device="cuda")
    for row in many["rows"]:
        row["kind"] = f"MS-SSIM, {row['kind']}"
    rows = [*one["rows"], *many["rows"], *_memory(peers, quick=quick)]
    return {"gpu": torch.cuda.get_device_name(), "roofline": one["roofline"], "rows": rows}


def _memory(peers: Collection[str], *, quick: bool) -> list[Row]:
    """Return what each library allocates at most, beyond its inputs, on the largest case."""
    case = max(selected(quick=quick, device="cuda"), key=lambda case: case.pixels)
    x, y = images(case)
    rows = []
    with Calls("cuda") as calls:
        calls.inputs(x=x, y=y)
        for peer in chosen(ssim.TABLES[0], peers, "cuda"):
            for kind, task in KINDS.items():
                if peer.gradient or task == KINDS["forward"]:
                    rows.append(figures(case.name, f"memory, {kind}", peer, partial(_peak, calls, peer, task)))
    return rows


def _peak(calls: Calls, peer: Peer, task: str) -> Row:
    return {"peak_mib": peak_bytes(calls.make(peer, ssim.TABLES[0], task)) / MIB}
