from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssim.tiles import REDUCTIONS, Blender, TileGrid, blend, extract

WEIGHTS = 0.1 + np.random.default_rng(3).random((24, 20))


@given(st.from_type(TileGrid), st.sampled_from(REDUCTIONS), st.integers(1, 12), st.sampled_from(["tent", "given"]))
def test_tiles_in_pieces_give_the_same_bits(grid, reduction, piece, window):
    height, width = grid.tile_shape
    window = 0.1 + np.random.default_rng(3).random((height, width)) if window == "given" else window
    tiles = np.random.default_rng(0).random((len(grid), 2, height, width))
    expected = blend(tiles, grid, window=window, reduction=reduction)
    out = [np.full((2, *grid.size), np.nan) for _ in range(2)]
    blender = Blender(grid, channels=2, dtype=np.float64, window=window, reduction=reduction)
    for start in range(0, len(grid), piece):
        done = blender.push(tiles[start : start + piece], out if reduction == "mean_std" else out[0])
    assert done == blender.finished == grid.size[0]
    for found, wanted in zip(out, expected if reduction == "mean_std" else [expected], strict=False):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("border", ["flush", "reflect"])
def test_it_goes_on_at_any_row(border):
    grid = TileGrid((70, 50), (24, 20), (9, 7), border)
    tiles = torch.rand(len(grid), 1, 24, 20).half()
    expected = blend(tiles, grid, window=WEIGHTS)
    for row in (0, 1, 8, 9, 40, 69):
        blender = Blender(grid, channels=1, dtype=torch.float16, window=WEIGHTS, first_row=row)
        rows = [found for tile in tiles[blender.first_tile :] for found in blender.add(tile[None])]
        assert [found.first for found in rows] == [row, *(found.end for found in rows[:-1])]
        assert rows[-1].end == 70
        assert torch.equal(torch.cat([found.pixels[0] for found in rows], dim=1), expected[:, row:])
        y, height = grid.origins[blender.first_tile][0], grid.tile_shape[0]
        assert y <= row < y + height


def test_rows_leave_when_their_last_tile_is_in():
    grid = TileGrid((100, 40), 40, 30)
    blender = Blender(grid, channels=1)
    out = np.zeros((1, 100, 40), np.float32)
    assert [blender.push(np.ones((1, 1, 40, 40), np.float32), out) for _ in range(3)] == [30, 60, 100]
    assert (out == 1).all()


def test_bad_input():
    grid = TileGrid((40, 50), 16, 12)
    tiles = np.zeros((len(grid), 1, 16, 16), np.float32)
    with pytest.raises(ValueError, match=r"at most 12 more of shape \(2, 16, 16\)"):
        Blender(grid, channels=2).add(tiles)
    blender = Blender(grid, channels=1)
    blender.add(tiles)
    with pytest.raises(ValueError, match="at most 0 more"):
        blender.add(tiles[:1])
    with pytest.raises(TypeError, match="tiles are float64, this blender is for float32"):
        Blender(grid, channels=1).add(tiles.astype(np.float64))
    with pytest.raises(ValueError, match="tiles require a gradient"):
        Blender(grid, channels=1, dtype=torch.float32).add(torch.from_numpy(tiles).requires_grad_())
    with pytest.raises(TypeError, match="dtype: int32 cannot be blended"):
        Blender(grid, channels=1, dtype=np.int32)
    for name, wrong in [("channels", "3"), ("channels", -1), ("first_row", 1.5), ("first_row", -1)]:
        with pytest.raises(ValueError, match=f"{name} is {wrong!r}; it must be an int, at least 0"):
            Blender(grid, **({"channels": 1} | {name: wrong}))
    with pytest.raises(ValueError, match="first_row is 40; the image has the rows 0 to 39"):
        Blender(grid, channels=1, first_row=40)
    with pytest.raises(TypeError, match="grid is a int; give a TileGrid"):
        Blender(16, channels=1)
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        Blender(grid, channels=1, reduction="sum")


@pytest.mark.parametrize(
    ("out", "kind", "words"),
    [
        (np.zeros((3, 40, 50), np.float32), ValueError, r"out has shape \(3, 40, 50\); the result has \(1, 40, 50\)"),
        (np.zeros((1, 60, 50), np.float32), ValueError, r"out has shape \(1, 60, 50\)"),
        (np.zeros((1, 40, 50), np.uint8), TypeError, "out is uint8; the result is float32"),
    ],
)
def test_what_the_result_does_not_fit_into_is_refused_before_tiles_are_taken(out, kind, words):
    grid = TileGrid((40, 50), 16, 12)
    tiles = np.ones((len(grid), 1, 16, 16), np.float32)
    blender = Blender(grid, channels=1)
    with pytest.raises(kind, match=words):
        blender.push(tiles, out)
    fitting = np.zeros((40, 50), np.float32)
    assert blender.push(tiles, fitting) == 40
    assert (fitting == 1).all()
    with pytest.raises(ValueError, match='out has 1 arrays; "mean_std" wants a pair'):
        Blender(grid, channels=1, reduction="mean_std").push(tiles, out[:1])


@pytest.mark.parametrize("tensors", [True, False])
def test_tensors_into_arrays_and_arrays_into_tensors(tensors):
    grid = TileGrid((40, 50), 16, 12)
    image = torch.rand(2, 40, 50).bfloat16().float()
    tiles = extract(image.bfloat16() if tensors else image.numpy(), grid)
    out = np.zeros((2, 40, 50), np.float32) if tensors else torch.zeros(2, 40, 50)
    assert Blender(grid, channels=2, dtype=tiles.dtype).push(tiles, out) == 40
    assert torch.equal(torch.as_tensor(out), image)


@pytest.mark.parametrize(
    ("arrays", "kind", "words"),
    [
        ((np.zeros((1, 40, 49), np.float32),), ValueError, r"an array has shape \(1, 40, 49\)"),
        ((np.zeros((1, 40, 50)),), ValueError, r"does not hold float32 of shape \(1, 40, 50\) row by row"),
        ((np.zeros((1, 50, 40), np.float32).transpose(0, 2, 1),), ValueError, "row by row"),
        ((np.zeros((1, 40, 50), np.float32)[:, ::-1],), ValueError, "row by row"),
        ((np.zeros((40, 50), np.float32),), ValueError, "row by row"),
        ((np.broadcast_to(np.float32(0), (1, 40, 50)),), ValueError, "an array is read-only"),
        (np.zeros((2, 1, 40, 50), np.float32), ValueError, "2 arrays came; this blender writes 1"),
        (([[[0.0]]],), TypeError, "an array is a list"),
    ],
)
def test_memory_that_rows_do_not_go_straight_into_is_refused(arrays, kind, words):
    with pytest.raises(kind, match=words):
        Blender(TileGrid((40, 50), 16, 12), channels=1).blend_into(arrays)


def test_rows_go_straight_into_a_part_of_a_larger_array():
    grid = TileGrid((40, 50), 16, 12)
    whole = np.zeros((2, 60, 70), np.float32)
    blender = Blender(grid, channels=1)
    blender.blend_into((whole[1:, 10:50, 5:55],))
    assert [(rows.first, rows.end, rows.pixels) for rows in blender.add(np.ones((12, 1, 16, 16), np.float32))] == [
        (0, 40, ())
    ]
    assert (whole[1, 10:50, 5:55] == 1).all()
    assert whole.sum() == 2000
