"""Mean SSIM forward, and forward with the gradient by one image, against other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import roofline
from bench.cases import selected
from bench.measure import Kind, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TABLES = ("bench.peers:SSIM", "bench.peers:UNIFORM_SSIM")
#  11 taps: moments of four maps by two passes, 4 x 2 x 11; as many again for three of the adjoint. A uniform window
#  needs no multiplication: four additions a map and pass. Both images are read once, the gradient is written once.
KINDS = (
    Kind("forward", "bench.tasks:forward", TABLES[0], fma=88, moved=8),
    Kind("forward + gradient", "bench.tasks:gradient", TABLES[0], fma=154, moved=12),
    Kind("forward, uniform window of 7", "bench.tasks:forward", TABLES[1], window=7, fma=32, moved=8),
)


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time the named peers on every case.

    Parameters
    ----------
    peers : collection of str
        Names of peers in `TABLES`.
    quick : bool
        Leave out the cases that take long.
    rounds : int
        Samples of each measurement, at most.
    announce : callable
        Told in a line what begins.
    device : {"cpu", "cuda"}
        Where the images lie.

    Returns
    -------
    dict
        ``roofline`` and ``rows``, see `bench.results`.
    """
    limits = roofline.measure(device)
    cases = selected(quick=quick, device=device)
    rows = measure(KINDS, cases, peers, limits, rounds=rounds, announce=announce, device=device)
    return {"roofline": vars(limits), "rows": rows}
