"""Mean SSIM forward, and forward with the gradient by one image, against other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import roofline
from bench.cases import CASES, Case, images
from bench.harness import interleaved, summary
from bench.peers import PEERS, Peer, forward, gradient
from fastssim import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.peers import Score

PASSES: dict[str, Callable[..., Any]] = {"forward": forward, "forward + gradient": gradient}
VALUE_TOLERANCE = 5e-5  # from the float64 reference: a peer beyond it computes something else
#  per pixel and channel, float32, 11 taps: moments of four maps by two passes; as many again for three of the adjoint
FMA = {"forward": 88, "forward + gradient": 154}
BYTES = {"forward": 8, "forward + gradient": 12}


def run(
    peers: Iterable[str], *, quick: bool, rounds: int, announce: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Time the named peers on every case.

    Parameters
    ----------
    peers : iterable of str
        Names of `bench.peers.PEERS`.
    quick : bool
        Leave out the cases that take long.
    rounds : int
        Samples of each measurement.
    announce : callable
        Told in a line what begins.

    Returns
    -------
    dict
        ``roofline`` and ``rows``, see `bench.results`.
    """
    names = set(peers)
    limits = roofline.measure()
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if quick and not case.quick:
            continue
        announce(f"{case.name}")
        rows += _measure_case(case, [peer for peer in PEERS if peer.name in names], limits, rounds)
    return {"roofline": vars(limits), "rows": rows}


def _measure_case(case: Case, peers: list[Peer], limits: roofline.Roofline, rounds: int) -> list[dict[str, Any]]:
    """Check every peer's value against the reference, then time them together."""
    x, y = images(case)
    expected = float(reference.ssim(x.numpy(), y.numpy()).mean())
    scores: dict[str, Score] = {}
    checks: dict[str, dict[str, Any]] = {}
    for peer in peers:
        try:
            score = peer.score()
        except ImportError as error:
            checks[peer.name] = {"absent": str(error)}
            continue
        difference = abs(forward(score, x, y) - expected)
        checks[peer.name] = {"value_error": difference, "equal": difference <= VALUE_TOLERANCE}
        scores[peer.name] = score
    rows = []
    for name, call in PASSES.items():
        samples = interleaved({peer: _bound(call, score, x, y) for peer, score in scores.items()}, rounds)
        least = limits.seconds(case.pixels * FMA[name], case.pixels * BYTES[name])
        for peer in peers:
            row: dict[str, Any] = {
                "case": case.name, "kind": name, "peer": peer.name, "version": peer.version, **checks[peer.name]
            }  # fmt: skip
            if peer.name in samples:
                times = summary(samples[peer.name])
                row |= times
                row["ns_per_pixel"] = 1e6 * times["median_ms"] / case.pixels
                row["roofline_share"] = 1e3 * least / times["median_ms"]
            rows.append(row)
    _add_ratios(rows)
    return rows


def _bound(call: Callable[..., Any], score: Score, *arguments: Any) -> Callable[[], Any]:
    return lambda: call(score, *arguments)


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    """Say how many times as long as fastssim each peer takes."""
    own = {row["kind"]: row["median_ms"] for row in rows if row["peer"] == "fastssim" and "median_ms" in row}
    for row in rows:
        if row["kind"] in own and "median_ms" in row:
            row["times_fastssim"] = row["median_ms"] / own[row["kind"]]
