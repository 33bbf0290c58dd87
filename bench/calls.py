"""Tasks ready to be timed, whether they run here or in a peer's own environment."""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench import heap
from bench.device import OnDevice
from bench.worker import RemoteCall, Worker, find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.peers import Peer


class Calls:
    """Makes calls on sets of inputs; ends the processes and drops the files it made when it is left.

    Memory stays with this process and those that are kept, see `bench.heap`.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where they are put.

    Examples
    --------
    >>> from bench.peers import SSIM
    >>> x = torch.rand(1, 1, 32, 32)
    >>> with Calls() as calls:
    ...     calls.inputs(x=x, y=x)
    ...     float(calls.make(SSIM[0], "bench.peers:SSIM", "bench.tasks:forward")())
    1.0
    """

    def __init__(self, device: str = "cpu") -> None:
        heap.hold()
        self._device = device
        self._open = ExitStack()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self._workers: dict[str, Worker] = {}
        self._arrays: Mapping[str, torch.Tensor] = {}
        self._files: dict[str, str] = {}
        self._saving = threading.Lock()
        self._made: dict[tuple[Any, ...], Callable[[], Any]] = {}

    def __enter__(self) -> Calls:  # noqa: PYI034  # Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def inputs(self, **arrays: torch.Tensor) -> None:
        """Take other inputs, by the names of a task's arguments; calls on the former ones are gone."""
        self._arrays = arrays
        self._files = {}
        self._made.clear()
        heap.release()
        for worker in self._workers.values():
            worker.ask("forget")

    def make(self, peer: Peer, table: str, task: str, **options: Any) -> Callable[[], Any]:
        """Return a call of a task: the same one again, what it compiled included, until there are other inputs.

        Parameters
        ----------
        peer : Peer
            The library.
        table : str
            ``module:TABLE`` that it is found in, for another process.
        task : str
            ``module:function``, see `bench.tasks`.
        **options
            For the task.

        Raises
        ------
        ImportError
            If the peer or its environment is missing, or it does not run on this device.
        """
        key = peer.name, table, task, *sorted(options.items())
        if key not in self._made:
            self._made[key] = self._new(peer, table, task, **options)
        return self._made[key]

    def _new(self, peer: Peer, table: str, task: str, **options: Any) -> Callable[[], Any]:
        if self._device not in peer.devices:
            raise ImportError(f"{peer.name} runs on {' and '.join(peer.devices)} only")
        if peer.environment is None:
            on_device = {name: array.to(self._device) for name, array in self._arrays.items()}
            call: Callable[[], Any] = find(task)(peer, **on_device, **options)
            if self._device == "cuda":
                return OnDevice(call)
            return heap.HandedBack(call) if self._large else call
        if self._device != "cpu":
            raise ImportError(f"{peer.name} has an environment of its own, whose torch is for the CPU")
        return self.remote(self.kept(peer), peer, table, task, hand_back=self._large, **options)

    def kept(self, peer: Peer) -> Worker:
        """Return the peer's process, started at its first use."""
        if peer.name not in self._workers:
            self._workers[peer.name] = self.worker(peer)
            self._workers[peer.name].ask("hold")
        return self._workers[peer.name]

    def end(self, peer: Peer) -> None:
        """End the peer's process, where there is one; its next use starts another."""
        worker = self._workers.pop(peer.name, None)
        if worker is not None:
            worker.close()

    def worker(self, peer: Peer, variables: Mapping[str, str] | None = None) -> Worker:
        """Start a process for a peer."""
        return self._open.enter_context(Worker(peer.environment, variables))

    def remote(self, worker: Worker, peer: Peer, table: str, task: str, **options: Any) -> RemoteCall:
        """Return a call of a task in a worker."""
        number = self.prepare(worker, peer, table, task, **options)["number"]
        return RemoteCall(worker, number, self._folder)

    def prepare(
        self,
        worker: Worker,
        peer: Peer,
        table: str,
        task: str,
        threads: int | None = None,
        *,
        hand_back: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Have a task prepared in a worker; return what it says, see `bench.worker.Bench.prepare`."""
        return worker.ask(
            "prepare",
            peer=f"{table}:{peer.name}",
            task=task,
            arrays=self._saved(),
            options=options,
            threads=threads or torch.get_num_threads(),
            hand_back=hand_back,
        )

    @property
    def _large(self) -> bool:
        """Whether libraries cannot all keep what they take for such inputs."""
        return any(array.numel() >= heap.LARGE for array in self._arrays.values())

    def _saved(self) -> dict[str, str]:
        """Write the inputs once, also for several threads."""
        with self._saving:
            for name, array in self._arrays.items():
                if name not in self._files:
                    path = self._folder / f"{name}.npy"
                    np.save(path, array.numpy(), allow_pickle=False)
                    self._files[name] = str(path)
            return self._files
