"""The reference against other people's published implementations and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import camera
from skimage.metrics import structural_similarity

from fastssim import Gaussian, Uniform, reference


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


def test_uniform_equals_scikit_image(photographs):
    x, y = photographs
    expected = structural_similarity(x, y, win_size=7, use_sample_covariance=False, data_range=255)
    assert reference.ssim(x, y, window=Uniform(7), data_range=255).mean() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("window", [Gaussian(3, 0.7), Uniform(5)])
def test_gradient_equals_central_differences(window):
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 9, 8))
    upstream = rng.random((9 - window.size + 1, 8 - window.size + 1))
    gradient = reference.ssim_gradient(x, y, upstream, window=window)
    step = 1e-6
    for i, j in [(0, 0), (4, 3), (8, 7), (2, 6)]:
        moved = [x.copy(), x.copy()]
        moved[0][i, j] += step
        moved[1][i, j] -= step
        up, down = ((upstream * reference.ssim(m, y, window=window)).sum() for m in moved)
        assert gradient[i, j] == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-9)


def test_known_value_by_hand():
    # One window of two values: mu = 1/2, sigma^2 = 2/9, 1/4 - ... worked out for Uniform(3) on a single bright pixel.
    x, y = np.zeros((2, 3, 3))
    x[1, 1] = 1
    y[0, 0] = 1
    c1, c2, mu = 1e-4, 9e-4, 1 / 9
    variance, covariance = 1 / 9 - mu**2, -(mu**2)
    expected = (2 * mu**2 + c1) * (2 * covariance + c2) / ((2 * mu**2 + c1) * (2 * variance + c2))
    assert reference.ssim(x, y, window=Uniform(3)).item() == pytest.approx(expected, rel=1e-12)
