"""Fast, exact, differentiable windowed SSIM, drop-in modules for other libraries' SSIM, and overlapping tiles.

Importing this package compiles nothing, writes nothing and loads no GPU library; `tiles` and `compat` are loaded when
they are first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastssim.functional import l1_ssim_loss, ms_ssim, ssim, ssim_loss, ssim_map
from fastssim.modules import L1SSIMLoss, MSSSIMLoss, SSIMLoss
from fastssim.window import Gaussian, Taps, Uniform

if TYPE_CHECKING:
    from fastssim import compat, tiles
    from fastssim.compat import patch

__version__ = "0.1.0"

__all__ = [
    "Gaussian",
    "L1SSIMLoss",
    "MSSSIMLoss",
    "SSIMLoss",
    "Taps",
    "Uniform",
    "compat",
    "l1_ssim_loss",
    "ms_ssim",
    "patch",
    "ssim",
    "ssim_loss",
    "ssim_map",
    "tiles",
]


def __getattr__(name: str) -> Any:
    """Load what not every program needs: half of the time of an import."""
    if name in ("compat", "tiles"):
        return import_module(f"fastssim.{name}")
    if name == "patch":
        return import_module("fastssim.compat").patch
    raise AttributeError(f"module 'fastssim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
