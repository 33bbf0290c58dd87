"""Tiles on a GPU: ``pytest -m gpu``. Everything here is skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim.tiles import REDUCTIONS, WINDOWS, TileGrid, blend, extract, sliding_window

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or a torch without CUDA"),
]
GRIDS = [TileGrid((300, 500), 128, 32), TileGrid((301, 499), (64, 128), (30, 17), "reflect")]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def random(shape, dtype):
    values = torch.from_numpy(np.random.default_rng(0).random(shape))
    return (values * 255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def as_pair(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_the_bits_are_those_of_the_cpu(grid, reduction, dtype):
    image = random((2, 3, *grid.size), dtype)
    tiles = extract(image, grid)
    assert torch.equal(extract(image.cuda(), grid).cpu(), tiles)
    noisy = random(tiles.shape, dtype)
    for window in (*WINDOWS, 0.1 + np.random.default_rng(3).random(grid.tile_shape)):
        expected = as_pair(blend(noisy, grid, window=window, reduction=reduction))
        found = as_pair(blend(noisy.cuda(), grid, window=window, reduction=reduction))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_gradients_are_those_of_the_cpu(grid):
    gradients = []
    for device in ("cpu", "cuda"):
        x = random((1, 2, *grid.size), torch.float32).to(device).requires_grad_()
        blend(extract(x, grid) ** 2, grid, window="gaussian").square().sum().backward()
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["array", "tensor", "tensor on the GPU"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_sliding_with_transfers_beside_what_is_computed(kind, batch_size):
    grid = TileGrid((700, 500), 128, 32, "reflect")
    image = random((2, 700, 500), torch.float32)
    given = {"array": image.numpy(), "tensor": image, "tensor on the GPU": image.cuda()}[kind]

    def fn(tiles):
        assert tiles.is_cuda
        torch.cuda._sleep(1_000_000)
        return {"same": tiles * 1, "half": tiles[:, :1, ::2, ::2].contiguous()}

    result = sliding_window(fn, given, grid, window="gaussian", batch_size=batch_size, device="cuda")
    assert type(result["same"]) is type(given)
    np.testing.assert_array_equal(torch.as_tensor(result["same"]).cpu(), image)
    np.testing.assert_array_equal(torch.as_tensor(result["half"]).cpu(), image[:1, ::2, ::2])


def test_an_image_of_another_byte_order_goes_up_in_ours():
    grid = GRIDS[0]
    image = random((1, *grid.size), torch.float32).numpy()
    result = sliding_window(lambda tiles: tiles * 1, image.astype(">f4"), grid, device="cuda")
    np.testing.assert_array_equal(result, image)


def test_blending_is_the_same_from_run_to_run_and_on_another_stream():
    grid = GRIDS[0]
    tiles = random((len(grid), 1, *grid.tile_shape), torch.float32).cuda()
    expected = blend(tiles, grid, window="hann")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = tiles.clone()
        result = blend(late, grid, window="hann")
    stream.synchronize()
    assert torch.equal(result, expected)
