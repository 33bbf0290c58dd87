"""frame-analytics' CUDA kernels for `bench.sass`, from the source that its wheel carries; nothing of it is kept here.

Its blocks of 32 x 8 threads compute tiles of 32 x 64 windows, 16 pixel rows at a time, between barriers: pixels into
shared memory; taps across, two rows a thread; taps down, two windows a thread. Every part is counted as often as a full
tile runs it. The gradient takes two kernels: the first writes three maps, the second filters them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.sass import ARITHMETIC, Compiled, Cost, disassemble, longest_loop, operation, words

THREADS = 256
_COLUMNS, _ROWS, _HALO = 32, 64, 10  # of a tile, and what 11 taps need beside it


@dataclass(frozen=True)
class Kernel:
    """One kernel, and what it does for every px·ch."""

    expression: str  # the template's instance
    staged: int  # planes that it brings into shared memory
    moved: float  # bytes of DRAM


KERNELS = {
    "frame-analytics: value": Kernel("fa::ssim_fused_kernel<float, 0, 11>", 2, 8),
    "frame-analytics: gradient, first kernel": Kernel("fa::ssim_fused_kernel<float, 2, 11>", 2, 20),
    "frame-analytics: gradient, second kernel": Kernel("fa::ssim_bwd_scatter_kernel<11, false>", 3, 24),
}


def source() -> str | None:
    """Return the device part of its CUDA source, for NVRTC; None where the library is not installed.

    Raises
    ------
    RuntimeError
        Where another version's source is laid out in another way.
    """
    found = find_spec("frame_analytics")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "csrc" / "fa_cuda.cu").read_text(encoding="utf-8")
    marks = ("namespace fa {", "// Final reduction", "// Fused SSIM", "// host-side plumbing")
    places = [text.find(mark) for mark in marks]
    if -1 in places or places != sorted(places):
        raise RuntimeError("frame-analytics' CUDA source has changed; bench/sass_peers.py reads that of 0.7.0")
    begin, sums, ssim, host = places
    before = "constexpr int FA_MAX_WIN = 11;\nstruct __half {};\n__device__ float __half2float(__half);\n"
    return f"{before}{text[begin:sums]}\n{text[ssim:host]}\n}}\n"


def cost(kernel: Kernel, compiled: Compiled) -> Cost:
    """Count the loop over a tile's rows.

    Raises
    ------
    RuntimeError
        Where the machine code has not the three parts.
    """
    code, labels = disassemble(compiled.cubin)
    start, end = longest_loop(code, labels)
    parts: list[list[str]] = [[]]
    for line in code[start : end + 1]:
        parts[-1].append(operation(line))
        if parts[-1][-1].startswith("BAR"):
            parts.append([])
    parts[0] = parts.pop() + parts[0]  # the loop may begin anywhere
    windows, rows = _COLUMNS * _ROWS, _ROWS + _HALO
    counts = dict.fromkeys(("instructions", "arithmetic", "words"), 0.0)
    kinds = set()
    for part in parts:
        names = [name.split(".")[0] for name in part]
        if "LDS" not in names:
            kinds.add("pixels")  # a loop, unrolled by the compiler: so many pixels in one pass through its code
            times = rows * (_COLUMNS + _HALO) / windows * kernel.staged / names.count("STS")
        elif "STS" in names:
            kinds.add("across")
            times = rows * _COLUMNS / 2 / windows
        else:
            kinds.add("down")
            times = 1 / 2
        counts["instructions"] += times * len(part)
        counts["arithmetic"] += times * sum(name in ARITHMETIC for name in names)
        counts["words"] += times * sum(map(words, part))
    if len(parts) != 3 or len(kinds) != 3:
        raise RuntimeError(f"the loop of {kernel.expression} has {len(parts)} parts, not pixels, across, down")
    return Cost(**counts)
