from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssim.tiles import BORDERS, TileGrid


@given(st.from_type(TileGrid))
def test_every_pixel_is_covered_and_the_halo_is_what_tiles_reach_beyond(grid):
    (above, below), (left, right) = grid.halo
    height, width = grid.tile_shape
    canvas = np.zeros((above + grid.size[0] + below, left + grid.size[1] + right), int)
    for y, x in grid.origins + np.array([above, left]):
        assert min(y, x) >= 0
        assert canvas[y : y + height, x : x + width].shape == grid.tile_shape
        canvas[y : y + height, x : x + width] += 1
    inside = canvas[above : above + grid.size[0], left : left + grid.size[1]]
    assert inside.min() >= 1
    assert (inside == grid.coverage()).all()
    assert canvas.min() >= 1
    assert len(grid) == len(grid.origins) == np.prod(grid.shape)


def test_the_last_tile_is_flush_with_the_edge():
    assert TileGrid((512, 512), 128, 30).rows[-3:] == (330, 360, 384)
    assert TileGrid((512, 512), 128, 32).rows[-2:] == (352, 384)
    assert TileGrid((128, 700), 128, 30).shape == (1, 21)
    assert TileGrid((512, 700)).halo == ((0, 0), (0, 0))


@pytest.mark.parametrize("border", BORDERS[1:])
@pytest.mark.parametrize("size", [(5, 300), (97, 128), (1, 1)])
def test_with_a_halo_every_pixel_is_covered_equally_often(border, size):
    grid = TileGrid(size, tile=(32, 24), stride=(8, 12), border=border)
    assert (grid.coverage() == 8).all()
    assert grid.halo[0][0] == 24
    assert grid.halo[1][0] == 12


@pytest.mark.parametrize(
    ("border", "mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"), ("zeros", "constant")]
)
@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_the_halo_holds_what_numpy_pads_with(border, mode, length):
    grid = TileGrid((length, 3), tile=17, stride=4, border=border)
    places = np.pad(np.arange(1, length + 1), grid.halo[0], mode=mode)
    assert grid.sources(0) == (places - 1).tolist()


def test_overlap_stands_for_the_stride():
    assert TileGrid((200, 300), 64, overlap=(16, 0)) == TileGrid((200, 300), 64, (48, 64))
    assert "stride=(48, 64)" in repr(TileGrid((200, 300), 64, overlap=(16, 0)))
    assert TileGrid((200, 300), 64) == TileGrid((200, 300), 64, 32)


@pytest.mark.parametrize("border", BORDERS)
def test_a_grid_is_a_value(border):
    grid = TileGrid((50, 60), 16, (4, 8), border)
    copy = pickle.loads(pickle.dumps(grid))  # noqa: S301
    assert copy == grid == TileGrid((50, 60), (16, 16), (4, 8), border)
    assert copy.origins.tolist() == grid.origins.tolist()
    assert copy.corners(3, 20).tolist() == grid.origins[3:20].tolist()
    assert hash(grid) == hash(copy)
    assert grid != TileGrid((50, 60), 16, (4, 9), border)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        (
            ((100, 100), 128, 32),
            {},
            ValueError,
            'a tile is 128 pixels high, the image 100; .*another border than "flush"',
        ),
        (((200, 100), 128, 32), {}, ValueError, "a tile is 128 pixels wide, the image 100"),
        (((200, 200), 64, 0), {}, ValueError, "stride is 0"),
        (((200, 200), 64, 65), {}, ValueError, "stride 65 is larger than the tile"),
        (((200, 200), 64, 65, "reflect"), {}, ValueError, "stride 65 is larger than the tile"),
        (((200, 200), -1, 1), {}, ValueError, "tile is -1"),
        (((0, 200), 1, 1, "zeros"), {}, ValueError, "size is"),
        (((200, 200), 64, 1.5), {}, TypeError, "stride is 1.5"),
        (((200, 200), 64, True), {}, TypeError, "stride is True; give an int"),
        (((200, 200, 3), 64, 32), {}, TypeError, r"size is \(200, 200, 3\)"),
        (((200, 200), 64, 32, "wrap"), {}, ValueError, "border is 'wrap'; give one of 'flush', 'zeros'"),
        (((200, 200), 64, 32), {"overlap": 8}, ValueError, "stride is 32 and overlap 8; give one"),
        (((200, 200), 64), {"overlap": 64}, ValueError, "overlap is 64, the tile 64 x 64 pixels; it must be smaller"),
        (((200, 200), 64), {"overlap": 0.25}, TypeError, "overlap is 0.25"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, kind, words):
    with pytest.raises(kind, match=words):
        TileGrid(*arguments, **options)
