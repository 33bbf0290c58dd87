"""`fastssim.ssim` against the float64 reference, and its own properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import brick, camera

import fastssim
from fastssim import Gaussian, SSIMLoss, Uniform, reference, ssim, ssim_loss

VALUE = {torch.float32: 1e-6, torch.float64: 1e-13}
GRADIENT = {torch.float32: 2e-6, torch.float64: 1e-12}  # relative L2; measured 2e-7 to 8e-7 in float32
WINDOWS = [
    (Gaussian(), torch.float32),
    (Uniform(7), torch.float32),
    (Gaussian(3, 0.5), torch.float32),
    (Gaussian(17, 3.0), torch.float32),
    (Gaussian(), torch.float64),
]
SHAPES = [
    (1, 1, 17, 17),
    (2, 3, 18, 23),
    (1, 1, 19, 600),
    (1, 2, 601, 17),
    (3, 1, 131, 257),
    (1, 1, 139, 266),
]


def reduced(ssim_map, reduction):
    """The reference's map, reduced."""
    return {"mean": ssim_map.mean(), "image": ssim_map.mean((1, 2, 3)), "none": ssim_map}[reduction]


def spread(upstream, map_shape, reduction):
    """The weight that an upstream gradient gives each window."""
    count = np.prod(map_shape[1:])
    if reduction == "mean":
        return np.full(map_shape, upstream / (count * map_shape[0]))
    if reduction == "image":
        return np.broadcast_to(upstream[:, None, None, None] / count, map_shape)
    return upstream


def map_bound(window, dtype):
    """Largest error of one window on `images`, whose steep waves leave some windows little variance beside their mean.

    Measured in float32: 2.5e-6 for large Gaussian windows, 3e-7 for those that are filtered in float64.
    """
    in_float64 = isinstance(window, Uniform) or sum(window.shape) < 16
    return {torch.float32: 1e-6 if in_float64 else 4e-6, torch.float64: 1e-11}[dtype]


def assert_gradient_close(gradient, expected, dtype):
    difference = np.linalg.norm(gradient.numpy() - expected) / np.linalg.norm(expected)
    assert difference <= GRADIENT[dtype]
    assert np.abs(gradient.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("window", "dtype"), WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_map_and_gradients_equal_the_reference(images, shape, window, dtype):
    x, y = images(shape, dtype)
    expected = reference.ssim(x, y, window=window)
    for reduction, bound in (("mean", VALUE[dtype]), ("image", VALUE[dtype]), ("none", map_bound(window, dtype))):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = ssim(a, b, window=window, reduction=reduction)
        assert value.dtype == dtype
        assert value.shape == torch.Size(np.shape(reduced(expected, reduction)))
        assert np.abs(value.detach().numpy() - reduced(expected, reduction)).max() <= bound
        without_gradient = ssim(x, y, window=window, reduction=reduction)
        torch.testing.assert_close(without_gradient, value.detach(), rtol=0, atol=bound)

        upstream = torch.rand(value.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        by_x, by_y = torch.autograd.grad(value, (a, b), upstream)
        weights = spread(upstream.numpy(), expected.shape, reduction)
        assert_gradient_close(by_x, reference.ssim_gradient(x, y, weights, window=window), dtype)
        assert_gradient_close(by_y, reference.ssim_gradient(y, x, weights, window=window), dtype)


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 60), st.integers(0, 60),
    st.sampled_from([1, 3, 5, 7, 11]), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_random_shapes_equal_the_reference(images, n, c, more_y, more_x, size, gaussian, seed):
    window = Gaussian(size, 1.5) if gaussian else Uniform(size)
    x, y = images((n, c, size + more_y, size + more_x), seed=seed)
    a = x.clone().requires_grad_()
    value = ssim(a, y, window=window)
    value.backward()
    expected = reference.ssim(x, y, window=window)
    assert abs(value.item() - expected.mean()) <= 1e-6
    gradient = reference.ssim_gradient(x, y, np.full(expected.shape, 1 / expected.size), window=window)
    assert np.abs(a.grad.numpy() - gradient).max() <= 1e-5 * np.abs(gradient).max()


@pytest.mark.parametrize("photograph", [camera, brick])
def test_photographs_equal_the_reference(photograph):
    clean = photograph()[:300, :411] / 255
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.05, clean.shape), 0, 1)
    x, y = (torch.tensor(image, dtype=torch.float32)[None, None] for image in (clean, noisy))
    a = x.clone().requires_grad_()
    value = ssim(a, y)
    value.backward()
    expected = reference.ssim(x, y)
    assert abs(value.item() - expected.mean()) <= 1e-6
    assert_gradient_close(
        a.grad, reference.ssim_gradient(x, y, np.full(expected.shape, 1 / expected.size)), torch.float32
    )


@pytest.mark.parametrize(("level", "spread_of"), [(0.98, 0.002), (0.02, 0.002), (0.5, 1e-4)])
def test_flat_patches_keep_their_precision(level, spread_of):
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(level + spread_of * rng.standard_normal((1, 1, 64, 80)), dtype=torch.float32) for _ in "xy")
    assert np.abs(ssim(x, y, reduction="none").numpy() - reference.ssim(x, y)).max() <= 2e-6


@pytest.mark.parametrize("data_range", [255.0, 65535.0])
def test_data_range_scales_the_constants(images, data_range):
    x, y = images((1, 2, 40, 50))
    scaled = ssim(x * data_range, y * data_range, data_range=data_range)
    assert abs(scaled.item() - reference.ssim(x * data_range, y * data_range, data_range=data_range).mean()) <= 1e-6
    assert scaled.item() == pytest.approx(ssim(x, y).item(), abs=1e-6)


def test_constants_reach_the_formula(images):
    x, y = images((1, 1, 30, 30))
    assert ssim(x, y, k1=0.3, k2=0.5).item() == pytest.approx(reference.ssim(x, y, k1=0.3, k2=0.5).mean(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_images_are_exactly_one_with_a_gradient_of_exactly_zero(images, dtype):
    x, _ = images((2, 3, 150, 290), dtype)
    a = x.clone().requires_grad_()
    value = ssim(a, x)
    value.backward()
    assert value.item() == 1
    assert (a.grad == 0).all()
    assert (ssim(x, x, reduction="none") == 1).all()


def test_gradcheck_in_float64(images):
    x, y = (t.requires_grad_() for t in images((2, 2, 13, 15), torch.float64))
    for reduction in ("mean", "image", "none"):
        assert torch.autograd.gradcheck(lambda a, b, r=reduction: ssim(a, b, reduction=r), (x, y))


def test_ssim_is_symmetric_and_blind_to_mirroring(images):
    x, y = images((1, 2, 60, 70), torch.float64)
    value = ssim(x, y).item()
    assert ssim(y, x).item() == pytest.approx(value, abs=1e-14)
    assert ssim(x.flip(-1), y.flip(-1)).item() == pytest.approx(value, abs=1e-14)
    assert ssim(x.transpose(2, 3), y.transpose(2, 3)).item() == pytest.approx(value, abs=1e-14)


def test_results_are_the_same_to_the_bit_for_every_thread_count(images, with_every_thread_count):
    x, y = images((2, 3, 300, 301))

    def score():
        a = x.clone().requires_grad_()
        value = ssim(a, y)
        value.backward()
        return (value.item(), ssim(x, y).item()), a.grad

    results = with_every_thread_count(score)
    assert len({values for values, _ in results}) == 1
    assert all(torch.equal(gradient, results[0][1]) for _, gradient in results)


def test_any_strides_give_the_same_numbers(images):
    x, y = images((2, 3, 40, 50))
    expected = ssim(x, y, reduction="image")
    lasting = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ssim(lasting, y, reduction="image"), expected)
    assert torch.equal(ssim(x.transpose(2, 3).contiguous().transpose(2, 3), y, reduction="image"), expected)
    flipped = x.flip(-1)
    assert torch.equal(ssim(flipped[..., ::1].flip(-1), y, reduction="image"), expected)
    one = y[:1].expand(2, -1, -1, -1)
    assert torch.equal(ssim(x, one, reduction="image"), ssim(x, one.contiguous(), reduction="image"))
    a = lasting.clone(memory_format=torch.preserve_format).requires_grad_()
    b = x.clone().requires_grad_()
    ssim(a, y).backward()
    ssim(b, y).backward()
    assert torch.equal(a.grad, b.grad)


def test_upstream_of_a_map_may_be_expanded(images):
    x, y = images((1, 2, 30, 40))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ssim(a, y, reduction="none").sum().backward()  # an upstream gradient of stride 0
    ssim(b, y).mul(2 * 20 * 30).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_pixel_spoils_only_the_windows_that_touch_it(images, bad):
    x, y = images((1, 1, 60, 300))
    clean = ssim(x, y, reduction="none")
    x[0, 0, 30, 150] = bad
    spoilt = ssim(x, y, reduction="none")
    touched = torch.zeros_like(spoilt, dtype=torch.bool)
    touched[0, 0, 20:31, 140:151] = True
    assert not torch.isfinite(spoilt[touched]).any()
    torch.testing.assert_close(spoilt[~touched], clean[~touched], rtol=0, atol=2e-6)


def test_a_bad_pixel_where_the_pivot_is_taken_spoils_no_other_window(images):
    x, y = images((1, 1, 40, 40))
    x[0, 0, 0, 0] = float("nan")
    assert torch.isfinite(ssim(x, y, reduction="none")[0, 0, 1:, 1:]).all()


def test_loss_is_one_minus_ssim(images):
    x, y = images((2, 1, 30, 30))
    expected = 1 - ssim(x, y, window=Uniform(5))
    assert ssim_loss(x, y, window=Uniform(5)) == expected
    module = SSIMLoss(window=Uniform(5))
    assert module(x, y) == expected
    assert "Uniform(size=5)" in repr(module)
    assert list(module.parameters()) == []


def test_the_gradient_of_the_gradient_is_refused(images):
    x, y = images((1, 1, 20, 20))
    for reduction in ("mean", "none"):
        a = x.clone().requires_grad_()
        with pytest.raises(NotImplementedError, match="create_graph"):
            torch.autograd.grad(ssim(a, y, reduction=reduction).sum(), a, create_graph=True)


def test_backward_can_run_twice_on_a_retained_graph(images):
    x, y = images((1, 1, 20, 20))
    a = x.clone().requires_grad_()
    value = ssim(a, y)
    (first,) = torch.autograd.grad(value, a, retain_graph=True)
    (second,) = torch.autograd.grad(3 * value, a)
    torch.testing.assert_close(second, 3 * first)


class TestBadInput:
    """Each says what came, what is allowed, what to do."""

    x = torch.zeros(1, 1, 16, 16)

    @pytest.mark.parametrize(
        ("x", "y", "kind", "words"),
        [
            (x, np.zeros((1, 1, 16, 16)), TypeError, "x is a Tensor and y a ndarray; give two of one kind"),
            ([[1.0]], x, TypeError, "x is a list; give a torch.Tensor, a NumPy array"),
            (x, x.int(), TypeError, "y is torch.int32; give float16.*uint16"),
            (np.zeros((16, 16), ">f4"), np.zeros((16, 16), ">f4"), TypeError, "x is an array of >f4.*byte order"),
            (x[0, 0, 0], x[0, 0, 0], ValueError, r"x has shape \(16,\).*\(C, H, W\)"),
            (x, x[..., :15], ValueError, "they must be equal"),
            (x, x[0], ValueError, "they must be equal"),
            (x[:0], x[:0], ValueError, "no pixel at all"),
            (x[..., :10], x[..., :10], ValueError, "16 x 10 pixels, smaller than the window of 11 x 11"),
            (x.to_sparse(), x, TypeError, "dense"),
            (x.to("meta"), x.to("meta"), ValueError, "x is on meta"),
            (x, x.to("meta"), ValueError, "x is on cpu and y on meta"),
        ],
    )
    def test_images(self, x, y, kind, words):
        with pytest.raises(kind, match=words):
            ssim(x, y)

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_nested_tensors(self):
        nested = torch.nested.nested_tensor([self.x[0], self.x[0]])
        for x, y, name in ((nested, nested, "x"), (self.x, nested, "y")):
            with pytest.raises(TypeError, match=rf"{name} is a nested tensor; give its images one by one, {name}.unbi"):
                ssim(x, y)

    @pytest.mark.parametrize(
        ("options", "kind", "words"),
        [
            ({"data_range": 0}, ValueError, "data_range is 0; it must be finite and above 0"),
            ({"data_range": -1.0}, ValueError, "data_range is -1.0"),
            ({"data_range": float("nan")}, ValueError, "data_range is nan"),
            ({"data_range": "1"}, TypeError, "data_range is a str"),
            ({"k1": float("inf")}, ValueError, "k1 is inf"),
            ({"k2": -0.1}, ValueError, "k2 is -0.1"),
            ({"window": 11}, TypeError, "window is a int; give fastssim.Gaussian"),
            ({"data_range": True}, TypeError, "data_range is a bool"),
            ({"window": [1, 2, 1]}, TypeError, "window is a list"),
            ({"padding": "same"}, ValueError, "padding is 'same'; give one of 'valid', 'zeros', 'reflect'"),
            ({"reduction": "avg"}, ValueError, "reduction is 'avg'; give one of 'mean', 'sum', 'image', 'channel'"),
            ({"unbiased": 1}, TypeError, "unbiased is a int"),
            ({"unbiased": True, "window": Uniform(1)}, ValueError, "more than one pixel"),
        ],
    )
    def test_options(self, options, kind, words):
        with pytest.raises(kind, match=words):
            ssim(self.x, self.x, **options)
        with pytest.raises(kind, match=words):
            SSIMLoss(**options)


def test_public_names_exist():
    assert all(hasattr(fastssim, name) for name in fastssim.__all__)
