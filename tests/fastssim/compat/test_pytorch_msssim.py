"""`fastssim.compat.pytorch_msssim` against pytorch-msssim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim import reference
from fastssim.compat import pytorch_msssim as ours

theirs = pytest.importorskip("pytorch_msssim")
SHORT = (0.4, 0.6)  # weights of two scales
EXACT = {"win_size": 5, "win_sigma": 1.1}  # the original rounds its taps to float32; this sum stays 1, thrice taken too


def window(*sigmas, size=9):
    places = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.stack([torch.exp(-0.5 * (places / sigma) ** 2) for sigma in sigmas])
    return (taps / taps.sum(1, keepdim=True))[:, None, None]


OPTIONS = [
    {},
    {"data_range": 1.0},
    {"data_range": 1, "size_average": False},
    {"data_range": 1.0, "win_size": 7},
    {"data_range": 1.0, "win_size": 5, "win_sigma": 0.7},
    {"data_range": 1.0, "K": [0.02, 0.4]},
    {"data_range": 1.0, "nonnegative_ssim": True},
    {"data_range": 1.0, "win": window(1.2, 1.2)},
    {"data_range": 1.0, "win": window(1.2, 2.5), "size_average": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ssim(images, parity, options):
    x, y = images((2, 2, 37, 44))
    parity(lambda a, b: ours.ssim(a, b, **options), lambda a, b: theirs.ssim(a, b, **options), x, y)


@pytest.mark.parametrize("size", [3, 5, 7, 11, 33])
@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_windows_of_every_size(images, parity, size, sigma):
    """The original rounds taps of its own making to float32, which moves gradients by up to 3e-5 of the largest."""
    x, y = images((2, 2, 37, 44))
    exact = {"win": window(sigma, sigma, size=size)}
    parity(
        lambda a, b: ours.ssim(a, b, 1.0, win_size=size, win_sigma=sigma),
        lambda a, b: theirs.ssim(a, b, 1.0, **exact),
        x,
        y,
        gradient=2e-6,
    )


def test_negative_means_of_channels_become_zero(images, parity):
    x, y = images((2, 2, 37, 44))
    y = torch.stack([1 - x[:, 0], y[:, 1]], 1)
    options = {"data_range": 1.0, "nonnegative_ssim": True, "size_average": False}
    assert (ours.ssim(x, y, 1.0, size_average=False) < ours.ssim(x, y, **options)).all()
    parity(lambda a, b: ours.ssim(a, b, **options), lambda a, b: theirs.ssim(a, b, **options), x, y)


@pytest.mark.parametrize("shape", [(2, 2, 37, 8), (1, 1, 6, 40), (1, 2, 5, 7)])
def test_an_axis_shorter_than_the_window_is_not_filtered(images, parity, shape):
    x, y = images(shape)
    with pytest.warns(UserWarning, match="Skipping Gaussian Smoothing at dimension") as warned:
        parity(lambda a, b: ours.ssim(a, b, 1.0), lambda a, b: theirs.ssim(a, b, 1.0), x, y)
    assert warned[0].filename == __file__


def test_axes_of_one_pixel_are_dropped(images):
    x, y = images((2, 2, 37, 44))
    assert ours.ssim(x[:, :, None], y[:, :, None], 1.0) == ours.ssim(x, y, 1.0)


@pytest.mark.parametrize("size", [(176, 192), (176, 180), (177, 181)])  # all sides even, down to the last, or not
@pytest.mark.parametrize("options", [{}, {"size_average": False, "K": (0.02, 0.05)}], ids=str)
def test_ms_ssim(images, parity, size, options):
    x, y = images((2, 1, *size))
    parity(lambda a, b: ours.ms_ssim(a, b, 1.0, **options), lambda a, b: theirs.ms_ssim(a, b, 1.0, **options), x, y)


def test_a_scale_of_weight_0_is_left_out_also_where_its_contrast_is_negative(images, parity):
    x, y = (0.4 * image.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.3 for image in images((1, 2, 90, 90)))
    board = 0.3 * ((-1.0) ** (torch.arange(180)[:, None] + torch.arange(180)))  # its mean over 2 x 2 pixels is 0
    assert ours.ms_ssim(x + board, y - board, 1.0, weights=[1e-3, 1.0]) == 0
    for function in (ours.ms_ssim, theirs.ms_ssim):
        assert function(x + board, y - board, 1.0, weights=[0.0, 1.0]) > 0.1
    options = {**EXACT, "weights": [0.0, 1.0]}
    parity(
        lambda a, b: ours.ms_ssim(a + board, b - board, 1.0, **options),
        lambda a, b: theirs.ms_ssim(a + board, b - board, 1.0, **options),
        x,
        y,
    )


@pytest.mark.parametrize(
    ("options", "gradient"),
    [
        ({"win_size": 5, "weights": SHORT}, 2e-5),  # measured 1.3e-5: taps that the original rounds to float32
        ({**EXACT, "weights": SHORT}, 1e-5),
        ({"win": window(1.0, 2.0), "weights": [1.0]}, 1e-5),
    ],
)
def test_ms_ssim_of_other_scales(images, parity, options, gradient):
    x, y = images((1, 2, 131, 140))
    parity(
        lambda a, b: ours.ms_ssim(a, b, 1.0, **options),
        lambda a, b: theirs.ms_ssim(a, b, 1.0, **options),
        x,
        y,
        gradient=gradient,
    )


def test_modules(images, parity):
    x, y = images((2, 3, 81, 84))
    options = {"data_range": 2.0, "size_average": False, "win_size": 5, "win_sigma": 1.1, "K": (0.02, 0.05)}
    for name, more in (("SSIM", {"nonnegative_ssim": True}), ("MS_SSIM", {"weights": list(SHORT)})):
        one, other = getattr(ours, name)(**options, **more), getattr(theirs, name)(**options, **more)
        assert {"win_size", "size_average", "data_range", "K"} <= vars(one).keys()
        assert torch.allclose(one.win, other.win, rtol=0, atol=1e-7)
        assert one.win.shape == other.win.shape
        parity(one, other, x, y)


@pytest.mark.parametrize("function", ["ssim", "ms_ssim"])
def test_errors(same_error, function):
    one, other = getattr(ours, function), getattr(theirs, function)
    x = torch.rand(1, 2, 170, 170)
    same_error(ValueError, one, other, x, x[:, :1])
    same_error(ValueError, one, other, x[0], x[0])
    same_error(ValueError, one, other, x, x, win_size=6)
    same_error(ValueError, one, other, x, x, win=torch.full((2, 1, 1, 4), 0.25))
    same_error(RuntimeError, one, other, x, x, win=window(1.0, 1.0, 1.0))


def test_images_too_small_for_five_scales(same_error):
    x = torch.rand(1, 1, 160, 200)
    same_error(AssertionError, ours.ms_ssim, theirs.ms_ssim, x, x)
    same_error(AssertionError, ours.ms_ssim, theirs.ms_ssim, x, x, weights=[0.5, 0.5])


def test_a_window_that_does_not_sum_to_one_is_refused():
    x = torch.rand(1, 1, 20, 20)
    with pytest.raises(ValueError, match=r"win sums to 3\.0"):
        ours.ssim(x, x, win=torch.ones(1, 1, 1, 3))


@pytest.mark.parametrize(
    "options",
    [
        EXACT,
        {**EXACT, "size_average": False, "K": (0.02, 0.4), "nonnegative_ssim": True},
        {"win": window(0.8, 2.5, size=5)[:, None], "size_average": False},
    ],
    ids=str,
)
def test_ssim_of_volumes(images, parity, options):
    x, y = images((2, 2, 9, 12, 13))
    parity(lambda a, b: ours.ssim(a, b, 1.0, **options), lambda a, b: theirs.ssim(a, b, 1.0, **options), x, y)


def test_an_axis_of_a_volume_that_is_shorter_than_the_window(images, parity):
    x, y = images((1, 1, 3, 12, 13))
    with pytest.warns(UserWarning, match="Skipping Gaussian Smoothing at dimension"):
        parity(lambda a, b: ours.ssim(a, b, 1.0, **EXACT), lambda a, b: theirs.ssim(a, b, 1.0, **EXACT), x, y)


def test_modules_of_volumes(images, parity):
    x, y = images((1, 2, 13, 66, 65))
    options = {**EXACT, "data_range": 1.0, "channel": 2, "spatial_dims": 3}
    for name, more in (("SSIM", {}), ("MS_SSIM", {"weights": list(SHORT), "size_average": False})):
        one, other = getattr(ours, name)(**options, **more), getattr(theirs, name)(**options, **more)
        assert one.win.shape == other.win.shape
        parity(one, other, x, y)


def test_integers_and_halves_count_as_they_stand(images):
    x, y = images((1, 2, 30, 32))
    a, b = ((image * 255).round() for image in (x, y))
    expected = theirs.ssim(a.double(), b.double())
    for dtype in (torch.uint8, torch.int32):
        assert abs(ours.ssim(a.to(dtype), b.to(dtype)) - expected) <= 1e-6
    ones = (x > 0.5).to(torch.uint8), (y > 0.5).to(torch.uint8)
    assert abs(ours.ssim(*ones, 1) - reference.ssim(*(image.numpy() for image in ones)).mean()) <= 1e-6
    half = ours.ssim(x.half(), y.half(), 1.0)
    assert half.dtype == theirs.ssim(x.half(), y.half(), 1.0).dtype == torch.float16
    assert abs(half - theirs.ssim(x.half().double(), y.half().double(), 1.0)) <= 5e-4


def test_opposite_images_score_zero_with_a_gradient_of_zero():
    x = torch.rand(1, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    for function in (ours.ms_ssim, theirs.ms_ssim):
        a = x.clone().requires_grad_()
        value = function(a, 1 - x, 1.0)
        value.backward()
        assert value == 0
        assert (a.grad == 0).all()


@pytest.mark.parametrize("data_range", [torch.tensor(2.0), np.float32(2), np.int64(2), True], ids=repr)
def test_a_range_may_be_any_kind_of_number(images, data_range):
    x, y = images((1, 2, 176, 176))
    for ours_is, theirs_is in ((ours.ssim, theirs.ssim), (ours.ms_ssim, theirs.ms_ssim)):
        assert abs(ours_is(x, y, data_range) - theirs_is(x.double(), y.double(), data_range)) <= 1e-6


def test_constants_may_be_a_tensor_and_nothing_loses_a_gradient(images):
    x, y = images((1, 1, 48, 48))
    constants = torch.tensor([0.02, 0.04])
    assert ours.ssim(x, y, 1.0, K=constants) == ours.ssim(x, y, 1.0, K=constants.tolist())
    size = {"win_size": 3, "data_range": 1.0}
    assert ours.ms_ssim(x, y, K=constants, **size) == ours.ms_ssim(x, y, K=constants.tolist(), **size)
    wanted = torch.tensor([0.5, 0.5], requires_grad=True)
    with pytest.raises(ValueError, match=r"data_range wants a gradient.*give data_range\.detach"):
        ours.ssim(x, y, wanted[0])
    with pytest.raises(ValueError, match="weights wants a gradient"):
        ours.ms_ssim(x, y, weights=wanted, **size)
    with torch.no_grad():
        ours.ms_ssim(x, y, weights=wanted, **size)
    with pytest.raises(ValueError, match="weights is empty; give a weight for every scale"):
        ours.ms_ssim(x, y, weights=[], **size)
