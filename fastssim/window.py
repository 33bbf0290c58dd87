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

LARGEST = 1001  # weights along an axis: kernels are compiled for them one by one
_AXES = "one axis, a pair (down, across), or a triple (depth, down, across)"
_GIVEN = {2: "a pair (down, across)", 3: "a triple (depth, down, across)"}


@dataclass(frozen=True)
class Window:
    """A separable window; `Gaussian`, `Uniform` and `Taps` are its kinds."""

    axes: tuple[tuple[float, ...], ...] = field(init=False, repr=False, compare=False)  # each sum 1; one stands for all

    def _set(self, **values: Any) -> None:
        """Set fields of this frozen value, while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def along(self, dims: int) -> tuple[tuple[float, ...], ...]:
        """Return the weights along each axis of images (down, across) or of volumes (depth, down, across).

        Raises
        ------
        ValueError
            If the window was given as a pair and is wanted for volumes, or as a triple for images.
        """
        if len(self.axes) not in {1, dims}:
            raise ValueError(
                f"{self} names {len(self.axes)} axes; dims={dims} takes one value for all axes, or {_GIVEN[dims]}"
            )
        return self.axes if len(self.axes) == dims else self.axes * dims

    @property
    def weights_y(self) -> tuple[float, ...]:
        """The weights down the columns."""
        return self.axes[max(len(self.axes) - 2, 0)]

    @property
    def weights_x(self) -> tuple[float, ...]:
        """The weights across."""
        return self.axes[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels down and across; of a triple, in depth, down and across."""
        return tuple(len(axis) for axis in self.along(max(len(self.axes), 2)))

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
    size : int, (int, int) or (int, int, int)
        Pixels along all axes, a pair (down, across), or of volumes a triple (depth, down, across); odd, 1 to 1001.
    sigma : float, (float, float) or (float, float, float)
        Standard deviation in pixels along all axes, a pair, or a triple; above 0.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer, `sigma` no positive finite number, or one is a pair, the other a triple.

    Examples
    --------
    >>> Gaussian(3, 1.0).taps_x.round(4).tolist()
    [0.2741, 0.4519, 0.2741]
    >>> Gaussian((7, 3), (2.0, 0.5)).shape, Gaussian((3, 7, 7)).shape
    ((7, 3), (3, 7, 7))
    """

    size: int | tuple[int, ...] = 11
    sigma: float | tuple[float, ...] = 1.5

    def __post_init__(self) -> None:
        sizes, sigmas = _each(self.size), _each(self.sigma)
        for sigma in sigmas:
            if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
                raise TypeError(f"sigma is a number of pixels for {_AXES}, not {sigma!r}")
            if not 0 < sigma < math.inf:
                raise ValueError(f"sigma is {sigma}; it must be finite and above 0")
        if len(sizes) > 1 and len(sigmas) > 1 and len(sizes) != len(sigmas):
            raise ValueError(f"size names {len(sizes)} axes and sigma {len(sigmas)}; give one of each for every axis")
        count = max(len(sizes), len(sigmas))
        axes = [_sampled(sizes[i % len(sizes)], partial(bell, sigmas[i % len(sigmas)])) for i in range(count)]
        self._set(size=_single(sizes), sigma=_single(sigmas), axes=_merged(axes))


@dataclass(frozen=True)
class Uniform(Window):
    """A window of equal weights, the box of scikit-image's default (7 pixels wide).

    Parameters
    ----------
    size : int, (int, int) or (int, int, int)
        Pixels along all axes, a pair (down, across), or of volumes a triple (depth, down, across); odd, 1 to 1001.

    Raises
    ------
    TypeError, ValueError
        If `size` is no odd positive integer.

    Examples
    --------
    >>> Uniform(5).taps_x.tolist()
    [0.2, 0.2, 0.2, 0.2, 0.2]
    """

    size: int | tuple[int, ...] = 7

    def __post_init__(self) -> None:
        sizes = _each(self.size)
        self._set(size=_single(sizes), axes=_merged([_sampled(size, lambda _: 1.0) for size in sizes]))


@dataclass(frozen=True)
class Taps(Window):
    """A window of any weights.

    Parameters
    ----------
    weights : array_like, a pair of them (down, across), or of volumes a triple (depth, down, across)
        Weights along one axis, 1-dimensional, an odd number of them up to 1001, none negative; divided by their
        sum.

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
        separate = (
            isinstance(given, (tuple, list)) and len(given) in _GIVEN and all(np.ndim(axis) == 1 for axis in given)
        )
        axes = _merged([_normalised(_given(axis)) for axis in (given if separate else (given,))])
        self._set(weights=axes[0] if len(axes) == 1 else axes, axes=axes)


def bell(sigma: float, i: float) -> float:
    """Height of the Gaussian, 1 in the middle, `i` pixels from there."""
    distance = i / sigma
    return math.exp(-0.5 * distance * distance)  # a power would overflow with an error, and compilers trace none


def _each(value: Any) -> tuple[Any, ...]:
    """Take one value for all axes, a pair, or a triple; NumPy's numbers as Python's."""
    given = tuple(value) if isinstance(value, (tuple, list)) and len(value) in _GIVEN else (value,)
    return tuple(one.item() if isinstance(one, np.generic) else one for one in given)


def _merged(axes: list[tuple[float, ...]]) -> tuple[tuple[float, ...], ...]:
    """Write equal weights of all axes once."""
    return tuple(axes[:1] if all(axis == axes[0] for axis in axes) else axes)


def _single(values: tuple[Any, ...]) -> Any:
    """Write equal values as one, so that equal windows compare equal."""
    return values[0] if all(value == values[0] for value in values) else values


def _sampled(size: Any, shape: Callable[[int], float]) -> tuple[float, ...]:
    """Weights of one axis: `shape` at the distances from the middle, divided by their sum."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"a window's size is an int for {_AXES}, not {size!r}")
    if not 1 <= size <= LARGEST or size % 2 == 0:
        raise ValueError(f"a window's size is {size}; it must be odd, at least 1 and at most {LARGEST}")
    return _normalised([shape(i - size // 2) for i in range(size)])


def _given(weights: Any) -> list[float]:
    """Check the weights of one axis."""
    if getattr(weights, "requires_grad", False):
        raise ValueError("a window's weights require a gradient, which is not computed: call weights.detach() first")
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a window's weights are numbers along {_AXES}, not {weights!r}") from error
    if array.ndim != 1 or len(array) % 2 == 0:
        raise ValueError(f"a window's weights have shape {array.shape}; give an odd number along {_AXES}")
    if len(array) > LARGEST:
        raise ValueError(f"a window has {len(array)} weights along an axis; give at most {LARGEST}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"a window's weights are {array.tolist()}; they must be finite and not negative")
    total = sum(array.tolist())  # which goes to infinity where math.fsum raises
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"a window's weights sum to {total}; the sum must be finite and above 0")
    return array.tolist()  # type: ignore[no-any-return]


def _normalised(weights: list[float]) -> tuple[float, ...]:
    """Divide the weights of one axis by their sum."""
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


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


WANG = Gaussian()  # 11 x 11 pixels of sigma 1.5, as Wang et al. (2004) have it
