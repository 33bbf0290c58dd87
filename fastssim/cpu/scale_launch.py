"""From MS-SSIM's scales to the kernels of `fastssim.cpu.scales`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastssim.cpu.buffers import CHUNK
from fastssim.cpu.kinds import Step
from fastssim.cpu.launch import SLAB_PIXELS, _image
from fastssim.cpu.machine_code import entry
from fastssim.cpu.pool import run_slabs
from fastssim.interop import LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def halve(image: Tensor, out: Tensor, *, fractions: bool) -> None:
    """Write the means of 2 x 2 pixels of an image (N, C, H, W), `out` contiguous; see `fastssim.cpu.scales.halve`."""
    _, channels, height, width = image.shape
    dtype = np.dtype(str(out.dtype).removeprefix("torch."))
    run = entry(Step("halve", dtype.name))
    divisor = LARGEST.get(image.dtype, 1) if fractions else 1
    given = *_image(image), divisor, channels, height, width

    def rows(begin: int, end: int) -> int:
        work = np.empty(2 * CHUNK, dtype)
        return run(*given, begin, end, work.ctypes.data, out.data_ptr())

    _shared_out(rows, out.shape[:3].numel(), 4 * out.shape[3])


def deliver(gradient: Tensor, coarser: Tensor, upstream: Tensor) -> None:
    """Turn g_0 into G_0, all contiguous; see `fastssim.cpu.scales`."""
    n, c, height, width = gradient.shape
    dtype = np.dtype(str(gradient.dtype).removeprefix("torch."))
    run = entry(Step("deliver", dtype.name))
    given = gradient.data_ptr(), coarser.data_ptr(), upstream.data_ptr(), len(upstream), n * c, height, width

    def pairs(begin: int, end: int) -> int:
        work = np.empty(2 * width, dtype)
        return run(*given, begin, end, work.ctypes.data)

    _shared_out(pairs, n * c * -(-height // 2), 2 * width)


def _shared_out(run: Callable[[int, int], int], items: int, pixels: int) -> None:
    """Share items of so many pixels out among the threads."""
    slabs = min(items, max(1, items * pixels // SLAB_PIXELS))
    edges = [items * i // slabs for i in range(slabs + 1)]

    def slab(i: int) -> None:
        if run(edges[i], edges[i + 1]):
            raise MemoryError("no memory for a kernel of MS-SSIM")

    run_slabs(slab, slabs)
