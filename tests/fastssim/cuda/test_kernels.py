"""Every kernel on the CPU, by the emulator, against the float64 reference; the bounds are those of the CPU backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from device import EmulatedDevice
from emulate import run_sanitized, same_in_every_order
from skimage.metrics import structural_similarity
from ssim_checks import EDGES, edges

from fastssim import Gaussian, Uniform, reference
from fastssim.cuda import geometry, launch
from fastssim.plan import PADDINGS, Plan

VALUE = {"float32": 1e-6, "float64": 1e-13}
GRADIENT = {"float32": 2e-6, "float64": 1e-12}  # relative L2
MAP = {"float32": 2e-6, "float64": 1e-11}
C1, C2 = 0.01**2, 0.03**2


def forget_kernels():
    """Choose kernels anew."""
    for kept in (geometry.march, launch._ready):
        kept.cache_clear()


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch):
    """Blocks of one warp and short segments, so that small images have many of both."""
    monkeypatch.setattr(geometry, "THREADS", (32,))
    forget_kernels()
    yield
    forget_kernels()


def pair(shape, dtype, seed=0):
    """Two related images in [0, 1]: waves steeper than the window is wide, with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    clean = 0.5 + 0.4 * np.sin(rows / 5 + rng.random()) * np.cos(columns / 7 + rng.random())
    x = np.clip(clean + rng.normal(0, 0.05, shape), 0, 1)
    return x.astype(dtype), np.clip(x + rng.normal(0, 0.1, shape), 0, 1).astype(dtype)


def compute(
    device,
    x,
    y,
    window=None,
    *,
    gradients=0,
    upstream=None,
    ssim_map=False,
    scale=1.0,
    l1=None,
    reduction=None,
    mask=None,
    halves=False,
    c=(C1, C2),
    plan=None,
):
    """Run the launcher on a device; return what was asked for, as arrays."""
    plan = plan or Plan(x.shape, str(x.dtype), window.weights_y, window.weights_y, *c)
    out = {}
    if ssim_map:
        out["ssim_map"] = device.output(plan.map_shape, plan.dtype)
    for name in ("grad_x", "grad_y")[:gradients]:
        out[name] = device.output(x.shape, plan.dtype)
    smaller = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    both = [device.output(smaller, plan.dtype) for _ in range(2 * halves)]
    reduced = launch.march(
        device,
        plan,
        device.buffer(x),
        device.buffer(y),
        None if mask is None else device.buffer(mask),
        scale=scale,
        l1=l1,
        upstream=None if upstream is None else device.buffer(upstream),
        reduction=reduction,
        halves=tuple(both) or None,
        **out,
    )
    return [buffer.array for buffer in [*reduced, *out.values(), *both] if buffer is not None]


def assert_gradient_close(gradient, expected):
    difference = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert difference <= GRADIENT[str(gradient.dtype)]
    assert np.abs(gradient - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("window", "dtype", "shape"),
    [
        (Gaussian(), "float32", (2, 2, 43, 71)),
        (Gaussian(), "float32", (1, 1, 11, 11)),
        (Gaussian(), "float32", (1, 3, 12, 13)),
        (Gaussian(), "float32", (1, 1, 301, 11)),
        (Gaussian(), "float32", (2, 1, 11, 301)),
        (Gaussian(), "float64", (1, 2, 43, 71)),
        (Gaussian(), "float64", (1, 1, 13, 11)),
        (Uniform(7), "float32", (1, 2, 37, 61)),
        (Gaussian(3, 0.5), "float32", (1, 1, 40, 67)),
        (Gaussian(17, 3.0), "float32", (1, 1, 53, 49)),
    ],
    ids=str,
)
def test_value_map_and_gradients_equal_the_reference(window, dtype, shape):
    x, y = pair(shape, dtype)
    expected = reference.ssim(x, y, window=window)
    ones = np.ones(expected.shape)
    by_x = reference.ssim_gradient(x, y, ones, window=window)
    by_y = reference.ssim_gradient(y, x, ones, window=window)
    windows = expected[0, 0].size

    (sums,) = compute(EmulatedDevice(), x, y, window, reduction=launch.Reduction())
    assert sums.shape == shape[:2]
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE[dtype] * windows

    (ssim_map,) = compute(EmulatedDevice(), x, y, window, ssim_map=True)
    assert np.abs(ssim_map - expected).max() <= MAP[dtype]

    sums, grad_x = compute(EmulatedDevice(), x, y, window, gradients=1, scale=0.5, reduction=launch.Reduction())
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE[dtype] * windows
    assert_gradient_close(grad_x, 0.5 * by_x)

    grad_x, grad_y = compute(EmulatedDevice(), x, y, window, gradients=2)
    assert_gradient_close(grad_x, by_x)
    assert_gradient_close(grad_y, by_y)

    upstream = np.random.default_rng(1).random(expected.shape).astype(dtype)
    (grad_x,) = compute(EmulatedDevice(), x, y, window, gradients=1, upstream=upstream)
    assert_gradient_close(grad_x, reference.ssim_gradient(x, y, upstream, window=window))


def test_every_order_of_threads_and_blocks_gives_the_same_bits():
    x, y = pair((1, 2, 43, 71), "float32")
    upstream = np.random.default_rng(1).random((1, 2, 33, 61)).astype(np.float32)
    for options in (
        {"reduction": launch.Reduction("all")},
        {"ssim_map": True},
        {"gradients": 2, "reduction": launch.Reduction("image")},
        {"gradients": 1, "upstream": upstream},
    ):
        same_in_every_order(lambda order, given=options: compute(EmulatedDevice(order), x, y, Gaussian(), **given))


def test_sums_are_brought_together_as_asked():
    x, y = pair((3, 2, 30, 40), "float32")
    expected = reference.ssim(x, y)
    for over, axes in (("plane", (2, 3)), ("image", (1, 2, 3)), ("all", (0, 1, 2, 3))):
        windows = expected.size / expected.mean(axes).size
        reduction = launch.Reduction(over, "float32", windows)
        (result,) = compute(EmulatedDevice(), x, y, Gaussian(), reduction=reduction)
        assert result.dtype == np.float32
        assert result.shape == expected.mean(axes).shape
        assert np.abs(result - expected.mean(axes)).max() <= VALUE["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_images_are_exactly_one_with_a_gradient_of_exactly_zero(dtype):
    x, _ = pair((1, 2, 43, 71), dtype)
    assert (compute(EmulatedDevice(), x, x, Gaussian(), ssim_map=True)[0] == 1).all()
    sums, grad_x, grad_y = compute(EmulatedDevice(), x, x, Gaussian(), gradients=2, reduction=launch.Reduction())
    assert (sums == 33 * 61).all()
    assert (grad_x == 0).all()
    assert (grad_y == 0).all()


@pytest.mark.parametrize(("level", "spread"), [(0.98, 0.002), (0.02, 0.002), (0.5, 1e-4)])
def test_flat_patches_keep_their_precision(level, spread):
    rng = np.random.default_rng(0)
    x, y = (level + spread * rng.standard_normal((2, 1, 1, 64, 80))).astype(np.float32)
    assert np.abs(compute(EmulatedDevice(), x, y, Gaussian(), ssim_map=True)[0] - reference.ssim(x, y)).max() <= 2e-6


@pytest.mark.parametrize("kernel", ["march", "windows"])
@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("window", [Gaussian(), Gaussian(7, 1.5), Uniform(7), Gaussian(3, 0.5)], ids=str)
def test_edges_keep_their_precision(window, kind, kernel, monkeypatch):
    for noise in (0.0, 0.002, 0.05):
        x, y = edges(kind, noise)
        plan = Plan(x.shape, "float32", window.weights_y, window.weights_x, C1, C2)
        expected = reference.ssim(x, y, window=window)
        run = slow_twin if kernel == "windows" else lambda x, y, plan, _, **options: compute(
            EmulatedDevice(), x, y, plan=plan, **options
        )  # fmt: skip
        ssim_map, grad_x = run(x, y, plan, monkeypatch, ssim_map=True, gradients=1)
        assert np.abs(ssim_map - expected).max() <= MAP["float32"]
        assert_gradient_close(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape), window=window))


@pytest.mark.parametrize("data_range", [255.0, 65535.0, 1e-3])
def test_data_range_scales_the_constants(data_range):
    x, y = (image * np.float32(data_range) for image in pair((1, 1, 43, 71), "float32"))
    c = ((0.01 * data_range) ** 2, (0.03 * data_range) ** 2)
    (ssim_map,) = compute(EmulatedDevice(), x, y, Gaussian(), ssim_map=True, c=c)
    assert np.abs(ssim_map - reference.ssim(x, y, data_range=data_range)).max() <= MAP["float32"]
    (grad_x,) = compute(EmulatedDevice(), x, y, Gaussian(), gradients=1, c=c)
    expected = reference.ssim_gradient(x, y, np.ones(ssim_map.shape), data_range=data_range)
    assert_gradient_close(grad_x, expected)


def test_any_strides_give_the_same_bits():
    x, y = pair((2, 3, 30, 61), "float32")
    plain = compute(EmulatedDevice(), x, y, Gaussian(), gradients=2, reduction=launch.Reduction())
    lasting = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    flipped = np.ascontiguousarray(y[..., ::-1, ::-1])[..., ::-1, ::-1]
    for other_x, other_y in ((lasting, y), (x, flipped), (x[:, :, ::1], np.asfortranarray(y))):
        results = compute(EmulatedDevice(), other_x, other_y, Gaussian(), gradients=2, reduction=launch.Reduction())
        assert all((a == b).all() for a, b in zip(plain, results, strict=True))


def test_an_expanded_image_and_an_expanded_upstream():
    x, y = pair((2, 2, 30, 40), "float32")
    one = np.broadcast_to(y[:1], y.shape)
    upstream = np.broadcast_to(np.float32(0.25), (2, 2, 20, 30))
    (grad_x,) = compute(EmulatedDevice(), x, one, Gaussian(), gradients=1, upstream=upstream)
    assert_gradient_close(grad_x, reference.ssim_gradient(x, one, upstream))


@pytest.mark.parametrize("padding", ["valid", "zeros"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_spoils_only_the_windows_that_touch_it(bad, padding):
    x, y = pair((1, 1, 60, 100), "float32")
    plan = Plan(x.shape, "float32", Gaussian().weights_y, Gaussian().weights_y, C1, C2, padding=padding)
    pad = 0 if padding == "valid" else 5
    (clean,) = compute(EmulatedDevice(), x, y, plan=plan, ssim_map=True)
    (clean_gradient,) = compute(EmulatedDevice(), x, y, plan=plan, gradients=1)
    for row, column in ((30, 50), (0, 0), (59, 99)):
        spoilt_x = x.copy()
        spoilt_x[0, 0, row, column] = bad
        (spoilt,) = compute(EmulatedDevice(), spoilt_x, y, plan=plan, ssim_map=True)
        touched = np.zeros(spoilt.shape, bool)
        touched[0, 0, max(0, row + pad - 10) : row + pad + 1, max(0, column + pad - 10) : column + pad + 1] = True
        assert not np.isfinite(spoilt[touched]).any()
        np.testing.assert_allclose(spoilt[~touched], clean[~touched], rtol=0, atol=MAP["float32"])
        (gradient,) = compute(EmulatedDevice(), spoilt_x, y, plan=plan, gradients=1)
        reached = np.zeros(x.shape, bool)
        reached[0, 0, max(0, row - 10) : row + 11, max(0, column - 10) : column + 11] = True
        assert not np.isfinite(gradient[reached]).all()
        np.testing.assert_allclose(gradient[~reached], clean_gradient[~reached], rtol=0, atol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS[1:])
@pytest.mark.parametrize(
    ("kernel", "shape"),
    [("march", (1, 2, 43, 71)), ("march", (1, 1, 12, 14)), ("windows", (2, 1, 3, 4)), ("windows", (1, 1, 1, 1))],
    ids=str,
)
def test_padding(padding, kernel, shape):
    # One pixel among zeros: its gradient is a small difference of large numbers, 6e-6 off in float32.
    dtype = "float64" if padding == "zeros" and shape == (1, 1, 1, 1) else "float32"
    x, y = pair(shape, dtype)
    taps = Gaussian().weights_y
    plan = Plan(shape, dtype, taps, taps, C1, C2, padding=padding)
    upstream = np.random.default_rng(1).random(shape).astype(dtype)
    expected = reference.ssim(x, y, padding=padding)
    by_x = reference.ssim_gradient(x, y, upstream, padding=padding)
    by_y = reference.ssim_gradient(y, x, upstream, padding=padding)
    device = EmulatedDevice()
    sums, ssim_map, grad_x, grad_y = compute(
        device, x, y, plan=plan, upstream=upstream, ssim_map=True, gradients=2, reduction=launch.Reduction()
    )
    assert device.launches[0][2].instance.kernel == kernel
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE[dtype] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP[dtype]
    assert_gradient_close(grad_x, by_x)
    assert_gradient_close(grad_y, by_y)


def test_padded_gradients_are_the_same_in_every_order():
    x, y = pair((1, 2, 43, 71), "float32")
    taps = Gaussian().weights_y
    plan = Plan(x.shape, "float32", taps, taps, C1, C2, padding="reflect")
    options = {"plan": plan, "gradients": 2, "upstream": y, "ssim_map": True, "reduction": launch.Reduction("all")}
    same_in_every_order(lambda order: compute(EmulatedDevice(order), x, y, **options))


def slow_twin(x, y, plan, monkeypatch, **options):
    """Compute by the definition, window by window."""
    monkeypatch.setattr(geometry, "THREADS", ())
    monkeypatch.setattr(geometry, "boxes", lambda *_: None)
    forget_kernels()
    device = EmulatedDevice()
    results = compute(device, x, y, plan=plan, **options)
    assert device.launches[0][2].instance.kernel == "windows"
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_slow_twin_equals_the_reference(dtype, monkeypatch):
    x, y = pair((1, 2, 23, 31), dtype)
    window = Gaussian()
    expected = reference.ssim(x, y)
    upstream = np.random.default_rng(1).random(expected.shape).astype(dtype)
    plan = Plan(x.shape, dtype, window.weights_y, window.weights_y, C1, C2)
    sums, ssim_map, grad_x, grad_y = slow_twin(
        x, y, plan, monkeypatch, ssim_map=True, gradients=2, upstream=upstream, reduction=launch.Reduction()
    )
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE[dtype] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP[dtype]
    assert_gradient_close(grad_x, reference.ssim_gradient(x, y, upstream))
    assert_gradient_close(grad_y, reference.ssim_gradient(y, x, upstream))


def test_both_gradients_take_two_marches_where_registers_are_short():
    x, y = pair((1, 2, 43, 71), "float64")
    device = EmulatedDevice()
    sums, *gradients = compute(device, x, y, Gaussian(), gradients=2, reduction=launch.Reduction())
    assert [made.instance.kernel for *_, made in device.launches] == ["march", "march", "reduce"]
    ones = np.ones((1, 2, 33, 61))
    assert np.abs(sums - reference.ssim(x, y).sum((2, 3))).max() <= VALUE["float64"] * ones[0, 0].size
    for gradient, by in zip(gradients, ((x, y), (y, x)), strict=True):
        assert_gradient_close(gradient, reference.ssim_gradient(*by, ones))


@pytest.mark.parametrize("window", [Gaussian(1), Gaussian(33, 6.0)], ids=str)
def test_windows_that_the_march_does_not_take(window, monkeypatch):
    monkeypatch.setattr(geometry, "boxes", lambda *_: None)  # one pixel is a box, too
    x, y = pair((1, 1, 37, 35), "float32")
    expected = reference.ssim(x, y, window=window)
    device = EmulatedDevice()
    (grad_x,) = compute(device, x, y, window, gradients=1)
    assert device.launches[0][2].instance.kernel == "windows"
    assert_gradient_close(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape), window=window))


def test_an_unbiased_covariance(monkeypatch):
    x, y = pair((1, 1, 30, 45), "float64")
    window = Uniform(7)
    plan = Plan(x.shape, "float64", window.weights_y, window.weights_y, C1, C2, unbiased=49 / 48)
    ours = compute(EmulatedDevice(), x, y, plan=plan, ssim_map=True, gradients=2)
    expected = structural_similarity(x[0, 0], y[0, 0], win_size=7, data_range=1, use_sample_covariance=True, full=True)[
        1
    ]
    assert np.abs(ours[0][0, 0] - expected[3:-3, 3:-3]).max() <= MAP["float64"]
    twin = slow_twin(x, y, plan, monkeypatch, ssim_map=True, gradients=2)
    for a, b in zip(ours, twin, strict=True):
        assert np.abs(a - b).max() <= 1e-11 * np.abs(b).max()
    moved = [x.copy(), x.copy()]
    for image, step in zip(moved, (1e-6, -1e-6), strict=True):
        image[0, 0, 14, 20] += step
    up, down = (compute(EmulatedDevice(), image, y, plan=plan, reduction=launch.Reduction("all"))[0] for image in moved)
    assert ours[1][0, 0, 14, 20] == pytest.approx((up - down) / 2e-6, rel=1e-6)


def test_a_window_of_another_height_than_width():
    x, y = pair((1, 1, 33, 47), "float32")
    plan = Plan(x.shape, "float32", Gaussian(5, 1.0).weights_y, Gaussian().weights_y, C1, C2)
    turned = Plan((1, 1, 47, 33), "float32", Gaussian().weights_y, Gaussian(5, 1.0).weights_y, C1, C2)
    flat = compute(EmulatedDevice(), x, y, plan=plan, ssim_map=True, gradients=1)
    upright = compute(
        EmulatedDevice(), x.transpose(0, 1, 3, 2), y.transpose(0, 1, 3, 2), plan=turned, ssim_map=True, gradients=1
    )
    assert np.abs(flat[0] - upright[0].transpose(0, 1, 3, 2)).max() <= MAP["float32"]
    assert np.linalg.norm(flat[1] - upright[1].transpose(0, 1, 3, 2)) <= GRADIENT["float32"] * np.linalg.norm(flat[1])


def bfloat16(values):
    """Bits of the bfloat16 nearest to float32 values, and the values that they stand for."""
    bits = values.astype(np.float32).view(np.uint32)
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("kernel", ["march", "windows"])
def test_half_precision_images_are_computed_in_float32(kernel, monkeypatch):
    x, y = pair((1, 2, 43, 71), "float16")
    plan = Plan(x.shape, "float32", Gaussian().weights_y, Gaussian().weights_y, C1, C2)
    expected = reference.ssim(x, y)
    options = {"ssim_map": True, "gradients": 2, "reduction": launch.Reduction()}
    if kernel == "windows":
        sums, ssim_map, grad_x, grad_y = slow_twin(x, y, plan, monkeypatch, **options)
    else:
        sums, ssim_map, grad_x, grad_y = compute(EmulatedDevice(), x, y, plan=plan, **options)
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE["float32"] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP["float32"]
    ones = np.ones(expected.shape)
    for gradient, by in ((grad_x, (x, y)), (grad_y, (y, x))):
        assert_gradient_close(gradient, reference.ssim_gradient(*by, ones))


def test_bfloat16_and_a_uint8_target():
    clean, other = pair((1, 1, 43, 71), "float32")
    bits, x = bfloat16(clean)
    target = np.round(other * 255).astype(np.uint8)
    c = (C1 * 255**2, C2 * 255**2)
    plan = Plan(x.shape, "float32", Gaussian().weights_y, Gaussian().weights_y, C1, C2)
    device = EmulatedDevice()
    out = device.output(bits.shape, np.float32)
    first, second = device.buffer(bits), device.buffer(bfloat16(other)[0])
    device.names = {id(buffer): "bfloat16" for buffer in (first, second)}
    launch.march(device, plan, first, second, grad_x=out)
    exact = reference.ssim_gradient(x, bfloat16(other)[1], np.ones((1, 1, 33, 61)))
    assert_gradient_close(out.array, exact)

    prediction = clean * np.float32(255)
    (grad_x,) = compute(EmulatedDevice(), prediction, target, Gaussian(), gradients=1, c=c)
    exact = reference.ssim_gradient(prediction, target, np.ones((1, 1, 33, 61)), data_range=255)
    assert_gradient_close(grad_x, exact)


def test_wide_blocks(monkeypatch):
    monkeypatch.setattr(geometry, "THREADS", (64, 96, 128))
    x, y = pair((1, 1, 40, 400), "float32")
    device = EmulatedDevice()
    sums, grad_x = compute(device, x, y, Gaussian(), gradients=1, reduction=launch.Reduction())
    assert device.launches[0][2].block > 32
    expected = reference.ssim(x, y)
    assert np.abs(sums - expected.sum()) <= VALUE["float32"] * expected.size
    assert_gradient_close(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape)))


MASKS = {
    "holes": lambda rng, shape: rng.random(shape) > 0.4,
    "soft": lambda rng, shape: rng.random(shape).astype(np.float32) ** 2,
    "half": lambda rng, shape: np.arange(shape[-1]) >= shape[-1] // 2,  # noqa: ARG005  # windows with nothing at all
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("padding", "kernel"), [("valid", "march"), ("zeros", "march"), ("reflect", "windows")])
def test_a_mask(kind, padding, kernel, monkeypatch):
    shape = (2, 2, 43, 71)
    x, y = pair(shape, "float32")
    mask = np.ascontiguousarray(np.broadcast_to(MASKS[kind](np.random.default_rng(1), shape[2:]), shape[2:]))
    masked = np.broadcast_to(mask, shape)
    x[masked == 0], y[masked == 0] = np.nan, 1e30  # may hold anything
    taps = Gaussian().weights_y
    plan = Plan(shape, "float32", taps, taps, C1, C2, padding=padding, masked=True)
    expected = reference.ssim(x, y, mask=mask, padding=padding)
    counted = reference.counted(shape, mask, Gaussian(), padding)
    upstream = np.random.default_rng(2).random(expected.shape).astype(np.float32)
    options = {
        "mask": masked, "upstream": upstream, "ssim_map": True, "gradients": 2,
        "reduction": launch.Reduction("image", counted=True),
    }  # fmt: skip
    if kernel == "windows":
        value, counts, ssim_map, grad_x, grad_y = slow_twin(x, y, plan, monkeypatch, **options)
    else:
        value, counts, ssim_map, grad_x, grad_y = compute(EmulatedDevice(), x, y, plan=plan, **options)
    assert (counts == counted.sum((1, 2, 3))).all()
    mean = (expected * counted).sum((1, 2, 3)) / counts
    assert np.abs(value - mean).max() <= VALUE["float32"]
    assert np.abs(ssim_map - expected).max() <= MAP["float32"]
    by = upstream * counted
    for gradient, images in ((grad_x, (x, y)), (grad_y, (y, x))):
        exact = reference.ssim_gradient(*images, by, mask=mask, padding=padding)
        assert np.linalg.norm(gradient - exact) <= GRADIENT["float32"] * np.linalg.norm(exact)
        assert (gradient[masked == 0] == 0).all()


def test_a_mask_that_leaves_nothing_is_no_difference():
    x, y = pair((1, 1, 20, 30), "float32")
    taps = Gaussian().weights_y
    plan = Plan(x.shape, "float32", taps, taps, C1, C2, masked=True)
    value, counts, grad_x = compute(
        EmulatedDevice(), x, y, plan=plan, mask=np.zeros(x.shape, bool), gradients=1,
        reduction=launch.Reduction("all", counted=True),
    )  # fmt: skip
    assert value == 1
    assert counts == 0
    assert (grad_x == 0).all()


@pytest.mark.parametrize("padding", ["valid", "zeros", "symmetric", "replicate"])
@pytest.mark.parametrize("kernel", ["march", "windows"])
def test_l1_joins_in(padding, kernel, monkeypatch):
    x, y = pair((1, 2, 43, 71), "float32")
    y[..., 5:20, 30:60] = x[..., 5:20, 30:60]  # there, the sign is exactly 0
    taps = Gaussian().weights_y
    plan = Plan(x.shape, "float32", taps, taps, C1, C2, padding=padding)
    expected = reference.ssim(x, y, padding=padding)
    distance = np.abs(x.astype(np.float64) - y).sum((2, 3))
    reduction = launch.Reduction(offset=0.5, scale=-2.0, l1=0.25)
    exact = 0.5 - 2 * expected.sum((2, 3)) + 0.25 * distance
    run = (
        (lambda **options: slow_twin(x, y, plan, monkeypatch, **options))
        if kernel == "windows"
        else lambda **options: compute(EmulatedDevice(), x, y, plan=plan, **options)
    )
    for options in ({}, {"gradients": 2, "l1": 0.25, "scale": -2.0}):
        value, *gradients = run(reduction=reduction, **options)
        assert np.abs(value - exact).max() <= 2 * VALUE["float32"] * expected[0, 0].size
    ones = np.full(expected.shape, -2.0)
    for gradient, by in zip(gradients, ((x, y), (y, x)), strict=True):
        sign = np.sign(by[0].astype(np.float64) - by[1])
        assert_gradient_close(gradient, reference.ssim_gradient(*by, ones, padding=padding) + 0.25 * sign)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kernel", ["march", "windows"])
def test_integers_as_fractions_of_their_largest_number(dtype, kernel, monkeypatch):
    x, target = pair((1, 2, 43, 71), "float32")
    largest = np.iinfo(dtype).max
    target = np.round(target * largest).astype(dtype)
    taps = Gaussian().weights_y
    plan = Plan(x.shape, "float32", taps, taps, C1, C2, fractions=True)
    run = (
        (lambda *images, **options: slow_twin(*images, plan, monkeypatch, **options))
        if kernel == "windows"
        else lambda *images, **options: compute(EmulatedDevice(), *images, plan=plan, **options)
    )
    fractions = target / largest
    ssim_map, grad_x = run(x, target, ssim_map=True, gradients=1)
    assert np.abs(ssim_map - reference.ssim(x, fractions)).max() <= MAP["float32"]
    assert_gradient_close(grad_x, reference.ssim_gradient(x, fractions, np.ones(ssim_map.shape)))
    (equal,) = run((target.astype(np.float32) / np.float32(largest)), target, ssim_map=True)
    assert (equal == 1).all()  # divided as NumPy and torch divide
    (both,) = run(target, target, ssim_map=True)
    assert (both == 1).all()


def test_masked_gradients_with_l1_are_the_same_in_every_order():
    x, y = pair((1, 2, 43, 71), "float32")
    mask = np.random.default_rng(1).random(x.shape) > 0.3
    taps = Gaussian().weights_y
    masked = Plan(x.shape, "float32", taps, taps, C1, C2, padding="reflect", masked=True)
    plain = Plan(x.shape, "float32", taps, taps, C1, C2, padding="symmetric")
    for plan, options in (
        (masked, {"mask": mask, "gradients": 1, "reduction": launch.Reduction("all", counted=True)}),
        (plain, {"gradients": 2, "l1": 0.5, "reduction": launch.Reduction("image", l1=1.0)}),
    ):
        same_in_every_order(
            lambda order, plan=plan, given=options: compute(EmulatedDevice(order), x, y, plan=plan, **given)
        )


@pytest.mark.parametrize(
    ("size", "shape", "dtype", "padding"),
    [
        (33, (2, 2, 83, 171), "float32", "valid"),
        (25, (1, 1, 25, 25), "float32", "valid"),
        ((3, 65), (1, 2, 40, 97), "float32", "zeros"),
        (27, (1, 1, 300, 30), "float64", "zeros"),
        (1, (1, 1, 20, 150), "float32", "valid"),
    ],
    ids=str,
)
def test_uniform_windows_by_running_sums(size, shape, dtype, padding):
    x, y = pair(shape, dtype)
    window = Uniform(size)
    expected = reference.ssim(x, y, window=window, padding=padding)
    upstream = np.random.default_rng(1).random(expected.shape).astype(dtype)
    plan = Plan(shape, dtype, window.weights_y, window.weights_x, C1, C2, padding=padding)
    options = {"plan": plan, "upstream": upstream, "ssim_map": True, "gradients": 2, "reduction": launch.Reduction()}
    device = EmulatedDevice()
    sums, ssim_map, grad_x, grad_y = compute(device, x, y, **options)
    assert [made.instance.kernel for *_, made in device.launches] == ["boxes", "boxes_back", "reduce"]
    assert np.abs(sums - expected.sum((2, 3))).max() <= VALUE[dtype] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP[dtype]
    assert_gradient_close(grad_x, reference.ssim_gradient(x, y, upstream, window=window, padding=padding))
    assert_gradient_close(grad_y, reference.ssim_gradient(y, x, upstream, window=window, padding=padding))


def test_running_sums_are_exact_for_equal_images_forget_bad_pixels_and_know_no_order():
    x, y = pair((1, 1, 83, 171), "float32")
    window = Uniform(33)
    ssim_map, grad_x = compute(EmulatedDevice(), x, x, window, ssim_map=True, gradients=1)
    assert (ssim_map == 1).all()
    assert (grad_x == 0).all()
    clean, gradient = compute(EmulatedDevice(), x, y, window, ssim_map=True, gradients=1)
    for bad in (np.nan, np.inf):
        spoilt_x = x.copy()
        spoilt_x[0, 0, 40, 50] = bad
        spoilt, spoilt_gradient = compute(EmulatedDevice(), spoilt_x, y, window, ssim_map=True, gradients=1)
        touched, reached = np.zeros(clean.shape, bool), np.zeros(x.shape, bool)
        touched[0, 0, 8:41, 18:51] = True
        reached[0, 0, 8:73, 18:83] = True
        assert not np.isfinite(spoilt[touched]).any()
        assert not np.isfinite(spoilt_gradient[reached]).any()
        np.testing.assert_allclose(spoilt[~touched], clean[~touched], rtol=0, atol=1e-7)
        np.testing.assert_allclose(spoilt_gradient[~reached], gradient[~reached], rtol=1e-5, atol=1e-9)
    options = {"ssim_map": True, "gradients": 2, "reduction": launch.Reduction("all")}
    same_in_every_order(lambda order: compute(EmulatedDevice(order), x, y, window, **options))


HALF = {"float32": 2.0**-23, "float64": 2.0**-52}  # of pixels in [0, 1]


@pytest.mark.parametrize(
    ("size", "dtype", "shape", "padding", "gradients"),
    [
        (11, "float32", (2, 2, 43, 71), "valid", 0),
        (11, "float32", (2, 2, 43, 71), "valid", 1),
        (11, "float32", (1, 1, 12, 14), "zeros", 0),
        (11, "float32", (1, 1, 12, 14), "zeros", 2),
        (11, "float32", (1, 2, 43, 71), "reflect", 1),
        (7, "float32", (1, 1, 38, 135), "symmetric", 2),
        (3, "float32", (1, 1, 15, 64), "replicate", 0),
        (3, "float32", (1, 1, 15, 64), "replicate", 1),
        (11, "float64", (1, 2, 37, 45), "valid", 0),
        (11, "float64", (1, 2, 37, 45), "symmetric", 2),
    ],
    ids=str,
)
def test_the_march_halves_both_images_on_its_way(size, dtype, shape, padding, gradients):
    x, y = pair(shape, dtype)
    window = Gaussian(size)
    plan = Plan(shape, dtype, window.weights_y, window.weights_x, C1, C2, padding=padding)
    device = EmulatedDevice()
    options = {"gradients": gradients, "reduction": launch.Reduction()}
    sums, *grads, half_x, half_y = compute(device, x, y, plan=plan, halves=True, **options)
    assert {made.instance.kernel for *_, made in device.launches} == {"march", "reduce"}
    for half, image in ((half_x, x), (half_y, y)):
        assert np.abs(half - reference.halved(image.astype(np.float64))).max() <= HALF[dtype]
    alone = compute(EmulatedDevice(), x, y, plan=plan, **options)
    windows = plan.count("channel")
    assert np.abs(sums - alone[0]).max() <= VALUE[dtype] * windows
    for gradient, other in zip(grads, alone[1:], strict=True):
        assert_gradient_close(gradient, other)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16])
def test_halves_of_integers_and_of_half_precision(dtype):
    x, y = pair((1, 1, 43, 71), "float32")
    largest = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    x, y = (np.round(image * largest).astype(dtype) if largest > 1 else image.astype(dtype) for image in (x, y))
    taps = Gaussian().weights_y
    plan = Plan(x.shape, "float32", taps, taps, C1, C2, fractions=True)
    half_x, half_y = compute(EmulatedDevice(), x, y, plan=plan, halves=True)
    for half, image in ((half_x, x), (half_y, y)):
        assert np.abs(half - reference.halved(image.astype(np.float64) / largest)).max() <= HALF["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 2, 23, 31), (2, 1, 1, 9), (1, 1, 5, 4)], ids=str)
def test_the_slow_twin_of_halves_equals_the_reference(shape, dtype, monkeypatch):
    x, y = pair(shape, dtype)
    taps = Gaussian().weights_y
    plan = Plan(shape, dtype, taps, taps, C1, C2, padding="symmetric")
    for gradients in (0, 2):
        *_, half_x, half_y = slow_twin(x, y, plan, monkeypatch, gradients=gradients, halves=True)
        for half, image in ((half_x, x), (half_y, y)):
            assert half.shape == (*shape[:2], shape[2] // 2, shape[3] // 2)
            assert np.abs(half - reference.halved(image.astype(np.float64))).max(initial=0) <= HALF[dtype]


def test_halves_of_equal_images_are_equal_and_know_no_order():
    x, y = pair((1, 2, 43, 71), "float32")
    half_x, half_y = compute(EmulatedDevice(), x, x, Gaussian(), halves=True)
    assert (half_x == half_y).all()
    for options in ({"reduction": launch.Reduction("all")}, {"gradients": 2}):
        same_in_every_order(
            lambda order, given=options: compute(EmulatedDevice(order), x, y, Gaussian(), halves=True, **given)
        )


def joined(scales):
    """All scales but the finest, one behind the other."""
    return np.concatenate([np.empty(0, scales[0].dtype), *map(np.ravel, scales[1:])])


def deliver(device, scales, upstream):
    """Add up gradients of all scales, finest first."""
    finest = device.buffer(scales[0])
    launch.add_up(device, finest, device.buffer(joined(scales)), device.buffer(upstream))
    return finest.array


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "count"), [((2, 3, 43, 71), 5), ((1, 1, 16, 32), 3), ((1, 2, 7, 9), 1), ((2, 1, 3, 2), 2)], ids=str
)
def test_gradients_of_all_scales_are_added_up(shape, count, dtype):
    rng = np.random.default_rng(0)
    scales = [rng.normal(size=(*shape[:2], shape[2] >> s, shape[3] >> s)).astype(dtype) for s in range(count)]
    upstream = rng.normal(size=(count, *shape[:2])).astype(dtype)
    exact = np.zeros(())
    for scale, part in reversed(list(enumerate(scales))):
        finer = upstream[scale, ..., None, None].astype(np.float64) * part
        exact = finer + (0 if scale == count - 1 else reference._unhalved(exact, finer.shape))
    (found,) = same_in_every_order(lambda order: [deliver(EmulatedDevice(order), scales, upstream)])
    assert np.abs(found - exact).max() <= 4 * np.finfo(dtype).eps * np.abs(exact).max()
    on_cpu = torch.from_numpy(scales[0].copy())
    torch.ops.fastssim.ssim_deliver(on_cpu, torch.from_numpy(joined(scales)), torch.from_numpy(upstream))
    assert np.abs(on_cpu.numpy() - exact).max() <= 4 * np.finfo(dtype).eps * np.abs(exact).max()


def test_sanitizers_find_nothing(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from device import EmulatedDevice
from test_kernels import Gaussian, Plan, Uniform, compute, deliver, forget_kernels, geometry, launch, pair

geometry.THREADS = (32,)
x, y = pair((1, 2, 43, 71), "float32")
compute(EmulatedDevice(2, sanitize=True), x, y, Gaussian(), ssim_map=True)
compute(EmulatedDevice(2, sanitize=True), x, y, Gaussian(), gradients=2, upstream=x[..., 10:, 10:])
compute(EmulatedDevice(2, sanitize=True), x, y, Gaussian(), gradients=1, reduction=launch.Reduction())
taps = Gaussian().weights_y
plan = Plan(x.shape, "float32", taps, taps, 1e-4, 9e-4, padding="reflect")
compute(EmulatedDevice(2, sanitize=True), x, y, plan=plan, gradients=2, upstream=y)
masked = Plan(x.shape, "float32", taps, taps, 1e-4, 9e-4, padding="reflect", masked=True)
options = dict(plan=masked, mask=x > 0.4, gradients=1, l1=1.0, reduction=launch.Reduction(counted=True, l1=1.0))
compute(EmulatedDevice(2, sanitize=True), x, y, **options)
compute(EmulatedDevice(2, sanitize=True), x, y, Uniform(25), gradients=2, upstream=x[..., 24:, 24:], halves=True)
compute(EmulatedDevice(2, sanitize=True), x, y, Gaussian(), halves=True)
compute(EmulatedDevice(2, sanitize=True), x, y, plan=plan, gradients=1, halves=True)
deliver(EmulatedDevice(2, sanitize=True), [x, x[..., :21, :35], x[..., :10, :17]], x[0, :, :3, 0].T.copy())
forget_kernels()
geometry.THREADS = ()
compute(EmulatedDevice(2, sanitize=True), x, y, **options)
"""
    done = run_sanitized(program, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
