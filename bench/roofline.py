"""What this machine can do at most: multiply-adds and bytes a second, measured here and now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit

from bench.device import OnDevice
from bench.harness import interleaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 32  # multiply-adds in a chain
REPEATS = 20_000
ELEMENTS = 1024  # fits the first cache
COPIED = 1 << 28  # bytes, far more than any cache
MATRIX = 4096  # rows of the matrices that a GPU multiplies


@dataclass(frozen=True)
class Roofline:
    """Rates of all threads together, or of a GPU."""

    threads: int
    fma_per_second: float  # float32
    bytes_per_second: float  # read and written by a copy

    def seconds(self, fma: float, moved: float) -> float:
        """Return the least time for so many multiply-adds and bytes."""
        return max(fma / self.fma_per_second, moved / self.bytes_per_second)


def measure(device: str = "cpu") -> Roofline:
    """Measure with `torch.get_num_threads()` threads, or on the GPU."""
    threads = torch.get_num_threads()
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    if device == "cuda":
        square = torch.zeros(MATRIX, MATRIX, device=device)
        calls = {"fma": OnDevice(lambda: square @ square), "copy": OnDevice(lambda: target.copy_(source))}
        samples = interleaved(calls, rounds=5)
        done = float(MATRIX) ** 3
    else:
        arrays = [np.full(ELEMENTS, 0.5, np.float32) for _ in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            samples = interleaved(
                {
                    "fma": lambda: list(pool.map(_multiply_add, arrays)),
                    "copy": lambda: target.copy_(source),
                },
                rounds=5,
            )
        done = float(threads * ELEMENTS * STEPS * REPEATS)
    return Roofline(threads, done / min(samples["fma"]), 2 * COPIED / min(samples["copy"]))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _multiply_add(values: NDArray[np.float32]) -> None:
    """Chains of multiply-adds over values that stay in the first cache.

    Two values a turn: as many vectors again are under way, enough to hide what one multiply-add takes.
    """
    a, b = np.float32(0.999), np.float32(0.001)
    first, second = values[: ELEMENTS // 2], values[ELEMENTS // 2 :]
    for _ in range(REPEATS):
        for i in range(ELEMENTS // 2):
            v, w = first[i], second[i]
            for _ in range(STEPS):
                v = v * a + b
                w = w * a + b
            first[i], second[i] = v, w
