"""Windows as libraries give them: of an even number of pixels, or with weights of its own for every channel."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastssim.compat.images import constant
from fastssim.window import Gaussian, Taps, Uniform, bell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from fastssim.window import Window

EVEN = (  # for the table of options
    "windows of an even number of pixels: on copies of the images with their last row and column repeated, which have"
    " no weight"
)
known_taps = lru_cache(maxsize=256)(Taps)


@lru_cache(maxsize=256)
def window_of(kernel_type: str, sizes: tuple[int, ...], sigmas: tuple[float, ...]) -> Window:
    """Return a window; of even sizes with one more weight, 0, for a pixel that it does not reach, see `reached`."""
    if kernel_type not in {"gaussian", "uniform"}:
        raise ValueError(f"kernel_type is {kernel_type!r}; give 'gaussian' or 'uniform'")
    if any(size < 1 for size in sizes):
        raise ValueError(f"windows of {sizes} pixels; give 1 or more along every axis")
    if all(size % 2 for size in sizes):
        return Gaussian(sizes, sigmas) if kernel_type == "gaussian" else Uniform(sizes)

    Gaussian(1, sigmas)  # refuses what is no sigma

    def weight(size: int, sigma: float, place: int) -> float:
        return bell(sigma, place - (size - 1) / 2) if kernel_type == "gaussian" else 1.0

    return Taps(
        tuple(
            [weight(size, sigma, place) for place in range(size)] + [0.0] * (1 - size % 2)
            for size, sigma in zip(sizes, sigmas, strict=True)
        )
    )


def reached(x: Tensor, y: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Repeat the last row or column where a window has the weight 0 for one, being of an even number of pixels."""
    more = [pixels for size in reversed(sizes) for pixels in (0, 1 - size % 2)]
    if any(more):
        x, y = (image if image.dtype == torch.float64 else image.float() for image in (x, y))
        x, y = (F.pad(image, more, "replicate") for image in (x, y))
    return x, y


def of_channels(name: str, weights: Tensor) -> tuple[Window, ...]:
    """Return a window for all channels, or one for each, of weights (channels, ..., size); of even size as `window_of`.

    Raises
    ------
    ValueError
        If weights are negative or do not sum to 1, or a gradient by them is wanted.
    """
    size = constant(name, weights).shape[-1]
    rows = tuple(tuple(row) for row in weights.reshape(-1, size).tolist())
    for row in dict.fromkeys(rows):
        if abs(sum(row) - 1) > 1e-3:
            raise ValueError(f"{name} sums to {sum(row)}; divide it by its sum: means are taken with these weights")
    return tuple(known_taps(row + (0.0,) * (1 - size % 2)) for row in (rows[:1] if len(set(rows)) == 1 else rows))


def each_channel(
    compare: Callable[..., Tensor], x: Tensor, y: Tensor, windows: Sequence[Window], **settings: Any
) -> Any:
    """Compare all channels in one call where they have one window, else one by one: (N, C)."""
    if len(windows) == 1:
        return compare(x, y, window=windows[0], **settings)
    planes = zip(x.split(1, 1), y.split(1, 1), windows, strict=True)
    return torch.cat([compare(a, b, window=window, **settings) for a, b, window in planes], 1)
