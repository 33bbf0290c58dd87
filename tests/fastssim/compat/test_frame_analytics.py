"""`fastssim.compat.frame_analytics` against the definition and frame-analytics where it is installed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Taps, reference
from fastssim.compat import frame_analytics as ours


@pytest.fixture(scope="module")
def theirs():
    library = pytest.importorskip("frame_analytics")
    library.set_compile_enabled(flag=False)
    yield library
    library.set_compile_enabled(flag=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"win_size": 7, "sigma": 1.1, "K": (0.02, 0.05), "reduction": "none"},
        {"win_size": 6, "data_range": 2.0},
        {"return_map": True},
        {"luma": True, "crop_border": 3},
        {"luma": "bt709", "dtype": torch.float32},
        {"luma": "matlab", "data_range": 0.7, "return_map": True, "reduction": "none"},
    ],
    ids=str,
)
def test_ssim_is_theirs(images, parity, theirs, options):
    x, y = images((2, 3, 33, 41))
    original = partial(theirs.ssim, **options, backend_hint="torch")
    if "dtype" in options:  # which would be float32 for the oracle, too
        original = partial(theirs.ssim, backend_hint="torch", luma="bt709")
    parity(partial(ours.ssim, **options), original, x, y)


@pytest.mark.parametrize("size", [(600, 700), (395, 641)])  # averaged over 2 x 2 pixels, the border repeated
def test_large_images_are_averaged_as_matlab_does(images, parity, theirs, size):
    x, y = images((1, 1, *size))
    parity(partial(ours.ssim, downsample=True), partial(theirs.ssim, downsample=True, backend_hint="torch"), x, y)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (176, 192)),
        ({}, (177, 190)),  # odd at several scales
        ({"win_size": 6, "weights": (0.3, 0.7), "reduction": "none"}, (30, 41)),
        ({"win_size": 5, "sigma": 1.0, "weights": [0.2, 0.3, 0.5], "K": (0.02, 0.05), "data_range": 2.0}, (40, 45)),
        ({"luma": "matlab", "crop_border": 2, "weights": (0.4, 0.6)}, (50, 41)),
    ],
    ids=str,
)
def test_ms_ssim_is_theirs(images, parity, theirs, options, size):
    x, y = images((2, 3, *size))
    parity(partial(ours.ms_ssim, **options), partial(theirs.ms_ssim, **options, backend_hint="torch"), x, y)


@pytest.mark.parametrize(
    "options",
    [{}, {"win_size": 7, "sigma": 1.0, "K": [0.02, 0.05], "reduction": "none", "luma": "bt601", "crop_border": 1}],
    ids=str,
)
def test_modules_are_theirs(images, theirs, options):
    x, y = images((2, 3, 176, 180))
    for name in ("SSIM", "MSSSIM"):
        one, other = getattr(ours, name)(**options), getattr(theirs, name)(**options)
        found, expected = one.loss(x, y), other.loss(x.double(), y.double())
        assert found.dtype == expected.dtype
        assert (found - expected).abs().max() <= 1e-6
        assert (one(x, y) - other(x.double(), y.double())).abs().max() <= 1e-6
    assert ours.SSIM(return_map=True, data_range=1.0)(x, y).shape == (2, 3, 166, 170)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16, torch.float16, torch.float64])
def test_the_range_is_that_of_the_type(images, theirs, dtype):
    x, y = ((image * 200).round().to(dtype) for image in images((1, 1, 180, 181)))
    for name in ("ssim", "ms_ssim"):
        for options in ({}, {"data_range": 1.0}, {"data_range": 300.0}):
            if dtype == torch.float16 and not options:
                continue  # its rounding is no part of this
            found = getattr(ours, name)(x, y, **options)
            as_it_is = options or {"data_range": ours.INTEGERS.get(dtype, 1.0)}
            expected = getattr(theirs, name)(x.double(), y.double(), **as_it_is)
            assert found.dtype == torch.float64
            assert abs(found - expected) <= 1e-6


def test_the_mean_is_that_of_the_images_values(images):
    x, y = images((5, 1, 64, 64))
    assert abs(ours.ssim(x, y, reduction="none").mean() - ours.ssim(x, y)) <= 1e-15


def test_the_dtype_of_the_work_is_that_of_the_map(images):
    x, y = images((1, 1, 20, 21))
    for image, dtype, expected in (
        (x, None, torch.float32),
        (x.double(), None, torch.float64),
        (x.half(), None, torch.float32),
        (x, torch.float64, torch.float64),
        (x.double(), torch.float32, torch.float32),
        (x, torch.float16, torch.float16),
    ):
        assert ours.ssim(image, y, dtype=dtype, return_map=True).dtype == expected
    truth = reference.ssim(x.double().numpy(), y.double().numpy()).mean()
    assert abs(ours.ssim(x, y, dtype=torch.float64).item() - truth) <= 1e-14


def test_images_of_fewer_axes(images):
    x, y = images((3, 40, 40))
    assert ours.ssim(x, y) == ours.ssim(x[None], y[None])
    assert ours.ssim(x[0], y[0], return_map=True).shape == (1, 1, 30, 30)
    assert ours.ms_ssim(x[0], y[0], win_size=5, weights=(1, 2)) == ours.ms_ssim(
        x[None, :1], y[None, :1], win_size=5, weights=(1, 2)
    )


def test_ssim_is_the_definition(images):
    x, y = images((2, 1, 30, 37), torch.float64)
    expected = reference.ssim(x.numpy(), y.numpy(), window=Gaussian(7, 1.2)).mean((1, 2, 3))
    found = ours.ssim(x, y, win_size=7, sigma=1.2, reduction="none")
    assert np.abs(found.numpy() - expected).max() <= 1e-14
    bell = np.exp(-(((np.arange(4) - 1.5) / 1.2) ** 2) / 2).tolist()
    padded = [np.pad(image.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge") for image in (x, y)]
    expected = reference.ssim(*padded, window=Taps([*bell, 0.0])).mean((1, 2, 3))
    found = ours.ssim(x, y, win_size=4, sigma=1.2, reduction="none")
    assert np.abs(found.numpy() - expected).max() <= 1e-14


def test_gradients_with_and_without_a_mean_agree(images):
    x, y = images((3, 2, 24, 25), torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours.ssim(a, y).backward()
    ours.ssim(b, y, reduction="none").mean().backward()
    assert (a.grad - b.grad).abs().max() <= 1e-14 * a.grad.abs().max()
    assert a.grad.abs().max() > 0


def test_images_that_are_each_others_negative_score_nothing(images):
    x, _ = images((1, 1, 176, 176))
    negative = (1 - x).requires_grad_()
    value = ours.ms_ssim(negative, x)
    value.backward()
    assert value == 0
    assert not negative.grad.any()


def test_errors_are_theirs(same_error, theirs):
    x, colour = torch.rand(1, 1, 20, 20), torch.rand(1, 3, 20, 20)
    for name in ("ssim", "ms_ssim"):
        both = getattr(ours, name), getattr(theirs, name)
        same_error(ValueError, *both, x, x[..., :10])
        same_error(ValueError, *both, x[None], x[None])
        same_error(ValueError, *both, x[0, 0, 0], x[0, 0, 0])
        same_error(ValueError, *both, x, x, win_size=21)
        same_error(ValueError, *both, x, x, reduction="sum")
        same_error(ValueError, *both, x, x, luma="bt601")
        same_error(ValueError, *both, colour, colour, luma="bt2020")
        same_error(TypeError, *both, colour, colour, luma=601)
        same_error(ValueError, *both, x, x, crop_border=-1)
        same_error(ValueError, *both, x, x, crop_border=10)
        same_error(TypeError, *both, x, x, 1.0)  # options only by name
    same_error(ValueError, ours.ms_ssim, theirs.ms_ssim, x, x, weights=())
    x = torch.rand(1, 1, 20, 20, dtype=torch.complex64)
    with pytest.raises(TypeError, match="complex64"):
        ours.ssim(x, x)
    with pytest.raises(ValueError, match="no pixel"):
        ours.ssim(torch.zeros(0, 1, 20, 20), torch.zeros(0, 1, 20, 20))
    with pytest.raises(ValueError, match="windows of"):
        ours.ssim(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20), win_size=0)
