from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from fastssim import ssim
from fastssim.cpu import launch, pool, tile_launch
from fastssim.cpu.pool import run_in_turns, run_slabs
from fastssim.tiles import TileGrid, blend, extract, sliding_window


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 100])
def test_every_number_is_done_once(count, apart):
    done = []
    run_slabs(done.append, count, apart=apart)
    assert sorted(done) == list(range(count))


def test_threads_begin_far_apart_where_they_are_to():
    barrier = threading.Barrier(4, timeout=30)
    begun = []

    def begin(number):
        begun.append(number)
        if len(begun) <= 4:
            barrier.wait()  # none goes on before all four have begun

    run_slabs(begin, 100, apart=True)
    assert sorted(begun[:4]) == [0, 25, 50, 75]


def test_several_threads_take_part():
    barrier = threading.Barrier(2, timeout=30)
    run_slabs(lambda _: barrier.wait(), 2)  # passes only if two threads are in it at once


def test_the_first_error_comes_out_and_the_pool_goes_on():
    def fail(number):
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        run_slabs(fail, 8)
    done = []
    run_slabs(done.append, 8)
    assert len(done) == 8


def test_calls_may_nest():
    done = []
    run_slabs(lambda i: run_slabs(lambda j: done.append((i, j)), 5), 5)
    assert len(set(done)) == 25


def test_eight_python_threads_at_once_get_right_results():
    x, y = torch.rand(2, 2, 1, 300, 200)
    expected = ssim(x, y).item()
    results = []

    def work():
        results.extend(ssim(x, y).item() for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 40


def _in_child(images, queue):
    queue.put(ssim(*images).item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_after_its_parent_has():
    x, y = torch.rand(2, 2, 1, 300, 200)
    expected = ssim(x, y).item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=((x, y), queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()
    assert child.exitcode == 0


def test_who_knows_that_all_is_done_waits_for_nobody():
    begun, go_on, late = threading.Barrier(2, timeout=30), threading.Event(), []
    caller = threading.get_ident()

    def take_part(_):
        begun.wait()
        if threading.get_ident() == caller:
            return True
        go_on.wait(timeout=30)
        late.append(None)
        return False

    run_slabs(take_part, 2)
    assert not late  # the other has not come back yet
    go_on.set()


class TestTurns:
    """Kernels in Python that do by hand what `fastssim.cpu.simd.end_turns` does."""

    @staticmethod
    def numbers(address):
        return (ctypes.c_int64 * 4).from_address(address)

    def test_an_error_of_a_helper_ends_the_wait_of_the_thread_that_leads_and_comes_out(self):
        begun = threading.Barrier(2, timeout=30)

        def kernel(address, threads, leads):
            assert threads == 2
            begun.wait()
            if not leads:
                raise MemoryError("no room")
            deadline = time.monotonic() + 30
            while self.numbers(address)[1] < 2:
                assert time.monotonic() < deadline

        with pytest.raises(MemoryError, match="no room"):
            run_in_turns(kernel, 2)

    def test_an_error_of_the_thread_that_leads_comes_out_when_the_others_have_ended(self):
        begun, late = threading.Barrier(2, timeout=30), []

        def kernel(address, _, leads):
            begun.wait()
            if leads:
                raise MemoryError("no room")
            deadline = time.monotonic() + 30
            while self.numbers(address)[1] < 2:
                assert time.monotonic() < deadline
            late.append(None)

        with pytest.raises(MemoryError, match="no room"):
            run_in_turns(kernel, 2)
        assert late

    def test_one_thread_leads_nobody(self):
        seen = []
        run_in_turns(lambda _, threads, leads: seen.append((threads, leads)), 1)
        assert seen == [(1, -1)]

    def test_every_call_by_several_threads_rings_the_bell_once(self):
        x, y = torch.rand(2, 4, 1, 300, 200)
        ssim(x, y)
        before = pool._pool.bell[0]
        for _ in range(5):
            ssim(x, y)
        assert pool._pool.bell[0] == before + 5


def test_who_is_interrupted_waits_for_those_who_have_begun():
    begun, late, caller = threading.Barrier(2, timeout=30), [], threading.get_ident()

    class Interrupted(pool._Call):
        def _work(self):
            if threading.get_ident() == caller:
                begun.wait()
                raise KeyboardInterrupt
            super()._work()

    def slow(_):
        begun.wait()
        deadline = time.monotonic() + 30
        while not call._closed:  # until the caller has been interrupted
            assert time.monotonic() < deadline
        late.append(None)

    call = Interrupted(slow, 1, 1)
    pool._pool.offer(call, 1)
    with pytest.raises(KeyboardInterrupt):
        call.run()
    assert late


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system interrupts no single thread")
def test_who_is_interrupted_while_waiting_goes_on_waiting():
    caller, begun, late = threading.get_ident(), threading.Barrier(2, timeout=30), []

    def interrupted(_number, _frame):
        raise KeyboardInterrupt

    def part(_):
        begun.wait()
        if threading.get_ident() == caller:
            return  # to wait for the other
        for _ in range(2):
            time.sleep(0.2)
            signal.pthread_kill(caller, signal.SIGINT)
        time.sleep(0.2)
        late.append(None)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_slabs(part, 2)
        assert late
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("started", [0, 1])
def test_where_no_thread_can_be_started_those_there_are_do_all(monkeypatch, started):
    class Refused(threading.Thread):
        left = started

        def start(self):
            if not Refused.left:
                raise RuntimeError("can't start new thread")
            Refused.left -= 1
            super().start()

    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(pool.threading, "Thread", Refused)
    done = []
    run_slabs(done.append, 8, apart=True)
    assert sorted(done) == list(range(8))
    x, y = torch.rand(2, 1, 1, 300, 200)
    found = ssim(x, y)
    assert pool._pool._threads == started
    torch.set_num_threads(1)
    assert ssim(x, y) == found


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system interrupts no single thread")
def test_a_handler_of_signals_may_call_while_threads_are_started(monkeypatch):
    done = []

    class Interrupting(threading.Thread):
        def start(self):
            if not done:
                signal.raise_signal(signal.SIGUSR1)
            super().start()

    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(pool.threading, "Thread", Interrupting)
    before = signal.signal(signal.SIGUSR1, lambda *_: done.append(None) or run_slabs(done.append, 4))
    try:
        run_slabs(done.append, 4)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(done[1:]) == [0, 0, 1, 1, 2, 2, 3, 3]


def owners(thing):
    """All that something holds: in closures, tuples and views."""
    yield thing
    if isinstance(thing, tuple):
        parts = thing
    elif isinstance(thing, np.ndarray):
        parts = (thing.base,)
    else:
        parts = [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    for part in parts:
        yield from owners(part)


@pytest.mark.parametrize("module", [launch, tile_launch])
def test_a_kernel_by_turns_holds_no_tensor(monkeypatch, module):
    """A helper may be the last to hold it; a tensor that ends there aborts a process that ends meanwhile."""
    kernels = []

    def spy(kernel, *rest):
        kernels.append(kernel)
        return run_in_turns(kernel, *rest)

    monkeypatch.setattr(module, "run_in_turns", spy)
    image = torch.rand(1, 256, 256)
    grid = TileGrid((256, 256), 64, 32)
    x = image[None].clone().requires_grad_()
    ssim(x, torch.rand(1, 1, 256, 256)).backward()
    blend(extract(image, grid), grid)
    sliding_window(lambda tiles: tiles, image, grid)
    assert kernels
    held = [thing for kernel in kernels for thing in owners(kernel)]
    assert not [thing for thing in held if isinstance(thing, torch.Tensor)]
    assert len(held) > len(kernels)


def test_a_call_lets_go_of_its_function():
    call = pool._Call(lambda _: None, 3, 1)
    call.run()
    assert call._function is None
    call.help()  # too late, and nothing to do
