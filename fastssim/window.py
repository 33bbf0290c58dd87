"""Windows: the weights that SSIM's local means and variances are taken with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_AXES = "one axis, or a pair (down, across)"


@dataclass(frozen=True)
class Window:
    """A separable window; `Gaussian`, `Uniform` and `Taps` are its kinds."""

    weights_y: tuple[float, ...] = field(init=False, repr=False, compare=False)  # down the columns, sum 1
    weights_x: tuple[float, ...] = field(init=False, repr=False, compare=False)  # across, sum 1

    def _set(self, **values: Any) -> None:
        """Set fields of this frozen value, while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels down and across."""
        return len(self.weights_y), len(self.weights_x)

    @property
    def taps_y(self) -> NDArray[np.float64]:
        """The weights down the columns, float64, summing to 1."""
        return np.array(self.weights_y)

    @property
    def taps_x(self) -> NDArray[np.float64]:
        """The weights across, float64, summing to 1."""
        return np.array(self.weights_x)


@dataclass(frozen=True)
class Gaussian(Window):
    """A Gaussian window, the one of Wang et al. (2004): 11 pixels wide, sigma 1.5.

    Parameters
    ----------
    size : int or (int, int)
        Pixels along both axes, or a pair (down, across); odd, at least 1.
    sigma : float or (float, float)
        Standard deviation in pixels, or a pair (down, across); above 0.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer, or `sigma` no positive finite number.

    Examples
    --------
    >>> Gaussian(3, 1.0).taps_x.round(4).tolist()
    [0.2741, 0.4519, 0.2741]
    >>> Gaussian((7, 3), (2.0, 0.5)).shape
    (7, 3)
    """

    size: int | tuple[int, int] = 11
    sigma: float | tuple[float, float] = 1.5

    def __post_init__(self) -> None:
        sizes, sigmas = _pair(self.size), _pair(self.sigma)
        for sigma in sigmas:
            if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
                raise TypeError(f"sigma is a number of pixels for {_AXES}, not {sigma!r}")
            if not (math.isfinite(sigma) and sigma > 0):
                raise ValueError(f"sigma is {sigma}; it must be finite and above 0")
        down, across = (_sampled(size, partial(_bell, sigma)) for size, sigma in zip(sizes, sigmas, strict=True))
        self._set(size=_single(sizes), sigma=_single(sigmas), weights_y=down, weights_x=across)


@dataclass(frozen=True)
class Uniform(Window):
    """A window of equal weights, the box of scikit-image's default (7 pixels wide).

    Parameters
    ----------
    size : int or (int, int)
        Pixels along both axes, or a pair (down, across); odd, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer.

    Examples
    --------
    >>> Uniform(5).taps_x.tolist()
    [0.2, 0.2, 0.2, 0.2, 0.2]
    """

    size: int | tuple[int, int] = 7

    def __post_init__(self) -> None:
        sizes = _pair(self.size)
        down, across = (_sampled(size, lambda _: 1.0) for size in sizes)
        self._set(size=_single(sizes), weights_y=down, weights_x=across)


@dataclass(frozen=True)
class Taps(Window):
    """A window of any weights.

    Parameters
    ----------
    weights : array_like, or a pair of them (down, across)
        Weights along one axis, at most 1-dimensional, an odd number of them, none negative; divided by their sum.

    Raises
    ------
    TypeError, ValueError
        If the weights are none of the above, or sum to nothing.

    Examples
    --------
    >>> Taps([1, 2, 1]).taps_x.tolist()
    [0.25, 0.5, 0.25]
    >>> Taps(([1, 2, 1], [1, 1, 1, 1, 1])).shape
    (3, 5)
    """

    weights: Any

    def __post_init__(self) -> None:
        given = self.weights
        separate = isinstance(given, (tuple, list)) and len(given) == 2 and all(np.ndim(axis) == 1 for axis in given)
        down, across = (_normalised(axis) for axis in (given if separate else (given, given)))
        self._set(weights=down if down == across else (down, across), weights_y=down, weights_x=across)


def _bell(sigma: float, i: int) -> float:
    """Height of the Gaussian, 1 in the middle, `i` pixels from there."""
    return math.exp(-0.5 * (i / sigma) ** 2)


def _pair(value: Any) -> tuple[Any, Any]:
    """Take one value for both axes, or a pair."""
    return (value[0], value[1]) if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)


def _single(pair: tuple[Any, Any]) -> Any:
    """Write a pair of equal values as one, so that equal windows compare equal."""
    return pair[0] if pair[0] == pair[1] else pair


def _sampled(size: Any, shape: Callable[[int], float]) -> tuple[float, ...]:
    """Weights of one axis: `shape` at the distances from the middle, divided by their sum."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"a window's size is an int for {_AXES}, not {size!r}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window's size is {size}; it must be odd and at least 1")
    return _normalised([shape(i - size // 2) for i in range(size)])


def _normalised(weights: Any) -> tuple[float, ...]:
    """Divide the weights of one axis by their sum."""
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a window's weights are numbers along {_AXES}, not {weights!r}") from error
    if array.ndim != 1 or len(array) % 2 == 0:
        raise ValueError(f"a window's weights have shape {array.shape}; give an odd number along {_AXES}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"a window's weights are {array.tolist()}; they must be finite and not negative")
    total = math.fsum(array)
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"a window's weights sum to {total}; the sum must be finite and above 0")
    return tuple(float(weight) / total for weight in array)


def rounded(weights: tuple[float, ...], dtype: str) -> tuple[Any, ...]:
    """Round weights to NumPy scalars of `dtype` that still sum to 1.

    A flat region x has the filtered square S x^2 and the squared mean S^2 x^2, S the sum of the taps: where S is not 1,
    a variance S (1 - S) x^2 appears from nothing. The largest tap, of equal ones that next to the middle, takes up what
    rounding left over.
    """
    taps = np.array(weights, dtype)
    largest = max(range(len(taps)), key=lambda i: (taps[i], -abs(i - len(taps) // 2)))
    others = np.delete(taps, largest).astype(np.float64)
    taps[largest] = 1.0 - math.fsum(others)
    return tuple(taps)
