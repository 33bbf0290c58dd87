"""Multi-scale SSIM as the libraries vary it: how an image shrinks, and over what the factors are means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastssim.compat.images import constant, contrast
from fastssim.functional import multiplied, power, scale_means, ssim
from fastssim.interop import take
from fastssim.problem import problem_of
from fastssim.scales import halve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from fastssim.window import Window

    Compare = Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]


def powers(name: str, weights: Any) -> tuple[float, ...]:
    """Return the factors' powers, of numbers or a tensor.

    Raises
    ------
    ValueError
        If there are none, or a gradient by them is wanted.
    """
    weights = constant(name, weights)
    found = tuple(map(float, weights.flatten().tolist() if isinstance(weights, torch.Tensor) else weights))
    if not found:
        raise ValueError(f"{name} is empty; give a weight for every scale")
    return found


def factors(x: Tensor, y: Tensor, scales: int, *, shrink: Callable[[Tensor], Tensor], compare: Compare) -> list[Tensor]:
    """Return a factor for every scale, the contrast of all but the last, which is SSIM.

    compare: calls the one or the other, which it is given, on two images with the library's options.
    """
    found = []
    for _ in range(scales - 1):
        found.append(compare(contrast, x, y))
        x, y = shrink(x), shrink(y)
    return [*found, compare(ssim, x, y)]


def joint_factors(
    x: Tensor,
    y: Tensor,
    scales: int,
    *,
    data_range: float,
    window: Window,
    k1: float,
    k2: float,
    padding: str = "valid",
) -> list[Tensor] | None:
    """As `factors`, each (N, C), by one operator; None where it does not apply.

    It applies to images whose sides are even at every scale but the last: there the libraries agree how they shrink.
    """
    if x.ndim != 4 or any(length % 2 ** (scales - 1) for length in x.shape[2:]):
        return None
    take(x, y)
    problem = problem_of(data_range, window, k1, k2, padding, "channel", False, 2)  # noqa: FBT003  # as it takes them
    return list(scale_means(x, y, scales, problem, float(data_range), k1, k2))


def halved(image: Tensor, padding: Sequence[int] = ()) -> Tensor:
    """Return the means of 2 x 2 pixels, of volumes of 2 x 2 x 2; `padding`: zeros before each axis."""
    before = [zeros for axis in reversed(padding) for zeros in (axis, 0)]
    padded = F.pad(image, before) if any(padding) else image
    return halve(padded) if image.ndim == 4 else F.avg_pool3d(padded, 2)


def product(each: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Multiply the factors' powers, 0 with a gradient of 0 where one is not above 0; never NaN. A power of 0 is 1."""
    pairs = zip(each, weights, strict=True)
    return multiplied(power(factor, weight) if weight else torch.ones_like(factor) for factor, weight in pairs)
