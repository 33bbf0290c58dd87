"""Multi-scale SSIM against the reference, another library's numbers, and where it is 0 or below."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as other_ms_ssim

from fastssim import Gaussian, MSSSIMLoss, Uniform, ms_ssim, reference

WINDOW = Gaussian((5, 3), (1.2, 0.8))
WEIGHTS = (0.2, 0.3, 0.5)


@pytest.mark.parametrize("padding", ["valid", "zeros"])
@pytest.mark.parametrize(("product", "reduction"), [("channel", "channel"), ("channel", "image"), ("image", "image")])
def test_value_and_gradients_equal_the_reference(images, product, reduction, padding):
    x, y = images((2, 3, 45, 50))
    options = {"window": WINDOW, "weights": WEIGHTS, "product": product, "padding": padding}
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = ms_ssim(a, b, reduction=reduction, **options)
    expected = reference.ms_ssim(x, y, **options)
    mean = product == "channel" and reduction == "image"
    assert np.abs(value.detach().numpy() - (expected.mean(1) if mean else expected)).max() <= 1e-6
    upstream = torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
    by_x, by_y = torch.autograd.grad(value, (a, b), upstream)
    weights = np.repeat(upstream.numpy()[:, None], 3, 1) / 3 if mean else upstream.numpy()
    for found, both in ((by_x, (x, y)), (by_y, (y, x))):
        gradient = reference.ms_ssim_gradient(*both, weights, **options)
        assert np.linalg.norm(found.numpy() - gradient) <= 3e-6 * np.linalg.norm(gradient)


def test_a_graph_that_is_kept_gives_its_gradient_again(images):
    x, y = images((1, 2, 45, 50))
    a = x.clone().requires_grad_()
    value = ms_ssim(a, y, window=WINDOW, weights=WEIGHTS)
    first, again = (torch.autograd.grad(value, a, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(value, a, create_graph=True)


@pytest.mark.parametrize("shape", [(2, 2, 45, 51), (2, 1, 48, 48)])
def test_many_upstream_gradients_at_once(images, shape):
    x, y = (image.requires_grad_() for image in images(shape))
    value = ms_ssim(x, y, window=WINDOW, weights=WEIGHTS, reduction="channel")
    upstreams = torch.rand((3, *value.shape), generator=torch.Generator().manual_seed(1))
    together = torch.autograd.grad(value, (x, y), upstreams, is_grads_batched=True, retain_graph=True)
    for number, upstream in enumerate(upstreams):
        for found, expected in zip(
            together, torch.autograd.grad(value, (x, y), upstream, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(found[number], expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_five_scales_equal_another_library(images, dtype):
    x, y = images((2, 3, 192, 208), dtype)
    expected = other_ms_ssim(x, y, data_range=1.0, size_average=False)
    found = ms_ssim(x, y, reduction="image")
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_images_are_exactly_one_with_a_gradient_of_exactly_zero(images, dtype):
    x, _ = images((1, 2, 48, 50), dtype)
    a = x.clone().requires_grad_()
    loss = MSSSIMLoss(window=WINDOW, weights=WEIGHTS)(a, x)
    loss.backward()
    assert loss.item() == 0
    assert (a.grad == 0).all()


@pytest.mark.parametrize("data_range", [255.0, 65535.0])
def test_data_range_scales_the_constants(images, data_range):
    x, y = images((1, 1, 48, 50))
    options = {"window": WINDOW, "weights": WEIGHTS}
    found = ms_ssim(x * data_range, y * data_range, data_range=data_range, **options)
    assert found.item() == pytest.approx(ms_ssim(x, y, **options).item(), abs=2e-6)


def test_integers_and_half_precision_shrink_like_what_they_stand_for(images):
    x, y = images((1, 1, 48, 50))
    options = {"window": WINDOW, "weights": WEIGHTS}
    bytes_of = (x * 255).round().to(torch.uint8)
    assert ms_ssim(bytes_of, y, **options) == ms_ssim(bytes_of.float() / 255, y, **options)
    assert ms_ssim(x.half(), y, **options) == ms_ssim(x.half().float(), y, **options)


def unlike(kind):
    """Pairs whose structure is opposite, absent, or nearly so."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.random((1, 2, 48, 50)), dtype=torch.float32)
    return {
        "opposite": (x, 1 - x),
        "one channel opposite": (x, torch.stack([1 - x[:, 0], x[:, 1]], 1)),
        "flat": (torch.zeros_like(x), torch.ones_like(x)),
        "unrelated": (x, torch.tensor(rng.random((1, 2, 48, 50)), dtype=torch.float32)),
        "huge": (x * 1e4, (1 - x) * 1e4),
    }[kind]


@pytest.mark.parametrize("product", ["channel", "image"])
@pytest.mark.parametrize("kind", ["opposite", "one channel opposite", "flat", "unrelated", "huge"])
def test_nothing_is_nan_or_infinite_at_zero_and_below(kind, product):
    x, y = (image.clone().requires_grad_() for image in unlike(kind))
    value = ms_ssim(x, y, window=Uniform(3), weights=WEIGHTS, product=product)
    value.backward()
    assert 0 <= value.item() <= 1
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(y.grad).all()
    if kind == "opposite":
        assert value.item() == 0


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"weights": ()}, TypeError, "one for each scale"),
        ({"weights": 0.5}, TypeError, "one for each scale"),
        ({"weights": (0.5, -0.5)}, ValueError, "a weight is -0.5"),
        ({"weights": (0.5, "1")}, TypeError, "a weight is a str"),
        ({"weights": (0.5, 10**400)}, ValueError, "it must be finite and above 0"),
        ({"weights": (0.5, np.float16("inf"))}, ValueError, "a weight is inf; it must be finite and above 0"),
        ({"product": "both"}, ValueError, "product is 'both'; give one of 'channel', 'image'"),
        ({"reduction": "none"}, ValueError, "reduction is 'none'"),
        (
            {"product": "image", "reduction": "channel"},
            ValueError,
            "reduction is 'channel'; give one of 'mean', 'image'",
        ),
    ],
)
def test_bad_options_are_refused(options, kind, words):
    x = torch.zeros(1, 1, 200, 200)
    with pytest.raises(kind, match=words):
        ms_ssim(x, x, **options)
    with pytest.raises(kind, match=words):
        MSSSIMLoss(**options)


def test_images_too_small_for_the_last_scale_are_refused():
    x = torch.zeros(1, 1, 175, 300)
    with pytest.raises(ValueError, match="at the last of 5 scales 10 x 18, too small"):
        ms_ssim(x, x)
    assert ms_ssim(x, x, padding="reflect").item() == 1
