"""Build CUDA text with g++ and the emulator's header, and run it on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

HEADER = Path(__file__).parent / "emulator.h"
GUARD = 256  # bytes on each side of every buffer
ORDERS = (0, 1, 2, 3)  # forward, backward, and two random orders of threads and of blocks
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
_THREE = ctypes.c_uint * 3


class EmulationError(RuntimeError):
    """What a kernel did that CUDA leaves undefined."""


def compiler():
    """Path of g++; where there is none, skip the test."""
    found = shutil.which("g++")
    if found is None:
        pytest.skip("no g++ on this machine: the emulator compiles kernels with it (apt-get install g++)")
    return found


@lru_cache(maxsize=1)
def _folder():
    """One folder for all that a test session builds."""
    return tempfile.TemporaryDirectory(prefix="fastssim-emulator-")


def flags():
    """Compile the way NVRTC does: fused multiply-add where the processor has it."""
    fused = platform.machine() == "x86_64" and " fma " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", *(["-mfma"] if fused else [])]


def build(text, kernel, argument, *, includes=(), sanitize=False):
    """Compile a kernel's text into a shared library, once a session; return its path."""
    command = [compiler(), *flags(), *(SANITIZERS if sanitize else ()), *(f"-I{folder}" for folder in includes)]
    before = "".join(f"#include <{name}>\n" for name in includes and ("cuda_fp16.h", "cuda_bf16.h"))
    whole = f'{before}#include "{HEADER}"\n{text}\nEMULATE({kernel}, {argument})\n'
    stem = hashlib.sha256("\0".join([*command, whole, HEADER.read_text(encoding="utf-8")]).encode()).hexdigest()[:20]
    library = Path(_folder().name) / f"{stem}.so"
    if not library.exists():
        source = library.with_suffix(".cpp")
        source.write_text(whole, encoding="utf-8")
        done = subprocess.run([*command, source, "-o", library], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
    return library


def run(library, argument, grid, block, *, order=0):
    """Run a grid; `argument` is a NumPy array of one structure.

    Raises
    ------
    EmulationError
        What went wrong, and in which block.
    """
    loaded = ctypes.CDLL(str(library))
    loaded.emulate.restype = ctypes.c_char_p
    loaded.argument_size.restype = ctypes.c_size_t
    assert loaded.argument_size() == argument.nbytes, "the structure differs between Python and CUDA"
    message = loaded.emulate(ctypes.c_void_p(argument.ctypes.data), _THREE(*grid), _THREE(*block), order)
    if message is not None:
        raise EmulationError(message.decode())


def run_sanitized(program, folder):
    """Run Python text, which may `run` libraries built with sanitize=True, in a process that has the sanitizer."""
    script = folder / "program.py"
    script.write_text(program, encoding="utf-8")
    runtime = subprocess.run([compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # Python leaks; fibers have own stacks
        "PYTHONPATH": os.pathsep.join([str(HEADER.parent), *sys.path]),
    }
    return subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)


class Buffer:
    """An array between guard bytes, as a kernel's input or output."""

    def __init__(self, content):
        """Copy `content`, keeping its strides."""
        content = np.asarray(content)
        low = sum(min(0, (n - 1) * step) for n, step in zip(content.shape, content.strides, strict=True))
        high = sum(max(0, (n - 1) * step) for n, step in zip(content.shape, content.strides, strict=True))
        span = high - low + content.itemsize
        self._bytes = np.full(span + 2 * GUARD, 0xFF, np.uint8)
        self._guards = np.r_[0:GUARD, GUARD + span : 2 * GUARD + span]
        self.array = np.ndarray(content.shape, content.dtype, self._bytes, GUARD - low, content.strides)
        self.array[...] = content

    @property
    def shape(self):
        return self.array.shape

    @classmethod
    def empty(cls, shape, dtype):
        """Make an output full of NaN (of 0xFF)."""
        content = np.empty(shape, dtype)
        content.reshape(-1).view(np.uint8)[...] = 0xFF
        return cls(content)

    def check(self):
        """Refuse a write outside the array."""
        broken = np.flatnonzero(self._bytes[self._guards] != 0xFF)
        if len(broken):
            place = int(self._guards[broken[0]])
            side = f"{GUARD - place} bytes before" if place < GUARD else "behind"
            raise EmulationError(f"a write {side} a buffer of shape {self.array.shape}")


def same_in_every_order(function):
    """Call `function(order)` for every order; refuse results that differ in a bit; return the result."""
    results = [[np.asarray(result) for result in function(order)] for order in ORDERS]
    for order, result in zip(ORDERS[1:], results[1:], strict=True):
        for first, other in zip(results[0], result, strict=True):
            if first.tobytes() != other.tobytes():
                raise EmulationError(f"the result depends on the order of threads or blocks (order {order})")
    return results[0]
