from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fastssim
from fastssim.tiles import REDUCTIONS, TileGrid, blend, extract, ssim_residual

SMALL = fastssim.Gaussian(7, 1.0)


@pytest.mark.parametrize("border", ["flush", "reflect"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_equals_the_unfused_way(border, channels, reduction):
    grid = TileGrid((90, 200), (40, 32), (20, 9), border)
    torch.manual_seed(0)
    image = torch.rand(channels, 90, 200)
    tiles = (extract(image, grid) + 0.1 * torch.randn(len(grid), channels, 40, 32)).clamp(0, 1)
    x, y = (F.pad(pixels, [3] * 4, mode="reflect") for pixels in (tiles, extract(image, grid)))
    maps = fastssim.ssim_loss(x, y, window=SMALL, reduction="none")
    expected = blend(maps, grid, window="gaussian", reduction=reduction)
    found = ssim_residual(tiles, image, grid, window="gaussian", reduction=reduction, ssim_window=SMALL)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    if reduction == "mean":
        assert found.max() > 0.05
        arrays = ssim_residual(tiles.numpy(), image.numpy(), grid, window="gaussian", ssim_window=SMALL)
        assert isinstance(arrays, np.ndarray)
        np.testing.assert_array_equal(arrays, found.numpy())


def test_the_image_may_have_another_dtype():
    grid = TileGrid((40, 50), 16, 12)
    image, tiles = torch.randint(256, (1, 40, 50), dtype=torch.uint8), torch.rand(12, 1, 16, 16)
    expected = ssim_residual(tiles, image.float() / 255, grid)
    torch.testing.assert_close(ssim_residual(tiles, image, grid), expected, rtol=0, atol=1e-6)
    assert ssim_residual(tiles, image.double() / 255, grid).dtype == torch.float32
    half = (image.float() / 255).bfloat16()
    expected = ssim_residual(tiles, half.float(), grid)
    torch.testing.assert_close(ssim_residual(tiles, half, grid), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ssim_residual(tiles.numpy(), half, grid), expected.numpy(), rtol=0, atol=1e-6)
    foreign = half.float().numpy().astype(">f4")
    torch.testing.assert_close(ssim_residual(tiles, foreign, grid), expected, rtol=0, atol=1e-6)


def test_bad_input():
    with pytest.raises(TypeError, match="grid is a int; give a TileGrid"):
        ssim_residual(np.zeros((1, 1, 16, 16)), np.zeros((1, 40, 50)), 16)
    grid = TileGrid((40, 50), 16, 12)
    image, tiles = torch.rand(1, 40, 50), torch.rand(12, 1, 16, 16)
    with pytest.raises(ValueError, match=r"tiles have shape \(11, 1, 16, 16\)"):
        ssim_residual(tiles[1:], image, grid)
    with pytest.raises(ValueError, match="image has shape"):
        ssim_residual(tiles, image[:, 1:], grid)
    with pytest.raises(TypeError, match=r"y is torch\.int32"):
        ssim_residual(tiles, image.int(), grid)
    for wrong in (tiles.byte(), tiles.half(), tiles.byte().numpy()):
        with pytest.raises(TypeError, match=r"tiles are (torch\.)?(uint8|float16); give float32 or float64"):
            ssim_residual(wrong, image, grid)
    with pytest.raises(NotImplementedError, match="does not carry through"):
        ssim_residual(tiles.requires_grad_(), image, grid)
    for option in ({"dims": 3}, {"padding": "valid"}):
        with pytest.raises(TypeError, match=f"ssim_residual takes no {next(iter(option))}: tiles are images"):
            ssim_residual(tiles.detach(), image, grid, **option)
    with pytest.raises(ValueError, match="data_range is 0"):
        ssim_residual(tiles.detach(), image, grid, data_range=0)
