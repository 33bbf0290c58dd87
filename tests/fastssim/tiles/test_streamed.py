"""Tiles that no cache keeps are written past the caches; they are the same tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim.cpu import tile_launch
from fastssim.tiles import TileGrid, extract


@pytest.mark.parametrize("width", [1, 7, 15, 16, 17, 63, 64, 65, 100, 128])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_streamed_tiles_are_the_image_cut_up(monkeypatch, width, dtype):
    """Rows that begin and end anywhere in a cache line."""
    monkeypatch.setattr(tile_launch, "_STREAMED", 0)
    image = (255 * np.random.default_rng(width).random((2, 37, 131))).astype(dtype)
    grid = TileGrid((37, 131), (5, width), (3, max(1, width // 3)))
    tiles = extract(image, grid)
    for tile, (y, x) in zip(tiles, grid.origins, strict=True):
        assert np.array_equal(tile, image[:, y : y + 5, x : x + width])
    assert np.array_equal(extract(torch.from_numpy(image), grid).numpy(), tiles)


def test_more_tiles_than_caches_hold_are_streamed_by_several_threads():
    image = torch.rand(1, 1100, 1100)
    grid = TileGrid((1100, 1100), 100, 20)
    assert 4 * 100 * 100 * len(grid) > tile_launch._STREAMED
    tiles = extract(image, grid)
    for number in range(0, len(grid), 97):
        y, x = grid.origins[number]
        assert torch.equal(tiles[number], image[:, y : y + 100, x : x + 100])
