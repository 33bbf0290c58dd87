"""Drop-in for kornia's SSIM: ``from fastssim.compat.kornia import SSIMLoss, SSIM3DLoss, ssim_loss, ssim``.

Also as ``kornia.metrics.ssim`` and ``kornia.losses.ssim_loss`` of ``from fastssim.compat import kornia``. Its
conventions: a Gaussian of sigma 1.5 whatever the window's size, the border mirrored about the last pixel, a map, and as
the loss (1 - SSIM) / 2. No kornia is needed.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fastssim.compat.images import as_they_stand, as_value, contrast, luminance
from fastssim.compat.kornia.ms_ssim import MS_SSIMLoss
from fastssim.compat.options import FALLBACK, NATIVE, options
from fastssim.functional import ssim as whole
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SSIM",
    "SSIM3D",
    "MS_SSIMLoss",
    "SSIM3DLoss",
    "SSIMLoss",
    "losses",
    "metrics",
    "ssim",
    "ssim3d",
    "ssim3d_loss",
    "ssim_loss",
]

PACKAGE = "kornia"
REPLACES = {
    "kornia.metrics": ("ssim", "SSIM", "ssim3d", "SSIM3D"),
    "kornia.losses": ("ssim_loss", "SSIMLoss", "ssim3d_loss", "SSIM3DLoss", "MS_SSIMLoss"),
}
LOSSES = "ssim_loss SSIMLoss ssim3d_loss SSIM3DLoss"
ALL = f"ssim SSIM ssim3d SSIM3D {LOSSES}"
OPTIONS = (
    *options(ALL, NATIVE, "img1 img2 window_size max_val", "max_val is a Python float, as there"),
    *options(ALL, NATIVE, "padding", '"same" and "valid", in any case of letters'),
    *options(
        ALL, NATIVE, "eps",
        "left out where it could change no value by more than 1.2e-5, as the default cannot with max_val=1;"
        " it shows where both images are black and flat",
    ),
    *options(ALL, FALLBACK, "eps", "a larger one: reproduced, by six maps in place of one"),
    *options(LOSSES, NATIVE, "reduction", '"mean", "sum" and "none"'),
    *options(
        "MS_SSIMLoss", FALLBACK, "sigmas data_range K alpha compensation reduction",
        "a map for each of the sigmas, from the kernels; torch multiplies them, and filters L1",
    ),
)  # fmt: skip
DEFECTS = (
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas, which the loss then clamps.",
    "Equal black images score 0.99998889 with the default eps; they score 1 here.",
)
NEGLIGIBLE = 1.2e-5  # of SSIM, what eps can take from it


def ssim(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
) -> Tensor:
    """SSIM of every window, (N, C, H, W); parameters as ``kornia.metrics.ssim``.

    Raises
    ------
    TypeError, ValueError
        As there. An unknown padding or an even window is kornia's ``BaseError`` where kornia is loaded, else a
        ValueError.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5)
    >>> ssim(x, x, 5).shape
    torch.Size([1, 4, 5, 5])
    """
    return _map(img1, img2, window_size, max_val, eps, padding, 2)


def ssim3d(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
) -> Tensor:
    """SSIM of every window of volumes, (N, C, D, H, W); parameters as ``kornia.metrics.ssim3d``.

    Raises
    ------
    TypeError, ValueError
        As `ssim`; volumes of two shapes, too, are kornia's ``BaseError`` where kornia is loaded.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5, 5)
    >>> ssim3d(x, x, 5).shape
    torch.Size([1, 4, 5, 5, 5])
    """
    return _map(img1, img2, window_size, max_val, eps, padding, 3)


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """Return (1 - SSIM) / 2; parameters as ``kornia.losses.ssim_loss``.

    Raises
    ------
    NotImplementedError
        As there, for another reduction.
    TypeError, ValueError
        As `ssim`.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5)
    >>> ssim_loss(x, x, 5)
    tensor(0.)
    """
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding, 2)


def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """Return (1 - SSIM) / 2 of volumes; parameters as ``kornia.losses.ssim3d_loss``.

    Raises
    ------
    NotImplementedError
        As there, for another reduction.
    TypeError, ValueError
        As `ssim3d`.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5, 5)
    >>> ssim3d_loss(x, x, 5)
    tensor(0.)
    """
    return _loss(img1, img2, window_size, max_val, eps, reduction, padding, 3)


class SSIM(nn.Module):
    """`ssim` as a module; parameters as ``kornia.metrics.SSIM``.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5)
    >>> SSIM(5)(x, x).shape
    torch.Size([1, 4, 5, 5])
    """

    _dims = 2

    def __init__(self, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same") -> None:
        super().__init__()
        self.window_size = window_size
        self.max_val = max_val
        self.eps = eps
        self.padding = padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Return the SSIM map of two batches."""
        return _map(img1, img2, self.window_size, self.max_val, self.eps, self.padding, self._dims)


class SSIM3D(SSIM):
    """`ssim3d` as a module; parameters as ``kornia.metrics.SSIM3D``.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5, 5)
    >>> SSIM3D(5)(x, x).shape
    torch.Size([1, 4, 5, 5, 5])
    """

    _dims = 3


class SSIMLoss(SSIM):
    """`ssim_loss` as a module; parameters as ``kornia.losses.SSIMLoss``.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5)
    >>> SSIMLoss(5)(x, x)
    tensor(0.)
    """

    def __init__(
        self, window_size: int, max_val: float = 1.0, eps: float = 1e-12, reduction: str = "mean", padding: str = "same"
    ) -> None:
        super().__init__(window_size, max_val, eps, padding)
        self.reduction = reduction

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        """Return the loss of two batches."""
        return _loss(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding, self._dims
        )  # fmt: skip


class SSIM3DLoss(SSIMLoss):
    """`ssim3d_loss` as a module; parameters as ``kornia.losses.SSIM3DLoss``.

    Examples
    --------
    >>> x = torch.rand(1, 4, 5, 5, 5)
    >>> SSIM3DLoss(5)(x, x)
    tensor(0.)
    """

    _dims = 3


def __getattr__(name: str) -> Any:
    """Load a module of the original's layout when it is asked for."""
    if name in ("losses", "metrics"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _map(img1: Tensor, img2: Tensor, window_size: int, max_val: float, eps: float, padding: str, dims: int) -> Tensor:
    """Return the SSIM map."""
    return _compared(img1, img2, window_size, max_val, eps, padding, "none", dims).to(_dtype(img1, img2))


def _loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float,
    eps: float,
    reduction: str,
    padding: str,
    dims: int,
) -> Tensor:
    """Return (1 - SSIM) / 2, reduced."""
    if reduction not in {"mean", "sum", "none"}:
        raise NotImplementedError("Invalid reduction option.")
    by_window = "none" if reduction == "sum" else reduction  # the sum of SSIM would hide what little it lacks
    loss = (1 - _compared(img1, img2, window_size, max_val, eps, padding, by_window, dims)) / 2
    return (loss.sum() if reduction == "sum" else loss).to(_dtype(img1, img2))


def _compared(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float, eps: float, padding: str, reduction: str, dims: int
) -> Tensor:
    """SSIM, reduced."""
    _check(img1, img2, window_size, max_val, padding, dims)
    x, y = as_they_stand(img1, max_val), as_they_stand(img2, max_val)
    settings: dict[str, Any] = {
        "data_range": max_val,
        "window": Gaussian(window_size),
        "padding": {"same": "reflect", "valid": "valid"}[str(padding).lower()],
        "dims": dims,
    }
    bias = eps / ((0.01 * max_val) ** 2 * (0.03 * max_val) ** 2)  # of SSIM, at most
    if abs(bias) <= NEGLIGIBLE:
        value = whole(x, y, reduction=reduction, **settings)
    else:
        value = _biased(x, y, bias, settings)
        value = value if reduction == "none" else getattr(value, reduction)()
    return value


def _dtype(img1: Tensor, img2: Tensor) -> torch.dtype:
    """Dtype of the original's results: that of both images together."""
    return torch.promote_types(as_value(img1), as_value(img2))


def _biased(x: Tensor, y: Tensor, bias: float, settings: dict[str, Any]) -> Tensor:
    """SSIM map with eps added to its denominator B D.

    With l and c the two factors of SSIM, l(x, y) + l(x, -y) = 2 C1 / B and c(x, y) + c(x, -y) = 2 C2 / D, so that
    eps / (B D) is eps / (C1 C2) times a quarter of the product of these sums.
    """
    x, y = (image if image.dtype == torch.float64 else image.float() for image in (x, y))
    settings = {**settings, "reduction": "none"}
    by_means = luminance(x, y, **settings) + luminance(x, -y, **settings)
    by_variances = contrast(x, y, **settings) + contrast(x, -y, **settings)
    return whole(x, y, **settings) / (1 + bias / 4 * by_means * by_variances)


def _check(img1: Tensor, img2: Tensor, window_size: int, max_val: float, padding: str, dims: int) -> None:
    errors = sys.modules.get("kornia.core.exceptions")  # where there are none yet, nobody waits for them
    error = getattr(errors, "BaseError", ValueError)
    no_tensor, no_shape = TypeError, ValueError
    if dims == 3:
        no_tensor, no_shape = getattr(errors, "TypeCheckError", TypeError), getattr(errors, "ShapeError", ValueError)
    for name, image in (("img1", img1), ("img2", img2)):
        if not isinstance(image, torch.Tensor):
            raise no_tensor(
                f"Type mismatch: expected Tensor. Input {name} type is not a torch.Tensor. Got {type(image)}"
            )
    if not isinstance(max_val, float):
        raise TypeError(f"Input max_val type is not a float. Got {type(max_val)}")
    for name, image in (("img1", img1), ("img2", img2)):
        if image.ndim != dims + 2:
            axes = {2: "BxCxHxW", 3: "BxCxDxHxW"}[dims]
            raise no_shape(
                f"Shape dimension mismatch: expected {dims + 2} dimensions, got {image.ndim}. Invalid {name} shape, we"
                f" expect {axes}. Got: {image.shape}"
            )
    if img1.shape != img2.shape:
        kind = ValueError if dims == 2 else error
        raise kind(f"img1 and img2 shapes must be the same. Got: {img1.shape} and {img2.shape}")
    if str(padding).lower() not in {"same", "valid"}:
        raise error(f"Invalid padding mode, {padding}. Expected 'same' or 'valid'")
    if not isinstance(window_size, int):
        raise TypeError(f"Kernel size must be an odd integer. Got {window_size!r}")
    if window_size < 1 or window_size % 2 == 0:
        raise error(f"Kernel size must be an odd integer bigger than 0. Got {window_size}")
