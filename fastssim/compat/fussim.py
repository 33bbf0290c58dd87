"""Drop-in for fussim: ``from fastssim.compat.fussim import fused_ssim, ssim, SSIM``; also on the CPU.

Its conventions are those of fused-ssim in `fused_ssim` and `FusedSSIMMap`, which take windows of 7 and 9 pixels, too,
and those of pytorch-msssim in `ssim` and `SSIM`, but that `nonnegative_ssim` is for every window, not for every mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from fastssim.compat.fused_ssim import ALLOWED_PADDING, by_first
from fastssim.compat.images import as_they_stand
from fastssim.compat.options import FALLBACK, NATIVE, REFUSED, options
from fastssim.functional import ssim as whole
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["SSIM", "FusedSSIMMap", "fused_ssim", "ssim"]

PACKAGE = "fussim"
REPLACES = {"fussim": ("fused_ssim", "ssim", "SSIM", "FusedSSIMMap")}
OPTIONS = (
    *options("fused_ssim FusedSSIMMap", NATIVE, "img1 img2", "any float dtype and strides, on the CPU too"),
    *options("fused_ssim FusedSSIMMap", NATIVE, "padding", '"same" (zeros) and "valid"'),
    *options("fused_ssim FusedSSIMMap", NATIVE, "train", "False: no gradient"),
    *options("fused_ssim FusedSSIMMap", NATIVE, "window_size", "7, 9 and 11, as there"),
    *options("FusedSSIMMap", NATIVE, "C1 C2"),
    *options("ssim", NATIVE, "X Y", "integers count as they stand; both get a gradient"),
    *options("ssim SSIM", NATIVE, "data_range size_average K"),
    *options("ssim SSIM", NATIVE, "win_size", "7, 9 and 11, as there"),
    *options("ssim SSIM", NATIVE, "win_sigma", "1.5, as there"),
    *options("ssim SSIM", FALLBACK, "nonnegative_ssim", "of the map, which torch reduces"),
    *options("ssim", REFUSED, "win", "ValueError, as there"),
    *options("SSIM", NATIVE, "channel", "not looked at, as there"),
    *options("SSIM", NATIVE, "spatial_dims", "2, as there"),
)
DEFECTS = (
    "The weights of 9 pixels sum to 0.54, and those of 7 are a Gaussian of sigma 1.0.",
    "The second image of `ssim` has no gradient, without a word.",
    "Under autocast images and weights are rounded to float16, whose sum is not 1.",
    "A second image that is not contiguous is read wrongly, without an error.",
)
SUPPORTED_WINDOW_SIZES = (7, 9, 11)


def fused_ssim(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True, window_size: int = 11) -> Tensor:
    """Mean SSIM with its gradient by `img1`; parameters as ``fussim.fused_ssim``.

    Raises
    ------
    ValueError
        As there, for images that are not two of one shape (N, C, H, W), another padding or size.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(1, 3, 32, 32, requires_grad=True)
    >>> fused_ssim(x, torch.rand(1, 3, 32, 32), window_size=7).backward()
    """
    if img1.shape != img2.shape:
        raise ValueError(f"img1 and img2 must have the same shape, got {tuple(img1.shape)} and {tuple(img2.shape)}")
    return _compared(img1, img2, padding, train, window_size, reduction="mean")


class FusedSSIMMap:
    """SSIM of every window: ``FusedSSIMMap.apply(C1, C2, img1, img2, padding, train, window_size)``."""

    @staticmethod
    def apply(
        C1: float,
        C2: float,
        img1: Tensor,
        img2: Tensor,
        padding: str = "same",
        train: bool = True,
        window_size: int = 11,
    ) -> Tensor:
        """Return the map, shaped as the images, or of whole windows; the constants are C1 and C2 themselves.

        Examples
        --------
        >>> import torch
        >>> x = torch.rand(1, 3, 32, 32)
        >>> FusedSSIMMap.apply(0.01**2, 0.03**2, x, x, "valid", window_size=9).shape
        torch.Size([1, 3, 24, 24])
        """
        constants = {"k1": C1**0.5, "k2": C2**0.5}
        return _compared(img1, img2, padding, train, window_size, reduction="none", **constants)


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),
    nonnegative_ssim: bool = False,
) -> Tensor:
    """SSIM, the mean of all or of each image; parameters as ``fussim.ssim``.

    Raises
    ------
    ValueError
        As there, for another size, sigma or K, and for a `win`.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 3, 32, 32)
    >>> ssim(x, x, data_range=1.0, size_average=False)
    tensor([1., 1.])
    """
    _check_options(win_size, win_sigma, K)
    if win is not None:
        raise ValueError(f"win is not taken: the window is a Gaussian of {win_size} pixels and sigma 1.5")
    data_range = float(data_range)
    X, Y = as_they_stand(X, data_range), as_they_stand(Y, data_range)
    settings: dict[str, Any] = {
        "data_range": data_range, "window": Gaussian(win_size, 1.5), "k1": K[0], "k2": K[1]
    }  # fmt: skip
    if nonnegative_ssim:
        each = whole(X, Y, reduction="none", **settings).clamp(min=0)
        return each.mean() if size_average else each.mean(dim=(1, 2, 3))
    return whole(X, Y, reduction="mean" if size_average else "image", **settings)


class SSIM(nn.Module):
    """`ssim` as a module; parameters as ``fussim.SSIM``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 3, 32, 32)
    >>> SSIM(data_range=1.0)(x, x)
    tensor(1.)
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,  # noqa: ARG002  # not looked at, as there
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        _check_options(win_size, win_sigma, K)
        if spatial_dims != 2:
            raise ValueError(f"spatial_dims must be 2 (only 2D images supported), got {spatial_dims}")
        self.data_range = data_range
        self.size_average = size_average
        self.win_size = win_size
        self.K = tuple(K)
        self.nonnegative_ssim = nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the SSIM of two batches of images."""
        return ssim(
            X, Y, self.data_range, self.size_average, self.win_size, K=self.K, nonnegative_ssim=self.nonnegative_ssim
        )


def _compared(img1: Tensor, img2: Tensor, padding: str, train: bool, window_size: int, **settings: Any) -> Tensor:
    """SSIM with a gradient to the first image alone."""
    for name, image in (("img1", img1), ("img2", img2)):
        if image.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(image.shape)}; give 4 axes, 4D, (N, C, H, W)")
    if padding not in ALLOWED_PADDING:
        raise ValueError(f"padding must be one of {tuple(ALLOWED_PADDING)}, but got {padding!r}")
    if window_size not in SUPPORTED_WINDOW_SIZES:
        raise ValueError(f"window_size must be one of {SUPPORTED_WINDOW_SIZES}, got {window_size}")
    return by_first(img1, img2, padding, train, window=Gaussian(window_size, 1.5), **settings)


def _check_options(win_size: int, win_sigma: float, K: Sequence[float]) -> None:
    if win_size not in SUPPORTED_WINDOW_SIZES:
        raise ValueError(f"win_size must be one of {SUPPORTED_WINDOW_SIZES}, got {win_size}")
    if win_sigma != 1.5:
        raise ValueError(f"win_sigma must be 1.5, got {win_sigma}")
    if not (isinstance(K, (tuple, list)) and len(K) == 2 and all(0 < k < 1 for k in K)):
        raise ValueError(f"K must be a tuple/list of 2 values (K1, K2) in (0, 1), got {K}")
