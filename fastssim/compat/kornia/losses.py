"""As ``kornia.losses``: ``from fastssim.compat.kornia.losses import ssim_loss``."""

from fastssim.compat.kornia import MS_SSIMLoss, SSIM3DLoss, SSIMLoss, ssim3d_loss, ssim_loss

__all__ = ["MS_SSIMLoss", "SSIM3DLoss", "SSIMLoss", "ssim3d_loss", "ssim_loss"]
