"""Fast, exact, differentiable windowed SSIM, and overlapping tiles.

Importing this package compiles nothing, writes nothing and loads no GPU library.
"""

from fastssim import tiles
from fastssim.functional import ssim, ssim_loss
from fastssim.modules import SSIMLoss
from fastssim.window import Gaussian, Taps, Uniform

__version__ = "0.1.0"

__all__ = ["Gaussian", "SSIMLoss", "Taps", "Uniform", "ssim", "ssim_loss", "tiles"]
