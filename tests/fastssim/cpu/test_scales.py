"""The steps between MS-SSIM's scales against their twins: pixels of every dtype and layout, odd sides, many threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim.cpu import plain, scale_launch

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
