"""torch's own threads at work on SSIM: right after one of torch's operators, they are the ones that are awake.

A training step goes from torch's operators to SSIM and back again. For milliseconds after an operator, torch's threads
(OpenMP's) keep the cores busy, waiting for the next one, and threads of a pool beside them get half a core each. So the
kernel is given to them as that next piece of work: they take turns at its slabs as `fastssim.cpu.pool`'s threads do,
begin sooner than a thread that sleeps, and hold no interpreter's lock.

Not always: OpenMP starts a set of threads for each thread that calls it, which only torch's main thread is sure to have
anyway; a call of OpenMP waits for every thread, and one for fewer ends the others, so that a team must have a core for
each and work that is worth waking them; and its threads do not survive a fork, after which a child waits for them
forever. So a process that was forked keeps to the pool, and one that forks lets its team go first, which leaves the
child's torch, too, free to start one.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from llvmlite import ir

from fastssim.cpu.machine_code import linked

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORKED = 0x40  # in the flags of /proc/self/stat: forked, and no other program begun since
_HARD = 2  # of omp_pause_resource_all: let threads end, too
_RUN, _SHARED, _SLABS, _COUNTS = 0, slice(1, 9), 6, 5  # places in a block of numbers; `_SHARED` all threads get
_THREADS, _NEXT, _FAILED, _WORKSPACES = 9, 10, 11, 12
#  Pixels for each thread. On a busy machine a call waits a time slice, milliseconds, for a thread without a core. So do
#  all of torch's operators around a gradient: there 0.1 ms of work are enough, without a gradient some milliseconds.
_WORTH, _WORTH_ALONE = 1 << 14, 1 << 20
_state = {"forked": False, "at work": False}


def is_there(threads: int, slabs: int, pixels: int, *, gradient: bool) -> bool:
    """Whether `work_together` can be called here and now, by so many threads, and is worth it."""
    return (
        1 < threads <= _cores()
        and slabs >= threads
        and pixels >= (_WORTH if gradient else _WORTH_ALONE) * threads
        and threading.get_ident() == threading.main_thread().ident
        and not _state["forked"]
        and _openmp() is not None
    )


def work_together(
    run: int, fixed: Sequence[int], slabs: int, stretches: int, workspaces: Sequence[tuple[int, ...]]
) -> bool:
    """Let torch's threads take turns at the slabs of a kernel; return whether one of them ran out of memory.

    Parameters
    ----------
    run : int
        Address of an entry, see `fastssim.cpu.entry`.
    fixed : sequence of int
        What it takes first: the addresses of a result and an exception, of the plan and of the call.
    slabs, stretches : int
        How many slabs, and from how many stretches of them threads take theirs.
    workspaces : sequence of (int, int, int)
        Addresses of each thread's memory.
    """
    openmp = _openmp()
    if openmp is None:
        raise RuntimeError("torch has no OpenMP here; ask is_there first")
    counts = array("q", (0, 0, 0, 0))
    nobody_else = -1  # who is done waits for the others, and listens for no further call
    block = array("q", (run, *fixed, counts.buffer_info()[0], slabs, stretches, nobody_else, len(workspaces), 0, 0))
    for addresses in workspaces:
        block.extend(addresses)
    _state["at work"] = True
    openmp.GOMP_parallel(_team(), block.buffer_info()[0], len(workspaces), 0)
    return block[_FAILED] != 0


@cache
def _cores() -> int:
    """Return how many cores this process may use: where threads are more, some of them are not awake."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _openmp() -> Any:
    """Return the OpenMP that torch itself calls, if it is one with this entry, in a process that was not forked."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info() or _was_forked():
        return None
    try:
        libraries = ctypes.CDLL(torch._C.__file__)  # noqa: SLF001  # and all that it is linked to
        libraries.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        libraries.GOMP_parallel.restype = None
        libraries.omp_pause_resource_all.argtypes = [ctypes.c_int]
    except (OSError, AttributeError):  # another system's OpenMP, or an old one
        return None
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
    return libraries


def _was_forked() -> bool:
    """Whether this process may have been forked by one that had used OpenMP: where it cannot be known, it may."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & _FORKED)
    return True


def _before_fork() -> None:
    """Let the threads go that a child would wait for in vain; this process gets others at its next call."""
    if _state["at work"]:
        _openmp().omp_pause_resource_all(_HARD)


def _in_child() -> None:
    _state["forked"] = True


@cache
def _team() -> int:
    """Return the address of what each thread of a team runs: the entry, in a workspace of its own."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64]), "team")
    builder = ir.IRBuilder(function.append_basic_block())
    block = builder.inttoptr(function.args[0], i64.as_pointer())

    def place(number: Any) -> Any:
        return builder.gep(block, [number if isinstance(number, ir.Value) else i64(number)])

    me = builder.atomic_rmw("add", place(_NEXT), i64(1), "monotonic")
    with builder.if_then(builder.icmp_signed("<", me, builder.load(place(_THREADS)))):
        mine = builder.add(builder.mul(me, i64(3)), i64(_WORKSPACES))
        numbers = [builder.load(place(i)) for i in range(_SHARED.start, _SHARED.stop)]
        numbers += [builder.load(place(builder.add(mine, i64(i)))) for i in range(3)]
        kind = ir.FunctionType(i32, [i64] * len(numbers))
        run = builder.inttoptr(builder.load(place(_RUN)), kind.as_pointer())
        with builder.if_then(builder.icmp_signed("!=", builder.call(run, numbers), i32(0))):
            done = builder.add(builder.load(place(_COUNTS)), i64(8))
            slabs = builder.load(place(_SLABS))  # nobody is to wait for what this thread took
            builder.store_atomic(slabs, builder.inttoptr(done, i64.as_pointer()), "release", 8)
            builder.store(i64(1), place(_FAILED))
    builder.ret_void()
    return linked(str(module), "team")
