"""What the public functions refuse: each check says what came, what is allowed and what to do."""

from __future__ import annotations

import sys
from operator import lt
from typing import TYPE_CHECKING, Any

import numpy as np

from fastssim.plan import PADDINGS, REDUCTIONS
from fastssim.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastssim.interop import Images

PRODUCTS = ("channel", "image")
RANGES = (1e-30, 1e30)  # that data_range may have: far from both ends of float32
LARGEST_K = 2.0**30
SMALLEST_K = 1e-9  # below it the product of SSIM's denominators in black is no float32
LOSS_REDUCTIONS = tuple(word for word in REDUCTIONS if word != "sum")
WITHOUT_MAP = tuple(word for word in LOSS_REDUCTIONS if word != "none")


def check_options(
    *,
    data_range: float,
    window: Window,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
    unbiased: bool,
    dims: int,
) -> None:
    """Refuse options that `ssim` does not have; see there."""
    for name, number, least, most, allowed in (
        ("data_range", data_range, *RANGES, "finite and above 0, between 1e-30 and 1e30"),
        ("k1", k1, 0, LARGEST_K, "finite and not negative, at most 2 ** 30"),
        ("k2", k2, 0, LARGEST_K, "finite and not negative, at most 2 ** 30"),
    ):
        _check_number(name, number)
        if not least <= (number if isinstance(number, int) else float(number)) <= most:  # float16 has no such bounds
            raise ValueError(f"{name} is {number}; it must be {allowed}")
    for name, number in (("k1", k1), ("k2", k2)):
        if 0 < float(number) < SMALLEST_K:
            raise ValueError(f"{name} is {number}, too little for float32 where all is black; give 0, or at least 1e-9")
    if not isinstance(window, Window):
        raise TypeError(
            f"window is a {type(window).__name__}; give fastssim.Gaussian(...), fastssim.Uniform(...) or"
            " fastssim.Taps(...)"
        )
    for name, word, words in (("padding", padding, PADDINGS), ("reduction", reduction, REDUCTIONS)):
        _check_word(name, word, words)
    if not isinstance(unbiased, (bool, np.bool_)):
        raise TypeError(f"unbiased is a {type(unbiased).__name__}; give True or False")
    if isinstance(dims, bool) or not isinstance(dims, int) or dims not in {2, 3}:
        raise ValueError(f"dims is {dims!r}; give 2 for images (N, C, H, W) or 3 for volumes (N, C, D, H, W)")
    if unbiased and all(len(taps) == 1 for taps in window.along(dims)):
        raise ValueError("unbiased=True needs more than one pixel in a window")


def check_loss(reduction: str, words: tuple[str, ...] = LOSS_REDUCTIONS) -> None:
    """Refuse a reduction that is none of a loss's `words`; of a "sum" there is no loss."""
    _check_word("reduction", reduction, words)


def check_alpha(alpha: float) -> None:
    """Refuse a share that `l1_ssim_loss` does not have."""
    _check_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in [0, 1]")


def check_scales(weights: Sequence[float], product: str, reduction: str) -> tuple[float, ...]:
    """Refuse scales that `ms_ssim` does not have; return their weights."""
    _check_word("product", product, PRODUCTS)
    _check_word("reduction", reduction, WITHOUT_MAP if product == "channel" else ("mean", "image"))
    if not isinstance(weights, (tuple, list)) or not weights:
        raise TypeError(f"weights is {weights!r}; give a list of numbers, one for each scale")
    for weight in weights:
        _check_number("a weight", weight)
        if not 0 < (weight if isinstance(weight, int) else float(weight)) <= sys.float_info.max:
            raise ValueError(f"a weight is {weight}; it must be finite and above 0")
    return tuple(float(weight) for weight in weights)


def _check_number(name: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is a {type(number).__name__}; give a number")


def _check_word(name: str, word: Any, words: tuple[str, ...]) -> None:
    if not isinstance(word, str) or word not in words:
        raise ValueError(f"{name} is {word!r}; give one of {', '.join(map(repr, words))}")


def check_backend(backend: str | None, images: Images) -> None:
    """Refuse a backend that there is not, or that is not where the images lie."""
    if backend is None:
        return
    _check_word("backend", backend, ("cpu", "cuda"))
    if backend == "cuda":
        from fastssim.cuda.device import load_cupy  # noqa: PLC0415  # nothing of a GPU before it is asked for

        load_cupy()  # or says what is missing
    if images.x.device.type != backend:
        raise ValueError(
            f'backend is "{backend}", but the images lie on {images.x.device}: move them, x.to("{backend}") and'
            f' y.to("{backend}"), or leave backend out'
        )


def check_mask(images: Images, *, unbiased: bool) -> None:
    """Refuse a mask beside what is not defined with it."""
    if images.mask is not None and unbiased:
        raise ValueError("unbiased=True is not defined with a mask; leave one of them out")
    if images.mask is not None and images.x.ndim == 5:
        raise ValueError("mask is not taken with dims=3; leave it out, or go through the volume slice by slice")


def check_fit(lengths: Sequence[int], window: Window, padding: str) -> None:
    """Refuse images or volumes, of `lengths` pixels along each axis, that hold no whole window."""
    if padding != "valid":
        return
    taps = window.along(len(lengths))
    if any(map(lt, lengths, map(len, taps))):
        raise ValueError(
            f"the images are {_times(lengths)} pixels, smaller than the window of {_times(map(len, taps))}; take a"
            f" smaller window, larger images, or padding{hint(lengths)}"
        )


def hint(lengths: Sequence[int]) -> str:
    """Say where channels belong, to whom the last axis seems to hold them."""
    if lengths[-1] > 4 or min(lengths[:-1]) <= 4:
        return ""
    return f"; if the last axis holds channels, move it before the pixels: (C, {'D, ' * (len(lengths) - 2)}H, W)"


def _times(lengths: Iterable[int]) -> str:
    """Write lengths as 3 x 4 x 5."""
    return " x ".join(map(str, lengths))
