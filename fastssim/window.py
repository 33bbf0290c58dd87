"""Windows: the weights that SSIM's local means and variances are taken with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """A separable window; `Gaussian` and `Uniform` are its kinds.

    Parameters
    ----------
    size : int
        Pixels along one axis; odd, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer.
    """

    size: int
    weights: tuple[float, ...] = field(init=False, repr=False, compare=False)  # one axis, sum 1

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int):
            raise TypeError(f"a window's size is an int, not {type(self.size).__name__}")
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"a window's size is {self.size}; it must be odd and at least 1")
        shape = [self._shape(i - self.size // 2) for i in range(self.size)]
        total = math.fsum(shape)
        object.__setattr__(self, "weights", tuple(weight / total for weight in shape))

    def _shape(self, i: int) -> float:
        """Weight of the pixel `i` from the middle, before normalisation."""
        raise NotImplementedError

    @property
    def taps(self) -> NDArray[np.float64]:
        """The weights along one axis, float64, summing to 1."""
        return np.array(self.weights)


@dataclass(frozen=True)
class Gaussian(Window):
    """A Gaussian window, the one of Wang et al. (2004): 11 pixels wide, sigma 1.5.

    Parameters
    ----------
    size : int
        Pixels along one axis; odd, at least 1.
    sigma : float
        Standard deviation in pixels; above 0.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer, or `sigma` no positive finite number.

    Examples
    --------
    >>> Gaussian(3, 1.0).taps.round(4).tolist()
    [0.2741, 0.4519, 0.2741]
    """

    size: int = 11
    sigma: float = 1.5

    def __post_init__(self) -> None:
        if isinstance(self.sigma, bool) or not isinstance(self.sigma, (int, float)):
            raise TypeError(f"sigma is a number of pixels, not {type(self.sigma).__name__}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma is {self.sigma}; it must be finite and above 0")
        super().__post_init__()

    def _shape(self, i: int) -> float:
        return math.exp(-0.5 * (i / self.sigma) ** 2)


@dataclass(frozen=True)
class Uniform(Window):
    """A window of equal weights, the box of scikit-image's default (7 pixels wide).

    Parameters
    ----------
    size : int
        Pixels along one axis; odd, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer.

    Examples
    --------
    >>> Uniform(5).taps.tolist()
    [0.2, 0.2, 0.2, 0.2, 0.2]
    """

    size: int = 7

    def _shape(self, i: int) -> float:  # noqa: ARG002  # the same everywhere
        return 1.0


def rounded(weights: tuple[float, ...], dtype: str) -> tuple[Any, ...]:
    """Round weights to NumPy scalars of `dtype` that still sum to 1.

    A flat region x has the filtered square S x^2 and the squared mean S^2 x^2, S the sum of the taps: where S is not 1,
    a variance S (1 - S) x^2 appears from nothing. The middle tap takes up what rounding left over.
    """
    taps = np.array(weights, dtype)
    middle = len(taps) // 2
    others = np.delete(taps, middle).astype(np.float64)
    taps[middle] = 1.0 - math.fsum(others)
    return tuple(taps)
