"""A task in another process gives the same as here; what fails there is said here."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import environments, memory, scaling, startup, train
from bench.calls import Calls
from bench.cases import Case, images
from bench.peers import SSIM, Peer
from bench.worker import Bench, Worker, WorkerError

OWN = SSIM[0]
TABLE = "bench.peers:SSIM"


@pytest.fixture(scope="module")
def worker():
    with Worker() as made:
        yield made


def test_a_task_elsewhere_is_the_task_here(worker):
    x, y = images(Case((1, 2, 40, 48)))
    with Calls() as calls:
        calls.inputs(x=x, y=y)
        here = calls.make(OWN, TABLE, "bench.tasks:forward")
        there = calls.remote(worker, OWN, TABLE, "bench.tasks:forward")
        assert there() == pytest.approx(float(here()), rel=1e-7)
        assert 0 < there.seconds(2) < 60
        gradient = calls.remote(worker, OWN, TABLE, "bench.tasks:gradient")
        assert np.array_equal(gradient(), calls.make(OWN, TABLE, "bench.tasks:gradient")().numpy())
        assert there() == pytest.approx(float(here()), rel=1e-7)  # still there


@pytest.mark.skipif(sys.platform != "linux", reason="the size is read from /proc")
@pytest.mark.parametrize("hand_back", [False, True])
def test_memory_stays_or_is_handed_back(hand_back):
    x = torch.zeros(1, 1, 4096, 4096)
    with Calls() as calls, Worker() as worker:
        worker.ask("hold")
        small = x[..., :64, :64].contiguous()
        calls.inputs(x=small, y=small)
        calls.remote(worker, OWN, TABLE, "bench.tasks:gradient").seconds(1)  # machine code is there from now on
        calls.inputs(x=x, y=x)
        number = calls.prepare(worker, OWN, TABLE, "bench.tasks:gradient", hand_back=hand_back)["number"]
        before = resident(worker)
        assert worker.ask("seconds", number=number, repeats=1)["seconds"] > 0
        assert (resident(worker) - before > x.nbytes / 2) != hand_back


def resident(worker):
    """Bytes of a worker's memory that are there."""
    pages = Path(f"/proc/{worker._process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_is_the_peak_of_one_call(worker):
    x = torch.zeros(1, 1, 2048, 2048)
    with Calls() as calls:
        calls.inputs(x=x, y=x)
        number = calls.prepare(worker, OWN, TABLE, "bench.tasks:gradient")["number"]
        worker.ask("memory", number=number)
        peak = worker.ask("memory", number=number)["peak"]
    assert 0.9 * x.nbytes < peak < 8 * x.nbytes  # the gradient at least; the kernel counts in lots of pages


def test_what_fails_there_is_said_here(worker):
    with pytest.raises(ImportError, match="No module named 'nowhere'"):
        worker.ask("prepare", peer="nowhere:TABLE:p", task="t", arrays={}, options={}, threads=1)
    with pytest.raises(WorkerError, match="IndexError"):
        worker.ask("seconds", number=10**6, repeats=1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_too_little_memory_and_a_death_are_named(tmp_path):
    large = tmp_path / "large.npy"
    np.lib.format.open_memmap(large, "w+", np.float32, (1, 1, 1 << 16, 1 << 16))  # 16 GiB, none of it on the disk
    task = {"task": "bench.tasks:forward", "options": {}, "threads": 1}
    with Worker() as dying:
        dying.ask("limit", size=1 << 33)
        with pytest.raises(WorkerError, match="MemoryError: Unable to allocate 16"):
            dying.ask("prepare", peer=f"{TABLE}:fastssim", arrays={"x": str(large)}, **task)
        dying._process.kill()
        with pytest.raises(WorkerError, match=r"died of SIGKILL \(out of memory\?\)"):
            dying.ask("forget")


def test_an_environment_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    peer = next(peer for peer in SSIM if peer.environment)
    with Calls() as calls:
        calls.inputs(x=torch.zeros(1, 1, 16, 16), y=torch.zeros(1, 1, 16, 16))
        with pytest.raises(ImportError, match="python -m bench peers --install"):
            calls.make(peer, TABLE, "bench.tasks:forward")


def test_environments_are_made_without_dependencies(monkeypatch, tmp_path):
    commands = []

    def run(command, **_):
        commands.append(command)
        failed = any("broken" in word for word in command)
        return subprocess.CompletedProcess(
            command, int(failed), "", "a warning\nERROR: no such version" if failed else ""
        )

    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"one": ("one==1",), "broken": ("broken==2",)})
    monkeypatch.setattr(environments.subprocess, "run", run)
    assert environments.install(["one", "broken"]) == {"broken": "ERROR: no such version"}
    assert all("--no-deps" in command for command in commands)
    assert environments.python("one").exists()
    with pytest.raises(ImportError, match="broken==2 wants an environment"):
        environments.python("broken")
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"one": ("one==3",)})  # another version is pinned
    with pytest.raises(ImportError, match="one==3 wants an environment"):
        environments.python("one")


def test_a_curve_ends_where_a_library_dies(monkeypatch):
    least = iter([1e-3, 4e-3, MemoryError("too much")])

    def measured(*_):
        result = next(least)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(scaling, "_least", measured)
    points = [scaling.Point("pixels", 4**k, Case((1, 1, 2**k, 2**k))) for k in range(5, 9)]
    rows = scaling._curves(Peer("p", "p", lambda: None, gradient=False), points, 0, quick=False)
    assert [row.get("least_ms") for row in rows] == [1.0, 4.0, None, None]
    assert [row.get("absent") for row in rows] == [None, None, "MemoryError: too much", "MemoryError: too much"]


def test_a_point_that_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(scaling, "_least", lambda *_: 3.0)
    points = [scaling.Point("pixels", n * n, Case((1, 1, n, n))) for n in (64, 128, 256)]
    points.append(scaling.Point("window", 33, Case((1, 1, 64, 64)), window=33))
    rows = scaling._curves(Peer("p", "p", lambda: None, gradient=False, windows=(11,)), points, 0, quick=False)
    assert [row.get("absent") for row in rows] == [
        None,
        "left out: about 12 s a call",
        "left out: about 48 s a call",
        "not a size of its window",
    ]


def test_the_import_that_is_timed_is_the_librarys_alone(monkeypatch):
    code = "import sys; from bench.worker import find_peer; find_peer('bench.peers:SSIM:kornia'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastssim", "numba", "kornia"} & set(loaded)
    now = [0.0]

    def takes(seconds):
        now[0] += seconds

    monkeypatch.setattr("bench.worker.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr("bench.worker.find_peer", lambda _: takes(4.0) or Peer("p", "p", lambda: takes(0.5)))
    monkeypatch.setattr("bench.worker.find", lambda _: lambda *_, **__: None)
    assert Bench().prepare("p", "t", {}, {}, torch.get_num_threads())["load_seconds"] == 0.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_training_takes_time_and_where_it_need_not_be_quick_memory(monkeypatch):
    steps = [(kind, task, Case((1, 1, 32, 32)), Case((1, 1, 32, 32))) for kind, task, *_ in train.JOBS[1:]]
    monkeypatch.setattr(train, "JOBS", steps)
    ((timed,), (whole,)) = (train.run(["fastssim"], quick=quick, rounds=1)["rows"] for quick in (True, False))
    assert timed["median_ms"] > 0
    assert "peak_mib" not in timed
    assert whole["peak_mib"] >= 0


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_and_start_up_of_a_fresh_process():
    for row in memory.run(["fastssim"], quick=True, rounds=1)["rows"]:
        assert row["peak_mib"] >= 0, row
        assert row["bytes_per_pixel"] == pytest.approx(row["peak_mib"] * (1 << 20) / (2 * 48 * 40))
    (row,) = startup.run(["fastssim"], quick=True, rounds=1)["rows"]
    assert 0 < row["second_call_ms"] < row["cold_call_ms"], row  # it compiles


def test_start_up_times_calls_on_a_small_image_too(monkeypatch):
    monkeypatch.setattr(startup, "_times", lambda *_: {"import_ms": 1.0})
    first, *calls = startup.run(["fastssim"], quick=False, rounds=1)["rows"]
    assert first["kind"] == "fresh process"
    assert [(row["case"], row["kind"]) for row in calls] == [
        ("1x1x64x64", "forward"),
        ("1x1x64x64", "forward + gradient"),
    ]
    assert all(row["median_ms"] > 0 and row["equal"] for row in calls)
