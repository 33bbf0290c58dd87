"""`fastssim.compat.piq` against the definition, and against piq where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastssim import Gaussian, reference
from fastssim.compat import piq as ours

WINDOW = {"kernel_size": 5, "kernel_sigma": 1.1}
SHORT = torch.tensor([0.4, 0.6])


@pytest.fixture(scope="module")
def theirs(part_of):
    return part_of("piq", "ssim", "ms_ssim")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "sum", "k1": 0.02, "k2": 0.05},
        {**WINDOW, "reduction": "none", "data_range": 2.0, "full": True},
        {**WINDOW, "full": True},
    ],
    ids=str,
)
def test_ssim_is_piqs(images, parity, theirs, options):
    x, y = images((3, 2, 33, 40))
    parity(lambda a, b: ours.ssim(a, b, **options), lambda a, b: theirs[0].ssim(a, b, **options), x, y)


@pytest.mark.parametrize("size", [(384, 400), (641, 390)])
@pytest.mark.parametrize("downsample", [True, False])
def test_large_images_are_averaged_first(images, parity, theirs, size, downsample):
    x, y = images((1, 1, *size))
    one, other = ours.SSIMLoss(downsample=downsample), theirs[0].SSIMLoss(downsample=downsample)
    parity(one, other, x, y)


@pytest.mark.parametrize(
    "options", [{}, {"scale_weights": SHORT, "reduction": "none", **WINDOW}, {"k1": 0.02, "reduction": "sum"}], ids=str
)
@pytest.mark.parametrize("size", [(176, 192), (176, 180), (177, 182)])  # all sides even, down to the last, or not
def test_ms_ssim_is_piqs(images, parity, theirs, options, size):
    x, y = images((2, 1, *size))
    parity(
        lambda a, b: ours.multi_scale_ssim(a, b, **options),
        lambda a, b: theirs[1].multi_scale_ssim(a, b, **options),
        x,
        y,
    )
    parity(ours.MultiScaleSSIMLoss(**options), theirs[1].MultiScaleSSIMLoss(**options), x, y)


@pytest.mark.parametrize("function", [ours.ssim, ours.multi_scale_ssim])
def test_images_without_a_pixel_are_refused_as_those_that_hold_no_window(function):
    x = torch.rand(3, 3, 0, 0)
    with pytest.raises(ValueError, match=r"x has shape \(3, 3, 0, 0\), no pixel"):
        function(x, x, kernel_size=1)


def test_errors_are_piqs(same_error, theirs):
    x = torch.rand(1, 1, 20, 20)
    for one, other in ((ours.ssim, theirs[0].ssim), (ours.multi_scale_ssim, theirs[1].multi_scale_ssim)):
        same_error(AssertionError, one, other, x, x, 4)
        same_error(AssertionError, one, other, x, x[..., :10])
        same_error(AssertionError, one, other, x, 2 * x + 1)
        same_error(AssertionError, one, other, x - 0.5, x)
        same_error(AssertionError, one, other, x.numpy(), x)
        same_error(AssertionError, one, other, x[0], x[0])
        same_error(ValueError, one, other, x, x, 21)
    same_error(ValueError, ours.multi_scale_ssim, theirs[1].multi_scale_ssim, x, x, 3, scale_weights=SHORT[None])
    same_error(ValueError, ours.ssim, theirs[0].ssim, x, x, reduction="image")
    same_error(AssertionError, ours.SSIMLoss, theirs[0].SSIMLoss, 4)


def test_ssim_is_the_definition_of_averaged_images(images):
    x, y = images((2, 1, 400, 390), torch.float64)
    a, b = (F.avg_pool2d(image, 2).numpy() for image in (x, y))
    options = {"window": Gaussian(5, 1.1), "k1": 0.02, "k2": 0.05}
    found, contrast = ours.ssim(x, y, **WINDOW, reduction="none", full=True, k1=0.02, k2=0.05)
    assert np.abs(found.numpy() - reference.ssim(a, b, **options).mean((1, 2, 3))).max() <= 1e-12
    options["k1"] = np.inf
    assert np.abs(contrast.numpy() - reference.ssim(a, b, **options).mean((1, 2, 3))).max() <= 1e-9
    assert ours.SSIMLoss(**WINDOW, reduction="sum", k1=0.02, k2=0.05)(x, y) == 1 - found.sum()  # as there


def test_an_odd_side_repeats_the_first_row_and_column(images):
    """One side odd, both are padded; the last row or column that then is left over is dropped."""
    x, y = images((1, 2, 31, 44), torch.float64)
    a, b = (np.pad(image.numpy(), ((0, 0), (0, 0), (1, 0), (1, 0)), mode="edge") for image in (x, y))
    window = {"window": Gaussian(5, 1.1)}
    first = reference.ssim(x.numpy(), y.numpy(), k1=np.inf, **window).mean((2, 3))
    second = reference.ssim(reference.halved(a), reference.halved(b), **window).mean((2, 3))
    found = ours.multi_scale_ssim(x, y, **WINDOW, scale_weights=SHORT.double(), reduction="none")
    expected = (reference.power(first, 0.4) * reference.power(second, 0.6)).mean(1)
    assert np.abs(found.numpy() - expected).max() <= 1e-7  # of the weights


def test_bytes_count_as_they_stand(images):
    x, y = ((image * 255).round().to(torch.uint8) for image in images((1, 1, 40, 44)))
    expected = ours.ssim(x.double() / 255, y.double() / 255)
    assert abs(ours.ssim(x, y, data_range=255) - expected) <= 1e-6
    assert abs(ours.ssim(x // 128, y // 128) - ours.ssim((x // 128).double(), (y // 128).double())) <= 1e-6


def test_complex_images_are_refused():
    x = torch.rand(1, 1, 20, 20, 2)
    for function in (ours.ssim, ours.multi_scale_ssim):
        with pytest.raises(NotImplementedError, match="real images"):
            function(x, x)


def test_losses_are_losses_of_torch():
    assert isinstance(ours.SSIMLoss(), torch.nn.modules.loss._Loss)
    assert isinstance(ours.MultiScaleSSIMLoss(), torch.nn.modules.loss._Loss)


def test_weights_may_stand_in_a_column_and_lose_no_gradient():
    x, y = torch.rand(2, 2, 1, 40, 40)
    expected = ours.multi_scale_ssim(x, y, **WINDOW, scale_weights=SHORT)
    assert ours.multi_scale_ssim(x, y, **WINDOW, scale_weights=SHORT[:, None]) == expected
    with pytest.raises(ValueError, match="Expected a vector of weights, got 2D"):
        ours.multi_scale_ssim(x, y, **WINDOW, scale_weights=SHORT[None])
    with pytest.raises(ValueError, match="scale_weights wants a gradient"):
        ours.multi_scale_ssim(x, y, **WINDOW, scale_weights=SHORT.clone().requires_grad_())
