"""The reference against other people's published implementations and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import camera
from skimage.metrics import structural_similarity

from fastssim import Gaussian, Taps, Uniform, reference
from fastssim.plan import PADDINGS, source


@pytest.fixture(scope="module")
def photographs():
    clean = camera()[100:260, 200:340].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    return clean, np.clip(clean + noise, 0, 255)


def test_gaussian_equals_scikit_image(photographs):
    x, y = photographs
    expected = structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert reference.ssim(x, y, data_range=255).mean() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("unbiased", [False, True])
def test_uniform_equals_scikit_image(photographs, unbiased):
    x, y = photographs
    expected = structural_similarity(x, y, win_size=7, use_sample_covariance=unbiased, data_range=255)
    ssim_map = reference.ssim(x, y, window=Uniform(7), data_range=255, unbiased=unbiased)
    assert ssim_map.mean() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("padding", ["reflect", "symmetric", "replicate", "zeros"])
@pytest.mark.parametrize(("length", "pad"), [(1, 2), (2, 5), (3, 1), (9, 4)])
def test_padding_repeats_the_pixels_that_numpy_pads_with(padding, length, pad):
    line = np.arange(1, length + 1)
    mode = {"replicate": "edge", "zeros": "constant"}.get(padding, padding)
    repeated = [line[place] if place >= 0 else 0 for place in source(length, pad, padding)]
    assert repeated == np.pad(line, pad, mode=mode).tolist()


def images(shape=(9, 8)):
    return np.random.default_rng(1).random((2, *shape))


def holes(shape=(9, 8)):
    """Weights with holes, one of them larger than the windows used here."""
    rng = np.random.default_rng(2)
    mask = rng.random(shape) * (rng.random(shape) > 0.3)
    mask[:5, :4] = 0
    return mask


def assert_equal_to_central_differences(function, gradient, x):
    step = 1e-6
    for place in [(0, 0), (4, 3), (8, 7), (2, 6), (7, 0)]:
        moved = [x.copy(), x.copy()]
        moved[0][(..., *place)] += step
        moved[1][(..., *place)] -= step
        up, down = (function(m) for m in moved)
        expected = gradient[(..., *place)].sum()
        assert expected == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("window", [Gaussian(3, 0.7), Uniform((5, 3)), Taps(([1, 2, 4], [3, 0, 1]))], ids=repr)
@pytest.mark.parametrize(
    "more", [{}, {"unbiased": True}, {"mask": holes()}, {"k1": np.inf}], ids=["plain", "unbiased", "mask", "no means"]
)
def test_gradient_equals_central_differences(window, padding, more):
    x, y = images()
    options = {"window": window, "padding": padding, **more}
    upstream = np.random.default_rng(3).random(reference.ssim(x, y, **options).shape)
    gradient = reference.ssim_gradient(x, y, upstream, **options)
    assert_equal_to_central_differences(lambda a: (upstream * reference.ssim(a, y, **options)).sum(), gradient, x)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_mask_of_ones_changes_nothing(padding):
    x, y = images()
    plain, masked = (reference.ssim(x, y, window=Uniform(3), padding=padding, mask=m) for m in (None, np.ones((9, 8))))
    assert np.abs(plain - masked).max() <= 1e-14


def test_masked_pixels_do_not_matter_and_windows_of_them_do_not_count():
    x, y = images()
    mask = holes()
    spoilt = np.where(mask > 0, x, np.nan)
    options = {"window": Uniform(3), "mask": mask}
    assert (reference.ssim(spoilt, y, **options) == reference.ssim(x, y, **options)).all()
    counted = reference.counted(x.shape, mask, Uniform(3), "valid")
    assert not counted[:3, :2].any()
    assert (reference.ssim(x, y, **options)[~counted] == 1).all()
    assert counted.sum() > 10


def test_known_value_by_hand():
    # One window of two values: mu = 1/2, sigma^2 = 2/9, 1/4 - ... worked out for Uniform(3) on a single bright pixel.
    x, y = np.zeros((2, 3, 3))
    x[1, 1] = 1
    y[0, 0] = 1
    c1, c2, mu = 1e-4, 9e-4, 1 / 9
    variance, covariance = 1 / 9 - mu**2, -(mu**2)
    expected = (2 * mu**2 + c1) * (2 * covariance + c2) / ((2 * mu**2 + c1) * (2 * variance + c2))
    assert reference.ssim(x, y, window=Uniform(3)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("product", ["channel", "image"])
def test_multi_scale_gradient_equals_central_differences(product):
    x = np.random.default_rng(4).random((2, 3, 9, 8))
    y = np.clip(x + 0.2 * np.random.default_rng(5).standard_normal(x.shape), 0, 1)
    options = {"weights": (0.3, 0.7), "window": Gaussian(3, 1.0), "product": product}
    upstream = np.random.default_rng(6).random(reference.ms_ssim(x, y, **options).shape)
    gradient = reference.ms_ssim_gradient(x, y, upstream, **options)
    assert_equal_to_central_differences(lambda a: (upstream * reference.ms_ssim(a, y, **options)).sum(), gradient, x)


def test_power_is_continuous_and_its_slope_finite():
    factor = np.array([-1.0, 0.0, 1e-300, 1e-12, 0.999999e-8, 1.000001e-8, 0.5])
    assert reference.power(factor, 0.05)[:2].tolist() == [0, 0]
    assert np.isfinite(reference.power_slope(factor, 0.05)).all()
    assert (np.diff(reference.power(factor, 0.05)) >= 0).all()
    low, high = reference.power(factor[4:6], 0.05)
    assert low == pytest.approx(high, rel=1e-5)
    assert reference.power(factor, 0.05)[-1] == 0.5**0.05
