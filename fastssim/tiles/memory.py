"""Memory that is used again and again while one image is worked on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Memory:
    """Hands out arrays, and takes back the memory of those that nothing refers to any more.

    The system clears every page that a process asks for: to free the memory of a few hundred tiles and to ask for it
    again at every step costs as much time as to blend them. An array, a tensor or a view that is kept keeps its memory.

    Examples
    --------
    >>> memory = Memory()
    >>> first = memory.empty((4, 4), np.dtype(np.float32))
    >>> address = first.ctypes.data
    >>> del first
    >>> memory.empty((2, 8), np.dtype(np.float32)).ctypes.data == address
    True
    """

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[np.uint8]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make an array, or a tensor where `dtype` is torch's; its content is left as it is."""
        if isinstance(dtype, torch.dtype):
            if 0 in shape:
                return torch.empty(shape, dtype=dtype)
            whole = self.empty((*shape[:-1], shape[-1] * dtype.itemsize), np.dtype(np.uint8))
            return torch.from_numpy(whole).view(dtype)
        size = math.prod(shape) * dtype.itemsize
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()  # in one step: a writer's thread gives memory back
        except IndexError:
            block = np.empty(size, np.uint8)
        return np.asarray(_Lent(block, free)).view(dtype).reshape(shape)


class _Lent:
    """A block of memory as NumPy takes it; lives as long as any view of it, and then gives it back."""

    __slots__ = ("__array_interface__", "_block", "_free")

    def __init__(self, block: NDArray[np.uint8], free: list[NDArray[np.uint8]]) -> None:
        self.__array_interface__ = block.__array_interface__
        self._block = block
        self._free = free

    def __del__(self) -> None:
        self._free.append(self._block)
