"""SSIM of volumes, `dims=3`, against the float64 reference, and its own properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastssim
from fastssim import Gaussian, L1SSIMLoss, MSSSIMLoss, SSIMLoss, Taps, Uniform, l1_ssim_loss, reference, ssim, ssim_map
from fastssim.cpu import plain, volume, volume_launch
from fastssim.plan import PADDINGS, Plan

WINDOW = Gaussian((3, 5, 7), (0.8, 1.2, 1.5))
SHAPES = [(2, 1, 3, 5, 7), (1, 2, 7, 11, 13), (1, 1, 2, 41, 5), (2, 1, 19, 1, 1), (1, 1, 3, 5, 301)]
VALUE = {torch.float32: 1e-6, torch.float64: 1e-13}
MAP = {torch.float32: 2e-6, torch.float64: 1e-11}
GRADIENT = {torch.float32: 2e-6, torch.float64: 1e-12}  # relative L2


@pytest.fixture(autouse=True)
def a_fresh_layout():
    volume_launch._layout.cache_clear()
    yield
    volume_launch._layout.cache_clear()


@pytest.fixture
def small_bricks(monkeypatch):
    """Many bricks along every axis of a small volume."""
    monkeypatch.setattr(volume, "BRICK_PLANES", 5)
    monkeypatch.setattr(volume, "BRICK_ROWS", 6)
    monkeypatch.setattr(volume, "BRICK_COLUMNS", 16)


def pair(shape, dtype=torch.float64, seed=0):
    """Two related volumes in [0, 1]: waves steeper than the window is wide, with noise."""
    rng = np.random.default_rng(seed)
    places = np.ogrid[tuple(slice(length) for length in shape[-3:])]
    clean = 0.5 + 0.4 * math.prod(
        np.sin(place / pace + rng.random()) for place, pace in zip(places, (4, 5, 7), strict=True)
    )
    x = np.clip(clean + rng.normal(0, 0.05, shape), 0, 1)
    y = np.clip(x + rng.normal(0, 0.1, shape), 0, 1)
    return torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)


def relative(found, expected):
    return np.linalg.norm(found.numpy() - expected) / max(np.linalg.norm(expected), 1e-30)


def assert_equal_to_the_reference(x, y, *, reductions=("mean", "none"), **options):
    """Map, value and both gradients."""
    dtype = x.dtype
    expected = reference.ssim(x, y, dims=3, **options)
    found = ssim_map(x, y, dims=3, **options)
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= MAP[dtype]
    for reduction in reductions:
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = ssim(a, b, dims=3, reduction=reduction, **options)
        upstream = torch.rand(value.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        weights = upstream.numpy()
        if reduction != "none":
            axes = {"mean": None, "sum": None, "image": (1, 2, 3, 4), "channel": (2, 3, 4)}[reduction]
            wanted = expected.sum(axes) if reduction == "sum" else expected.mean(axes)
            size = expected.size if reduction == "sum" else 1
            assert np.abs(value.detach().numpy() - wanted).max() <= VALUE[dtype] * size
            without = ssim(x, y, dims=3, reduction=reduction, **options)
            assert torch.abs(without - value).max() <= VALUE[dtype] * size
            share = wanted.size / expected.size if reduction != "sum" else 1
            weights = weights.reshape(*weights.shape, *[1] * (5 - weights.ndim)) * share
            weights = np.broadcast_to(weights, expected.shape)
        by_x, by_y = torch.autograd.grad(value, (a, b), upstream)
        assert relative(by_x, reference.ssim_gradient(x, y, weights, dims=3, **options)) <= GRADIENT[dtype]
        assert relative(by_y, reference.ssim_gradient(y, x, weights, dims=3, **options)) <= GRADIENT[dtype]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_padding_and_awkward_shape_equals_the_reference(shape, padding):
    if padding == "valid" and any(length < size for length, size in zip(shape[2:], WINDOW.shape, strict=True)):
        pytest.skip("no window fits")
    assert_equal_to_the_reference(*pair(shape), window=WINDOW, padding=padding)


def test_a_single_pixel_among_zeros_equals_the_reference():
    assert_equal_to_the_reference(*pair((1, 1, 1, 1, 1)), window=WINDOW, padding="zeros")


@pytest.mark.parametrize("padding", PADDINGS[2:])
def test_a_single_pixel_repeated_has_no_variance(padding):
    """The closed form: what rounding leaves of a variance costs the reference's gradient 1.7e-12 here."""
    x, y = (image.requires_grad_() for image in pair((1, 1, 1, 1, 1)))
    value = ssim(x, y, window=WINDOW, padding=padding, dims=3)
    expected = (2 * x * y + 1e-4) / (x * x + y * y + 1e-4)
    torch.testing.assert_close(value, expected.sum(), rtol=1e-15, atol=0)
    found, wanted = (torch.autograd.grad(result, (x, y)) for result in (value, expected.sum()))
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize("padding", ["valid", "reflect"])
def test_every_reduction_equals_the_reference(padding):
    reductions = ("mean", "sum", "image", "channel", "none")
    assert_equal_to_the_reference(*pair((2, 3, 7, 9, 11)), window=WINDOW, padding=padding, reductions=reductions)


@pytest.mark.parametrize(
    "window", [Uniform((3, 5, 7)), Taps(([1, 2, 4], [3, 0, 1, 2, 0], [1, 1, 5, 1, 1, 0, 9]))], ids=repr
)
def test_every_kind_of_window_equals_the_reference(window):
    assert_equal_to_the_reference(*pair((1, 1, 13, 17, 19)), window=window)


@pytest.mark.parametrize(
    ("window", "dtype"),
    [(Gaussian(), torch.float32), (Uniform((1, 1, 3)), torch.float64), (Uniform(1), torch.float64)],
    ids=str,
)
def test_windows_of_any_size_equal_the_reference(window, dtype):
    x, y = pair((1, 1, 14, 31, 21), dtype)
    a = x.clone().requires_grad_()
    value = ssim(a, y, window=window, dims=3)
    value.backward()
    expected = reference.ssim(x, y, window=window, dims=3)
    assert abs(value.item() - expected.mean()) <= VALUE[dtype]
    gradient = reference.ssim_gradient(x, y, np.full(expected.shape, 1 / expected.size), window=window, dims=3)
    assert relative(a.grad, gradient) <= GRADIENT[dtype]


@pytest.mark.parametrize("padding", ["valid", "symmetric"])
def test_unbiased_moments_equal_the_reference(padding):
    options = {"window": Uniform((3, 5, 7)), "padding": padding, "unbiased": True}
    assert_equal_to_the_reference(*pair((1, 1, 5, 11, 13)), **options)


@pytest.mark.parametrize("padding", ["valid", "zeros", "reflect"])
def test_single_precision_equals_the_reference(padding):
    assert_equal_to_the_reference(*pair((1, 2, 12, 43, 21), torch.float32), window=WINDOW, padding=padding)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.usefixtures("small_bricks")
def test_bricks_know_nothing_of_each_other(padding):
    assert_equal_to_the_reference(*pair((1, 2, 12, 15, 43)), window=WINDOW, padding=padding)


@settings(max_examples=25)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.sampled_from(PADDINGS[1:]), st.integers(0, 2**31))
def test_random_shapes_equal_the_reference(lengths, padding, seed):
    x, y = pair((1, 1, *lengths), seed=seed)
    a, b = x.requires_grad_(), y.requires_grad_()
    ssim(a, b, dims=3, window=WINDOW, padding=padding, reduction="sum").backward()
    for image, pixels in ((a, (x, y)), (b, (y, x))):
        first, second = (other.detach() for other in pixels)
        expected = reference.ssim_gradient(first, second, np.ones(x.shape), dims=3, window=WINDOW, padding=padding)
        assert np.abs(image.grad.numpy() - expected).max() <= 1e-10 * max(np.abs(expected).max(), 1e-6)


def test_a_window_of_one_plane_sees_every_plane_as_an_image():
    x, y = pair((2, 3, 6, 20, 30))
    planes = [ssim_map(x[:, :, z], y[:, :, z], window=Gaussian((5, 7), 1.5)) for z in range(6)]
    found = ssim_map(x, y, window=Gaussian((1, 5, 7), 1.5), dims=3)
    torch.testing.assert_close(found, torch.stack(planes, 2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_volumes_are_exactly_one_with_a_gradient_of_exactly_zero(dtype):
    x, _ = pair((1, 2, 14, 45, 40), dtype)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = ssim(a, b, window=WINDOW, dims=3, padding="reflect")
    value.backward()
    assert value.item() == 1
    assert (a.grad == 0).all()
    assert (b.grad == 0).all()
    assert (ssim_map(x, x, window=WINDOW, dims=3) == 1).all()


@pytest.mark.parametrize(("level", "spread"), [(0.98, 0.002), (0.02, 0.002), (0.5, 1e-4)])
def test_flat_patches_keep_their_precision(level, spread):
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(level + spread * rng.standard_normal((1, 1, 9, 40, 50)), dtype=torch.float32) for _ in "xy")
    x[..., :20, :] -= level  # a dark half: bands and columns have pivots of their own
    y[..., :20, :] -= level
    found = ssim_map(x, y, dims=3, window=WINDOW)
    expected = reference.ssim(x, y, dims=3, window=WINDOW)
    away = np.r_[0:16, 20:36]  # from the edge between them
    assert np.abs(found.numpy() - expected)[..., away, :].max() <= 2e-6


@pytest.mark.parametrize(("shape", "padding"), [((1, 1, 9, 13, 21), "valid"), ((1, 1, 7, 11, 13), "reflect")])
def test_results_do_not_depend_on_what_the_buffers_held(shape, padding):
    x, y = pair(shape, torch.float32)
    results = []
    for junk in (0.0, 3.0, math.nan):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        for fill in (False, True):  # the first call makes this thread's buffers
            if fill:
                volume_launch._scratch.arrays[0].fill(junk)
            value = ssim(a, b, window=WINDOW, padding=padding, dims=3)
        results.append((value, *torch.autograd.grad(value, (a, b))))
    assert all(torch.equal(one, other) for again in results[1:] for one, other in zip(results[0], again, strict=True))


@pytest.mark.usefixtures("small_bricks")
def test_results_are_the_same_to_the_bit_for_every_thread_count(with_every_thread_count):
    x, y = pair((2, 2, 40, 40, 41), torch.float32)

    def score():
        a = x.clone().requires_grad_()
        value = ssim(a, y, window=WINDOW, padding="reflect", dims=3)
        value.backward()
        return value.item(), a.grad

    results = with_every_thread_count(score)
    assert len({value for value, _ in results}) == 1
    assert all(torch.equal(gradient, results[0][1]) for _, gradient in results)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_pixel_spoils_only_the_windows_that_touch_it(bad):
    x, y = pair((1, 1, 12, 40, 41), torch.float32)
    options = {"window": WINDOW, "dims": 3}
    clean = ssim_map(x, y, **options)
    a = x.clone().requires_grad_()
    ssim(a, y, reduction="sum", **options).backward()
    spoilt = x.clone()
    spoilt[0, 0, 6, 20, 21] = bad
    found = ssim_map(spoilt, y, **options)
    touched = torch.zeros_like(found, dtype=torch.bool)
    touched[0, 0, 4:7, 16:21, 15:22] = True
    assert not torch.isfinite(found[touched]).any()
    torch.testing.assert_close(found[~touched], clean[~touched], rtol=0, atol=5e-6)
    spoilt.requires_grad_()
    ssim(spoilt, y, reduction="sum", **options).backward()
    reached = torch.zeros_like(x, dtype=torch.bool)
    reached[0, 0, 4:9, 16:25, 15:28] = True
    assert not torch.isfinite(spoilt.grad[reached]).all()
    torch.testing.assert_close(spoilt.grad[~reached], a.grad[~reached], rtol=1e-4, atol=1e-4)


def test_gradcheck_in_float64():
    x, y = (image.requires_grad_() for image in pair((1, 2, 3, 5, 7)))
    for reduction, padding in (("mean", "valid"), ("image", "reflect"), ("none", "zeros")):
        options = {"window": WINDOW, "reduction": reduction, "padding": padding, "dims": 3}
        assert torch.autograd.gradcheck(lambda a, b, given=options: ssim(a, b, **given), (x, y))


def test_any_strides_give_the_same_numbers():
    x, y = pair((2, 2, 5, 9, 11), torch.float32)
    options = {"window": WINDOW, "reduction": "image", "dims": 3}
    expected = ssim(x, y, **options)
    lasting = x.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(ssim(lasting, y, **options), expected)
    assert torch.equal(ssim(x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0), y, **options), expected)
    plane = y[:, :, :1].expand(-1, -1, 5, -1, -1)
    assert torch.equal(ssim(x, plane, **options), ssim(x, plane.contiguous(), **options))
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    ssim_map(a, b, window=WINDOW, dims=3).sum().backward()  # an upstream gradient of stride 0
    by_sum = torch.autograd.grad(ssim(a, b, window=WINDOW, reduction="sum", dims=3), (a, b))
    for image, expected in zip((a, b), by_sum, strict=True):
        torch.testing.assert_close(image.grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8], ids=str)
def test_every_dtype_gives_the_numbers_of_its_conversion(dtype):
    x, y = pair((1, 1, 5, 9, 11), torch.float32)
    stored = (y * 255).round().to(dtype) if dtype == torch.uint8 else y.to(dtype)
    as_read = stored.float() / 255 if dtype == torch.uint8 else stored.float()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = (ssim(image, other, window=WINDOW, dims=3) for image, other in ((a, stored), (b, as_read)))
    assert found == expected
    found.backward()
    expected.backward()
    assert torch.equal(a.grad, b.grad)


def test_volumes_of_fewer_axes_and_of_numpy():
    x, y = (volume.numpy() for volume in pair((2, 3, 5, 9, 11), torch.float32))
    expected = reference.ssim(x, y, window=WINDOW, dims=3)
    options = {"window": WINDOW, "dims": 3}
    assert isinstance(ssim(x, y, **options), np.float32)
    assert ssim(x[0, 0], y[0, 0], **options) == pytest.approx(expected[0, 0].mean(), abs=1e-6)
    found = ssim_map(x[0, 0], y[0, 0], **options)
    assert isinstance(found, np.ndarray)
    assert found.shape == (3, 5, 5)
    assert ssim_map(x[0], y[0], **options).shape == (3, 3, 5, 5)
    assert ssim(x[0], y[0], reduction="channel", **options).shape == (3,)
    assert ssim(x, y, reduction="image", **options).shape == (2,)
    assert SSIMLoss(**options)(*map(torch.from_numpy, (x, y))).item() == pytest.approx(1 - expected.mean(), abs=1e-6)


@pytest.mark.parametrize("axes", [3, 4, 5])
def test_tensors_come_back_with_the_axes_they_had(axes):
    x, y = (image[(0,) * (5 - axes)] for image in pair((2, 3, 5, 9, 11), torch.float32))
    for reduction, kept in (("none", axes), ("channel", max(axes - 3, 0)), ("image", max(axes - 4, 0)), ("mean", 0)):
        assert ssim(x, y, window=WINDOW, reduction=reduction, dims=3).ndim == kept


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func loads it
@pytest.mark.parametrize("reduction", ["mean", "image", "channel"])
def test_forward_mode_and_transforms_give_the_gradient_of_backward(reduction):
    x, y = pair((2, 2, 5, 9, 11))
    tangent = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))

    def score(image):
        return ssim(image, y, window=WINDOW, reduction=reduction, dims=3)

    a = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(a).sum(), a)
    _, along = torch.func.jvp(score, (x,), (tangent,))
    torch.testing.assert_close(along.sum(), (gradient * tangent).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.func.grad(lambda image: score(image).sum())(x), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "image", "channel"])
def test_l1_and_ssim_equal_the_reference(reduction):
    x, y = pair((2, 3, 4, 9, 11))
    a = x.clone().requires_grad_()
    value = l1_ssim_loss(a, y, alpha=0.3, window=WINDOW, padding="reflect", reduction=reduction, dims=3)
    axes = {"mean": (0, 1, 2, 3, 4), "image": (1, 2, 3, 4), "channel": (2, 3, 4)}[reduction]
    expected = reference.ssim(x, y, window=WINDOW, padding="reflect", dims=3)
    distance = np.abs((x - y).numpy())
    wanted = 0.3 * distance.mean(axes) + 0.7 * (1 - expected.mean(axes))
    assert np.abs(value.detach().numpy() - wanted).max() <= 1e-13
    value.sum().backward()
    share = wanted.size / expected.size
    weights = np.full(expected.shape, -0.7 * share)
    gradient = reference.ssim_gradient(x, y, weights, window=WINDOW, padding="reflect", dims=3)
    assert relative(a.grad, gradient + 0.3 * share * np.sign((x - y).numpy())) <= GRADIENT[torch.float64]
    assert L1SSIMLoss(alpha=0.3, window=WINDOW, padding="reflect", reduction=reduction, dims=3)(a, y).equal(value)


def test_what_stands_for_the_kernels_gives_their_numbers():
    x, y = pair((1, 2, 5, 9, 11), torch.float32)
    taps = WINDOW.along(3)
    plan = Plan(tuple(x.shape), "float32", *taps[1:], 1e-4, 9e-4, "reflect", taps_z=taps[0])
    results = []
    for backend in (volume_launch, plain):
        grad_x, grad_y, by_map, also_by_map, windows = torch.empty(5, *x.shape)
        backend.ssim_map(plan, x, y, None, windows)
        backend.map_gradient(plan, x, y, None, windows, by_map, also_by_map)
        sums = [*backend.value_and_gradient(plan, x, y, None, 0.01, grad_x, grad_y), *backend.value(plan, x, y, None)]
        results.append([grad_x, grad_y, by_map, also_by_map, windows, *map(torch.from_numpy, sums)])
    for kernel, slow in zip(*results, strict=True):
        torch.testing.assert_close(kernel, slow, rtol=2e-5, atol=2e-5 * slow.abs().max().item())


def test_plans_of_images_and_volumes_differ_and_equal_ones_are_one():
    taps = Uniform(3).weights_x
    image = Plan((1, 1, 8, 9), "float32", taps, taps, 1e-4, 9e-4)
    solid = Plan((1, 1, 7, 8, 9), "float32", taps, taps, 1e-4, 9e-4, "reflect", taps_z=taps)
    same = Plan((1, 1, 8, 9), "float32", taps, taps, 1e-4, 9e-4)
    assert (image, hash(image)) == (same, hash(same))
    assert image != solid
    assert (image.map_shape, solid.map_shape) == ((1, 1, 6, 7), (1, 1, 7, 8, 9))
    assert (image.pad, solid.pad, solid.padded) == ((0, 0), (1, 1, 1), (9, 10, 11))


@pytest.mark.parametrize(
    ("shape", "options", "kind", "words"),
    [
        ((8, 9, 9), {"dims": 4}, ValueError, "dims is 4; give 2 for images .* or 3 for volumes"),
        ((8, 9, 9), {"dims": True}, ValueError, "dims is True"),
        ((8, 9, 9), {"dims": "3"}, ValueError, "dims is '3'"),
        ((9, 9), {"dims": 3}, ValueError, r"shape \(9, 9\); give \(N, C, D, H, W\), .* with dims=3"),
        ((1, 1, 1, 9, 9, 9), {"dims": 3}, ValueError, "give .*with dims=3"),
        ((1, 1, 9, 9, 9), {}, ValueError, r"give \(N, C, H, W\).*; for volumes pass dims=3 to ssim"),
        ((1, 1, 1, 9, 9, 9), {}, ValueError, r"give \(N, C, H, W\), \(C, H, W\) or \(H, W\)$"),
        ((2, 9, 9), {"dims": 3, "window": Uniform(3)}, ValueError, "2 x 9 x 9 pixels, smaller than .* of 3 x 3 x 3"),
        ((9, 9, 9), {"dims": 3, "window": Uniform((3, 5))}, ValueError, "names 2 axes; dims=3 takes .* a triple"),
        ((9, 9, 9), {"window": Uniform((3, 5, 5))}, ValueError, "names 3 axes; dims=2 takes .* a pair"),
        ((9, 9, 9), {"dims": 3, "window": Uniform(3), "mask": torch.ones(9, 9, 9)}, ValueError, "mask is not taken"),
        ((9, 9, 9), {"dims": 3, "window": Uniform(1), "unbiased": True}, ValueError, "more than one pixel"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(shape, options, kind, words):
    x = torch.zeros(shape)
    for function in (ssim, fastssim.ssim_loss, l1_ssim_loss):
        with pytest.raises(kind, match=words):
            function(x, x, **options)


def test_modules_refuse_what_does_not_fit_at_construction():
    with pytest.raises(ValueError, match="dims is 1"):
        SSIMLoss(dims=1)
    with pytest.raises(ValueError, match="multi-scale SSIM takes images"):
        MSSSIMLoss(dims=3)
    assert MSSSIMLoss(dims=2).options.keys() == MSSSIMLoss().options.keys()
