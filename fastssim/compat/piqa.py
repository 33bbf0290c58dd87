"""Drop-in for piqa's SSIM: ``from fastssim.compat.piqa import MS_SSIM, SSIM, ms_ssim, ssim``.

Its conventions: weights (C, 1, K) of a window along every axis, windows that lie wholly in the image or with zeros
beyond its border; values of each image, or for modules reduced; from scale to scale the means of 2 x 2 pixels, and of
as many as there are at an odd end. One axis, images and volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand, assert_values, contrast
from fastssim.compat.options import FALLBACK, NATIVE, options
from fastssim.compat.windows import EVEN, each_channel, known_taps, of_channels, reached, window_of
from fastssim.functional import ssim as whole
from fastssim.reference import MS_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fastssim.window import Window

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]

PACKAGE = "piqa"
REPLACES = {"piqa": ("SSIM", "MS_SSIM"), "piqa.ssim": ("ssim", "ms_ssim", "SSIM", "MS_SSIM")}
ALL = "ssim ms_ssim SSIM MS_SSIM"
OPTIONS = (
    *options("ssim ms_ssim", NATIVE, "x y", "also of shapes that broadcast"),
    *options(
        "ssim ms_ssim",
        NATIVE,
        "kernel",
        "(C, 1, K), the same weights for every channel; not negative, sum 1, else refused",
    ),
    *options("ssim ms_ssim", FALLBACK, "kernel", "weights of its own for each channel: channel by channel"),
    *options(ALL, FALLBACK, "even", EVEN),
    *options("ssim", NATIVE, "channel_avg", "SSIM and its contrast, by a second pass"),
    *options("ssim ms_ssim", NATIVE, "padding value_range k1 k2"),
    *options("ms_ssim MS_SSIM", NATIVE, "weights", "any number of scales"),
    *options("SSIM MS_SSIM", NATIVE, "window_size sigma n_channels reduction"),
)  # fmt: skip
DEFECTS = (
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas.",
    "float64 images are an error for modules, whose weights are float32.",
)


def ssim(
    x: Tensor,
    y: Tensor,
    kernel: Tensor,
    channel_avg: bool = True,
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """SSIM and contrast of each image, (N,), or of each channel, (N, C); parameters as ``piqa.ssim.ssim``.

    Raises
    ------
    RuntimeError
        As there, for weights of another number of channels, and images smaller than the window.
    ValueError
        For weights that are negative or do not sum to 1.

    Examples
    --------
    >>> x = torch.rand(2, 3, 32, 32)
    >>> ssim(x, x, kernel=torch.full((3, 1, 7), 1 / 7))
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    windows = _windows(kernel, x.shape[1])

    def averaged(compare: Callable[..., Tensor]) -> Tensor:
        return _averaged(compare, x, y, windows, kernel.shape[-1], channel_avg, padding, value_range, k1, k2)

    return averaged(whole), averaged(contrast)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    kernel: Tensor,
    weights: Tensor,
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Multi-scale SSIM of each image, (N,); parameters as ``piqa.ssim.ms_ssim``.

    Raises
    ------
    RuntimeError, ValueError
        As `ssim`.

    Examples
    --------
    >>> x = torch.rand(2, 3, 64, 64)
    >>> ms_ssim(x, x, kernel=torch.full((3, 1, 7), 1 / 7), weights=torch.tensor([0.4, 0.6]))
    tensor([1., 1.])
    """
    windows = _windows(kernel, x.shape[1])
    return _ms_ssim(x, y, windows, kernel.shape[-1], scales.powers("weights", weights), padding, value_range, k1, k2)


class _WithKernel(nn.Module):
    """A module that keeps its window's weights as a buffer, `kernel`, as there."""

    def __init__(self, window_size: int, sigma: float, n_channels: int, reduction: str, kwargs: dict[str, Any]) -> None:
        super().__init__()
        made = window_of("gaussian", (window_size,) * 2, (float(sigma),) * 2)
        weights = torch.tensor(made.weights_x[:window_size], dtype=torch.float32)
        self.kernel: Tensor
        self.register_buffer("kernel", weights.repeat(n_channels, 1, 1))
        self.reduction = reduction
        self.value_range = kwargs.get("value_range", 1.0)
        self.kwargs = kwargs
        self._read: tuple[Tensor, int, tuple[Window, ...]] = (self.kernel, 0, (made,))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if not self.kernel.is_meta:
            self._windows()

    def _windows(self) -> tuple[Window, ...]:
        """Return the window, read again where the buffer is another or was written to, which a compiler cannot see."""
        kernel, version, windows = self._read
        if torch.compiler.is_compiling() and kernel is self.kernel:
            return windows
        writes = 0 if self.kernel.is_inference() else self.kernel._version  # noqa: SLF001  # torch has no public word
        if kernel is not self.kernel or version != writes:
            windows = of_channels("kernel", self.kernel)
            self._read = self.kernel, writes, windows
        return windows

    def _check(self, *images: Tensor, axes: tuple[int, int]) -> None:
        """Assert of the images what piqa does; of values only where no compiler looks on."""
        shapes = [tuple(image.shape) for image in images]
        try:
            torch.broadcast_shapes(*shapes)
        except RuntimeError:
            raise AssertionError(f"Expected all tensors to have broadcastable shapes, but got {shapes}.") from None
        for image in images:
            if image.device != self.kernel.device:
                raise AssertionError(
                    f"Expected all tensors to be on the same device, but got {image.device} and {self.kernel.device}."
                )
            if not axes[0] <= image.ndim <= axes[1]:
                raise AssertionError(f"Expected {axes[0]} to {axes[1]} dimensions, but got {image.ndim}.")
            if image.shape[1] != len(self.kernel):
                raise AssertionError(f"Expected number of channels to be {len(self.kernel)}, but got {image.shape[1]}.")
            if torch.compiler.is_compiling():
                continue
            assert_values(image, self.value_range)


class SSIM(_WithKernel):
    """SSIM of each image, reduced over the batch; parameters as ``piqa.SSIM``.

    Raises
    ------
    AssertionError
        As there, for images of other axes, channels or devices, or values outside [0, value_range].

    Examples
    --------
    >>> x = torch.rand(2, 3, 32, 32)
    >>> SSIM()(x, x)
    tensor(1.)
    """

    def __init__(
        self, window_size: int = 11, sigma: float = 1.5, n_channels: int = 3, reduction: str = "mean", **kwargs: Any
    ) -> None:
        super().__init__(window_size, sigma, n_channels, reduction, kwargs)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the SSIM of two batches of images, volumes, or signals of one axis."""
        self._check(x, y, axes=(3, 5))
        return _reduced(_averaged(whole, x, y, self._windows(), self.kernel.shape[-1], **self.kwargs), self.reduction)


class MS_SSIM(_WithKernel):  # noqa: N801  # the library's name
    """Multi-scale SSIM of each image, reduced over the batch; parameters as ``piqa.MS_SSIM``.

    Raises
    ------
    AssertionError
        As `SSIM`.

    Examples
    --------
    >>> x = torch.rand(2, 3, 176, 176)
    >>> MS_SSIM()(x, x)
    tensor(1.)
    """

    WEIGHTS = torch.tensor(MS_WEIGHTS)

    def __init__(
        self,
        window_size: int = 11,
        sigma: float = 1.5,
        n_channels: int = 3,
        weights: Tensor | None = None,
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(window_size, sigma, n_channels, reduction, kwargs)
        self.weights: Tensor
        self.register_buffer("weights", self.WEIGHTS if weights is None else weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the multi-scale SSIM of two batches of images."""
        self._check(x, y, axes=(4, 4))
        powers = scales.powers("weights", self.weights)
        return _reduced(_ms_ssim(x, y, self._windows(), self.kernel.shape[-1], powers, **self.kwargs), self.reduction)


def _windows(kernel: Tensor, channels: int) -> tuple[Window, ...]:
    """Return the window of every channel, or one for all."""
    size = kernel.shape[-1]
    if kernel.shape != (channels, 1, size):
        raise RuntimeError(f"kernel has shape {tuple(kernel.shape)}; for {channels} channels give ({channels}, 1, K)")
    return of_channels("kernel", kernel)


def _averaged(
    compare: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    windows: tuple[Window, ...],
    size: int,
    channel_avg: bool = True,
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Mean of each image, (N,), or of each channel, (N, C), in the images' dtype."""
    reduction = "image" if channel_avg and len(windows) == 1 else "channel"
    each = _compared(compare, x, y, windows, size, padding, value_range, k1, k2, reduction)
    mean = each.mean(1) if channel_avg and reduction == "channel" else each
    return mean.to(x.dtype) if x.is_floating_point() else mean


def _ms_ssim(
    x: Tensor,
    y: Tensor,
    windows: tuple[Window, ...],
    size: int,
    weights: tuple[float, ...],
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    dtype = x.dtype
    x, y = (as_they_stand(image, 1) for image in torch.broadcast_tensors(x, y))
    each = None
    if len(windows) == 1 and size % 2 and (padding or min(x.shape[2:]) >> (len(weights) - 1) >= size):
        border = "zeros" if padding else "valid"
        each = scales.joint_factors(
            x, y, len(weights), data_range=value_range, window=windows[0], k1=k1, k2=k2, padding=border
        )
    each = each or scales.factors(
        x,
        y,
        len(weights),
        shrink=_halved,
        compare=lambda function, a, b: _compared(
            function, a, b, windows, size, padding, value_range, k1, k2, "channel"
        ),
    )
    value = scales.product(each, weights).mean(1)
    return value.to(dtype) if dtype.is_floating_point else value


def _compared(
    compare: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    windows: tuple[Window, ...],
    size: int,
    padding: bool,
    value_range: float,
    k1: float,
    k2: float,
    reduction: str,
) -> Tensor:
    """Mean over the windows of every image, (N,), or of every channel, (N, C)."""
    x, y = (as_they_stand(image, float(value_range)) for image in torch.broadcast_tensors(x, y))
    if not 3 <= x.ndim <= 5:
        raise AssertionError(f"x has shape {tuple(x.shape)}; give (N, C, *) with one, two or three axes more")
    if padding and size % 2 == 0:  # one window more than pixels
        x, y = (F.pad(image, [size // 2] * (2 * image.ndim - 4)) for image in (x, y))
    elif not padding and min(x.shape[2:]) < size:
        raise RuntimeError(f"windows of {size} pixels do not fit into {tuple(x.shape[2:])}: none lies wholly there")
    x, y = reached(x, y, [size] * (x.ndim - 2))
    if x.ndim == 3:
        x, y = x[:, :, None], y[:, :, None]
        windows = tuple(known_taps(((1.0,), window.weights_x)) for window in windows)
    border = "zeros" if padding and size % 2 else "valid"
    settings = {"data_range": float(value_range), "k1": k1, "k2": k2, "padding": border}
    found: Tensor = each_channel(compare, x, y, windows, **settings, reduction=reduction, dims=x.ndim - 2)
    return found


def _halved(image: Tensor) -> Tensor:
    """Mean of every 2 x 2 pixels, or of what is left of them at an odd end."""
    odd = [length % 2 for length in image.shape[2:]]
    return scales.halved(F.pad(image, [0, odd[1], 0, odd[0]], mode="replicate") if any(odd) else image)


def _reduced(each: Tensor, reduction: str) -> Tensor:
    """Reduce over the batch, or with another word not at all, as there."""
    return getattr(each, reduction)() if reduction in {"mean", "sum"} else each
