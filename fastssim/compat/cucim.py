"""Drop-in for cuCIM's SSIM of CuPy arrays: ``from fastssim.compat.cucim import structural_similarity``.

The same function as `fastssim.compat.skimage.structural_similarity`, whose parameters and conventions cuCIM has taken
over: arrays go in and out by DLPack and stay on their device, and means are arrays without axes.
"""

from __future__ import annotations

from fastssim.compat import skimage
from fastssim.compat.skimage import structural_similarity

__all__ = ["structural_similarity"]

PACKAGE = "cucim"
REPLACES = {"cucim.skimage.metrics": ("structural_similarity",)}
OPTIONS = skimage.OPTIONS
DEFECTS = skimage.DEFECTS
