"""As ``kornia.metrics``: ``from fastssim.compat.kornia.metrics import ssim``."""

from fastssim.compat.kornia import SSIM, SSIM3D, ssim, ssim3d

__all__ = ["SSIM", "SSIM3D", "ssim", "ssim3d"]
