"""Time and memory on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSHED = 1 << 28  # bytes written before every call, more than any second-level cache


class OnDevice:
    """A call whose time is taken by CUDA events, with nothing of its inputs left in the cache."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._flushed = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")

    def __call__(self) -> Any:
        """Do it once and wait for it."""
        result = self._call()
        torch.cuda.synchronize()
        return result

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call on the device."""
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for before, after in events:
            self._flushed.zero_()
            before.record()
            self._call()
            after.record()
        torch.cuda.synchronize()
        milliseconds: float = sum(before.elapsed_time(after) for before, after in events)
        return milliseconds / repeats / 1e3


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return how many bytes a call allocates at most, beyond what was there before."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def require_gpu() -> None:
    """Raise RuntimeError, saying what to do, where torch has no GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"no NVIDIA GPU that torch {torch.__version__} can use; install torch for your driver"
            " (https://pytorch.org/get-started) and check nvidia-smi"
        )
