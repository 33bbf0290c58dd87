"""What this machine can do at most: multiply-adds and bytes a second, measured here and now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic

from bench.device import OnDevice
from bench.harness import interleaved
from fastssim.cpu.simd import X86, Code, lanes, vector_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 32  # multiply-adds in a chain
REPEATS = 20_000
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
        square = torch.rand(MATRIX, MATRIX, device=device)  # of zeros it is faster than of any image
        source.uniform_()
        calls = {"fma": OnDevice(lambda: square @ square), "copy": OnDevice(lambda: target.copy_(source))}
        samples = interleaved(calls, rounds=5)
        done = float(MATRIX) ** 3
    else:
        elements = _under_way() * lanes(types.float32)
        arrays = [np.full(elements, 0.5, np.float32) for _ in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            samples = interleaved(
                {
                    "fma": lambda: list(pool.map(_multiply_add, arrays, [REPEATS] * threads)),
                    "copy": lambda: target.copy_(source),
                },
                rounds=5,
            )
        done = float(threads * elements * STEPS * REPEATS)
    return Roofline(threads, done / min(samples["fma"].seconds), 2 * COPIED / min(samples["copy"].seconds))


@intrinsic
def _chains(typing: Any, values: Any) -> Any:
    """Turn every v into v a + b, STEPS times: `_under_way` vectors side by side, each in a register."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder, signature.args[0].dtype)
        a, b = code.number(0.999), code.number(0.001)
        places = [code.at(code.data(signature.args[0], args[0]), i * code.lanes) for i in range(_under_way())]
        vectors = [code.load(place) for place in places]
        for _ in range(STEPS):
            vectors = [vector * a + b for vector in vectors]
        for vector, place in zip(vectors, places, strict=True):
            code.store(vector, place)
        return context.get_dummy_value()

    return types.void(values), codegen


def _under_way() -> int:
    """Return how many vectors to multiply side by side: twelve and the factors fit sixteen registers.

    Two multiply-adds a cycle of four cycles each want eight; processors with 32 registers may want more.
    """
    return 12 if X86 and vector_bytes() < 64 else 24  # bytes of AVX-512, which brings 32 registers


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _multiply_add(values: NDArray[np.float32], repeats: int) -> None:
    """Multiply and add, STEPS times so many times."""
    for _ in range(repeats):
        _chains(values)
