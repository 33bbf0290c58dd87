"""Large pages for fresh memory.

The system hands out memory in pages of 4 KiB and clears each when it is first written to, at the cost of an interrupt a
page. Where it has pages of 2 MiB, one that is asked for it gives those: NumPy asks for large arrays, torch does not.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

LINE = 64  # bytes
LEAST = 1 << 22  # bytes, as NumPy has it: what is smaller is often taken from memory that was used before


def in_large_pages(fresh: Tensor) -> Tensor:
    """Ask for large pages for memory that nothing was written to yet; return the tensor, which is on the CPU.

    Without an effect on small tensors and where the system has no such pages or does not take the advice.

    Examples
    --------
    >>> import torch
    >>> in_large_pages(torch.empty(3, 4)).shape
    torch.Size([3, 4])
    """
    size = fresh.numel() * fresh.element_size()
    if size >= LEAST and (advise := _advise()) is not None:
        before = -fresh.data_ptr() % mmap.PAGESIZE  # bytes of a page that others may lie in, too
        advise(fresh.data_ptr() + before, (size - before) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
    return fresh


def from_line(memory: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `size` numbers of a flat array from the first on that begins a line of the caches, of 64 bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from_line(np.empty(100 + LINE // 4, np.float32), 100).ctypes.data % LINE
    0
    """
    first = -memory.ctypes.data % LINE // memory.itemsize
    return memory[first : first + size]


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    """Return the system's function that takes advice on memory; None where it does not know large pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return None
    function: Any = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function  # type: ignore[no-any-return]
