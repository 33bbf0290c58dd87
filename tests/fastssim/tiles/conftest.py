"""Grids of every shape: ``st.from_type(TileGrid)``."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from fastssim.cpu import tile_launch
from fastssim.tiles import BORDERS, TileGrid


@st.composite
def grids(draw):
    tile = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    stride = tuple(draw(st.integers(max(1, length // 8), length)) for length in tile)
    border = draw(st.sampled_from(BORDERS))
    least = tile if border == "flush" else (1, 1)
    size = tuple(length + draw(st.integers(0, 40)) for length in least)
    return TileGrid(size, tile, stride, border)


st.register_type_strategy(TileGrid, grids())


@pytest.fixture(scope="session", autouse=True)
def however_little_work_is_shared():
    """Images in tests are small, but threads shall meet in them."""
    before = tile_launch._WAKING
    tile_launch._WAKING = 0
    yield
    tile_launch._WAKING = before
