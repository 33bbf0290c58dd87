"""What importing the package does, and does not do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import fastssim


def test_import_loads_no_compiler_and_no_gpu_library():
    program = "import fastssim, json, sys; print(json.dumps([m for m in ('numba', 'cupy', 'ae') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_import_leaves_out_what_not_every_program_needs():
    program = """
import fastssim, json, sys
def loaded():
    return [name for name in ("fastssim.compat", "fastssim.tiles") if name in sys.modules]
before = loaded()
found = [set(fastssim.__all__) <= set(dir(fastssim)), fastssim.tiles.__name__, fastssim.patch.__module__]
print(json.dumps([before, found, loaded()]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    both = ["fastssim.compat", "fastssim.tiles"]
    assert json.loads(done.stdout) == [[], [True, "fastssim.tiles", "fastssim.compat.patching"], both]


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"module 'fastssim' has no attribute 'tile'"):
        _ = fastssim.tile
    with pytest.raises(ImportError, match="tile"):
        from fastssim import tile  # noqa: F401, PLC0415
