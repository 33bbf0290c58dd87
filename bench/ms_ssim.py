"""Mean MS-SSIM over five scales, forward and with its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import roofline
from bench.cases import selected
from bench.measure import Kind, measure
from bench.ssim import KINDS as ONE_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TABLES = ("bench.peers:MS_SSIM",)
SMALLEST = 176  # pixels: eleven at the fifth scale
#  every scale has a quarter of the pixels of the one before; the images are read and the gradient is written once
KINDS = tuple(Kind(kind.name, kind.task, TABLES[0], fma=kind.fma * 4 / 3, moved=kind.moved) for kind in ONE_SCALE[:2])


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time the named peers on every case that is large enough; as `bench.ssim.run`."""
    limits = roofline.measure(device)
    cases = selected(quick=quick, smallest=SMALLEST, device=device)
    rows = measure(KINDS, cases, peers, limits, rounds=rounds, announce=announce, device=device)
    return {"roofline": vars(limits), "rows": rows}
