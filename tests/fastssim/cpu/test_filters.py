"""The kernels' two ways to filter and their layout in strips, where widths, values and windows are awkward."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import binding as llvm
from numba import njit

from fastssim import Gaussian, Taps, Uniform, reference, ssim, ssim_map
from fastssim.cpu import buffers, delivery, filters, passes, simd, strips
from fastssim.cpu.simd import vector_bytes

VALUE, MAP, GRADIENT = 1e-6, 5e-7, 1e-6  # measured: 2e-8, 2.5e-7, 3e-7
EDGE_WINDOWS = [
    Gaussian(),
    Gaussian(3),
    Gaussian(3, 0.5),
    Gaussian(5, 1.0),
    Gaussian(9, 0.5),
    Gaussian(33, 5.0),
    Uniform(7),
]


def pair(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, dtype=dtype, generator=generator)
    return x, (x + 0.2 * torch.rand(shape, dtype=dtype, generator=generator)) / 1.2


def assert_right(x, y, bound=MAP, **options):
    """Compare map and gradients with the reference, these relative to their norm."""
    expected = reference.ssim(x, y, **options)
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = ssim_map(a, b, **options)
    np.testing.assert_allclose(value.detach(), expected, rtol=0, atol=bound)
    upstream = torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(value, (a, b), upstream)
    for (first, second), gradient in zip(((x, y), (y, x)), gradients, strict=True):
        wanted = reference.ssim_gradient(first, second, upstream, **options)
        assert np.linalg.norm(gradient.numpy() - wanted) <= GRADIENT * np.linalg.norm(wanted)


@pytest.mark.parametrize("window", [Gaussian(), Uniform(7), Gaussian(5, 0.8)], ids=str)
def test_every_width_of_a_strip(window):
    height, width = window.shape
    for more in range(70):
        assert_right(*pair((1, 1, height + more % 5, width + more)), window=window)


@pytest.mark.parametrize("padding", ["valid", "reflect", "zeros"])
@pytest.mark.parametrize("size", [3, 7, 9, 31, 33, 35])
def test_uniform_windows_of_every_size(size, padding):
    assert_right(*pair((1, 2, 61, 83)), window=Uniform(size), padding=padding)


@pytest.mark.parametrize(
    "window",
    [
        Uniform((9, 3)),
        Uniform((1, 13)),
        Taps(([1, 2, 4], [5, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 3])),
        Gaussian((13, 1), 2.0),
    ],
)
def test_windows_that_are_not_square_or_mirrored(window):
    assert_right(*pair((1, 1, 40, 300)), window=window, unbiased=True)


def test_tiles_join_without_a_trace():
    assert_right(*pair((1, 1, 300, 900)), window=Uniform(31))
    assert_right(*pair((1, 1, 300, 900)), window=Gaussian())


@njit
def deliver(line, edges, x0, x1, gradient, rim):
    delivery.deliver(line, 0, edges, x0, x1, gradient, 0, rim, 0)


@pytest.mark.parametrize(("x0", "x1"), [(0, 4), (2, 6), (3, 11), (9, 14), (11, 13), (12, 22), (16, 20), (0, 22)])
def test_a_tile_anywhere_in_the_padding_gives_its_own_pixels_only(x0, x1):
    pad, inner = 10, 2
    gradient, rim = np.full(inner, -1, np.float32), np.full(2 * pad, -1, np.float32)
    padded = np.arange(2 * pad + inner, dtype=np.float32)
    edges = (np.zeros(1, np.int64), np.zeros(2 * pad + inner, np.int64), 0, pad)
    deliver(np.concatenate([padded[x0:], padded]), edges, x0, x1, gradient, rim)
    expected = np.where((padded >= x0) & (padded < x1), padded, -1)
    assert gradient.tolist() == expected[pad:-pad].tolist()
    assert rim.tolist() == [*expected[:pad], *expected[-pad:]]


@pytest.mark.parametrize("window", [Uniform(9), Gaussian(5, 1.0)], ids=str)
def test_a_mask_goes_through_sums_in_float64(window):
    x, y = pair((1, 1, 50, 61))
    mask = (torch.rand(1, 1, 50, 61, generator=torch.Generator().manual_seed(2)) > 0.4).float()
    mask[..., 10:30, 20:45] = 0
    assert_right(x, y, window=window, mask=mask)


@pytest.mark.parametrize("window", [Uniform(7), Gaussian(), Gaussian(5, 1.0)], ids=str)
@pytest.mark.parametrize("pixel", [float("nan"), float("inf"), 1e18])
def test_a_pixel_spoils_only_the_windows_that_touch_it(window, pixel):
    x, y = pair((1, 1, 60, 70))
    clean, expected = ssim_map(x, y, window=window), x.clone().requires_grad_()
    (by_x,) = torch.autograd.grad(ssim_map(expected, y, window=window).sum(), expected)
    x[..., 20, 30] = pixel
    size = window.shape[0]
    touched = torch.zeros(1, 1, 60, 70, dtype=torch.bool)
    touched[..., 20 - size + 1 : 20 + size, 30 - size + 1 : 30 + size] = True
    windows = torch.zeros_like(clean, dtype=torch.bool)
    windows[..., 20 - size + 1 : 21, 30 - size + 1 : 31] = True
    a = x.clone().requires_grad_()
    value = ssim_map(a, y, window=window)
    assert torch.allclose(value[~windows], clean[~windows], rtol=0, atol=4e-6)
    (gradient,) = torch.autograd.grad(value[~windows].sum(), a)
    assert torch.allclose(gradient[~touched], by_x[~touched], rtol=0, atol=1e-5 * float(by_x.abs().max()))


@pytest.mark.parametrize("window", [Gaussian(3, 0.5), Gaussian(5, 1.0), Uniform(7)], ids=str)
def test_a_flat_region_beside_an_edge_keeps_its_little_variance(window):
    generator = torch.Generator().manual_seed(0)
    edge = torch.zeros(1, 1, 64, 64)
    edge[..., 20:45, 13:40] = 1
    noise = torch.randn(2, 1, 1, 64, 64, generator=generator)
    assert_right(edge + 0.002 * noise[0], edge + 0.002 * noise[1], window=window)


@pytest.mark.parametrize("noise", [0.002, 0.02])
@pytest.mark.parametrize("window", EDGE_WINDOWS, ids=str)
def test_so_it_does_beside_points_and_lines_in_windows_of_every_kind(window, noise):
    generator = torch.Generator().manual_seed(0)
    edge = torch.zeros(1, 1, 64, 64)
    edge[..., 20:45, 13:40] = 1
    edge[..., 50, 50] = 1
    edge[..., range(64), range(63, -1, -1)] = 1
    first, second = noise * torch.randn(2, 1, 1, 64, 64, generator=generator)
    assert_right(edge + first, edge + second, bound=2e-6, window=window)


@njit
def there_and_back(line, strip, width, row, back):
    strips.into_strips(line, strip, width, row)
    strips.out_of_strips(row, strip, width, back)


def test_strips_turn_a_row_there_and_back():
    for dtype in (np.float32, np.float64):
        width = vector_bytes() // np.dtype(dtype).itemsize
        for strip in range(4, 41, 4):
            line = np.arange(width * (strip + width), dtype=dtype)
            row, back = np.zeros_like(line), np.zeros_like(line)
            there_and_back(line, strip, width, row, back)
            lanes = row[: width * strip].reshape(strip, width)
            assert (lanes == line[: width * strip].reshape(width, strip).T).all()
            assert (back[: width * strip] == line[: width * strip]).all()


def test_vectors_of_the_other_width(tmp_path):
    """What a processor with wider registers computes, in pairs of this one's, or one with narrower ones."""
    here = Path(__file__)
    code = (
        "import sys; import fastssim.cpu.simd as simd\n"
        "width = {32: 64, 64: 32}[simd.vector_bytes()]; simd.vector_bytes = lambda: width\n"
        f"sys.path.insert(0, {str(here.parent)!r})\n"
        "import test_filters as t\n"
        "t.test_every_width_of_a_strip(t.Gaussian()); t.test_every_width_of_a_strip(t.Uniform(7))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}  # this code must not be kept for others
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=600)


@pytest.mark.skipif(not (simd.X86 and llvm.get_host_cpu_features().get("avx")), reason="registers of 256 bits wanted")
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("size", [1, 3, 7, 9, 11, 13])
def test_filters_that_make_do_with_few_registers_give_the_same(size, mirrored, monkeypatch):
    generator = np.random.default_rng(0)
    weights = generator.random(size, np.float32)
    if mirrored:
        weights += weights[::-1]
    weights /= weights.sum()
    taps = (tuple(weights[: size // 2 + 1]),) if mirrored else tuple(weights)
    lanes = vector_bytes() // 4
    step = buffers.pitch(size, lanes)
    rows = generator.random((size + buffers.ROWS) * step, np.float32)  # as many as are read; four are maps

    def filtered(few):
        monkeypatch.setattr(filters, "few_registers", lambda: few)

        @njit(fastmath={"contract"})
        def run(rows, taps, out, constants):
            passes.adjoint_across(rows, 0, 0, taps, (0, 0, 0, 0), out[0])
            passes.moments_across(rows, None, 0, 0, taps, constants, None, out[1])
            passes.moments_down(rows, rows, None, 0, 0, taps, taps, constants, out[2])

        out = np.zeros((3, 16 * step), np.float32)
        run(rows, taps, out, tuple(np.zeros(6, np.float32)))
        return out

    few, many = filtered(few=True), filtered(few=False)
    np.testing.assert_allclose(few, many, rtol=0, atol=3e-7)  # other products are rounded before a sum
    used = range(buffers.BLOCK * lanes)
    for first in range(0, 4 * step, step):
        expected = [weights @ rows[first + i : first + i + size * lanes : lanes].astype(float) for i in used]
        np.testing.assert_allclose(few[0, first : first + len(used)], expected, rtol=1e-6)


def test_mean_equals_the_maps_mean():
    x, y = pair((2, 3, 70, 120))
    for window in (Gaussian(), Uniform(7), Uniform(31)):
        assert abs(float(ssim(x, y, window=window)) - float(ssim_map(x, y, window=window).double().mean())) <= VALUE


@pytest.mark.parametrize("width", [12, 31, 128, 200])
def test_nothing_is_read_outside_an_image(width):
    """Rows are read where they lie, a few numbers beside them too: never before or behind the image's memory."""
    code = f"""
import ctypes, mmap
import numpy as np, torch
from fastssim import ssim

page, shape = mmap.PAGESIZE, (20, {width})
size = -(-shape[0] * shape[1] * 4 // page) * page
memory = mmap.mmap(-1, size + 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
protect = ctypes.CDLL(None, use_errno=True).mprotect
numbers = np.frombuffer(memory, np.float32)[page // 4 : (page + size) // 4]
for first in (0, len(numbers) - shape[0] * shape[1]):
    image = torch.from_numpy(numbers[first : first + shape[0] * shape[1]].reshape(shape))
    image.copy_(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    other = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.functional.vjp(lambda x: ssim(x, other), image.clone())
    for edge in (address, address + page + size):
        assert protect(ctypes.c_void_p(edge), page, 0) == 0
    found = torch.autograd.functional.vjp(lambda x: ssim(x, other), image)
    assert ssim(other, image) == ssim(other, image.clone()), "value"
    assert found[0] == expected[0] and torch.equal(found[1], expected[1]), "gradient"
    for edge in (address, address + page + size):
        assert protect(ctypes.c_void_p(edge), page, mmap.PROT_READ | mmap.PROT_WRITE) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_what_surrounds_a_part_of_an_image_does_not_matter():
    whole = torch.full((2, 3, 90, 160), torch.nan)
    other = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(1))
    part = whole[:, :, 20:70, 40:110]
    part.copy_(torch.rand(part.shape, generator=torch.Generator().manual_seed(0)))
    for padding in ("valid", "reflect"):
        expected, found = (
            torch.autograd.functional.vjp(lambda x: ssim(x, other, padding=padding), x)  # noqa: B023  # at once
            for x in (part.clone(), part.detach())
        )
        assert found[0] == expected[0]
        assert torch.equal(found[1], expected[1])
