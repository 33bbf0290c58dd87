"""The kernels of volumes on the CPU, by the emulator, against the float64 reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from device import EmulatedDevice
from emulate import run_sanitized, same_in_every_order

from fastssim import Gaussian, Uniform, reference
from fastssim.cuda import geometry, launch, volume_geometry
from fastssim.cuda.geometry import Task
from fastssim.plan import PADDINGS, Plan

WINDOW = Gaussian((3, 5, 7), (0.8, 1.2, 1.5))
VALUE = {"float32": 1e-6, "float64": 1e-13}
MAP = {"float32": 2e-6, "float64": 1e-11}
GRADIENT = {"float32": 2e-6, "float64": 1e-12}  # relative L2


def pair(shape, dtype, seed=0):
    """Two related volumes in [0, 1]: waves steeper than the window is wide, with noise."""
    rng = np.random.default_rng(seed)
    planes, rows, columns = np.ogrid[tuple(slice(length) for length in shape[-3:])]
    clean = 0.5 + 0.4 * np.sin(planes / 4 + rows / 5 + rng.random()) * np.cos(columns / 7 + rng.random())
    x = np.clip(clean + rng.normal(0, 0.05, shape), 0, 1)
    return x.astype(dtype), np.clip(x + rng.normal(0, 0.1, shape), 0, 1).astype(dtype)


def planned(shape, dtype, window=WINDOW, **options):
    taps_z, taps_y, taps_x = window.along(3)
    return Plan(shape, dtype, taps_y, taps_x, 1e-4, 9e-4, taps_z=taps_z, **options)


def compute(
    device, x, y, window=WINDOW, *, gradients=0, upstream=None, ssim_map=False, mask=None, scale=1.0, **options
):
    """Run the launcher on a device; return the sums and what was asked for, as arrays."""
    dtype = "float64" if "float64" in (x.dtype, y.dtype) else "float32"
    plan = planned(x.shape, dtype, window, masked=mask is not None, **options)
    out = {"ssim_map": device.output(plan.map_shape, dtype)} if ssim_map else {}
    for name in ("grad_x", "grad_y")[:gradients]:
        out[name] = device.output(x.shape, dtype)
    images = [None if image is None else device.buffer(image) for image in (x, y, mask, upstream)]
    reduced = launch.march(
        device, plan, *images[:3], scale=scale, upstream=images[3], reduction=launch.Reduction(), **out
    )
    return [buffer.array for buffer in (reduced.value, *out.values())]


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(1, 2, 7, 19, 37), (2, 1, 2, 1, 3)], ids=str)
def test_value_map_and_gradients_equal_the_reference(shape, padding, dtype):
    if padding == "valid" and shape[2] < 3:
        pytest.skip("no window fits")
    x, y = pair(shape, dtype)
    options = {"window": WINDOW, "padding": padding, "dims": 3}
    expected = reference.ssim(x, y, **options)
    upstream = np.random.default_rng(1).random(expected.shape).astype(dtype)
    sums, ssim_map, grad_x, grad_y = compute(
        EmulatedDevice(), x, y, padding=padding, gradients=2, upstream=upstream, ssim_map=True, scale=0.5
    )
    assert np.abs(sums - expected.sum((2, 3, 4))).max() <= VALUE[dtype] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP[dtype]
    assert relative(grad_x, 0.5 * reference.ssim_gradient(x, y, upstream, **options)) <= GRADIENT[dtype]
    assert relative(grad_y, 0.5 * reference.ssim_gradient(y, x, upstream, **options)) <= GRADIENT[dtype]


def test_the_usual_window_and_segments_of_the_depth():
    x, y = pair((1, 1, 43, 12, 13), "float32")
    device = EmulatedDevice()
    sums, grad_x = compute(device, x, y, Gaussian(), gradients=1)
    assert device.launches[0][2].grid > 1
    expected = reference.ssim(x, y, dims=3)
    assert abs(sums.item() - expected.sum()) <= VALUE["float32"] * expected.size
    assert relative(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape), dims=3)) <= GRADIENT["float32"]


EDGES = {  # of plane z, row r and column c: brightness changes within a window's reach, and not around it
    "an edge in depth": lambda z, r, c: np.where(z > 16, 0.9, 0.1) + 0 * r + 0 * c,
    "an edge aslant": lambda z, r, c: np.where(z + r + c > 45, 0.95, 0.05),
    "planes": lambda z, r, c: np.where(z % 12 == 0, 1.0, 0.1) + 0 * r + 0 * c,
    "cubes": lambda z, r, c: (z // 8 + r // 8 + c // 8) % 2 * 0.9 + 0.05,
}


@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("window", [Gaussian(), Uniform(7), Gaussian(3, 0.5)], ids=str)
def test_edges_keep_their_precision(window, kind):
    rng = np.random.default_rng(0)
    clean = EDGES[kind](*np.ogrid[:34, :21, :41])[None, None]
    for noise in (0.0, 0.05):
        x = np.clip(clean + rng.normal(0, noise, clean.shape), 0, 1).astype(np.float32)
        y = np.clip(x + rng.normal(0, max(noise, 0.003), clean.shape), 0, 1).astype(np.float32)
        options = {"window": window, "dims": 3}
        expected = reference.ssim(x, y, **options)
        _, ssim_map, grad_x = compute(EmulatedDevice(), x, y, window, ssim_map=True, gradients=1)
        assert np.abs(ssim_map - expected).max() <= MAP["float32"]
        exact = reference.ssim_gradient(x, y, np.ones(expected.shape), **options)
        assert relative(grad_x, exact) <= GRADIENT["float32"]


def test_windows_of_one_place_along_an_axis_and_unbiased_moments():
    x, y = pair((1, 1, 4, 6, 35), "float64")
    window = Uniform((1, 5, 1))
    options = {"window": window, "padding": "symmetric", "unbiased": True, "dims": 3}
    expected = reference.ssim(x, y, **options)
    _, ssim_map, grad_x = compute(
        EmulatedDevice(), x, y, window, ssim_map=True, gradients=1, padding="symmetric", unbiased=5 / 4
    )
    assert np.abs(ssim_map - expected).max() <= MAP["float64"]
    assert relative(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape), **options)) <= GRADIENT["float64"]


@pytest.mark.parametrize("padding", ["valid", "reflect"])
def test_equal_volumes_are_exactly_one_with_a_gradient_of_exactly_zero(padding):
    x, _ = pair((1, 2, 7, 19, 37), "float32")
    sums, ssim_map, grad_x, grad_y = compute(EmulatedDevice(), x, x, padding=padding, ssim_map=True, gradients=2)
    assert (ssim_map == 1).all()
    assert (sums == ssim_map[0, 0].size).all()
    assert (grad_x == 0).all()
    assert (grad_y == 0).all()


def test_every_order_of_threads_and_blocks_gives_the_same_bits():
    x, y = pair((1, 1, 7, 19, 37), "float32")
    options = {"padding": "reflect", "gradients": 2, "upstream": y, "ssim_map": True}
    same_in_every_order(lambda order: compute(EmulatedDevice(order), x, y, **options))


def test_any_strides_give_the_same_bits():
    x, y = pair((1, 2, 7, 9, 37), "float32")
    options = {"padding": "reflect", "gradients": 2}
    plain = compute(EmulatedDevice(), x, y, **options)
    lasting = np.ascontiguousarray(x.transpose(0, 2, 3, 4, 1)).transpose(0, 4, 1, 2, 3)
    flipped = np.ascontiguousarray(y[..., ::-1, ::-1, ::-1])[..., ::-1, ::-1, ::-1]
    results = compute(EmulatedDevice(), lasting, flipped, **options)
    assert all((a == b).all() for a, b in zip(plain, results, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(3, 9, 18), (1, 4, 8)], ids=str)  # the first is the volume's middle
def test_a_bad_pixel_spoils_only_the_windows_that_touch_it(bad, place):
    x, y = pair((1, 1, 7, 19, 37), "float32")
    _, clean, clean_gradient = compute(EmulatedDevice(), x, y, ssim_map=True, gradients=1)
    x[(0, 0, *place)] = bad
    _, found, gradient = compute(EmulatedDevice(), x, y, ssim_map=True, gradients=1)
    sizes = WINDOW.shape
    touched, reached = np.zeros(found.shape, bool), np.zeros(x.shape, bool)
    touched[(0, 0, *(slice(max(0, p - n + 1), p + 1) for p, n in zip(place, sizes, strict=True)))] = True
    reached[(0, 0, *(slice(max(0, p - n + 1), p + n) for p, n in zip(place, sizes, strict=True)))] = True
    assert not np.isfinite(found[touched]).any()
    np.testing.assert_allclose(found[~touched], clean[~touched], rtol=0, atol=2 * MAP["float32"])
    assert not np.isfinite(gradient[reached]).all()
    np.testing.assert_allclose(gradient[~reached], clean_gradient[~reached], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_half_precision_beside_integers_as_fractions(dtype, largest):
    x, y = pair((1, 1, 4, 9, 37), "float32")
    half, target = x.astype(np.float16), np.round(y * largest).astype(dtype)
    _, grad_x, grad_y = compute(EmulatedDevice(), half, target, gradients=2, fractions=True)
    ones = np.ones(planned(x.shape, "float32").map_shape)
    options = {"window": WINDOW, "dims": 3}
    as_read = target / largest
    assert relative(grad_x, reference.ssim_gradient(half, as_read, ones, **options)) <= GRADIENT["float32"]
    assert relative(grad_y, reference.ssim_gradient(as_read, half, ones, **options)) <= GRADIENT["float32"]


LARGE = Uniform((43, 3, 5))  # more planes than registers hold partial sums for


@pytest.mark.parametrize("padding", ["valid", "zeros", "symmetric"])
def test_a_window_too_large_for_a_block_goes_by_the_definition(padding):
    x, y = pair((1, 2, 44 if padding == "valid" else 7, 4, 9), "float32")
    plan = planned(x.shape, "float32", LARGE, padding=padding)
    device = EmulatedDevice()
    options = {"window": LARGE, "padding": padding, "dims": 3}
    expected = reference.ssim(x, y, **options)
    upstream = np.random.default_rng(1).random(expected.shape).astype("float32")
    assert volume_geometry.march(plan, Task("float32", "float32", gradients=2, upstream=True)) is None
    sums, ssim_map, grad_x, grad_y = compute(
        device, x, y, LARGE, padding=padding, ssim_map=True, gradients=2, upstream=upstream, scale=0.5
    )
    assert [launched.instance.kernel for *_, launched in device.launches] == ["windows", "pixels", "reduce"]
    assert np.abs(sums - expected.sum((2, 3, 4))).max() <= VALUE["float32"] * expected[0, 0].size
    assert np.abs(ssim_map - expected).max() <= MAP["float32"]
    assert relative(grad_x, 0.5 * reference.ssim_gradient(x, y, upstream, **options)) <= GRADIENT["float32"]
    assert relative(grad_y, 0.5 * reference.ssim_gradient(y, x, upstream, **options)) <= GRADIENT["float32"]


def test_gradients_that_do_not_fit_a_block_together_come_one_after_the_other(monkeypatch):
    x, y = pair((1, 1, 4, 9, 37), "float32")
    expected = compute(EmulatedDevice(), x, y, gradients=2)
    plan = planned(x.shape, "float32")
    phases = [volume_geometry.march(plan, Task("float32", "float32", gradients=count)) for count in (1, 2)]
    one, both = (max(volume_geometry.shared_bytes(made.instance) for made in launches) for launches in phases)
    assert one < both
    for kept in (volume_geometry.march, launch._ready):
        kept.cache_clear()
    monkeypatch.setattr(volume_geometry, "SHARED_BYTES", one)
    device = EmulatedDevice()
    found = compute(device, x, y, gradients=2)
    for kept in (volume_geometry.march, launch._ready):
        kept.cache_clear()
    assert [launched.instance.kernel for *_, launched in device.launches] == ["volume"] * 4 + ["reduce"]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_masks_and_l1_go_by_the_definition():
    x, y = pair((1, 1, 4, 9, 17), "float64")
    mask = (np.random.default_rng(2).random((1, 1, 4, 9, 17)) > 0.3).astype("float64")
    device = EmulatedDevice()
    _, ssim_map, grad_x = compute(device, x, y, mask=mask, ssim_map=True, gradients=1)
    options = {"window": WINDOW, "mask": mask, "dims": 3}
    expected = reference.ssim(x, y, **options)
    assert np.abs(ssim_map - expected).max() <= MAP["float64"]
    assert relative(grad_x, reference.ssim_gradient(x, y, np.ones(expected.shape), **options)) <= GRADIENT["float64"]
    loss = launch.Reduction("all", "float64", windows=expected.size, offset=0.5, scale=-0.5, l1=0.5 / x.size)
    value, _ = launch.march(device, planned(x.shape, "float64"), *map(device.buffer, (x, y)), reduction=loss)
    exact = 0.5 * np.abs(x - y).mean() + 0.5 * (1 - reference.ssim(x, y, window=WINDOW, dims=3).mean())
    assert abs(value.array - exact) <= VALUE["float64"]


def test_planes_may_lie_any_number_of_bytes_apart():
    far = SimpleNamespace(strides=lambda _: (1, 1, 2**33, 64, 1), itemsize=lambda _: 8, contiguous=None)
    image, strides = geometry.described(far, "image")
    assert image == "image"
    assert geometry.steps("x", strides, 8)["plane_x"] == 2**33


def test_sanitizers_find_nothing(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from device import EmulatedDevice
from test_volume import compute, pair

x, y = pair((1, 2, 7, 11, 37), "float32")
compute(EmulatedDevice(2, sanitize=True), x, y, gradients=2, upstream=y, padding="reflect", ssim_map=True)
compute(EmulatedDevice(2, sanitize=True), x, y, gradients=1)
"""
    done = run_sanitized(program, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
