"""Grids of every shape: ``st.from_type(TileGrid)``."""

from __future__ import annotations

from hypothesis import strategies as st

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
