"""SSIM as a function: arguments are checked here, once, and handed to the operators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastssim import autograd
from fastssim.interop import check_images
from fastssim.window import Gaussian, Window

if TYPE_CHECKING:
    from torch import Tensor

REDUCTIONS = ("mean", "image", "none")
PADDINGS = ("valid",)
_GAUSSIAN = Gaussian()


def ssim(
    x: Tensor,  # (N, C, H, W)
    y: Tensor,  # (N, C, H, W)
    *,
    data_range: float = 1.0,
    window: Window = _GAUSSIAN,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    r"""Windowed structural similarity of two batches of images, differentiable in both.

    In every window, with weighted means mu, variances sigma^2 and covariance sigma_xy,

    .. math:: SSIM = \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
                          {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)},
              \quad C_1 = (k_1 L)^2, \quad C_2 = (k_2 L)^2.

    It lies in [-1, 1] and is 1 where the windows are equal: exactly 1 for ``ssim(x, x)``, with a gradient of exactly 0.
    The gradient of a mean is computed in the same pass as the value.

    Parameters
    ----------
    x, y : torch.Tensor, (N, C, H, W)
        Images of one shape, float32 or float64 both, on the CPU; any strides.
    data_range : float
        L, the span that pixel values can take: 1 for [0, 1], 255 for 8-bit values.
    window : Window
        `Gaussian` or `Uniform`; its size must not exceed H or W.
    k1, k2 : float
        Wang's constants, not negative.
    padding : {"valid"}
        Only windows that lie wholly in the image count.
    reduction : {"mean", "image", "none"}
        Mean of all windows; mean of each image's, (N,); the map, (N, C, H - size + 1, W - size + 1).

    Returns
    -------
    torch.Tensor
        Of the inputs' dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.
    NotImplementedError
        In a backward with ``create_graph=True``: there is no second derivative.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13(4), 2004. Values follow the authors' ``ssim_index.m``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
    >>> loss = 1 - ssim(x, torch.rand(2, 3, 64, 64))
    >>> loss.backward()
    >>> ssim(x, x, reduction="none").shape
    torch.Size([2, 3, 54, 54])
    """
    check_images(x, y)
    check_options(data_range=data_range, window=window, k1=k1, k2=k2, padding=padding, reduction=reduction)
    height, width = window.shape
    if x.shape[2] < height or x.shape[3] < width:
        raise ValueError(
            f"the images are {x.shape[2]} x {x.shape[3]} pixels, smaller than the window of {height} x {width};"
            " take a smaller window or larger images"
        )
    problem = (window.weights_y, window.weights_x, (k1 * data_range) ** 2, (k2 * data_range) ** 2)
    return autograd.ssim(x, y, problem, reduction)


def ssim_loss(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """Return 1 - SSIM, the loss to minimise: 0 where the images are equal, at most 2.

    Parameters
    ----------
    x, y : torch.Tensor, (N, C, H, W)
        As for `ssim`.
    **options
        Any keyword of `ssim`; ``reduction="none"`` gives the map of 1 - SSIM.

    Returns
    -------
    torch.Tensor

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `ssim`.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(1, 1, 32, 32)
    >>> ssim_loss(x, x).item()
    0.0
    """
    return 1 - ssim(x, y, **options)


def check_options(*, data_range: float, window: Window, k1: float, k2: float, padding: str, reduction: str) -> None:
    """Refuse options that `ssim` does not have; see there."""
    for name, number in (("data_range", data_range), ("k1", k1), ("k2", k2)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{name} is a {type(number).__name__}; give a number")
        if not math.isfinite(number) or number < 0 or (number == 0 and name == "data_range"):
            allowed = "finite and above 0" if name == "data_range" else "finite and not negative"
            raise ValueError(f"{name} is {number}; it must be {allowed}")
    if not isinstance(window, Window):
        raise TypeError(f"window is a {type(window).__name__}; give fastssim.Gaussian(...) or fastssim.Uniform(...)")
    if padding not in PADDINGS:
        raise ValueError(f'padding is {padding!r}; this version computes "valid": pad the images beforehand')
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; give one of {', '.join(map(repr, REDUCTIONS))}")
