"""From options to what the operators take: taps, constants, and images near 1 where their range is far from it."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from fastssim.checks import SMALLEST_K, check_options
from fastssim.interop import readable

if TYPE_CHECKING:
    from torch import Tensor

    from fastssim.window import Window

NEAR = 2.0**20  # beyond this and below its inverse the fourth powers of data_range in SSIM leave float32
LEAST_PRODUCT = SMALLEST_K / 2  # of k1 or k2 and a data_range below 1: ranges brought near 1 lie in [1/2, 1)


def problem_of(*options: Any) -> tuple[Any, ...]:
    """Check options and return what the operators take; outside a compiler's trace, the same options once."""
    if not torch.compiler.is_compiling():
        with suppress(TypeError):  # of what cannot be hashed, too: the checks say what is wrong with it
            return _known_problem(*options)
    return _new_problem(*options)


def _new_problem(
    data_range: float,
    window: Window,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
    unbiased: bool,  # noqa: FBT001  # by position, for the cache
    dims: int,
) -> tuple[Any, ...]:
    """Check options and return what the operators take."""
    check_options(
        data_range=data_range, window=window, k1=k1, k2=k2, padding=padding, reduction=reduction, unbiased=unbiased,
        dims=dims,
    )  # fmt: skip
    taps = window.along(dims)
    pixels = math.prod([len(axis) for axis in taps])
    factor = pixels / (pixels - 1) if unbiased else 1.0
    span = float(data_range) * scale_of(data_range, k1, k2)  # of the images as `near_one` returns them
    constants = ((float(k1) * span) ** 2, (float(k2) * span) ** 2)
    return *((), *taps)[-3:], *constants, padding, factor, bool(data_range == 1)


_known_problem = lru_cache(maxsize=1024, typed=True)(_new_problem)


def scale_of(data_range: float, k1: float, k2: float) -> float:
    """Return what brings a range far from 1 near it, a power of two; 1 for any other.

    SSIM of images and range together multiplied is the same, and a power of two changes no digit. A range that is not
    so far is brought near where its products with k1 and k2 are: their fourth powers would leave float32, too.
    """
    span = float(data_range)
    if span == 1:
        return 1.0
    near = 1 / NEAR <= span <= NEAR
    if span < 1:
        near = near and float(k1 or 1) * span >= LEAST_PRODUCT and float(k2 or 1) * span >= LEAST_PRODUCT
    else:
        near = near and float(k1) * span <= NEAR and float(k2) * span <= NEAR
    return 1.0 if near else 2.0 ** -math.frexp(span)[1]


def near_one(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Multiply images by the `scale_of` their range."""
    return (x, y) if scale == 1 else (readable(x, fractions=False) * scale, readable(y, fractions=False) * scale)
