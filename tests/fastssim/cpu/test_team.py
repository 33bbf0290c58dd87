"""torch's threads share a kernel's slabs, in the main thread of a process that was not forked; elsewhere the pool's."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from fastssim import ssim
from fastssim.cpu import pool, team

ENTRY = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 11)
THREADS = 3
SLABS = 5
ENOUGH = THREADS, THREADS, team._WORTH * THREADS

pytestmark = pytest.mark.skipif(team._openmp() is None, reason="torch calls another OpenMP here, or none")


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(team, "_cores", lambda: THREADS)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def work(function, workspaces):
    """Let a function of Python stand for an entry."""
    entry = ENTRY(function)
    address = ctypes.cast(entry, ctypes.c_void_p).value
    return team.work_together(address, (1, 2, 3, 4), SLABS, THREADS, workspaces)


def test_every_thread_gets_what_all_share_and_a_workspace_of_its_own():
    called, barrier = [], threading.Barrier(THREADS, timeout=30)

    def entry(*numbers):
        called.append(numbers)
        barrier.wait()  # passes only if three threads are in it at once
        return 0

    workspaces = [(10 * i, 10 * i + 1, 10 * i + 2) for i in range(1, THREADS + 1)]
    assert not work(entry, workspaces)
    assert {numbers[:4] for numbers in called} == {(1, 2, 3, 4)}
    assert len({numbers[4] for numbers in called}) == 1  # where turns are counted
    assert {numbers[5:8] for numbers in called} == {(SLABS, THREADS, -1)}
    assert sorted(numbers[8:] for numbers in called) == workspaces


def test_threads_beyond_the_workspaces_do_nothing():
    called = []
    torch.set_num_threads(8)
    assert not work(lambda *numbers: called.append(numbers) or 0, [(1, 2, 3)])
    assert len(called) == 1


def test_one_without_memory_is_told_and_nobody_waits_for_it():
    done = []

    def entry(*numbers):
        done.append(ctypes.c_int64.from_address(numbers[4] + 8).value)
        return int(numbers[8] == 2)

    assert work(entry, [(1, 0, 0), (2, 0, 0), (3, 0, 0)])
    assert not work(lambda *_: 0, [(1, 0, 0), (2, 0, 0), (3, 0, 0)])
    assert set(done) <= {0, SLABS}


def test_it_is_there_for_the_main_thread_alone_and_where_all_have_work_and_a_core(monkeypatch):
    threads, slabs, pixels = ENOUGH
    assert team.is_there(*ENOUGH, gradient=True)
    assert not team.is_there(threads, slabs - 1, pixels, gradient=True)
    assert not team.is_there(threads, slabs, pixels - 1, gradient=True)
    assert not team.is_there(1, slabs, pixels, gradient=True)
    assert not team.is_there(*ENOUGH, gradient=False)
    assert team.is_there(threads, slabs, team._WORTH_ALONE * threads, gradient=False)
    found = []
    thread = threading.Thread(target=lambda: found.append(team.is_there(*ENOUGH, gradient=True)))
    thread.start()
    thread.join()
    assert found == [False]
    monkeypatch.setattr(team, "_cores", lambda: THREADS - 1)
    assert not team.is_there(*ENOUGH, gradient=True)


def test_ssim_is_the_same_by_the_team_by_the_pool_and_alone(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand((2, 2, 3, 300, 301), generator=generator)
    x.requires_grad_()

    def results():
        value = ssim(x, y)
        return value.item(), torch.autograd.grad(value, x)[0]

    teams, turns = [], []
    work_together, run_in_turns = team.work_together, pool.run_in_turns
    monkeypatch.setattr(team, "work_together", lambda *a: teams.append(1) or work_together(*a))
    monkeypatch.setattr("fastssim.cpu.launch.run_in_turns", lambda *a: turns.append(1) or run_in_turns(*a))
    value, gradient = results()
    assert (len(teams), len(turns)) == (1, 0)
    found = []
    thread = threading.Thread(target=lambda: found.append(results()))
    thread.start()
    thread.join()
    torch.set_num_threads(1)
    found.append(results())
    assert (len(teams), len(turns)) == (1, 2)
    for other, by_x in found:
        assert other == value
        assert torch.equal(by_x, gradient)


FORKS = """
import os, signal, torch, fastssim
from fastssim.cpu import team
team._cores = lambda: 2
torch.set_num_threads(2)
x, y = torch.rand(2, 4, 3, 420, 420)
expected = fastssim.ssim(x, y)
assert team._state["at work"]
child = os.fork()
if child == 0:
    signal.alarm(60)  # an OpenMP whose threads are gone waits for them
    x.mul(2).sum()
    assert not team.is_there(2, 1000, 10**9, gradient=True)
    os._exit(0 if fastssim.ssim(x, y) == expected else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert team.is_there(2, 1000, 10**9, gradient=True)
assert fastssim.ssim(x, y) == expected
"""
FORKED = """
import os, signal, torch
torch.set_num_threads(2)
x, y = torch.rand(2, 4, 3, 300, 300)
x.mul(2).sum()  # OpenMP has threads here, and nobody to let them go
child = os.fork()
if child == 0:
    signal.alarm(60)
    import fastssim
    from fastssim.cpu import team
    assert team._openmp() is None
    fastssim.ssim(x, y)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "alarm"), reason="this system does not fork")
@pytest.mark.parametrize("program", [FORKS, FORKED], ids=["after a call", "before the first"])
def test_a_forked_child_computes_and_so_does_its_torch(program):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.parametrize(
    ("text", "forked"),
    [("1 (a) b) S 0 1 1 0 -1 4194304 1", False), ("1 (a) S 0 1 1 0 -1 4194368 1", True), ("?", True)],
)
def test_what_the_system_says_of_a_process(monkeypatch, text, forked):
    monkeypatch.setattr(team.Path, "read_text", lambda *_, **__: text)
    assert team._was_forked() is forked
