"""`fastssim.compat.fused_ssim` and `.gaussian_splatting` against what they replace, written out in torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fastssim.compat import fused_ssim as fused
from fastssim.compat import gaussian_splatting as splatting


def window(size, channels, dtype, dims):
    taps = torch.exp(-((torch.arange(size) - size // 2) ** 2) / 4.5).to(dtype)
    weights = taps
    for _ in range(dims - 1):
        weights = weights[..., None] * taps
    return weights.expand(channels, 1, *[size] * dims) / taps.sum() ** dims


def original(x, y, size=11, c1=0.01**2, c2=0.03**2, dims=2):
    """The map of ``utils/loss_utils.py``: the border is zeros."""
    channels = x.shape[-1 - dims]
    weights = window(size, channels, x.dtype, dims)

    def mean(image):
        return (F.conv2d if dims == 2 else F.conv3d)(image, weights, padding=size // 2, groups=channels)

    mu_x, mu_y = mean(x), mean(y)
    variances = mean(x * x) - mu_x**2 + mean(y * y) - mu_y**2
    covariance = mean(x * y) - mu_x * mu_y
    return (2 * mu_x * mu_y + c1) * (2 * covariance + c2) / ((mu_x**2 + mu_y**2 + c1) * (variances + c2))


@pytest.mark.parametrize("size", [11, 5])
def test_ssim(images, parity, size):
    x, y = images((2, 3, 33, 40))
    parity(lambda a, b: splatting.ssim(a, b, size), lambda a, b: original(a, b, size).mean(), x, y)
    parity(lambda a, b: splatting.ssim(a, b, size, False), lambda a, b: original(a, b, size).mean((1, 2, 3)), x, y)
    parity(lambda a, b: splatting.ssim(a, b, size), lambda a, b: original(a, b, size).mean(), x[0], y[0])


@pytest.mark.parametrize("share", [0.2, 0.0, 1.0])
def test_l1_ssim(images, parity, share):
    x, y = images((3, 33, 40))
    parity(
        lambda a, b: splatting.l1_ssim(a, b, share),
        lambda a, b: (1 - share) * splatting.l1_loss(a, b) + share * (1 - original(a, b).mean()),
        x,
        y,
    )


def test_plain_losses():
    x, y = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 1.0])
    assert splatting.l1_loss(x, y) == 1
    assert splatting.l2_loss(x, y) == torch.tensor(5 / 3)


def test_errors_of_splatting():
    x = torch.rand(3, 20, 20)
    with pytest.raises(IndexError, match="needs a batch"):
        splatting.ssim(x, x, size_average=False)
    with pytest.raises(ValueError, match="odd"):
        splatting.ssim(x, x, 10)
    with pytest.raises(ValueError, match="alpha"):
        splatting.l1_ssim(x, x, 1.5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(2, 3, 33, 40), (2, 1, 12, 14, 15)], ids=str)
def test_fused_ssim(images, shape, padding):
    x, y = images(shape)
    dims = len(shape) - 2
    mean = fused.fused_ssim if dims == 2 else fused.fused_ssim3d
    cut = (..., *[slice(5, -5)] * dims) if padding == "valid" else ...
    for ours, constants in (
        (lambda a, b: mean(a, b, padding), {}),
        (lambda a, b: fused.FusedSSIMMap.apply(0.02, 0.05, a, b, padding, True, dims), {"c1": 0.02, "c2": 0.05}),
    ):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        true_a = x.double().requires_grad_()
        value, expected = ours(a, b), original(true_a, y.double(), **constants, dims=dims)[cut]
        assert value.shape == (() if value.ndim == 0 else expected.shape)
        value.mean().backward()
        expected.mean().backward()
        assert (value - (expected if value.ndim else expected.mean())).abs().max() <= 1e-6
        assert (a.grad - true_a.grad).abs().max() <= 1e-5 * true_a.grad.abs().max()
        assert b.grad is None  # as there: the gradient is the first image's


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fused_l1_ssim_loss(images, padding):
    x, y = images((2, 3, 33, 40))
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    true_a, true_b = x.double().requires_grad_(), y.double()
    expected = 0.7 * (true_a - true_b).abs() + 0.3 * (1 - original(true_a, true_b))
    expected = (expected[..., 5:-5, 5:-5] if padding == "valid" else expected).mean()
    value = fused.fused_l1_ssim_loss(a, b, 0.3, padding)
    value.backward()
    expected.backward()
    assert abs(value - expected) <= 1e-6
    assert (a.grad - true_a.grad).abs().max() <= 1e-5 * true_a.grad.abs().max()
    assert b.grad is None
    assert not fused.fused_l1_ssim_loss(a, b, padding=padding, train=False).requires_grad
    with pytest.raises(AssertionError, match="padding is 'zeros'"):
        fused.fused_l1_ssim_loss(a, b, padding="zeros")
    with pytest.raises(ValueError, match=r"ssim_weight is 2; it must lie in \[0, 1\]"):
        fused.fused_l1_ssim_loss(a, b, 2, padding)


def test_fused_ssim_without_training_has_no_gradient(images):
    x, y = images((1, 1, 20, 20))
    assert not fused.fused_ssim(x.requires_grad_(), y, train=False).requires_grad
    with torch.no_grad():
        assert not fused.fused_ssim(x, y).requires_grad


def test_images_that_are_not_contiguous(images):
    x, y = images((1, 3, 40, 33))
    assert fused.fused_ssim(x.mT, y.mT) == fused.fused_ssim(x.mT.contiguous(), y.mT.contiguous())


def test_errors_of_fused_ssim():
    x = torch.rand(1, 3, 20, 20)
    with pytest.raises(AssertionError, match="padding is 'reflect'"):
        fused.fused_ssim(x, x, "reflect")
    with pytest.raises(RuntimeError, match=r"img1 has shape \(3, 20, 20\)"):
        fused.fused_ssim(x[0], x[0])
    with pytest.raises(RuntimeError, match=r"img2 .*torch.uint8"):
        fused.fused_ssim(x, x.byte())
    with pytest.raises(RuntimeError, match=r"img1 has shape \(1, 3, 20, 20\).*give floats \(N, C, D, H, W\)"):
        fused.fused_ssim3d(x, x)
    with pytest.raises(RuntimeError, match="spatial_dims is 1"):
        fused.FusedSSIMMap.apply(0.01, 0.03, x, x, spatial_dims=1)


def test_bytes_have_a_loss_in_float32():
    x, y = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = splatting.ssim(x / 255, y / 255)
    assert splatting.ssim(x, y).dtype == splatting.l1_ssim(x, y).dtype == torch.float32
    torch.testing.assert_close(splatting.ssim(x, y), expected)
