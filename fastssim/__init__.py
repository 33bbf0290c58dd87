"""Fast, exact, differentiable windowed SSIM, drop-in modules for other libraries' SSIM, and overlapping tiles.

Importing this package compiles nothing, writes nothing and loads no GPU library.
"""

from fastssim import compat, tiles
from fastssim.compat import patch
from fastssim.functional import l1_ssim_loss, ms_ssim, ssim, ssim_loss, ssim_map
from fastssim.modules import L1SSIMLoss, MSSSIMLoss, SSIMLoss
from fastssim.window import Gaussian, Taps, Uniform

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
