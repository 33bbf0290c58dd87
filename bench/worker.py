"""Do a task in a process of its own: for a peer's own environment, for memory, start-up, and inputs it may die of.

The two processes exchange lines of JSON; arrays travel as ``.npy`` files, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from bench import environments, heap
from bench.harness import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bench.peers import Peer

FOLDER = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """The worker could not do what it was asked, or has died; says why."""


class Worker:
    """A process that does one task at a time.

    Parameters
    ----------
    environment : str, optional
        One of `bench.environments`; ours by default.
    variables : mapping, optional
        Environment variables to add.

    Raises
    ------
    ImportError
        If the environment has not been made.
    """

    def __init__(self, environment: str | None = None, variables: Mapping[str, str] | None = None) -> None:
        python = sys.executable if environment is None else environments.python(environment)
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed in close
        self._process = subprocess.Popen(  # noqa: S603  # our own words
            [str(python), "-m", "bench.worker"],
            cwd=FOLDER,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Worker:  # noqa: PYI034  # Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Have one thing done, by a method of `Bench`.

        Raises
        ------
        ImportError
            If the peer cannot be imported there.
        WorkerError
            If it fails or the process dies.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101  # both are pipes
        assert stdout is not None  # noqa: S101
        try:
            stdin.write(json.dumps({"do": do, **words}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(self._death())
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise ImportError(answer["missing"])
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"died of {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        self._errors.seek(0)
        last = [line for line in self._errors.read().splitlines() if line.strip()][-1:]
        return f"ended with status {code}" + "".join(f": {line.strip()}" for line in last)


class RemoteCall:
    """A task prepared in a worker, to be called and timed there."""

    def __init__(self, worker: Worker, number: int, folder: Path) -> None:
        self._worker = worker
        self._number = number
        self._folder = folder

    def __call__(self) -> float | NDArray[Any]:
        """Do it once; return the number or the array."""
        path = self._folder / "result.npy"
        answer = self._worker.ask("call", number=self._number, out=str(path))
        if "number" in answer:
            return float(answer["number"])
        array: NDArray[Any] = np.load(path, allow_pickle=False)
        return array

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call there."""
        return float(self._worker.ask("seconds", number=self._number, repeats=repeats)["seconds"])


class Bench:
    """The worker's side: holds prepared tasks by their numbers."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], Any]] = []

    def prepare(
        self,
        peer: str,
        task: str,
        arrays: dict[str, str],
        options: dict[str, Any],
        threads: int,
        *,
        hand_back: bool = False,
    ) -> dict[str, Any]:
        """Load the peer (``module:TABLE:name``) and the arrays (paths by name) and make the task's function.

        hand_back: it gives its memory back after every call, see `bench.heap.HandedBack`.
        """
        torch.set_num_threads(threads)
        found = find_peer(peer)  # loads the tables, which is not the library's time
        start = time.perf_counter()
        found.score()
        loaded = time.perf_counter() - start
        tensors = {name: torch.from_numpy(np.load(path, allow_pickle=False)) for name, path in arrays.items()}
        call = find(task)(found, **tensors, **options)
        self._calls.append(heap.HandedBack(call) if hand_back else call)
        return {"load_seconds": loaded, "number": len(self._calls) - 1}

    def forget(self) -> dict[str, Any]:
        """Drop all prepared tasks and their arrays."""
        self._calls.clear()
        heap.release()
        return {}

    def hold(self) -> dict[str, Any]:
        """Keep freed memory from now on, see `bench.heap`."""
        heap.hold()
        return {}

    def call(self, number: int, out: str) -> dict[str, Any]:
        """Do it once; a number is returned, an array is written."""
        result = self._calls[number]()
        array = np.asarray(result.detach() if isinstance(result, torch.Tensor) else result)
        if array.ndim == 0:
            return {"number": float(array)}
        np.save(out, array, allow_pickle=False)
        return {}

    def seconds(self, number: int, repeats: int) -> dict[str, Any]:
        """Time it."""
        return {"seconds": seconds(self._calls[number], repeats)}

    def memory(self, number: int) -> dict[str, Any]:
        """Return how many bytes the process grew by at most while it did it, and how many it kept afterwards."""
        heap.release()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        self._calls[number]()
        peak = _resident("VmHWM")
        heap.release()
        return {"before": before, "peak": peak - before, "kept": _resident("VmRSS") - before}

    def limit(self, size: int) -> dict[str, Any]:
        """Refuse this process more memory than `size` bytes, so that it fails by itself and not the machine."""
        import resource  # noqa: PLC0415  # not on Windows

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        return {}


def find(name: str) -> Any:
    """Return what ``module:name`` names."""
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def find_peer(name: str) -> Peer:
    """Return the peer ``module:TABLE:name``."""
    table, _, name = name.rpartition(":")
    peer: Peer = next(peer for peer in find(table) if peer.name == name)
    return peer


def serve(words: IO[str], answers: IO[str]) -> None:
    """Answer lines of JSON until there are no more; an error is answered, too."""
    bench = Bench()
    for line in words:
        asked = json.loads(line)
        try:
            answer = getattr(bench, asked.pop("do"))(**asked)
        except ImportError as error:
            answer = {"missing": str(error)}
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is its result
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _resident(key: str) -> int:
    """Return a size from the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise OSError(f"this system does not say {key}")


def main() -> None:
    """Serve; what libraries print goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
