"""Numbers that other people have published, and mistakes that they have made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import camera

from fastssim import Gaussian, Uniform, ssim


@pytest.fixture(scope="module")
def photograph():
    """Draw scikit-image's pair: its camera man, 512 x 512, and the same with noise, 8 bits."""
    clean = camera()
    noise = np.random.RandomState(5).randn(*clean.shape)
    return clean, np.clip(clean + 20.0 * noise, 0, 255).astype(clean.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_scikit_image_0_17(photograph, dtype):
    x, y = (image.astype(dtype) for image in photograph)
    found = ssim(x, y, data_range=255, window=Uniform(7), unbiased=True)
    assert found == pytest.approx(0.3674518327910367, abs=1e-6 if dtype != np.float64 else 1e-12)


def test_the_image_difference_program_of_ipol(photograph):
    # to three decimals, as scikit-image compares it: its images were saved in between
    assert ssim(*photograph, data_range=255) == pytest.approx(0.357959091663361, abs=1e-3)


@pytest.fixture(scope="module")
def squares():
    """Return torchmetrics' pair of 7 x 7 black and white squares, from its test of windows of unequal sides."""
    x = "1101101 1011000 1000000 0010001 0010010 0100111 1101101"
    y = "1101101 0001110 1110101 1000101 1110111 0010100 0100110"
    return [torch.tensor([[float(square) for square in row] for row in image.split()]) for image in (x, y)]


@pytest.mark.parametrize(
    ("window", "padding", "published", "bound"),
    [
        (Gaussian((3, 5), (0.25, 0.5)), "reflect", 0.20977394, 1e-4),
        (Uniform((3, 5)), "valid", 0.05131844, 1e-7),
    ],
    ids=str,
)
def test_windows_of_unequal_sides_in_torchmetrics(squares, window, padding, published, bound):
    assert ssim(*squares, window=window, padding=padding).item() == pytest.approx(published, abs=bound)
    turned = type(window)(window.shape[::-1], *([window.sigma[::-1]] if isinstance(window, Gaussian) else []))
    assert abs(ssim(*squares, window=turned, padding=padding).item() - published) > 10 * bound


def test_nearly_equal_flat_images_are_not_beyond_one():
    # fused-ssim, pull request 37: 1.0000042915 by cancellation
    x = torch.full((1, 1, 32, 32), 0.6)
    windows = ssim(x, x + 1e-7, reduction="none")
    assert windows.max() <= 1 + 1.2e-7
    assert windows.min() >= 1 - 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_black_images_are_equal_in_any_precision(dtype):
    # torchmetrics, issue 1290: 1.3245 under half precision
    x = torch.zeros(1, 1, 32, 32, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ssim(x, x.clone()).item() == 1


def test_taps_of_half_precision_images_are_not_rounded_to_half():
    # fussim: taps that sum to 1.000164 make 0.9783 of 0.9907 on bright flat images
    x, y = (torch.full((1, 1, 32, 32), value) for value in (1.0, 1.05))
    expected = (2 * 1.05 + 1e-4) / (1 + 1.05**2 + 1e-4)
    assert ssim(x, y).item() == pytest.approx(expected, abs=1e-6)
    half = (2 * float(y.half()[0, 0, 0, 0]) + 1e-4) / (1 + float(y.half()[0, 0, 0, 0]) ** 2 + 1e-4)
    assert ssim(x.half(), y.half()).item() == pytest.approx(half, abs=1e-6)
