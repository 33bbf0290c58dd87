"""Which code computes on the CPU: kernels, loaded at their first use, or plain NumPy where Numba's compiler is off."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import Any

_KERNELS: dict[int | str, str] = {2: "launch", 3: "volume_launch", "scales": "scale_launch", "tiles": "tile_launch"}
_PLAIN: dict[int | str, str] = {"tiles": "plain_tiles"}


@cache
def launch_of(what: int | str) -> Any:
    """Return the launch of kernels for so many axes, "scales" or "tiles", or its stand-in for NUMBA_DISABLE_JIT=1.

    Examples
    --------
    >>> launch_of("tiles").__name__
    'fastssim.cpu.tile_launch'
    """
    numba: Any = sys.modules.get("numba")  # not loaded to be asked
    off = numba.config.DISABLE_JIT if numba else os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}
    return import_module(f"fastssim.cpu.{_PLAIN.get(what, 'plain') if off else _KERNELS[what]}")
