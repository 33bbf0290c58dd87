"""A small pool of threads that share the slabs of one call.

Numba's own threading layers kill a forked child or abort when two Python threads enter (OpenMP, workqueue); a loss is
called from DataLoader workers and from several threads. Here plain daemon threads run kernels that release the
interpreter's lock. The calling thread works too, so a call never waits for a thread that is busy elsewhere, and calls
may nest. A forked child starts with an empty pool of its own.
"""

from __future__ import annotations

import itertools
import os
import threading
from array import array
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class _Call:
    """One function, called once for each number below `count`, from as many stretches of them by turns."""

    def __init__(self, function: Callable[[int], object], count: int, stretches: int) -> None:
        self._function: Callable[[int], object] | None = function
        self._count = count
        self._stretches = stretches
        self._next = itertools.count().__next__  # one step is atomic
        self._lock = threading.Lock()
        self._active = 0
        self._closed = False
        self._done = False
        self._gate: threading.Lock | None = None  # shut while the caller waits for those who take part
        self._error: BaseException | None = None

    def help(self) -> None:
        """Take part, unless the caller has already gone."""
        with self._lock:
            if self._closed:
                return
            self._active += 1
        self._work()
        with self._lock:
            self._active -= 1
            if not self._active and self._gate is not None:
                self._gate.release()

    def run(self) -> None:
        """Take part and return when every number is done; raise the first error."""
        try:
            self._work()
        finally:  # Ctrl-C, too, leaves nobody at work on what the caller is about to let go
            self._close()
        if self._error is not None:
            raise self._error

    def _close(self) -> None:
        """Let nobody begin, and wait for those who have, unless everything is done."""
        try:
            self._wait()
        except BaseException:  # Ctrl-C comes out when they have ended
            self._close()
            raise
        self._function = None  # a helper may be the last who holds this call: not what it works on, too

    def _wait(self) -> None:
        with self._lock:
            self._closed = True
            if self._active and not self._done and self._gate is None:
                gate = threading.Lock()
                gate.acquire()
                self._gate = gate
        if self._gate is not None and self._active:  # it opens but once
            self._gate.acquire()

    def _work(self) -> None:
        length, longer = divmod(self._count, self._stretches)
        while self._error is None and (turn := self._next()) < self._count:
            step, stretch = divmod(turn, self._stretches)
            function = self._function
            if function is None:  # the caller has gone
                return
            try:
                if function(stretch * length + min(stretch, longer) + step) is True:
                    self._done = True
                    return
            except BaseException as error:  # noqa: BLE001  # it is raised again in the calling thread
                self._error = error


class _Pool:
    """Daemon threads that wait for calls."""

    def __init__(self) -> None:
        self.bell = array("q", (0,))  # counts the kernels by turns: who is about to sleep looks at it first
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._threads = 0
        self._lock = threading.RLock()  # a signal's handler may call, too

    def offer(self, call: _Call, helpers: int) -> None:
        """Ask `helpers` threads, or as many as there can be, to take part in a call."""
        if self._threads < helpers:
            #  None can be started where a limit is reached, or when Python ends.
            with self._lock, suppress(RuntimeError):
                while self._threads < helpers:
                    threading.Thread(target=self._serve, name="fastssim", daemon=True).start()
                    self._threads += 1
        for _ in range(min(helpers, self._threads)):
            self._calls.put(call)

    def _serve(self) -> None:
        while True:
            self._calls.get().help()


_pool = _Pool()


def _start_anew() -> None:
    """Forget the parent's threads and locks, which a forked child does not have."""
    global _pool  # noqa: PLW0603  # one pool a process
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def run_slabs(function: Callable[[int], object], count: int, *, apart: bool = False) -> None:
    """Call ``function(i)`` for i = 0 .. count-1 on up to ``torch.get_num_threads()`` threads.

    Parameters
    ----------
    function : callable
        Called once for each number, in any order and from any thread; it should release the interpreter's lock. When it
        returns True everything is done, and nobody is waited for: calls that are under way may still return later, and
        numbers that nobody has begun are left out.
    count : int
        How many numbers.
    apart : bool
        Give each thread a stretch of the numbers of its own, as long as all are as fast. Where neighbours write to
        neighbouring memory for the first time, the system clears it page by page, large ones of 2 MiB too: two
        threads that come to the same page both clear it, and one does so for nothing.

    Raises
    ------
    BaseException
        The first error that `function` raised; numbers not yet begun are then left out.

    Examples
    --------
    >>> squares = [0] * 4
    >>> run_slabs(lambda i: squares.__setitem__(i, i * i), 4)
    >>> squares
    [0, 1, 4, 9]
    """
    helpers = min(torch.get_num_threads(), count) - 1
    if helpers < 1:
        for number in range(count):
            function(number)
        return
    call = _Call(function, count, helpers + 1 if apart else 1)
    _pool.offer(call, helpers)
    call.run()


def run_in_turns(kernel: Callable[[int, int, int], object], slabs: int, threads: int | None = None) -> int:
    """Let threads take turns at `slabs` inside a kernel, which costs them one hand-over of the interpreter's lock.

    Parameters
    ----------
    kernel : callable
        Called once in every thread with the address of four numbers, how many threads there are, and whether it leads.
        It begins and ends with `fastssim.cpu.simd.begin_turns` and `end_turns`, takes slabs as `next_slab` hands them
        out, and may add to the third number. Every thread but the one that leads may outlive this call, when it finds
        no slab: it must keep alive what it then still looks at, and hold nothing of the user.
    slabs : int
        How many.
    threads : int, optional
        At most so many; ``torch.get_num_threads()`` by default.

    Returns
    -------
    int
        The third number.

    Raises
    ------
    BaseException
        The first error that `kernel` raised.
    """
    threads = min(threads or torch.get_num_threads(), slabs)
    pool = _pool
    counts = array("q", (0, 0, 0, pool.bell.buffer_info()[0]))
    address = counts.buffer_info()[0]
    if threads <= 1:
        kernel(address, 1, -1)
        return counts[2]
    caller = threading.get_ident()
    failed: list[None] = []

    def take_part(_: int) -> bool:
        leads = threading.get_ident() == caller
        try:
            kernel(address, threads, int(leads))
        except BaseException:
            failed.append(None)
            counts[1] = slabs  # nobody is to wait for what this thread took
            raise
        return leads and not failed  # all is done then

    call = _Call(take_part, threads, 1)
    pool.offer(call, threads - 1)
    call.run()
    return counts[2]
