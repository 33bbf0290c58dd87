"""Drop-in for MONAI's SSIM: the loss, the two functions, and with MONAI installed the two metrics.

>>> from fastssim.compat.monai import SSIMLoss

Its conventions: windows that lie wholly in the image or volume, also of an even number of pixels; a value for every
image, the mean over the windows of all its channels, float32; from scale to scale the means of 2 x 2 pixels, an odd
last row and column left out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.loss import _Loss

from fastssim.compat import scales
from fastssim.compat.images import as_they_stand, contrast, each_axis
from fastssim.compat.options import FALLBACK, NATIVE, options
from fastssim.compat.windows import EVEN, reached, window_of
from fastssim.functional import ssim as whole
from fastssim.reference import MS_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastssim.compat.monai_metrics import MultiScaleSSIMMetric, SSIMMetric

__all__ = ["MultiScaleSSIMMetric", "SSIMLoss", "SSIMMetric", "compute_ms_ssim", "compute_ssim_and_cs"]

PACKAGE = "monai"
METRICS = ("SSIMMetric", "MultiScaleSSIMMetric")
FUNCTIONS = ("compute_ssim_and_cs", "compute_ms_ssim")
REPLACES = {"monai.losses": ("SSIMLoss",), "monai.metrics": METRICS, "monai.metrics.regression": FUNCTIONS}
ALL = f"SSIMLoss {' '.join(METRICS + FUNCTIONS)}"
OPTIONS = (
    *options(ALL, NATIVE, "spatial_dims data_range kernel_type kernel_sigma k1 k2"),
    *options("SSIMLoss SSIMMetric", NATIVE, "win_size"),
    *options("MultiScaleSSIMMetric compute_ssim_and_cs compute_ms_ssim", NATIVE, "kernel_size"),
    *options(ALL, FALLBACK, "even", EVEN),
    *options("compute_ssim_and_cs", NATIVE, "y_pred y", "a second pass for the contrast"),
    *options("compute_ms_ssim", NATIVE, "y_pred y"),
    *options("MultiScaleSSIMMetric compute_ms_ssim", NATIVE, "weights"),
    *options("SSIMLoss", NATIVE, "reduction"),
    *options(" ".join(METRICS), NATIVE, "reduction get_not_nans", "the original's class with another computation"),
)  # fmt: skip
DEFECTS = (
    "E[x^2] - E[x]^2 in float32 loses digits on bright flat areas.",
    "float64 images are compared in float32.",
)


class SSIMLoss(_Loss):
    """1 - SSIM of each image, reduced over the batch; parameters as ``monai.losses.SSIMLoss``.

    Raises
    ------
    ValueError
        As there, for what are no tensors of one shape and ``spatial_dims + 2`` axes and for another reduction; and for
        another kernel.
    RuntimeError
        As there, for images smaller than a window.

    Examples
    --------
    >>> x = torch.rand(2, 1, 32, 32)
    >>> SSIMLoss(spatial_dims=2)(x, x)
    tensor(0.)
    """

    def __init__(
        self,
        spatial_dims: int,
        data_range: float = 1.0,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in {"none", "mean", "sum"}:
            raise ValueError(f"{reduction!r} is not a valid LossReduction: give 'none', 'mean' or 'sum'")
        self.reduction = str(getattr(reduction, "value", reduction))  # MONAI's words are members of an enumeration
        self.spatial_dims = spatial_dims
        self.data_range = data_range
        self.kernel_type = kernel_type
        self.kernel_size = tuple(each_axis(win_size, spatial_dims))
        self.kernel_sigma = tuple(each_axis(kernel_sigma, spatial_dims))
        self.k1 = k1
        self.k2 = k2

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002  # its name there
        """Return the loss of two batches, (N, 1) where it is not reduced."""
        mean = self.reduction == "mean"
        found = similarity(
            input, target, self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma,
            self.k1, self.k2, reduction="mean" if mean else "image",
        )  # fmt: skip
        if mean:
            return 1 - found
        loss = 1 - found[:, None]
        return loss.sum() if self.reduction == "sum" else loss


def compute_ssim_and_cs(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    kernel_size: Sequence[int],
    kernel_sigma: Sequence[float],
    data_range: float = 1.0,
    kernel_type: str = "gaussian",
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """SSIM and contrast of every window; parameters as ``monai.metrics.compute_ssim_and_cs``.

    Raises
    ------
    ValueError
        As there, for images of two shapes; and for another kernel.
    RuntimeError
        As there, for another number of axes and for images smaller than a window.

    Examples
    --------
    >>> x = torch.rand(1, 2, 16, 20)
    >>> ssim, contrast = compute_ssim_and_cs(x, x, 2, (11, 7), (1.5, 1.0))
    >>> ssim.shape, contrast.shape
    (torch.Size([1, 2, 6, 14]), torch.Size([1, 2, 6, 14]))
    """
    _check_shapes(y_pred, y)
    if y_pred.ndim != spatial_dims + 2:
        raise RuntimeError(f"y_pred has {y_pred.ndim} axes; with {spatial_dims} spatial dimensions give 2 more")
    x, y, settings = _prepared(y_pred, y, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2)
    return whole(x, y, reduction="none", **settings).float(), contrast(x, y, reduction="none", **settings).float()


def compute_ms_ssim(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    data_range: float = 1.0,
    kernel_type: str = "gaussian",
    kernel_size: int | Sequence[int] = 11,
    kernel_sigma: float | Sequence[float] = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    weights: Sequence[float] = MS_WEIGHTS,
) -> Tensor:
    """Multi-scale SSIM of every image, (N, 1); parameters as ``monai.metrics.compute_ms_ssim``.

    Raises
    ------
    ValueError
        As there, for another number of axes, images of two shapes and images too small for the scales; and for another
        kernel.

    Examples
    --------
    >>> x = torch.rand(2, 1, 176, 176)
    >>> compute_ms_ssim(x, x, spatial_dims=2)
    tensor([[1.],
            [1.]])
    """
    _check_axes(y_pred, spatial_dims)
    _check_shapes(y_pred, y)
    weights = scales.powers("weights", weights)
    sizes, sigmas = (tuple(each_axis(value, spatial_dims)) for value in (kernel_size, kernel_sigma))
    _check_window(sizes, sigmas, spatial_dims)
    divisor = max(1, len(weights) - 1) ** 2
    for length, size in zip(y_pred.shape[2:], sizes, strict=True):
        if length // divisor <= size - 1:
            raise ValueError(
                f"For a given number of `weights` parameters {len(weights)} and kernel size {size}, the image height"
                f" must be larger than {(size - 1) * divisor}."
            )
    x, y = (as_they_stand(_plain(image), 1) for image in (y_pred, y))
    data_range = float(data_range)
    each = None
    smallest = [length >> (len(weights) - 1) for length in x.shape[2:]]
    if all(size % 2 and length >= size for length, size in zip(smallest, sizes, strict=True)):
        each = scales.joint_factors(
            x, y, len(weights), data_range=data_range, window=window_of(kernel_type, sizes, sigmas), k1=k1, k2=k2
        )

    def compare(function: Any, x: Tensor, y: Tensor) -> Tensor:
        x, y, settings = _prepared(x, y, data_range, kernel_type, sizes, sigmas, k1, k2)
        compared: Tensor = function(x, y, reduction="channel", **settings)
        return compared

    each = each or scales.factors(x, y, len(weights), shrink=scales.halved, compare=compare)
    return scales.product([factor.mean(1, keepdim=True) for factor in each], weights).float()


def __getattr__(name: str) -> Any:
    """Load the metrics, and MONAI with them, when they are asked for."""
    if name in METRICS:
        return getattr(import_module("fastssim.compat.monai_metrics"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def similarity(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    data_range: float,
    kernel_type: str,
    kernel_size: Sequence[int],
    kernel_sigma: Sequence[float],
    k1: float,
    k2: float,
    *,
    reduction: str = "image",
) -> Tensor:
    """SSIM of every image, (N,), or of all."""
    if not isinstance(y_pred, torch.Tensor) or not isinstance(y, torch.Tensor):
        raise ValueError("y_pred and y must be PyTorch Tensor.")  # noqa: TRY004  # what it raises
    if y_pred.shape != y.shape:
        raise ValueError(f"y_pred and y shapes dont match, received y_pred: [{y_pred.shape}] and y: [{y.shape}]")
    _check_axes(y_pred, spatial_dims)
    x, y, settings = _prepared(y_pred, y, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2)
    return whole(x, y, reduction=reduction, **settings).float()


def _check_shapes(y_pred: Tensor, y: Tensor) -> None:
    if y.shape != y_pred.shape:
        raise ValueError(f"y_pred and y should have same shapes, got {y_pred.shape} and {y.shape}.")


def _check_axes(y_pred: Tensor, spatial_dims: int) -> None:
    if spatial_dims not in {2, 3}:
        raise ValueError(f"spatial_dims is {spatial_dims!r}; give 2 for images or 3 for volumes")
    if y_pred.ndim != spatial_dims + 2:
        axes = {2: "batch, channel, height, width", 3: "batch, channel, height, width, depth"}[spatial_dims]
        raise ValueError(
            f"y_pred should have {spatial_dims + 2} dimensions ({axes}) when using {spatial_dims} spatial dimensions,"
            f" got {y_pred.ndim}."
        )


def _check_window(sizes: Sequence[int], sigmas: Sequence[float], dims: int) -> None:
    if len(sizes) != dims or len(sigmas) != dims:
        raise ValueError(
            f"{len(sizes)} sizes and {len(sigmas)} sigmas of a window for {dims} spatial dimensions: give one of each"
            " for every axis, or one for all"
        )


def _plain(image: Any) -> Tensor:
    """Return an array as a tensor, and MONAI's tensors without what they carry along."""
    if not isinstance(image, torch.Tensor):
        return torch.as_tensor(image)
    plain: Tensor = image.as_tensor() if hasattr(image, "as_tensor") else image
    return plain


def _prepared(
    x: Tensor, y: Tensor, data_range: float, kernel_type: str, sizes: Sequence[int], sigmas: Sequence[float], k1: float,
    k2: float,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Return images, as far as windows reach, and the options of `fastssim.ssim`."""
    lengths = x.shape[2:]
    _check_window(sizes, sigmas, len(lengths))
    if any(length < size for length, size in zip(lengths, sizes, strict=True)):
        raise RuntimeError(f"windows of {tuple(sizes)} pixels do not fit into {tuple(lengths)}: none lies wholly there")
    data_range = float(data_range)
    settings = {
        "data_range": data_range, "window": window_of(kernel_type, tuple(sizes), tuple(sigmas)), "k1": k1, "k2": k2,
        "dims": len(lengths),
    }  # fmt: skip
    x, y = (as_they_stand(_plain(image), data_range) for image in (x, y))
    return *reached(x, y, sizes), settings
