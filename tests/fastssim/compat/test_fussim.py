"""`fastssim.compat.fussim` against the definition: the original runs on a GPU alone, with wrong weights but for 11."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim import Gaussian, reference
from fastssim.compat import fused_ssim as splatting
from fastssim.compat import fussim as ours
from fastssim.compat import pytorch_msssim


@pytest.mark.parametrize("size", [7, 9, 11])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fused_ssim_is_the_definition(images, size, padding):
    x, y = images((2, 3, 25, 31), torch.float64)
    border = {"same": "zeros"}.get(padding, padding)
    truth = reference.ssim(x.numpy(), y.numpy(), window=Gaussian(size, 1.5), padding=border)
    assert abs(ours.fused_ssim(x, y, padding, window_size=size).item() - truth.mean()) <= 1e-14
    constants = 0.0001 * 4, 0.0009 * 25
    truth = reference.ssim(x.numpy(), y.numpy(), window=Gaussian(size, 1.5), padding=border, k1=0.02, k2=0.15)
    found = ours.FusedSSIMMap.apply(*constants, x, y, padding, window_size=size)
    assert np.abs(found.numpy() - truth).max() <= 1e-13


def test_of_11_pixels_it_is_fused_ssims(images):
    x, y = images((1, 3, 25, 31))
    gradients = []
    for module in (ours, splatting):
        image = x.clone().requires_grad_()
        module.fused_ssim(image, y).backward()
        gradients.append(image.grad)
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_the_second_image_has_no_gradient_and_without_training_neither(images):
    x, y = (image.requires_grad_() for image in images((1, 1, 20, 20)))
    ours.fused_ssim(x, y).backward()
    assert x.grad is not None
    assert y.grad is None
    assert not ours.fused_ssim(x, y, train=False).requires_grad


@pytest.mark.parametrize("size", [7, 9, 11])
@pytest.mark.parametrize("size_average", [True, False])
def test_ssim_is_pytorch_msssims(images, size, size_average):
    x, y = ((255 * image).requires_grad_() for image in images((2, 3, 25, 31), torch.float64))
    options = {"win_size": size, "size_average": size_average, "K": (0.02, 0.05)}
    found, expected = ours.ssim(x, y, **options), pytorch_msssim.ssim(x, y, **options)
    assert (found - expected).abs().max() <= 1e-14
    assert torch.equal(ours.SSIM(**options, channel=1)(x, y), found)
    for one, other in zip(*(torch.autograd.grad(value.sum(), (x, y)) for value in (found, expected)), strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_windows_below_0_count_as_0_one_by_one(images):
    x, y = images((2, 1, 30, 31), torch.float64)
    y[..., :15] = 1 - x[..., :15]  # opposite
    windows = reference.ssim(x.numpy(), y.numpy())
    assert windows.min() < 0
    expected = np.maximum(windows, 0).mean((1, 2, 3))
    found = ours.ssim(x, y, data_range=1.0, size_average=False, nonnegative_ssim=True)
    assert np.abs(found.numpy() - expected).max() <= 1e-14
    assert abs(ours.SSIM(1.0, nonnegative_ssim=True)(x, y).item() - expected.mean()) <= 1e-14


def test_bytes_count_as_they_stand(images):
    x, y = ((image * 255).round().to(torch.uint8) for image in images((1, 1, 40, 44)))
    assert abs(ours.ssim(x, y) - ours.ssim(x.double(), y.double())) <= 1e-6
    assert abs(ours.ssim(x, y, data_range=1.0) - ours.ssim(x.double(), y.double(), data_range=1.0)) <= 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"win_size": 5}, "win_size must be one of"),
        ({"win_sigma": 1.0}, "win_sigma must be 1.5"),
        ({"K": (0.01,)}, "K must be"),
        ({"K": (0.01, 1.5)}, "K must be"),
    ],
)
def test_errors_of_options(options, words):
    x = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match=words):
        ours.ssim(x, x, **options)
    with pytest.raises(ValueError, match=words):
        ours.SSIM(**options)


def test_other_errors():
    x = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match="win is not taken"):
        ours.ssim(x, x, win=torch.ones(1, 1, 1, 11) / 11)
    with pytest.raises(ValueError, match="spatial_dims"):
        ours.SSIM(spatial_dims=3)
    for function in (ours.fused_ssim, lambda *a, **b: ours.FusedSSIMMap.apply(1e-4, 9e-4, *a, **b)):
        with pytest.raises(ValueError, match="padding must be"):
            function(x, x, padding="reflect")
        with pytest.raises(ValueError, match="window_size must be"):
            function(x, x, window_size=13)
        with pytest.raises(ValueError, match="shape"):
            function(x, x[..., :10])
        with pytest.raises(ValueError, match="4 axes"):
            function(x[0], x[0])


def test_the_sizes_have_a_name():
    assert ours.SUPPORTED_WINDOW_SIZES == (7, 9, 11)
    with pytest.raises(ValueError, match="4D"):
        ours.fused_ssim(torch.zeros(3, 20, 20), torch.zeros(3, 20, 20))
