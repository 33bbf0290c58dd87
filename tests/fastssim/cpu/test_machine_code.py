"""Machine code is made once, kept, checked before it is used, and made again when anything that decides it changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.config import reload_config
from numba.core.registry import cpu_target

from fastssim.cpu import launch, machine_code, simd
from fastssim.cpu.jit import kept
from fastssim.cpu.kinds import March, Step, layout, packer

FOLD = Step("fold", "float32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    machine_code._processor.cache_clear()
    yield tmp_path / "fastssim"
    machine_code._processor.cache_clear()


def folded(run):
    """Fold a rim of ones of a 2 x 3 plane, padded by one pixel on each side and mirrored about the border."""
    rows, columns = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2, 2])
    plan = np.zeros(1, layout(launch.PLAN))
    plan["rows"], plan["row_count"], plan["columns"], plan["column_count"] = rows.ctypes.data, 4, columns.ctypes.data, 5
    plan["pads"][:, :2] = 1
    rim, gradient = np.ones(2 * 5 + 2 * 2, np.float32), np.zeros((2, 3), np.float32)
    assert run(plan.ctypes.data, 0, 1, rim.ctypes.data, gradient.ctypes.data) == 0
    return gradient.tolist()


def square(number):
    return number * number


EXPECTED = [[3.0, 1.0, 3.0]] * 2  # of a corner: its column's, its row's and the corner's copy


def test_it_is_made_once_and_loaded_afterwards(folder, monkeypatch):
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    (kept,) = folder.iterdir()
    monkeypatch.setattr(machine_code, "_made", lambda _: pytest.fail("it is compiled again"))
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert list(folder.iterdir()) == [kept]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"[]\n", None], ids=["empty", "foreign", "list", "one bit"])
def test_spoilt_code_is_never_run(folder, damage):
    machine_code.entry.__wrapped__(FOLD)
    (kept,) = folder.iterdir()
    sound = kept.read_bytes()
    kept.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]) if damage is None else damage)
    assert machine_code._loaded(FOLD) is None
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert machine_code._loaded(FOLD) is not None


def test_code_of_former_sources_is_not_taken_and_goes(folder, monkeypatch):
    machine_code.entry.__wrapped__(FOLD)
    (former,) = folder.iterdir()
    monkeypatch.setattr(machine_code, "sources", lambda: "0123456789abcdef")
    assert machine_code._loaded(FOLD) is None
    machine_code.entry.__wrapped__(FOLD)
    assert [path.name for path in folder.iterdir()] == [former.name.rpartition("-")[0] + "-0123456789abcdef.o"]


def test_code_of_sources_that_changed_since_they_were_loaded_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(machine_code, "_sources_now", lambda: "0123456789abcdef")
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert not folder.exists()


@pytest.mark.parametrize(("setting", "value"), [("CPU_NAME", "haswell"), ("CPU_FEATURES", "+avx2")])
def test_code_is_taken_for_the_processor_that_it_was_made_for(monkeypatch, setting, value):
    """Numba takes another from the environment, from .numba_config.yaml, and from a program."""

    def names():
        machine_code._processor.cache_clear()
        return {path.name for path in machine_code._paths(FOLD)}

    before = names()
    monkeypatch.setattr(config, setting, value)
    assert not names() & before
    monkeypatch.undo()
    assert names() == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner that can be told")
def test_code_of_other_users_is_not_run(folder, monkeypatch):
    machine_code.entry.__wrapped__(FOLD)
    (kept,) = folder.iterdir()
    assert machine_code._loaded(FOLD) is not None
    owners = {os.geteuid(), 0, machine_code._HERE.stat().st_uid}
    true, other = os.fstat, max(owners) + 1
    monkeypatch.setattr(
        machine_code.os, "fstat", lambda file: os.stat_result((*true(file)[:4], other, *true(file)[5:]))
    )
    assert machine_code._loaded(FOLD) is None
    for owner in owners:
        other = owner
        assert machine_code._loaded(FOLD) is not None
    other = max(owners) + 1
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert list(folder.iterdir()) == [kept]  # made anew


@pytest.mark.skipif(os.name != "posix", reason="links need rights here")
def test_code_is_written_to_no_file_that_a_link_names(folder, tmp_path):
    other = tmp_path / "other"
    other.write_text("of somebody")
    (path,) = machine_code._paths(FOLD)
    folder.mkdir()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.symlink_to(other)
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert other.read_text() == "of somebody"
    assert folded(machine_code.entry.__wrapped__(FOLD)) == EXPECTED
    assert [file.name for file in folder.iterdir()] == [path.name]  # the link is gone


def test_a_handler_of_signals_may_ask_for_code_while_code_is_made(folder, monkeypatch):
    made, found = machine_code._made, []

    def interrupted(kind):
        if kind == FOLD:
            machine_code.entry.__wrapped__(Step("fold", "float64"))
        return made(kind)

    monkeypatch.setattr(machine_code, "_made", interrupted)
    asking = threading.Thread(target=lambda: found.append(folded(machine_code.entry.__wrapped__(FOLD))), daemon=True)
    asking.start()
    asking.join(timeout=120)
    assert found == [EXPECTED]
    assert len(list(folder.iterdir())) == 2


def test_code_that_numba_keeps_is_made_anew_when_any_source_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    reload_config()

    def taken(function):
        """Whether code was there that could be taken."""
        dispatcher = kept(function)
        assert dispatcher(2) == 4
        return bool(dispatcher.stats.cache_hits)

    assert [taken(square), taken(square)] == [False, True]
    monkeypatch.setattr("fastssim.cpu.jit.sources", lambda: "0123456789abcdef")
    assert not taken(square)


def test_code_that_calls_what_is_not_there_is_not_linked(folder):
    machine_code.entry.__wrapped__(FOLD)
    (kept,) = folder.iterdir()
    first, _, code = kept.read_bytes().partition(b"\n")
    about = json.loads(first)
    about["needs"].append("no_such_function")
    kept.write_bytes(json.dumps(about).encode() + b"\n" + code)
    assert machine_code._loaded(FOLD) is None


def test_a_process_that_finds_it_loads_no_compiler():
    program = (
        "import sys, torch, fastssim\n"
        "x = torch.rand(1, 1, 30, 41).requires_grad_()\n"
        "fastssim.ssim(x, x.detach(), window=fastssim.Gaussian((5, 3), 1.5), padding='reflect').backward()\n"
        "print('fastssim.cpu.entry' in sys.modules)\n"
    )
    for _ in range(2):  # the first makes what no test before made
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ, timeout=300
        )
    assert done.stdout == "False\n"


def test_names_tell_kinds_apart():
    plain = March("float32", 3, 5, mirrored_y=False, mirrored_x=False, exact=False)
    others = ({"taps_y": 5, "taps_x": 3}, {"dtype": "float64"}, {"mirrored_y": True}, {"exact": True}, {"l1": True})
    kinds = [plain, *(plain._replace(**other) for other in others), FOLD]
    assert len({kind.name for kind in kinds}) == len(kinds)


def test_blocks_are_packed_as_kernels_read_them():
    for fields in (launch.PLAN, launch.CALL):
        assert layout(fields).itemsize == packer(fields).size == 8 * sum(count for _, count, _ in fields)


def test_vectors_on_the_stack_lie_within_a_cache_line():
    module = ir.Module()
    builder = ir.IRBuilder(ir.Function(module, ir.FunctionType(ir.VoidType(), []), "kernel").append_basic_block())
    simd.Code(cpu_target.target_context, builder, types.float32)
    builder.ret_void()
    assert f"alignstack({max(16, simd.vector_bytes())})" in str(module)
