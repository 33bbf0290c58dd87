"""What the drop-in modules for torch share: images and dtypes as those libraries take them, SSIM without its means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from fastssim.functional import ssim
from fastssim.interop import FLOATS, LARGEST

if TYPE_CHECKING:
    from torch import Tensor


def as_they_stand(image: Tensor, data_range: float) -> Tensor:
    """Return an image whose integers count as they stand, never as fractions; see ``data_range`` of `fastssim.ssim`."""
    if image.dtype in FLOATS or (image.dtype in LARGEST and data_range != 1) or image.is_complex():
        return image
    return image.to(torch.float32)


def as_value(image: Tensor) -> torch.dtype:
    """Return the dtype of an image's SSIM where a library gives it that of the image: of integers, float32."""
    return image.dtype if image.is_floating_point() else torch.float32


def constant(name: str, value: Any) -> Any:
    """Return an option that a library takes as a tensor, and carries gradients to; here it has none.

    Raises
    ------
    ValueError
        If one is wanted.
    """
    if isinstance(value, torch.Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} wants a gradient, and fastssim has none by it; give {name}.detach()")
    return value


def assert_values(image: Tensor, most_allowed: float) -> None:
    """Assert, as piq and piqa do, that values lie in [0, most_allowed]."""
    pixels = image.detach()
    if pixels.dtype == torch.uint16:  # of which torch finds no extremes
        pixels = pixels.to(torch.int32)
    least, most = pixels.aminmax()
    if not (least >= 0 and most <= most_allowed):
        raise AssertionError(f"Expected values in [0, {most_allowed}], got {least.item()} to {most.item()}")


def each_axis(value: Any, dims: int) -> list[Any]:
    """Take one value for all axes, or a sequence."""
    return list(value) if isinstance(value, Sequence) else [value] * dims


def large(image: Tensor) -> float:
    """Return a k1 or k2 whose constant is so far above every mean or variance that its factor of SSIM is exactly 1."""
    return 2.0 ** (30 if image.dtype == torch.float64 else 20)


def contrast(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """SSIM without the factor of the means, ``(2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2)``."""
    return ssim(x, y, **{**options, "k1": large(x)})


def luminance(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """SSIM without the factor of the variances, ``(2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1)``."""
    return ssim(x, y, **{**options, "k2": large(x)})
