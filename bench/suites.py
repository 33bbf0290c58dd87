"""The one table of what can be measured.

A suite is a module with ``run(peers, *, quick, rounds, announce) -> dict`` and its libraries, ``PEERS``, or ``TABLES``
with the names ``module:TABLE`` of others' tables. The dictionary it returns holds ``rows``, each with ``case``,
``kind``, ``peer`` and ``version``, and either ``absent`` (why there is no figure) or figures by the names of
`bench.results.COLUMNS`; a row with ``times_fastssim`` takes part in `bench.compare` and in "where we lose".
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.worker import find

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


@dataclass(frozen=True)
class Suite:
    """One suite."""

    module: str
    purpose: str
    options: tuple[str, ...] = ()  # further keywords of its run

    @property
    def on_gpu(self) -> bool:
        """Whether it measures on a GPU, where one is asked for."""
        return "device" in self.options or self.module == "bench.gpu"

    @property
    def peers(self) -> list[str]:
        """Names of its libraries; none where it measures ours alone."""
        module = import_module(self.module)
        tables = [find(table) for table in getattr(module, "TABLES", ())] or [getattr(module, "PEERS", ())]
        return list(dict.fromkeys(peer.name for table in tables for peer in table))

    def run(
        self,
        peers: Collection[str],
        *,
        quick: bool,
        rounds: int,
        announce: Callable[[str], object],
        **options: Any,
    ) -> dict[str, Any]:
        """Measure; options that it does not have are left out."""
        own = {name: value for name, value in options.items() if name in self.options}
        result: dict[str, Any] = import_module(self.module).run(
            peers, quick=quick, rounds=rounds, announce=announce, **own
        )
        return result


SUITES = {
    "ssim": Suite("bench.ssim", "mean SSIM, forward and with its gradient", ("device",)),
    "ms-ssim": Suite("bench.ms_ssim", "mean MS-SSIM, forward and with its gradient", ("device",)),
    "compat": Suite("bench.compat", "every drop-in function against the one that it replaces"),
    "tiles": Suite("bench.tiles", "cut an image into overlapping tiles and blend them again"),
    "train": Suite("bench.train", "one training step with each library's loss: time and memory"),
    "segment": Suite("bench.segment", "megapixels a second through tiles and a network"),
    "memory": Suite("bench.memory", "peak growth of a fresh process"),
    "startup": Suite("bench.startup", "import, first call with caches and without, calls on a small image"),
    "accuracy": Suite("bench.accuracy", "value and gradient on hard images against float64"),
    "scaling": Suite("bench.scaling", "time over pixels, window, threads and batch", ("full",)),
    "gpu": Suite("bench.gpu", "all of SSIM on an NVIDIA GPU"),
}
