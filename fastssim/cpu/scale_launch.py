"""From MS-SSIM's scales to the kernels of `fastssim.cpu.scales`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastssim.cpu.buffers import CHUNK
from fastssim.cpu.kinds import Step
from fastssim.cpu.launch import image_arguments, shared_out
from fastssim.cpu.machine_code import entry
from fastssim.cpu.pool import run_slabs
from fastssim.interop import LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def halve(image: Tensor, out: Tensor, *, fractions: bool) -> None:
    """Write the means of 2 x 2 pixels of an image (N, C, H, W), `out` contiguous; see `fastssim.cpu.scales.halve`."""
    _, channels, height, width = image.shape
    run = _entry("halve", out)
    divisor = LARGEST.get(image.dtype, 1) if fractions else 1
    given = *image_arguments(image), divisor, channels, height, width

    def rows(begin: int, end: int) -> int:
        work = out.new_empty(2 * CHUNK)
        return run(*given, begin, end, work.data_ptr(), out.data_ptr())

    _run(rows, shared_out(out.shape[:3].numel(), 4 * out.numel()))


def deliver(gradient: Tensor, coarser: Tensor, upstream: Tensor) -> None:
    """Turn g_0 into G_0, all contiguous; see `fastssim.cpu.scales`."""
    n, c, height, width = gradient.shape
    run = _entry("deliver", gradient)
    given = gradient.data_ptr(), coarser.data_ptr(), upstream.data_ptr(), len(upstream), n * c, height, width

    def pairs(begin: int, end: int) -> int:
        work = gradient.new_empty(2 * width)
        return run(*given, begin, end, work.data_ptr())

    _run(pairs, shared_out(n * c * -(-height // 2), gradient.numel()))


def _entry(step: str, out: Tensor) -> Callable[..., int]:
    """Return the entry of a step in the dtype of its result."""
    return entry(Step(step, str(out.dtype).removeprefix("torch.")))


def _run(part: Callable[[int, int], int], edges: list[int]) -> None:
    """Run the parts between the edges."""

    def slab(i: int) -> None:
        if part(edges[i], edges[i + 1]):
            raise MemoryError("no memory for a kernel of MS-SSIM")

    run_slabs(slab, len(edges) - 1)
