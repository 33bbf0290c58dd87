"""SSIM as functions: arguments are checked, once, and handed to the operators."""

from __future__ import annotations

from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import functional as F

from fastssim import autograd, scales
from fastssim.checks import (
    WITHOUT_MAP,
    check_alpha,
    check_backend,
    check_fit,
    check_loss,
    check_mask,
    check_scales,
    hint,
)
from fastssim.interop import readable, take
from fastssim.problem import near_one, problem_of, scale_of
from fastssim.reference import LEAST_FACTOR, MS_WEIGHTS
from fastssim.window import WANG, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from fastssim.interop import Images

Image = TypeVar("Image")  # torch.Tensor, ndarray, ...: results are of the images' kind


def ssim(
    x: Image,  # (N, C, H, W), (C, H, W) or (H, W); (N, C, D, H, W), (C, D, H, W) or (D, H, W) with dims=3
    y: Image,  # the same
    *,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
    mask: Any = None,
    unbiased: bool = False,
    dims: int = 2,
    backend: str | None = None,
) -> Image:
    r"""Windowed structural similarity of two batches of images or volumes, differentiable in both.

    In every window, with weighted means mu, variances sigma^2 and covariance sigma_xy,

    .. math:: SSIM = \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
                          {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)},
              \quad C_1 = (k_1 L)^2, \quad C_2 = (k_2 L)^2.

    It lies in [-1, 1] and is 1 where the windows are equal: exactly 1 for ``ssim(x, x)``, with a gradient of exactly 0.
    The gradient of every reduction but the map is computed in the same pass as the value.
    ``torch.compile`` keeps it; a graph that ``torch.export`` or ``torch.jit.trace`` recorded has the value alone, and
    torch warns in backward.

    Parameters
    ----------
    x, y : torch.Tensor, ndarray, or array that speaks DLPack; (N, C, H, W), (C, H, W) or (H, W)
        Images of one shape, or with dims=3 volumes (N, C, D, H, W), (C, D, H, W) or (D, H, W), on the CPU or on one
        NVIDIA GPU, each float16, bfloat16, float32, float64, uint8 or uint16, of any strides. Pixels are read in place,
        without a converted copy, but of arrays with negative strides or with a data_range beyond 1e-6 or 1e6, or one
        that k1 or k2 multiply to less than 1e-9 or more than 1e6. The arithmetic is float64 where one of them is, else
        float32.
    data_range : float
        L, the span that pixel values can take, from 1e-30 to 1e30: 1 for [0, 1], 255 for 8-bit values. **Integers with
        data_range=1** are read as fractions of the largest number of their type, v/255 or v/65535, as they are beside a
        float image in [0, 1]; with any other data_range they count as they stand. A float32 pixel of more than 1e4 L
        costs digits in windows beside those that hold it, one of more than 1e8 L may overflow; float64 reaches further.
    window : Window
        `Gaussian`, `Uniform` or `Taps`; without padding its size must not exceed the image's.
    k1, k2 : float
        Wang's constants, from 1e-9 to 2 ** 30; or 0, where a window without a mean, or without a variance, is 0 / 0:
        NaN.
    padding : {"valid", "zeros", "reflect", "symmetric", "replicate"}
        "valid": only windows that lie wholly in the image count. Else there is a window around every pixel, which sees
        zeros beyond the border, or the image mirrored about the last pixel (c b a | b c) or about the border
        (b a | a b), or the last pixel repeated.
    reduction : {"mean", "sum", "image", "channel", "none"}
        Mean or sum of all windows; mean of each image's, (N,), or of each channel's, (N, C); the map, (N, C, H', W').
    mask : array of the same kind, optional
        Weight of every pixel in [0, 1], bool, uint8 or float, broadcast to the images' shape; no gradient. A window's
        means and variances are taken with its weights times the mask's, divided by their sum; pixels of weight 0 may
        hold anything, NaN too. Windows that keep less than 1e-8 of their weight have nothing to compare: 1 in the map,
        not counted elsewhere. A mean over no window at all is 1.
    unbiased : bool
        Multiply variances and covariance by n / (n - 1), n the pixels of a window, as scikit-image does by default;
        not with a mask.
    dims : {2, 3}
        Axes of a window: 2 for images, 3 for volumes. A window of one size and sigma has them along all axes; else give
        a pair (down, across) for images, a triple (depth, down, across) for volumes. Volumes take no mask.
    backend : {"cpu", "cuda"}, optional
        Where it must be computed; by default where the images lie. If they lie elsewhere, or the machine lacks the
        backend, the error says so and what to do.

    Returns
    -------
    torch.Tensor, or the kind of array that came
        float64 where an image is, else float32; without the axes that the images lack. A tensor, too, where an array's
        library has no ``from_dlpack``.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above.
    NotImplementedError
        For a second derivative (``create_graph=True``, nested transforms of ``torch.func``), and for the derivative of
        a map (``reduction="none"``) in forward mode or by ``torch.func``. All other reductions have
        ``torch.func.grad``, ``vjp``, ``jvp``, ``vmap`` and their compositions.
    RuntimeError
        For images on a GPU, or ``backend="cuda"``, without CuPy, a driver or NVRTC: what is missing, and how to install
        it.

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
    >>> ssim(x, x, reduction="none").shape, ssim(x, x, reduction="channel", padding="reflect").shape
    (torch.Size([2, 3, 54, 54]), torch.Size([2, 3]))
    >>> from fastssim import Gaussian
    >>> volume = torch.rand(1, 1, 12, 32, 32)
    >>> ssim(volume, volume, window=Gaussian((5, 11, 11)), reduction="none", dims=3).shape
    torch.Size([1, 1, 8, 22, 22])
    """
    return _score(x, y, None, data_range, window, k1, k2, padding, reduction, mask, unbiased, dims, backend)


_DEFAULTS: dict[str, Any] = ssim.__kwdefaults__ or {}


def _score(
    x: Image,
    y: Image,
    alpha: float | None,
    data_range: float,
    window: Window,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
    mask: Any,
    unbiased: bool,  # noqa: FBT001  # see `ssim`
    dims: int,
    backend: str | None,
) -> Image:
    """Return SSIM, or with an alpha the loss of `l1_ssim_loss`; options as for `ssim`."""
    problem = problem_of(data_range, window, k1, k2, padding, reduction, unbiased, dims)
    images = take(x, y, mask, dims)
    check_backend(backend, images)
    check_mask(images, unbiased=unbiased)
    check_fit(images.x.shape[2:], window, padding)
    scale = scale_of(data_range, k1, k2)
    scaled = near_one(images.x, images.y, scale)
    if alpha and (mask is not None or dims == 3 or scale != 1):  # the kernels have no such L1
        value = 1 - autograd.ssim(*scaled, images.mask, problem, reduction)
        value = alpha * _distance(images, reduction, fractions=problem[-1]) + (1 - alpha) * value
    else:
        value = autograd.ssim(*scaled, images.mask, problem, reduction, alpha)
    result: Image = images.give_back(value, reduction)
    return result


def ssim_map(x: Image, y: Image, **options: Any) -> Image:
    """Return the SSIM of every window: ``ssim(x, y, reduction="none", ...)``.

    Parameters
    ----------
    x, y, **options
        As for `ssim`, without `reduction`.

    Returns
    -------
    torch.Tensor, or the kind of array that came, (N, C, H', W')
        As large as the images with padding, else (H - h + 1, W - w + 1) for a window of h x w.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `ssim`.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.zeros((32, 48), np.float32)
    >>> ssim_map(image, image, padding="symmetric").shape
    (32, 48)
    """
    _check_names("ssim_map", options, without="reduction")
    return ssim(x, y, reduction="none", **options)


def ssim_loss(x: Image, y: Image, **options: Any) -> Image:
    """Return 1 - SSIM, the loss to minimise: 0 where the images are equal, at most 2.

    Its gradient comes as it is, where that of ``1 - ssim(x, y)`` is multiplied by -1 in a pass of its own.

    Parameters
    ----------
    x, y, **options
        As for `ssim`; ``reduction="none"`` gives the map of 1 - SSIM; there is no "sum".

    Returns
    -------
    torch.Tensor, or the kind of array that came

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
    reduction = options.get("reduction", "mean")
    check_loss(reduction)
    _check_names("ssim_loss", options)
    if reduction == "none":
        value: Any = ssim(x, y, **options)
        loss: Image = 1 - value
        return loss
    #  The loss without L1 in one operator: a subtraction's gradient is -1, by which all pixels' would be multiplied.
    return _score(x, y, 0.0, **{**_DEFAULTS, **options})


def l1_ssim_loss(
    x: Image,
    y: Image,
    *,
    alpha: float = 0.8,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
    mask: Any = None,
    unbiased: bool = False,
    dims: int = 2,
    backend: str | None = None,
) -> Image:
    """Return alpha * mean |x - y| + (1 - alpha) * (1 - SSIM), of images without a mask computed in one pass.

    Parameters
    ----------
    x, y, data_range, window, k1, k2, padding, mask, unbiased, dims, backend
        As for `ssim`. |x - y| is taken of the pixels as they are read there, over the whole image, with the mask's
        weights; with a mask, of volumes, and with a data_range for which `ssim` copies images it is a pass of its own.
    alpha : float
        Share of the mean distance, in [0, 1]; 0.8 is the share that 3D Gaussian splatting made common.
    reduction : {"mean", "image", "channel"}
        As for `ssim`.

    Returns
    -------
    torch.Tensor, or the kind of array that came

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `ssim`.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.25)
    >>> l1_ssim_loss(x, y, alpha=1.0).item()
    0.25
    """
    check_alpha(alpha)
    check_loss(reduction, WITHOUT_MAP)
    return _score(x, y, float(alpha), data_range, window, k1, k2, padding, reduction, mask, unbiased, dims, backend)


def ms_ssim(
    x: Image,
    y: Image,
    *,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
    weights: Sequence[float] = MS_WEIGHTS,
    product: str = "channel",
    unbiased: bool = False,
    backend: str | None = None,
) -> Image:
    r"""Multi-scale structural similarity, differentiable in both images.

    .. math:: MS = \overline{SSIM}_M^{w_M} \prod_{s<M} \overline{cs}_s^{w_s}, \quad
              cs = \frac{2\sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2},

    the bars being means over windows. From scale to scale the images shrink to the means of 2 x 2 pixels; an odd last
    row or column is left out. A mean at or below 0 makes the product 0 with a gradient of 0; between 0 and 1e-8 the
    power goes on as the straight line to 0. No value and no gradient is ever NaN or infinite for images within
    data_range, unless k1 or k2 is 0.

    Parameters
    ----------
    x, y, data_range, window, k1, k2, padding, unbiased, backend
        As for `ssim`; without padding the window must fit into the smallest scale.
    reduction : {"mean", "image", "channel"}
        Mean of all products; of each image's, (N,); all, (N, C), for ``product="channel"``.
    weights : sequence of float
        Power of each scale, finest first; above 0. Default: Wang's five.
    product : {"channel", "image"}
        Multiply the scales of every channel (pytorch-msssim), or of the mean over the channels (torchmetrics).

    Returns
    -------
    torch.Tensor, or the kind of array that came

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `ssim`.

    References
    ----------
    Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality assessment", Asilomar
    Conference on Signals, Systems and Computers, 2003.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 3, 176, 176)
    >>> ms_ssim(x, x).item()
    1.0
    """
    images = take(x, y)
    check_backend(backend, images)
    powers = check_scales(weights, product, reduction)
    problem = problem_of(data_range, window, k1, k2, padding, reduction, unbiased, 2)
    a, b = images.x, images.y
    smallest = tuple(length >> (len(powers) - 1) for length in a.shape[2:])
    if min(smallest) < 1 or (padding == "valid" and (smallest[0] < window.shape[0] or smallest[1] < window.shape[1])):
        raise ValueError(
            f"the images are {a.shape[2]} x {a.shape[3]} pixels, at the last of {len(powers)} scales {smallest[0]} x"
            f" {smallest[1]}, too small for the window; give larger images, fewer weights or a smaller window"
            f"{hint(a.shape[2:])}"
        )
    factors = scale_means(a, b, len(powers), problem, float(data_range), k1, k2)
    if product == "image":
        factors = factors.mean(2)
    value = multiplied(power(factor, weight) for factor, weight in zip(factors, powers, strict=True))
    if reduction == "mean":
        value = value.mean()
    elif reduction == "image" and product == "channel":
        value = value.mean(1)
    result: Image = images.give_back(value, reduction)
    return result


def scale_means(
    x: Tensor, y: Tensor, count: int, problem: tuple[Any, ...], data_range: float, k1: float, k2: float
) -> Tensor:
    """Mean of each plane, (count, N, C): of cs at every scale but the last, there of SSIM."""
    scale = scale_of(data_range, k1, k2)
    x, y = near_one(x, y, scale)
    data_range *= scale
    # C1 far above every mean makes the first factor of SSIM 1 to the last bit: what remains is cs.
    no_means = 2.0 ** (60 if autograd.arithmetic_dtype(x, y) == torch.float64 else 40) * data_range**2
    return scales.means(x, y, problem, no_means, count)


def multiplied(factors: Iterable[Tensor]) -> Tensor:
    """Multiply factors one by one: torch's prod asks the GPU in backward whether one of them is 0."""
    return reduce(mul, factors)


def power(factor: Tensor, weight: float) -> Tensor:
    """Return factor ** weight, continued to 0 and below as `fastssim.reference.power` does."""
    base = F.relu(factor)  # whose slope at 0 is 0
    return torch.where(base < LEAST_FACTOR, base * LEAST_FACTOR ** (weight - 1), base.clamp(min=LEAST_FACTOR) ** weight)


def _distance(images: Images, reduction: str, *, fractions: bool) -> Tensor:
    """Mean of |x - y|, under a mask where there is one; 0 where nothing is left."""
    x, y = (readable(image, fractions=fractions) for image in (images.x, images.y))
    axes = {"mean": 0, "image": 1, "channel": 2}[reduction]  # those before are kept
    over = tuple(range(axes, x.ndim))
    if images.mask is None:
        return (x - y).abs().mean(over)
    weights = images.mask.to(autograd.arithmetic_dtype(images.x, images.y))
    distance = (weights * torch.where(weights > 0, x - y, 0.0).abs()).sum(over)
    total = weights.sum(over)
    return distance / torch.where(total > 0, total, 1.0)


def _check_names(function: str, options: dict[str, Any], without: str = "") -> None:
    """Refuse options of a function that are none of `ssim`, or the one that it is without."""
    for name in options:
        if name not in _DEFAULTS or name == without:
            but = f" but {without}" if without else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}; give those of ssim{but}")
