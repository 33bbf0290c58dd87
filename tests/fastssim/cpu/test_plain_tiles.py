"""The tiles' kernels and their plain twin agree on whatever they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim.cpu import plain_tiles, tile_launch
from fastssim.tiles import Blender, TileGrid, blending, extract, stream
from fastssim.tiles.storage import stored
from fastssim.tiles.windows import window_key

GRID = TileGrid((37, 29), (12, 9), (5, 4), "reflect")
FULL = np.random.default_rng(1).random((12, 9))
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


def streamed(tiles, reduction, window, batch):
    """Blend tiles that come some at a time."""
    blender = Blender(GRID, channels=2, dtype=tiles.dtype, window=window, reduction=reduction)
    outs = tuple(torch.empty((2, *GRID.size), dtype=dtype) for dtype in blender.dtypes)
    for first in range(0, len(tiles), batch):
        blender.push(tiles[first : first + batch], outs if len(outs) > 1 else outs[0])
    return outs


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "max", "min", "mean_std"])
@pytest.mark.parametrize("window", ["gaussian", FULL], ids=["gaussian", "given"])
def test_blends_are_the_same(monkeypatch, window, reduction, dtype):
    tiles = torch.rand(len(GRID), 2, *GRID.tile_shape, generator=torch.Generator().manual_seed(2))
    tiles = (255 * tiles).to(dtype) if dtype == torch.uint8 else tiles.to(dtype)
    found = []
    for backend in (tile_launch, plain_tiles):
        for module in (stream, blending):
            monkeypatch.setattr(module, "launch_of", lambda _, backend=backend: backend)
        found.append([streamed(tiles, reduction, window, batch) for batch in (len(GRID), 5)])
    last_bit = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.uint8: 1}.get(dtype, 1e-6)
    for kernels, twin in zip(*found, strict=True):
        for one, other in zip(kernels, twin, strict=True):
            assert one.dtype == other.dtype
            torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=last_bit)


@pytest.mark.parametrize("window", ["hann", FULL], ids=["hann", "given"])
def test_copies_and_their_adjoint_are_the_same(window):
    canvas = np.random.default_rng(3).random((2, GRID.geometry.canvas_height, GRID.geometry.canvas_width))
    plan = stream.make_plan(tuple(GRID.geometry), *window_key(window, GRID.tile_shape))
    pairs = [np.empty((2, len(GRID), 2, *GRID.tile_shape)) for _ in range(2)]
    for number, backend in enumerate((tile_launch, plain_tiles)):
        backend.copy(canvas, plan.origins, pairs[0][number])
        backend.scatter(plan, canvas, pairs[1][number])
    assert (pairs[0][0] == pairs[0][1]).all()
    assert pairs[0][0].any()
    np.testing.assert_allclose(*pairs[1], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES[:-1], ids=str)
def test_what_is_not_finite_is_seen_by_both(monkeypatch, dtype):
    bits = {4: 23, 8: 52, 2: 7 if dtype == torch.bfloat16 else 10}[dtype.itemsize]
    exponent = (bits, 8 * dtype.itemsize - 1 - bits)
    image = torch.rand(7, 5).to(dtype)
    for number, expected in ((0.5, True), (float("nan"), False), (float("-inf"), False)):
        image[3, 2] = number
        assert plain_tiles.finite(stored(image), exponent) is expected
        assert tile_launch.finite(stored(image), exponent) is expected
    tiles = extract(image.reshape(1, 5, 7), grid := TileGrid((5, 7), 3, 2))
    for backend in (tile_launch, plain_tiles):
        monkeypatch.setattr(stream, "launch_of", lambda _, backend=backend: backend)
        blender = Blender(grid, channels=1, dtype=dtype)
        blender.add(tiles)
        assert not blender.finite
