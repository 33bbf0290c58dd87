"""Drop-in for pytorch-msssim 1.0: ``from fastssim.compat.pytorch_msssim import ssim, ms_ssim, SSIM, MS_SSIM``.

Its conventions: windows that lie wholly in the image, ``data_range=255``; where an axis is shorter than the window,
that axis is not filtered, with a warning; from scale to scale the means of 2 x 2 pixels, of volumes of 2 x 2 x 2, an
odd axis padded with zeros.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand, constant
from fastssim.compat.options import FALLBACK, NATIVE, options
from fastssim.compat.windows import each_channel, known_taps, of_channels
from fastssim.functional import ssim as whole
from fastssim.reference import MS_WEIGHTS
from fastssim.window import Gaussian, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]

PACKAGE = "pytorch_msssim"
REPLACES = {"pytorch_msssim": ("ssim", "ms_ssim", "SSIM", "MS_SSIM")}
OPTIONS = (
    *options(
        "ssim ms_ssim SSIM MS_SSIM",
        NATIVE,
        "X Y",
        "(N, C, H, W), or volumes (N, C, D, H, W); integers count as they stand",
    ),
    *options("ssim ms_ssim SSIM MS_SSIM", NATIVE, "data_range size_average win_size win_sigma K"),
    *options("ssim SSIM", NATIVE, "nonnegative_ssim"),
    *options("ms_ssim MS_SSIM", NATIVE, "weights", "any number of scales"),
    *options("SSIM MS_SSIM", NATIVE, "channel", "another number of channels is a RuntimeError, as there"),
    *options("SSIM MS_SSIM", NATIVE, "spatial_dims"),
    *options("ssim ms_ssim", NATIVE, "win", "the same weights for every channel; not negative, sum 1, else refused"),
    *options("ssim ms_ssim", FALLBACK, "win", "weights of its own for each channel: channel by channel"),
)
DEFECTS = (
    "Integer images are filtered with a window that is rounded to zeros.",
    "float16 images are filtered in float16, with taps in float16.",
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas, as do taps whose sum is not quite 1.",
)


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
    """SSIM, the mean of all or of each image; parameters as ``pytorch_msssim.ssim``.

    Raises
    ------
    ValueError, RuntimeError
        As there, for shapes, an even window, or a `win` that does not fit.

    Examples
    --------
    >>> x = torch.rand(2, 3, 32, 32)
    >>> ssim(x, x, data_range=1.0, size_average=False)
    tensor([1., 1.])
    """
    X, Y = _images(X, Y)
    windows = _windows(win, win_size, win_sigma, X.shape[1])
    data_range = float(constant("data_range", data_range))  # there a tensor or a number of NumPy's may come, too
    #  The gradient of a mean needs no pass of its own to be scaled.
    reduction = "mean" if size_average and not nonnegative_ssim and len(windows) == 1 else "channel"
    each = _compared(whole, X, Y, windows, data_range, K, reduction)
    if nonnegative_ssim:
        each = F.relu(each)
    return _averaged(each, X.dtype, size_average)


def ms_ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | None = None,
    K: Sequence[float] = (0.01, 0.03),
) -> Tensor:
    """Multi-scale SSIM, the mean of all or of each image; parameters as ``pytorch_msssim.ms_ssim``.

    Raises
    ------
    AssertionError
        As there, for images too small for five scales.
    ValueError, RuntimeError
        As `ssim`.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> ms_ssim(x, x, data_range=1.0)
    tensor(1.)
    """
    X, Y = _images(X, Y)
    windows = _windows(win, win_size, win_sigma, X.shape[1])
    data_range = float(constant("data_range", data_range))  # as in `ssim`
    size = len(windows[0].weights_x)
    least = (size - 1) * 2**4
    if min(X.shape[-2:]) <= least:
        raise AssertionError(f"Image size should be larger than {least} due to the 4 downsamplings in ms-ssim")
    powers = MS_WEIGHTS if weights is None else scales.powers("weights", weights)
    x, y = as_they_stand(X, 1), as_they_stand(Y, 1)
    each = None
    if len(windows) == 1 and min(x.shape[2:]) >> (len(powers) - 1) >= size:
        k1, k2 = map(float, K)
        each = scales.joint_factors(x, y, len(powers), data_range=data_range, window=windows[0], k1=k1, k2=k2)
    each = each or scales.factors(
        x,
        y,
        len(powers),
        shrink=lambda image: scales.halved(image, padding=[length % 2 for length in image.shape[2:]]),
        compare=lambda function, x, y: _compared(function, x, y, windows, data_range, K),
    )
    return _averaged(scales.product(each, powers), X.dtype, size_average)


class _WithWindow(nn.Module):
    """A module that keeps its window as a tensor, `win`, which may be replaced, as there."""

    def __init__(self, win_size: int, win_sigma: float, channel: int, spatial_dims: int) -> None:
        super().__init__()
        self.win_size = win_size
        taps = torch.tensor(Gaussian(win_size, win_sigma).taps_x, dtype=torch.float32, device="cpu")
        made = taps.repeat([channel, 1] + [1] * spatial_dims)
        self.win = made.to(torch.get_default_device())  # (channel, 1, [1,] 1, size)
        self._made = self.win, _windows(made, win_size, win_sigma, channel)

    def _win(self, X: Tensor) -> Any:
        """Return the window for images; to a compiler, which knows no tensor's numbers, as it was made."""
        win, windows = self._made
        made = torch.compiler.is_compiling() and self.win is win and X.shape[1] == len(win)
        return windows if made else self.win


class SSIM(_WithWindow):
    """`ssim` as a module; parameters as ``pytorch_msssim.SSIM``.

    Examples
    --------
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
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__(win_size, win_sigma, channel, spatial_dims)
        self.size_average = size_average
        self.data_range = data_range
        self.K = K
        self.nonnegative_ssim = nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the SSIM of two batches of images or volumes."""
        return ssim(X, Y, self.data_range, self.size_average, win=self._win(X), K=self.K,
                    nonnegative_ssim=self.nonnegative_ssim)  # fmt: skip


class MS_SSIM(_WithWindow):  # noqa: N801  # the library's name
    """`ms_ssim` as a module; parameters as ``pytorch_msssim.MS_SSIM``.

    Examples
    --------
    >>> x = torch.rand(1, 3, 176, 176)
    >>> MS_SSIM(data_range=1.0)(x, x)
    tensor(1.)
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: Sequence[float] = (0.01, 0.03),
    ) -> None:
        super().__init__(win_size, win_sigma, channel, spatial_dims)
        self.size_average = size_average
        self.data_range = data_range
        self.weights = weights
        self.K = K

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the multi-scale SSIM of two batches of images or volumes."""
        return ms_ssim(X, Y, self.data_range, self.size_average, win=self._win(X), weights=self.weights, K=self.K)


def _images(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Check shapes and drop axes of a single pixel, as there."""
    if X.shape != Y.shape:
        raise ValueError(f"Input images should have the same dimensions, but got {X.shape} and {Y.shape}.")
    for axis in range(X.ndim - 1, 1, -1):
        X, Y = X.squeeze(axis), Y.squeeze(axis)
    if X.ndim not in {4, 5}:
        raise ValueError(f"Input images should be 4-d or 5-d tensors, but got {X.shape}")
    return X, Y


def _windows(win: Tensor | tuple[Window, ...] | None, size: int, sigma: float, channels: int) -> tuple[Window, ...]:
    """Return the window of every channel, or one for all; `win` may be these already."""
    if isinstance(win, tuple):
        return win
    if win is not None:
        size = win.shape[-1]
    if size % 2 != 1:
        raise ValueError("Window size should be odd.")
    if win is None:
        return (Gaussian(size, sigma),)
    if win.shape[0] != channels or win.numel() != channels * size:
        raise RuntimeError(
            f"win has shape {tuple(win.shape)}; for {channels} channels give ({channels}, 1, 1, {size}): one window for"
            " each channel"
        )
    return of_channels("win", win)


def _fitting(window: Window, lengths: Sequence[int]) -> Window:
    """Return the window, of a single tap along an axis that is shorter."""
    taps = window.weights_x
    if min(lengths) >= len(taps):
        return window
    return known_taps(tuple(taps if length >= len(taps) else (1.0,) for length in lengths))


def _compared(
    compare: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    windows: tuple[Window, ...],
    data_range: float,
    K: Sequence[float],
    reduction: str = "channel",
) -> Tensor:
    """Mean over the windows of every channel, (N, C), or of all."""
    x, y = as_they_stand(x, data_range), as_they_stand(y, data_range)
    size = len(windows[0].weights_x)
    for axis, length in enumerate(x.shape[2:], start=2):
        if length < size:
            warnings.warn(
                f"Skipping Gaussian Smoothing at dimension {axis} for input: {x.shape} and win size: {size}",
                stacklevel=3,
            )
    settings: dict[str, Any] = {
        "data_range": data_range, "k1": float(K[0]), "k2": float(K[1]), "reduction": reduction, "dims": x.ndim - 2
    }  # fmt: skip
    fitting = [_fitting(window, x.shape[2:]) for window in windows]
    found: Tensor = each_channel(compare, x, y, fitting, **settings)
    return found


def _averaged(each: Tensor, dtype: torch.dtype, size_average: bool) -> Tensor:
    """Mean of all channels, or of each image's, in the images' dtype."""
    mean = each.mean() if size_average else each.mean(1)
    return mean.to(dtype) if dtype.is_floating_point else mean
