"""Drop-in for the losses of 3D Gaussian splatting: ``from fastssim.compat.gaussian_splatting import l1_loss, ssim``.

They stand in ``utils/loss_utils.py`` of its trainers, and in Po-Hsun-Su's pytorch-ssim. Their conventions: values in
[0, 1], a Gaussian of sigma 1.5, zeros beyond the border. `l1_ssim` is the trainers' whole loss in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastssim.compat.images import as_value
from fastssim.compat.options import NATIVE, REFUSED, options
from fastssim.functional import l1_ssim_loss
from fastssim.functional import ssim as whole
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["l1_loss", "l1_ssim", "l2_loss", "ssim"]

OPTIONS = (
    *options("ssim", NATIVE, "img1 img2", "(N, C, H, W) or (C, H, W)"),
    *options("ssim", NATIVE, "window_size size_average"),
    *options(
        "ssim", REFUSED, "window_size", "an even one: ValueError; the original's map then has a row and a column more"
    ),
    *options("l1_ssim", NATIVE, "image gt_image lambda_dssim", "L1 and SSIM in one pass"),
    *options("l1_loss l2_loss", NATIVE, "network_output gt", "as there, two lines of torch"),
)
DEFECTS = (
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas.",
    "float16 images are filtered in float16, with taps in float16.",
    "Taps rounded to float32 sum to 1 - 3e-8 along each axis, which moves the SSIM of noise by 2e-7.",
)


def l1_loss(network_output: Tensor, gt: Tensor) -> Tensor:
    """Mean distance.

    Examples
    --------
    >>> import torch
    >>> l1_loss(torch.zeros(3, 4, 4), torch.ones(3, 4, 4))
    tensor(1.)
    """
    return (network_output - gt).abs().mean()


def l2_loss(network_output: Tensor, gt: Tensor) -> Tensor:
    """Mean squared distance.

    Examples
    --------
    >>> import torch
    >>> l2_loss(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0))
    tensor(4.)
    """
    return ((network_output - gt) ** 2).mean()


def ssim(img1: Tensor, img2: Tensor, window_size: int = 11, size_average: bool = True) -> Tensor:
    """SSIM, the mean of all or of each image; parameters as ``utils.loss_utils.ssim``.

    Raises
    ------
    ValueError
        For an even window, or shapes that differ.
    IndexError
        As there, for ``size_average=False`` of a single image (C, H, W).

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(3, 32, 32)
    >>> ssim(x, x)
    tensor(1.)
    """
    if not size_average and img1.ndim != 4:
        raise IndexError(f"img1 has shape {tuple(img1.shape)}; size_average=False needs a batch (N, C, H, W)")
    reduction = "mean" if size_average else "image"
    return whole(img1, img2, window=Gaussian(window_size), padding="zeros", reduction=reduction).to(as_value(img1))


def l1_ssim(image: Tensor, gt_image: Tensor, lambda_dssim: float = 0.2) -> Tensor:
    """Return ``(1 - lambda_dssim) * l1_loss(image, gt_image) + lambda_dssim * (1 - ssim(image, gt_image))``.

    Raises
    ------
    ValueError
        For a share outside [0, 1], or shapes that differ.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(3, 32, 32)
    >>> l1_ssim(x, x)
    tensor(0.)
    """
    return l1_ssim_loss(image, gt_image, alpha=1 - lambda_dssim, padding="zeros").to(as_value(image))
