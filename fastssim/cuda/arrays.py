"""SSIM and its gradient of CuPy arrays, in CuPy's memory and on CuPy's stream: torch computes nothing here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastssim.checks import check_fit
from fastssim.cuda import launch
from fastssim.cuda.device import TORCH, device_of
from fastssim.cuda.instances import TYPES
from fastssim.cuda.launch import Reduction
from fastssim.interop import check_pixels, check_shape
from fastssim.plan import Plan
from fastssim.problem import problem_of, scale_of
from fastssim.window import WANG

if TYPE_CHECKING:
    from fastssim.window import Window


def ssim_and_gradient(
    x: Any,  # (N, C, H, W), (C, H, W) or (H, W); (N, C, D, H, W), (C, D, H, W) or (D, H, W) with dims=3
    y: Any,  # the same
    *,
    data_range: float = 1.0,
    window: Window = WANG,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    unbiased: bool = False,
    dims: int = 2,
) -> tuple[Any, Any, Any]:
    """Mean SSIM of two batches of images or volumes, and its gradient by both, in one pass.

    Parameters
    ----------
    x, y : cupy.ndarray; (N, C, H, W), (C, H, W) or (H, W)
        Images of one shape on one GPU, or with dims=3 volumes (N, C, D, H, W), (C, D, H, W) or (D, H, W), each float16,
        float32, float64, uint8 or uint16, of any strides.
    data_range, window, k1, k2, padding, unbiased, dims
        As for `fastssim.ssim`.

    Returns
    -------
    (value, gradient by x, gradient by y) : cupy.ndarray
        Of shape (), x's and y's; float64 where an image is, else float32. Nothing waits for the GPU.

    Raises
    ------
    TypeError, ValueError
        What came, what is allowed, what to do.
    fastssim.cuda.device.CudaUnavailableError
        If CuPy, a GPU or the compiler is missing.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> x, y = cupy.random.random((2, 1, 3, 64, 64), dtype=cupy.float32)  # doctest: +SKIP
    >>> value, gradient, _ = ssim_and_gradient(x, y)  # doctest: +SKIP
    """
    problem = problem_of(data_range, window, k1, k2, padding, "mean", unbiased, dims)
    for name, image in (("x", x), ("y", y)):
        if not isinstance(getattr(image, "dtype", None), np.dtype):  # as CuPy's are
            raise _foreign(name, image)
        if str(image.dtype) not in TYPES or str(image.dtype) == "bool":
            raise TypeError(f"{name} is {image.dtype}; give float16, float32, float64, uint8 or uint16")
        check_shape(name, image.shape, dims)
    if x.shape != y.shape:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; they must be equal")
    check_pixels(x.shape)
    a, b = (image[(None,) * (dims + 2 - image.ndim)] for image in (x, y))
    check_fit(a.shape[2:], window, padding)
    for name, image in (("x", x), ("y", y)):
        if device_of(image) is TORCH:
            raise _foreign(name, image)
    device = device_of(x)
    if device.place(x) != device.place(y):
        raise ValueError(f"x is on GPU {device.place(x)} and y on {device.place(y)}; move one of them")
    dtype = "float64" if "float64" in (x.dtype, y.dtype) else "float32"
    scale = scale_of(data_range, k1, k2)
    if scale != 1:
        value, *gradients = ssim_and_gradient(
            *(image.astype(dtype) * scale for image in (x, y)), data_range=data_range * scale, window=window, k1=k1,
            k2=k2, padding=padding, unbiased=unbiased, dims=dims,
        )  # fmt: skip
        return value, *(gradient * scale for gradient in gradients)
    taps_z, taps_y, taps_x, c1, c2, padding, factor, fractions = problem
    plan = Plan(a.shape, dtype, taps_y, taps_x, c1, c2, padding, factor, fractions=fractions, taps_z=taps_z)
    grad_x, grad_y = (device.empty(x, x.shape, dtype) for _ in range(2))
    windows = plan.count("mean")
    result = Reduction("all", dtype, windows)
    value, _ = launch.value_and_gradient(plan, a, b, None, 1 / windows, grad_x, grad_y, reduction=result)
    return value, grad_x, grad_y


def _foreign(name: str, image: Any) -> TypeError:
    """Return the error for anything but an array of CuPy's."""
    kind = f"{type(image).__module__}.{type(image).__qualname__}"
    return TypeError(f"{name} is a {kind}; give a cupy.ndarray, and tensors to fastssim.ssim")
