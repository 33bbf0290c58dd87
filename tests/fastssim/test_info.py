"""What `python -m fastssim.info` says."""

import subprocess
import sys
from types import SimpleNamespace

import torch

import fastssim
from fastssim import info
from fastssim.cuda import device


def test_the_command_prints_its_findings():
    done = subprocess.run([sys.executable, "-m", "fastssim.info"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"fastssim {fastssim.__version__}, Python ")
    assert f"torch {torch.__version__}" in done.stdout
    assert "vectors of" in done.stdout
    assert not done.stderr


def test_where_machine_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new"))
    assert f"machine code is kept in {tmp_path / 'new' / 'fastssim'}" in info.lines()
    (tmp_path / "a file").touch()
    monkeypatch.setattr(info, "folders", lambda: [tmp_path / "a file" / "fastssim"])
    assert "machine code is kept in no folder, for none can be written: each process compiles" in info.lines()


def test_a_gpu_and_what_is_missing_for_one(monkeypatch):
    device.load_cupy.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert info.lines()[-1].startswith(
        "GPU: none is used; the CUDA backend needs CuPy, which is not installed: pip install"
    )
    found = {"name": b"NVIDIA H100", "major": 9, "minor": 0}
    cuda = SimpleNamespace(
        is_available=lambda: True,
        Device=lambda: SimpleNamespace(id=0),
        runtime=SimpleNamespace(getDeviceProperties=lambda _: found),
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, __version__="14.2.0"))
    assert info.lines()[-1] == "GPU: NVIDIA H100, sm_90, CuPy 14.2.0"
    device.load_cupy.cache_clear()
