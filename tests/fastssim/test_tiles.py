from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssim.tiles import Blender, TileGrid, blend, extract, sliding_window


@st.composite
def grids(draw):
    tile = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    stride = tuple(draw(st.integers(1, length)) for length in tile)
    size = tuple(length + draw(st.integers(0, 40)) for length in tile)
    return TileGrid(size, tile, stride)


def slow_blend(tiles, grid, weights):
    """The obvious way: a sum and a map of weights, float64."""
    height, width = grid.tile_shape
    total = np.zeros((tiles.shape[1], *grid.size))
    norm = np.zeros(grid.size)
    for tile, (y, x) in zip(tiles, grid.origins, strict=True):
        total[:, y : y + height, x : x + width] += weights * tile
        norm[y : y + height, x : x + width] += weights
    return total / norm


def gaussian(height, width):
    bells = []
    for length in (height, width):
        offset = np.arange(length) - (length - 1) / 2
        bells.append(np.maximum(np.exp(-0.5 * (offset / (length * 0.125)) ** 2), 1e-3))
    return np.outer(*bells)


class TestGrid:
    @given(grids())
    def test_every_pixel_is_covered_and_no_tile_leaves_the_image(self, grid):
        coverage = np.zeros(grid.size, int)
        height, width = grid.tile_shape
        for y, x in grid.origins:
            assert 0 <= y <= grid.size[0] - height
            assert 0 <= x <= grid.size[1] - width
            coverage[y : y + height, x : x + width] += 1
        assert coverage.min() >= 1
        assert (coverage == grid.coverage()).all()
        assert len(grid) == len(grid.origins) == np.prod(grid.shape)

    def test_the_last_tile_is_flush_with_the_edge(self):
        assert TileGrid((512, 512), 128, 30).rows[-3:] == (330, 360, 384)
        assert TileGrid((512, 512), 128, 32).rows[-2:] == (352, 384)
        assert TileGrid((128, 700), 128, 30).shape == (1, 21)

    def test_a_grid_is_a_value(self):
        grid = TileGrid((50, 60), 16, (4, 8))
        assert pickle.loads(pickle.dumps(grid)) == grid == TileGrid((50, 60), (16, 16), (4, 8))  # noqa: S301
        assert hash(grid) == hash(TileGrid((50, 60), (16, 16), (4, 8)))

    @pytest.mark.parametrize(
        ("arguments", "kind", "words"),
        [
            (((100, 100), 128, 32), ValueError, "a tile is 128 pixels high, the image 100"),
            (((200, 100), 128, 32), ValueError, "a tile is 128 pixels wide, the image 100"),
            (((200, 200), 64, 0), ValueError, "stride is 0"),
            (((200, 200), 64, 65), ValueError, "stride 65 is larger than the tile"),
            (((200, 200), -1, 1), ValueError, "tile is -1"),
            (((200, 200), 64, 1.5), TypeError, "stride is 1.5"),
            (((200, 200, 3), 64, 32), TypeError, r"size is \(200, 200, 3\)"),
            (((200, 200), 64, 32, "wrap"), ValueError, "border is 'wrap'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, arguments, kind, words):
        with pytest.raises(kind, match=words):
            TileGrid(*arguments)


class TestExtractAndBlend:
    @given(grids(), st.sampled_from(["uniform", "gaussian"]), st.sampled_from([np.float32, np.float64]))
    def test_blend_undoes_extract(self, grid, window, dtype):
        image = np.random.default_rng(0).random((2, *grid.size)).astype(dtype)
        result = blend(extract(image, grid), grid, window=window)
        assert result.dtype == dtype
        bound = np.spacing(image) if dtype is np.float32 else 1e-14  # sums are in float64
        assert (np.abs(result - image) <= bound).all()

    @given(grids(), st.sampled_from(["uniform", "gaussian"]))
    def test_blend_equals_the_slow_way(self, grid, window):
        tiles = np.random.default_rng(0).random((len(grid), 2, *grid.tile_shape))
        weights = gaussian(*grid.tile_shape) if window == "gaussian" else np.ones(grid.tile_shape)
        np.testing.assert_allclose(blend(tiles, grid, window=window), slow_blend(tiles, grid, weights), rtol=1e-12)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
    def test_extract_copies_any_dtype_and_strides(self, dtype):
        image = (np.random.default_rng(0).random((40, 50, 3)) * 200).astype(dtype).transpose(2, 0, 1)[:, ::-1]
        grid = TileGrid((40, 50), 16, 12)
        tiles = extract(image, grid)
        assert tiles.dtype == dtype
        for tile, (y, x) in zip(tiles, grid.origins, strict=True):
            assert (tile == image[:, y : y + 16, x : x + 16]).all()

    def test_a_range_of_tiles(self):
        image = np.random.default_rng(0).random((1, 40, 50))
        grid = TileGrid((40, 50), 16, 12)
        assert (extract(image, grid, start=3, stop=7) == extract(image, grid)[3:7]).all()
        assert extract(image, grid, start=12).shape == (0, 1, 16, 16)

    def test_batches_and_tensors(self):
        images = torch.rand(2, 3, 40, 50)
        grid = TileGrid((40, 50), (16, 20), (7, 9))
        tiles = extract(images, grid)
        assert tiles.shape == (2, len(grid), 3, 16, 20)
        assert torch.equal(tiles[1], extract(images[1], grid))
        assert torch.equal(blend(tiles, grid), images)

    @pytest.mark.parametrize("window", ["uniform", "gaussian"])
    def test_a_constant_stays_that_constant(self, window):
        grid = TileGrid((101, 97), 32, 7)
        value = np.float32(0.1)
        assert (blend(np.full((len(grid), 1, 32, 32), value), grid, window=window) == value).all()

    def test_the_gaussian_window_leaves_no_seam_where_tile_edges_are_off(self):
        grid = TileGrid((160, 160), 64, 32)
        biased = np.zeros((len(grid), 1, 64, 64))
        biased[..., :2] = 1  # every tile's left edge is wrong

        def jump(window):
            return np.abs(np.diff(blend(biased, grid, window=window)[0, 80, 40:120])).max()

        assert jump("gaussian") < 0.02
        assert jump("uniform") > 0.3

    def test_bad_input(self):
        grid = TileGrid((40, 50), 16, 12)
        tiles = np.zeros((len(grid), 1, 16, 16))
        with pytest.raises(ValueError, match=r"image has shape \(1, 40, 51\)"):
            extract(np.zeros((1, 40, 51)), grid)
        with pytest.raises(TypeError, match="image is a list"):
            extract([1], grid)
        with pytest.raises(ValueError, match="requires a gradient"):
            extract(torch.zeros(1, 40, 50, requires_grad=True), grid)
        with pytest.raises(ValueError, match="tiles have shape"):
            blend(tiles[1:], grid)
        with pytest.raises(ValueError, match="window is 'hann'"):
            blend(tiles, grid, window="hann")
        with pytest.raises(TypeError, match="tiles are uint8"):
            blend(tiles.astype(np.uint8), grid)
        with pytest.raises(ValueError, match="more of shape"):
            Blender(grid, channels=2).push(tiles, np.zeros((1, 40, 50)))


class TestSlidingWindow:
    @given(grids(), st.integers(1, 30), st.sampled_from(["uniform", "gaussian"]))
    def test_equals_the_unstreamed_way(self, grid, batch_size, window):
        image = np.random.default_rng(0).random((2, *grid.size))

        def fn(tiles):
            return np.concatenate([tiles**2, tiles.mean(axis=1, keepdims=True)], axis=1)

        expected = blend(fn(extract(image, grid)), grid, window=window)
        result = sliding_window(fn, image, grid, window=window, batch_size=batch_size)
        assert result.shape == (3, *grid.size)
        np.testing.assert_array_equal(result, expected)

    def test_tensors_in_tensors_out(self):
        image = torch.rand(1, 70, 90)
        seen = []

        def fn(tiles):
            seen.append(type(tiles))
            return tiles * 2

        result = sliding_window(fn, image, TileGrid((70, 90), 32, 16))
        assert set(seen) == {torch.Tensor}
        torch.testing.assert_close(result, image * 2)

    def test_files_larger_than_a_band(self, tmp_path):
        rng = np.random.default_rng(0)
        source = np.memmap(tmp_path / "in.raw", np.float32, "w+", shape=(1, 300, 64))
        source[:] = rng.random(source.shape, np.float32)
        target = np.memmap(tmp_path / "out.raw", np.float32, "w+", shape=(1, 300, 64))
        reads = []

        class Slices:
            shape = source.shape

            def __getitem__(self, key):
                reads.append(key[1].stop - key[1].start)
                return source[key]

        steps = []
        grid = TileGrid((300, 64), 32, 24)
        result = sliding_window(lambda t: 1 - t, Slices(), grid, out=target, progress=lambda *step: steps.append(step))
        assert result is target
        np.testing.assert_allclose(target, 1 - source, rtol=1e-6)
        assert max(reads) == 32
        assert steps[-1] == (len(grid), len(grid))

    def test_bad_input(self):
        grid = TileGrid((40, 50), 16, 12)
        image = np.zeros((1, 40, 50))
        with pytest.raises(ValueError, match="image has shape"):
            sliding_window(lambda t: t, image[0], grid)
        with pytest.raises(ValueError, match="batch_size is 0"):
            sliding_window(lambda t: t, image, grid, batch_size=0)
        with pytest.raises(ValueError, match=r"fn returned shape \(4, 1, 8, 16\) for tiles 0 to 3"):
            sliding_window(lambda t: t[:, :, ::2], image, grid)
        with pytest.raises(TypeError, match="fn returned a NoneType"):
            sliding_window(lambda _: None, image, grid)
        with pytest.raises(ValueError, match="out has shape"):
            sliding_window(lambda t: t, image, grid, out=np.zeros((2, 40, 50)))
        closed = np.zeros((1, 40, 50))
        closed.flags.writeable = False
        with pytest.raises(ValueError, match="out is read-only"):
            sliding_window(lambda t: t, image, grid, out=closed)

    def test_what_fn_raises_names_the_tiles_and_finished_rows_stay(self):
        grid = TileGrid((40, 50), 16, 12)
        out = np.full((1, 40, 50), -1.0)
        calls = []

        def fn(tiles):
            calls.append(1)
            if len(calls) == 2:
                raise ZeroDivisionError("oops")
            return tiles

        with pytest.raises(RuntimeError, match="tiles 4 to 7 of 12: ZeroDivisionError: oops") as caught:
            sliding_window(fn, np.ones((1, 40, 50)), grid, out=out)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert (out[:, :12] == 1).all()
        assert (out[:, 12:] == -1).all()

    def test_nan_from_fn_names_the_tile(self):
        def fn(tiles):
            tiles = tiles.copy()
            tiles[2, 0, 3, 3] = np.nan
            return tiles

        with pytest.raises(ValueError, match="NaN or infinity for tile 2, at row 0, column 24"):
            sliding_window(fn, np.zeros((1, 40, 50)), TileGrid((40, 50), 16, 12))
