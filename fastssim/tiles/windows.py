"""Weights inside a tile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.tiles.storage import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Weight of the pixel whose middle lies at u of the tile's length, 0 < u < 1; never 0, so that every pixel has a mean.
_SHAPES: dict[str, Callable[[float], float]] = {
    "uniform": lambda _: 1.0,
    "gaussian": lambda u: max(math.exp(-0.5 * ((u - 0.5) * 8) ** 2), 1e-3),
    "hann": lambda u: math.sin(math.pi * u) ** 2,
    "tent": lambda u: 1 - abs(2 * u - 1),
}
WINDOWS = tuple(_SHAPES)
GIVEN_PAIR, GIVEN_FULL = "pair", "full"

Key = tuple[str, tuple[float, ...]]  # a window as a value: its name, and the weights where they were given


def window_key(window: Any, tile: tuple[int, int]) -> Key:
    """Check a window and turn it into a value that can be compared and hashed.

    Parameters
    ----------
    window : str, array_like (h, w), or a pair of array_like (h,) and (w,)
        One of `WINDOWS`, or weights, finite and not negative.
    tile : (int, int)
        Height and width of the tile.

    Raises
    ------
    TypeError, ValueError
        If it is none of these.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ValueError(
                f"window is {window!r}; give one of {', '.join(map(repr, WINDOWS))}, an array of weights"
                f" {tile}, or a pair of arrays ({tile[0]},), ({tile[1]},)"
            )
        return window, ()
    separable = isinstance(window, (tuple, list)) and len(window) == 2 and all(np.ndim(axis) == 1 for axis in window)
    arrays = [_weights(axis) for axis in window] if separable else [_weights(window)]
    shapes = [array.shape for array in arrays]
    if shapes != ([(tile[0],), (tile[1],)] if separable else [tile]):
        raise ValueError(
            f"window has the shape {' and '.join(map(str, shapes))}; this grid's tiles want weights {tile},"
            f" or a pair ({tile[0]},), ({tile[1]},)"
        )
    name = GIVEN_PAIR if separable else GIVEN_FULL
    return name, tuple(np.concatenate([array.ravel() for array in arrays]).tolist())


def axis_weights(name: str, length: int) -> NDArray[np.float64]:
    """Weights of a named window along one axis of a tile."""
    return np.array([_SHAPES[name]((i + 0.5) / length) for i in range(length)])


def _weights(given: Any) -> NDArray[np.float64]:
    """Check an array of weights; bring the largest near 1 by a power of two, for only their ratios count."""
    unknown = f"window is a {type(given).__name__}; give a name or an array of weights"
    try:
        array = np.asarray(plain(given.detach().cpu()) if isinstance(given, torch.Tensor) else given)
    except (TypeError, ValueError) as error:
        raise TypeError(unknown) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{unknown}, real numbers" if array.ndim else unknown)
    array = array.astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError("window holds weights that are negative, NaN or infinite; weights are finite and at least 0")
    scaled: NDArray[np.float64] = np.ldexp(array, -np.frexp(array.max(initial=0))[1])
    return scaled
