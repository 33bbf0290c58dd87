"""`fastssim.compat.piqa` against the definition, and against piqa where it is installed."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Taps, reference
from fastssim.compat import piqa as ours

SHORT = torch.tensor([0.4, 0.6])


@pytest.fixture(scope="module")
def theirs(part_of):
    return part_of("piqa", "ssim")[0]


def kernel(*sigmas, size=11):
    """Gaussians in float32, so that both compute with the same weights."""
    rows = [np.exp(-(((np.arange(size) - (size - 1) / 2) / sigma) ** 2) / 2) for sigma in sigmas]
    return torch.tensor(np.array([row / row.sum() for row in rows]), dtype=torch.float32)[:, None]


def normalised(kernel):
    """Weights whose sum is 1 in float64, as ours are: it is all that the original's lack."""
    return kernel.double() / kernel.double().sum(-1, keepdim=True)


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 33, 41), (1, 3, 14, 15, 16)])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("size", [11, 6])
@pytest.mark.parametrize(
    ("options", "sigmas"),
    [({}, (1.5, 1.5, 1.5)), ({"channel_avg": False, "value_range": 2.0, "k1": 0.02, "k2": 0.05}, (0.8, 1.5, 2.5))],
    ids=["one window", "three windows"],
)
def test_ssim_is_piqas(images, parity, theirs, shape, padding, size, options, sigmas):
    x, y = images(shape if len(shape) > 3 else (*shape[:2], 1, shape[2]))
    x, y = x.reshape(shape), y.reshape(shape)
    weights = kernel(*sigmas, size=size)
    parity(
        lambda a, b: ours.ssim(a, b, weights, padding=padding, **options),
        lambda a, b: theirs.ssim(a, b, normalised(weights).to(a.dtype), padding=padding, **options),
        x,
        y,
    )


@pytest.mark.parametrize("size", [(64, 48), (63, 49), (61, 50)])  # sides odd at the first or at a later scale
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("window", [11, 6])
@pytest.mark.parametrize("sigmas", [(1.5, 1.5), (1.0, 2.0)], ids=["one window", "two windows"])
def test_ms_ssim_is_piqas(images, parity, theirs, size, padding, window, sigmas):
    x, y = images((2, 2, *size))
    weights, powers = kernel(*sigmas, size=window), torch.tensor([0.2, 0.3, 0.5])
    parity(
        lambda a, b: ours.ms_ssim(a, b, weights, powers, padding, k1=0.02),
        lambda a, b: theirs.ms_ssim(a, b, normalised(weights).to(a.dtype), powers.to(a.dtype), padding, k1=0.02),
        x,
        y,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"window_size": 7, "sigma": 1.1, "value_range": 2.0, "padding": True, "k2": 0.05}], ids=str
)
def test_modules_are_piqas(images, theirs, reduction, options):
    x, y = images((2, 3, 176, 181))
    for name in ("SSIM", "MS_SSIM"):
        one, other = (getattr(module, name)(reduction=reduction, **options) for module in (ours, theirs))
        found, expected = one(x, y), other.double()(x.double(), y.double())
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 2e-6 * (2 if reduction == "sum" else 1)  # weights in float32 there
        assert [*one.state_dict()] == [*other.state_dict()]


def test_modules_follow_their_kernel(images):
    x, y = images((1, 1, 40, 41))
    narrow, wide = ours.SSIM(sigma=1.0, n_channels=1), ours.SSIM(sigma=3.0, n_channels=1)
    expected = wide(x, y)
    assert abs(narrow(x, y) - expected) > 1e-3
    narrow.load_state_dict(wide.state_dict())
    assert abs(narrow(x, y) - expected) <= 1e-6
    assert abs(copy.deepcopy(narrow)(x, y) - expected) <= 1e-6
    assert abs(pickle.loads(pickle.dumps(narrow))(x, y) - expected) <= 1e-6  # noqa: S301  # our own
    with torch.inference_mode():
        assert abs(ours.SSIM(sigma=3.0, n_channels=1)(x, y) - expected) <= 1e-6
    narrow.double().kernel = kernel(2.0)
    assert abs(narrow(x, y) - ours.SSIM(sigma=2.0, n_channels=1)(x, y)) <= 1e-6


def test_modules_compile_without_a_break(images):
    x, y = images((1, 1, 40, 41))
    module = ours.SSIM(sigma=1.0, n_channels=1)
    expected = ours.SSIM(sigma=3.0, n_channels=1)
    module.load_state_dict(expected.state_dict())
    assert abs(torch.compile(module, backend="eager", fullgraph=True)(x, y) - expected(x, y)) <= 1e-6


def test_ssim_is_the_definition(images):
    x, y = images((2, 1, 30, 37), torch.float64)
    window = Gaussian(7, 1.2)
    weights = torch.tensor(window.taps_x)[None, None]
    for padding in ("valid", "zeros"):
        options = {"window": window, "padding": padding}
        expected = reference.ssim(x.numpy(), y.numpy(), **options).mean((1, 2, 3))
        found, contrast = ours.ssim(x, y, weights, padding=padding == "zeros")
        assert np.abs(found.numpy() - expected).max() <= 1e-14
        expected = reference.ssim(x.numpy(), y.numpy(), k1=np.inf, **options).mean((1, 2, 3))
        assert np.abs(contrast.numpy() - expected).max() <= 1e-9


def test_a_signal_is_an_image_of_one_row(images):
    x, y = images((2, 3, 1, 50), torch.float64)
    window = Taps(([1.0], Gaussian(11, 1.5).taps_x))
    expected = reference.ssim(x.numpy(), y.numpy(), window=window).mean((1, 2, 3))
    found, _ = ours.ssim(x[:, :, 0], y[:, :, 0], torch.tensor(Gaussian(11, 1.5).taps_x).expand(3, 1, 11))
    assert np.abs(found.numpy() - expected).max() <= 1e-14


def test_an_odd_end_is_averaged_by_itself(images):
    x, y = images((1, 1, 31, 24), torch.float64)
    a, b = (np.pad(image.numpy(), ((0, 0), (0, 0), (0, 1), (0, 0)), mode="edge") for image in (x, y))
    window = {"window": Gaussian(5, 1.1)}
    first = reference.ssim(x.numpy(), y.numpy(), k1=np.inf, **window).mean((2, 3))
    second = reference.ssim(reference.halved(a), reference.halved(b), **window).mean((2, 3))
    weights = torch.tensor(window["window"].taps_x)[None, None]
    found = ours.ms_ssim(x, y, weights, SHORT.double())
    expected = (reference.power(first, 0.4) * reference.power(second, 0.6)).mean(1)
    assert np.abs(found.numpy() - expected).max() <= 1e-7  # of the weights


def test_images_of_one_shape_when_broadcast(images):
    x, y = images((3, 2, 20, 21))
    weights = kernel(1.5, 1.5)
    for found, expected in zip(ours.ssim(x, y[:1], weights), ours.ssim(x, y[:1].expand(x.shape), weights), strict=True):
        assert torch.equal(found, expected)


def test_errors_are_piqas(same_error, theirs):
    x, weights = torch.rand(1, 3, 20, 20), kernel(1.5, 1.5, 1.5)
    for one, other in (
        (ours.ssim, theirs.ssim),
        (lambda *a: ours.ms_ssim(*a, SHORT), lambda *a: theirs.ms_ssim(*a, SHORT)),
    ):
        same_error(RuntimeError, one, other, x, x, weights[:2])
        same_error(RuntimeError, one, other, x[..., :9, :9], x[..., :9, :9], weights)
        same_error(RuntimeError, one, other, x, x[..., :10], weights)
    for name in ("SSIM", "MS_SSIM"):
        both = getattr(ours, name)(), getattr(theirs, name)()
        same_error(AssertionError, *both, x[:, :2], x[:, :2])
        same_error(AssertionError, *both, x, x + 0.5)
        same_error(AssertionError, *both, x - 0.5, x)
        same_error(AssertionError, *both, x, x[..., :10])
        same_error(AssertionError, *both, x[0, 0], x[0, 0])
        same_error(AssertionError, *both, x.expand(1, 1, 1, 3, 20, 20), x.expand(1, 1, 1, 3, 20, 20))
    same_error(TypeError, ours.SSIM(unknown=1), theirs.SSIM(unknown=1), x, x)
    with pytest.raises(ValueError, match=r"kernel sums to 1\.5"):
        ours.ssim(x, x, torch.full((3, 1, 3), 0.5))


def test_weights_and_kernels_lose_no_gradient():
    x, y = torch.rand(2, 2, 3, 40, 40)
    taps = kernel(1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="weights wants a gradient"):
        ours.ms_ssim(x, y, taps, SHORT.clone().requires_grad_())
    with pytest.raises(ValueError, match="kernel wants a gradient"):
        ours.ssim(x, y, taps.requires_grad_())
