"""The steps between MS-SSIM's scales against their twins: pixels of every dtype and layout, odd sides, many threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from fastssim import scales
from fastssim.cpu import plain, scale_launch
from fastssim.scales import halve

WIDE = (1, 1, 5, 4301)  # columns of more than two chunks
LAYOUTS = {
    "contiguous": lambda image: image,
    "turned": lambda image: image.mT.contiguous().mT,
    "channels last": lambda image: image.contiguous(memory_format=torch.channels_last),
    "every other column": lambda image: torch.stack((image, image), -1).flatten(-2)[..., ::2],
    "expanded": lambda image: image[:, :1].expand(image.shape),
}


def halved(function, image, dtype, *, fractions=True):
    n, c, height, width = image.shape
    out = torch.full((n, c, height // 2, width // 2), np.nan, dtype=dtype)
    function(image, out, fractions=fractions)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 45, 50), (1, 2, 2, 3), (2, 1, 3, 8), WIDE], ids=str)
def test_halves_are_the_means_of_four_pixels(images, shape, layout):
    image = LAYOUTS[layout](images(shape)[0])
    found, twin = (halved(module.halve, image, torch.float32) for module in (scale_launch, plain))
    assert torch.equal(found, twin)


@pytest.mark.parametrize("fractions", [True, False])
@pytest.mark.parametrize("out", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.uint16], ids=str
)
def test_pixels_of_every_dtype_are_halved(images, dtype, out, fractions):
    image = images((1, 2, 7, 38))[0]
    image = (image * 255).to(dtype) if dtype in (torch.uint8, torch.uint16) else image.to(dtype)
    found, twin = (halved(module.halve, image, out, fractions=fractions) for module in (scale_launch, plain))
    assert torch.allclose(found, twin, rtol=2e-7, atol=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_reaches_one_mean(images, bad):
    image = images((1, 1, 8, 32))[0]
    image[0, 0, 3, 17] = bad
    found = halved(scale_launch.halve, image, torch.float32)
    assert (~torch.isfinite(found)).nonzero().tolist() == [[0, 0, 1, 8]]


@pytest.mark.parametrize("backend", [scale_launch, plain], ids=["kernels", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 2, 7, 9)], ids=str)
def test_halving_is_torchs_with_its_gradient(images, shape, dtype, backend, monkeypatch):
    monkeypatch.setattr(scales, "launch_of", lambda _: backend)
    x, upstream = images(shape, dtype)[0], torch.rand(*shape[:2], shape[2] // 2, shape[3] // 2)
    results = []
    for function, image in ((halve, x), (lambda image: F.avg_pool2d(image, 2), x.double())):
        a = image.clone().requires_grad_()
        half = function(a)
        half.backward(upstream.to(half.dtype))
        results.append((half.detach().double(), a.grad.double()))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=2e-7 if dtype != torch.float16 else 1e-3, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func loads it
def test_halving_goes_through_torchs_transforms(images):
    x = images((1, 2, 6, 8))[0]
    expected = torch.full_like(x, 0.25)
    assert torch.equal(torch.func.grad(lambda image: halve(image).sum())(x), expected)
    _, tangent = torch.func.jvp(halve, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, torch.ones(1, 2, 3, 4))
    a = x.clone().requires_grad_()
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(halve(a).square().sum(), a, create_graph=True)


def test_halving_is_torchs_where_memory_is_not_what_a_tensor_says(images):
    x = images((1, 2, 7, 8))[0]
    negated = torch.complex(x, x).conj().imag  # holds x, and is read as -x
    assert negated.is_neg()
    assert torch.allclose(halve(negated), -halve(x), rtol=2e-7, atol=0)
    traced = make_fx(halve)(x)
    assert torch.allclose(traced(x + 1), halve(x + 1), rtol=2e-7, atol=0)
    with FakeTensorMode():
        assert halve(torch.empty(1, 2, 7, 8)).shape == (1, 2, 3, 4)


def test_many_upstream_gradients_of_halves_at_once(images):
    x = images((1, 2, 7, 8))[0].requires_grad_()
    upstream = torch.rand(3, 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    half = halve(x)
    one_by_one = [torch.autograd.grad(half, x, each, retain_graph=True)[0] for each in upstream]
    (together,) = torch.autograd.grad(half, x, upstream, is_grads_batched=True, retain_graph=True)
    assert torch.allclose(together, torch.stack(one_by_one), rtol=2e-7, atol=0)
    negated = torch.complex(upstream[0], upstream[0]).conj().imag
    assert torch.allclose(torch.autograd.grad(half, x, negated)[0], -one_by_one[0], rtol=2e-7, atol=0)


def gradients(shape, count, dtype):
    """Gradients of every scale, the coarser ones in a row, and weights."""
    made = torch.Generator().manual_seed(0)
    n, c, height, width = shape
    sizes = (n * c * (height >> scale) * (width >> scale) for scale in range(1, count))
    numbers = (torch.randn(size, generator=made, dtype=dtype) for size in (shape, (sum(sizes),), (count, n, c)))
    return tuple(numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "count"),
    [((2, 3, 45, 51), 5), ((1, 1, 32, 16), 5), ((1, 2, 7, 9), 1), ((3, 1, 3, 2), 2), (WIDE, 3)],
    ids=str,
)
def test_gradients_of_all_scales_are_delivered(shape, count, dtype):
    finest, coarser, weights = gradients(shape, count, dtype)
    exact = finest.double()
    plain.deliver(exact, coarser.double(), weights.double())
    kept = coarser.clone()
    scale_launch.deliver(finest, coarser, weights)
    assert (finest - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()
    assert torch.equal(coarser, kept)


def test_every_thread_count_gives_the_same(images, with_every_thread_count):
    image = images((1, 3, 301, 403))[0]
    finest, coarser, weights = gradients(image.shape, 5, torch.float32)

    def both():
        gradient = finest.clone()
        scale_launch.deliver(gradient, coarser, weights)
        return halved(scale_launch.halve, image, torch.float32), gradient

    first, *others = with_every_thread_count(both)
    for other in others:
        assert all(map(torch.equal, first, other))
