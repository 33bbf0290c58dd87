from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Taps, Uniform
from fastssim.window import rounded


@pytest.mark.parametrize("size", [1, 3, 7, 9, 11, 33, 101])
@pytest.mark.parametrize("kind", [Gaussian, Uniform])
def test_taps_sum_to_one_are_symmetric_and_positive(kind, size):
    taps = kind(size).taps_x
    assert (kind(size).taps_y == taps).all()
    assert taps.shape == (size,)
    assert taps.dtype == np.float64
    assert math.fsum(taps) == pytest.approx(1, abs=1e-15)
    assert (taps == taps[::-1]).all()
    assert (taps >= 0).all()


def test_gaussian_is_the_bell_of_its_sigma():
    taps = Gaussian(11, 1.5).taps_y
    assert taps[5] / taps[4] == pytest.approx(math.exp(0.5 / 1.5**2))
    assert taps[5] == pytest.approx(0.26601172, abs=1e-8)  # fspecial('gaussian', 11, 1.5), summed over one axis


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "window", [Gaussian(), Gaussian(7, 0.8), Gaussian(33, 5.0), Uniform(7), Uniform(31), Taps([1, 0, 1])]
)
def test_rounded_taps_still_sum_to_one(window, dtype):
    taps = rounded(window.weights_x, dtype)
    assert all(isinstance(tap, np.dtype(dtype).type) for tap in taps)
    assert abs(math.fsum(taps) - 1) <= np.finfo(dtype).eps / 8
    assert np.abs(np.array(taps, np.float64) - window.taps_x).max() <= np.finfo(dtype).eps


def test_windows_are_values():
    assert Gaussian(11, 1.5) == Gaussian()
    assert hash(Gaussian(11, 1.5)) == hash(Gaussian())
    assert Gaussian(7) != Gaussian(9)
    assert pickle.loads(pickle.dumps(Uniform(9))) == Uniform(9)  # noqa: S301  # our own bytes
    assert repr(Gaussian(5, 2.0)) == "Gaussian(size=5, sigma=2.0)"


def test_axes_may_differ():
    window = Gaussian((7, 3), (2.0, 0.5))
    assert window.shape == (7, 3)
    assert (window.taps_y == Gaussian(7, 2.0).taps_y).all()
    assert (window.taps_x == Gaussian(3, 0.5).taps_x).all()
    assert Uniform((3, 5)).shape == (3, 5)
    assert Gaussian((9, 9), (1.5, 1.5)) == Gaussian(9, 1.5)


def test_volumes_take_a_triple_or_one_value_for_all_axes():
    window = Gaussian((3, 5, 7), (0.5, 1.0, 2.0))
    assert window.shape == (3, 5, 7)
    assert window.along(3) == (Gaussian(3, 0.5).weights_x, Gaussian(5, 1.0).weights_x, Gaussian(7, 2.0).weights_x)
    assert (window.weights_y, window.weights_x) == window.along(3)[1:]
    assert Gaussian(5, (0.5, 1.0, 2.0)).shape == (5, 5, 5)
    assert Uniform(7).along(3) == (*Uniform(7).along(2), Uniform(7).weights_x)
    assert Taps(([1, 2, 1], [1], [1, 1, 1])).shape == (3, 1, 3)
    assert Uniform((5, 5, 5)) == Uniform((5, 5)) == Uniform(5)
    with pytest.raises(ValueError, match=r"Uniform\(size=\(3, 5\)\) names 2 axes; dims=3 takes .* a triple"):
        Uniform((3, 5)).along(3)
    with pytest.raises(ValueError, match=r"names 3 axes; dims=2 takes one value for all axes, or a pair"):
        window.along(2)
    with pytest.raises(ValueError, match="size names 2 axes and sigma 3"):
        Gaussian((3, 5), (1.0, 2.0, 3.0))


def test_taps_are_divided_by_their_sum():
    window = Taps(([1, 2, 5], np.array([1.0, 0, 1, 1, 1])))
    assert window.taps_y.tolist() == [0.125, 0.25, 0.625]
    assert window.taps_x.tolist() == [0.25, 0, 0.25, 0.25, 0.25]
    assert Taps([1, 1, 1]).shape == (3, 3)
    assert Taps([1, 2, 1]) == Taps((2, 4, 2))
    assert hash(Taps([1, 2, 1])) == hash(Taps(([1, 2, 1], [1, 2, 1])))


@pytest.mark.parametrize(
    ("weights", "kind", "words"),
    [
        ([1, 1], ValueError, r"shape \(2,\); give an odd number"),
        ([], ValueError, "give an odd number"),
        (np.ones((3, 3)), ValueError, r"shape \(3, 3\)"),
        ([1, -1, 1], ValueError, "not negative"),
        ([1, math.nan, 1], ValueError, "finite"),
        ([0, 0, 0], ValueError, "sum to 0.0"),
        ([1e308, 1e308, 1e308], ValueError, "sum to inf"),
        ("abc", TypeError, "numbers along one axis"),
        (torch.ones(3, requires_grad=True), ValueError, r"require a gradient, which is not computed: call weights.det"),
        (([1, 2, 1], ["a"]), TypeError, "numbers along one axis"),
    ],
)
def test_taps_that_weigh_nothing_sensible_are_refused(weights, kind, words):
    with pytest.raises(kind, match=words):
        Taps(weights)


@pytest.mark.parametrize("size", [0, -3, 4, 10])
def test_size_that_has_no_middle_is_refused(size):
    for kind in (Gaussian, Uniform):
        with pytest.raises(ValueError, match=f"size is {size}; it must be odd"):
            kind(size)


@pytest.mark.parametrize("size", [3.0, "11", None, True, (3, 4.0), (3, 3, 4.0), (3, 3, 3, 3)])
def test_size_of_another_type_is_refused(size):
    with pytest.raises(TypeError, match="size is an int"):
        Uniform(size)


@pytest.mark.parametrize("sigma", [0, -1.5, math.inf, math.nan])
def test_sigma_that_gives_no_bell_is_refused(sigma):
    with pytest.raises(ValueError, match="finite and above 0"):
        Gaussian(11, sigma)


def test_sigma_of_another_type_is_refused():
    with pytest.raises(TypeError, match="sigma is a number"):
        Gaussian(11, "1.5")


def test_a_window_that_no_kernel_is_compiled_for_is_refused():
    for make in (lambda: Gaussian(1003), lambda: Uniform((3, 10001)), lambda: Taps([1.0] * 1003)):
        with pytest.raises(ValueError, match="at most 1001"):
            make()


def test_a_bell_that_is_narrower_than_any_pixel_is_one_pixel():
    assert Gaussian(3, 1e-200).weights_x == (0.0, 1.0, 0.0)
