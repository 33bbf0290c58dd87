"""Every instance that ships compiles for every architecture, within its budget, without a GPU."""

from __future__ import annotations

import ctypes
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.sass import compile_instance
from fastssim.cuda import geometry
from fastssim.cuda.shipped import ARCHITECTURES, instances

pytest.importorskip("cuda.bindings.nvrtc", reason="no NVRTC: pip install cuda-bindings nvidia-cuda-nvrtc")

BUDGETS = json.loads((Path(__file__).parent / "budgets.json").read_text(encoding="utf-8"))


def test_every_instance_has_a_budget():
    assert {name for name in BUDGETS if name != "why"} == set(instances())


@pytest.mark.parametrize("name", instances())
def test_compiles_within_its_budget_and_without_spilling(name):

    registers, shared = BUDGETS[name]
    for architecture in ARCHITECTURES:
        compiled = compile_instance(instances()[name], architecture)
        assert compiled.spilled == 0, architecture
        assert compiled.registers <= registers, architecture
        assert compiled.shared <= shared, architecture
        if instances()[name].kernel == "march":
            assert compiled.shared <= geometry._shared_bytes(instances()[name])


@lru_cache(maxsize=1)
def nvrtc_of_cuda_12():
    """The compiler that the extra cuda12 uses."""
    try:
        found = find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("no NVRTC of CUDA 12: pip install nvidia-cuda-nvrtc-cu12")
    return ctypes.CDLL(str(Path(found.submodule_search_locations[0], "lib", "libnvrtc.so.12")))


@pytest.mark.parametrize("name", instances())
def test_compiles_with_cuda_12_too(name):
    compiler, program, size = nvrtc_of_cuda_12(), ctypes.c_void_p(), ctypes.c_size_t()
    options = [b"-std=c++17", b"--ptxas-options=-v", b"-arch=sm_90", b"-ftz=true"]
    compiler.nvrtcCreateProgram(ctypes.byref(program), instances()[name].text.encode(), b"kernel.cu", 0, None, None)
    status = compiler.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    compiler.nvrtcGetProgramLog(program, log)
    compiler.nvrtcDestroyProgram(ctypes.byref(program))
    assert status == 0, log.value.decode()
    assert b" 0 bytes spill stores" in log.value
