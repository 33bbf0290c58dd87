"""Memory that a process has taken stays with it while calls are timed, so that no page faults are.

glibc gives a freed block back to the system at once or keeps it, by its size, by those freed before it, and by what
lies above it. The same call then takes each of its pages anew or none: measured on 4x3x512x512, pytorch-msssim's SSIM
has no page fault or 159 080, and takes 125 or 500 ms, and which of these is decided by what the other libraries did
before. So every process in which calls are timed, ours and a peer's own, keeps all memory: each library is at its best,
and the same in every run. What a library takes is measured in `bench.memory`, in processes of their own, in which this
is left as it is.

Of the largest images that would be too much for a machine, which all libraries share: some take 40 times as much as an
image. There each hands its memory back when its sample is taken, and is called once more before it: `HandedBack`.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

from bench.harness import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 1 << 24  # pixels of an image from which on memory is handed back

_KEEP = {
    -1: -1,  # M_TRIM_THRESHOLD: the heap's end is never given back
    -4: 0,  # M_MMAP_MAX: no block lies outside the heap
    -8: 1,  # M_ARENA_MAX: threads share the one heap; theirs would be given back
}  # parameters of glibc's mallopt


def hold() -> None:
    """Keep freed memory from now on, where the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        for parameter, value in _KEEP.items():
            ctypes.CDLL(None).mallopt(parameter, value)


def release() -> None:
    """Hand freed memory back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class HandedBack:
    """A function after every call or sample of which memory goes back to the system.

    Examples
    --------
    >>> HandedBack(lambda: 3)()
    3
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __call__(self) -> Any:
        """Do it once."""
        try:
            return self._function()
        finally:
            release()

    def seconds(self, repeats: int) -> float:
        """Return the seconds of one call, whose memory is there already."""
        try:
            self._function()
            return seconds(self._function, repeats)
        finally:
            release()
