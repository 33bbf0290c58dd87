"""What fastssim finds on this machine: ``python -m fastssim.info`` prints it, also what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch

import fastssim
from fastssim.cpu.machine_code import folders
from fastssim.cpu.simd import vector_bytes
from fastssim.cuda.device import CudaUnavailableError, load_cupy

if TYPE_CHECKING:
    from pathlib import Path


def lines() -> list[str]:
    """Return the findings, one a line.

    Examples
    --------
    >>> lines()[0].startswith("fastssim 0.")
    True
    """
    kept = [str(folder) for folder in folders() if _can_be_written(folder)]
    python = f"Python {platform.python_version()}"
    return [
        f"fastssim {fastssim.__version__}, {python}, {platform.system()} {platform.machine()}",
        f"torch {torch.__version__}, NumPy {np.__version__}, Numba {version('numba')}",
        f"CPU: {torch.get_num_threads()} threads (torch.set_num_threads), vectors of {vector_bytes()} bytes",
        f"machine code is kept in {kept[0] if kept else 'no folder, for none can be written: each process compiles'}",
        f"GPU: {_gpu()}",
    ]


def _can_be_written(folder: Path) -> bool:
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK)


def _gpu() -> str:
    try:
        cupy = load_cupy()
    except CudaUnavailableError as error:
        return f"none is used; {error}"
    found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return f"{found['name'].decode()}, sm_{found['major']}{found['minor']}, CuPy {cupy.__version__}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
