"""Check every peer against its own convention, then time those that ran, together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from bench.calls import Calls
from bench.cases import images
from bench.harness import Samples, interleaved, seconds, summary
from bench.worker import find

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from bench.cases import Case
    from bench.conventions import Convention, MultiScale
    from bench.peers import Peer
    from bench.roofline import Roofline

Row = dict[str, Any]
OWN = "fastssim"
VALUE_TOLERANCE = 5e-5  # from the peer's own convention in float64: beyond it, it computes something else


class Library(Protocol):
    """What a row tells of a library."""

    @property
    def name(self) -> str:
        """As people call it."""

    @property
    def version(self) -> str:
        """The installed version."""


@dataclass(frozen=True)
class Kind:
    """One thing that is timed."""

    name: str
    task: str  # module:function
    table: str  # module:TABLE of the peers
    window: int = 11
    fma: float = 0  # multiply-adds that it needs per pixel and channel
    moved: float = 0  # bytes that it must move per pixel and channel


def measure(
    kinds: Sequence[Kind],
    cases: Iterable[Case],
    names: Collection[str],
    limits: Roofline,
    *,
    rounds: int,
    announce: Callable[[str], object],
    device: str = "cpu",
) -> list[Row]:
    """Return a row for every case, kind and peer of those named.

    A row with ``absent`` says why there is no time; one without ``times_fastssim`` computes something else.
    """
    rows = []
    wanted = {kind.table: chosen(kind.table, names, device) for kind in kinds}
    with Calls(device) as calls:
        for case in cases:
            announce(case.name)
            x, y = images(case)
            calls.inputs(x=x[: case.checked], y=y[: case.checked])
            checks: dict[tuple[str, int], dict[str, Row]] = {}
            for kind in kinds:
                if (kind.table, kind.window) not in checks:
                    checks[kind.table, kind.window] = check(calls, wanted[kind.table], kind, case)
            if case.checked is not None:  # other inputs forget what was compiled
                calls.inputs(x=x, y=y)
            for kind in kinds:
                able = [peer for peer in wanted[kind.table] if peer.gradient or not kind.task.endswith(":gradient")]
                labels = {"case": case.name, "kind": kind.name}
                made = {
                    peer.name: partial(calls.make, peer, kind.table, kind.task, window=kind.window) for peer in able
                }
                for row in timed(labels, able, made, checks[kind.table, kind.window], rounds):
                    weigh(row, limits, case.pixels, case.pixels * kind.fma, case.pixels * kind.moved)
                    rows.append(row)
    return rows


def weigh(row: Row, limits: Roofline, pixels: int, fma: float, moved: float) -> None:
    """Add to a row with a time what it is per pixel, and how near it comes to the roofline.

    fma, moved: multiply-adds and bytes that the call must do and move in all.
    """
    if "median_ms" in row:
        row["ns_per_pixel"] = 1e6 * row["median_ms"] / pixels
        row["fma"], row["bytes"] = fma, moved
        row["roofline_share"] = 1e3 * limits.seconds(fma, moved) / row["median_ms"]


def chosen(table: str, names: Collection[str], device: str = "cpu") -> list[Peer]:
    """Return the peers of a table that are named and made for a device."""
    return [peer for peer in find(table) if peer.name in names and device in peer.devices]


def check(calls: Calls, peers: Iterable[Peer], kind: Kind, case: Case) -> dict[str, Row]:
    """Compare every peer's mean with its own convention in float64; return what is known of each, by name."""
    found: dict[str, Row] = {}
    for peer in peers:
        row: Row = {"convention": peer.convention.words}
        value = attempt(partial(_value, calls, peer, kind))
        if isinstance(value, str):
            row["absent"] = value
        else:
            row["value_error"] = abs(value - _expected(peer.convention, case, kind.window))
            row["equal"] = row["value_error"] <= VALUE_TOLERANCE
            row["comparable"] = row["equal"] and peer.convention.comparable
        found[peer.name] = row
    return found


@lru_cache(maxsize=64)
def _expected(convention: Convention | MultiScale, case: Case, window: int) -> float:
    """Value of a case by a convention: slow, and the same for every library and suite."""
    x, y = (image[: case.checked].numpy() for image in images(case))
    return convention.value(x, y, window=window)


def _value(calls: Calls, peer: Peer, kind: Kind) -> float:
    return float(calls.make(peer, kind.table, "bench.tasks:forward", window=kind.window)())


def timed(
    labels: Row,
    peers: Iterable[Library],
    make: Mapping[str, Callable[[], Callable[[], Any]]],
    known: Mapping[str, Row],
    rounds: int,
) -> list[Row]:
    """Time the peers' calls in interleaved rounds.

    Parameters
    ----------
    labels : dict
        ``case`` and ``kind``.
    peers : iterable of Library
        In the order of the rows.
    make : mapping of str to callable
        Makes a peer's call; what it raises, or the first call, is the reason why the peer is absent.
    known : mapping of str to dict
        What is known of each peer beforehand; no ratio is taken where ``comparable`` is False.
    rounds : int
        Samples of each, at most.
    """
    rows = {
        peer.name: {**labels, "peer": peer.name, "version": peer.version, **known.get(peer.name, {})} for peer in peers
    }
    calls: dict[str, Callable[[], Any]] = {}
    for name, row in rows.items():
        if "absent" not in row:
            call = attempt(make[name])
            if isinstance(call, str):
                row["absent"] = call
            else:
                calls[name] = call
    failed: dict[str, str] = {}
    guarded = {name: _Guarded(call, name, failed) for name, call in calls.items()}
    samples = interleaved(guarded, rounds, beside=OWN if OWN in guarded else None)
    for name, row in rows.items():
        if name in failed:
            row["absent"] = failed[name]
        elif name in samples:
            row.update(summary(samples[name].seconds))
            if OWN in samples and OWN not in failed and row.get("comparable", True):
                row.update(_compared(samples[name]) if name != OWN else {"times_fastssim": 1.0})
    return list(rows.values())


def _compared(samples: Samples) -> Row:
    """Return how many times as long as ours a library takes, and how well that is known."""
    lower, ratio, upper = samples.ratio()
    within = max(upper / ratio, ratio / lower) - 1
    spread = {"times_lower": lower, "times_upper": upper, "times_within": within}
    return {"times_fastssim": ratio, **spread, "times_mean": samples.mean_ratio()}


class _Guarded:
    """A call that notes its first failure and then does nothing, so that the others' measurement goes on."""

    def __init__(self, call: Callable[[], Any], name: str, failed: dict[str, str]) -> None:
        self._call = call
        self._name = name
        self._failed = failed

    def __call__(self) -> None:
        """Do it once."""
        self.seconds(1)

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call."""
        found = math.nan if self._name in self._failed else attempt(partial(seconds, self._call, repeats))
        if isinstance(found, str):
            self._failed[self._name] = found
            return math.nan
        return float(found)


def figures(case: str, kind: str, peer: Peer, function: Callable[[], Row]) -> Row:
    """Return a peer's row: its figures, or why there are none."""
    found = attempt(function)
    row = {"case": case, "kind": kind, "peer": peer.name, "version": peer.version}
    return row | ({"absent": found} if isinstance(found, str) else found)


def attempt(function: Callable[[], Any]) -> Any:
    """Return what a peer's function returns, or in a line why it failed."""
    try:
        return function()
    except ImportError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # a peer may raise anything; that is its result
        return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
