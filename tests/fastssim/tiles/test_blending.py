from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssim.cpu import tile_launch
from fastssim.tiles import REDUCTIONS, WINDOWS, TileGrid, blend, extract, reference, sliding_window
from fastssim.tiles.plan import make_plan
from fastssim.tiles.windows import axis_weights

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def random(shape, dtype=torch.float64):
    values = torch.from_numpy(np.random.default_rng(0).random(shape))
    return (values * 255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def weights_of(window, grid):
    height, width = grid.tile_shape
    return np.outer(axis_weights(window, height), axis_weights(window, width))


def check_rounding(found, exact, dtype):
    """Nearest float32 first, then the dtype: what lies within 1e-12 of the exact value may be rounded to."""
    assert found.dtype == dtype

    def rounded(value):
        if dtype == torch.uint8:
            return value.round().double()
        return (value if dtype == torch.float64 else value.float()).to(dtype).double()

    exact = torch.from_numpy(exact)
    assert (rounded(exact - 1e-12) <= found.double()).all()
    assert (found.double() <= rounded(exact + 1e-12)).all()


class TestExtract:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.complex128, bool])
    @pytest.mark.parametrize("border", ["flush", "zeros", "reflect", "replicate", "circular"])
    def test_it_copies_any_dtype_and_strides(self, dtype, border):
        image = (np.random.default_rng(0).random((40, 50, 3)) * 200).astype(dtype).transpose(2, 0, 1)[:, ::-1]
        grid = TileGrid((40, 50), 16, 12, border)
        tiles = extract(image, grid)
        assert tiles.dtype == dtype
        mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(border, "constant")
        canvas = np.pad(image, ((0, 0), *grid.halo), mode=mode)
        for tile, (y, x) in zip(tiles, grid.origins + np.array([side[0] for side in grid.halo]), strict=True):
            assert (tile == canvas[:, y : y + 16, x : x + 16]).all()

    @pytest.mark.parametrize("dtype", [*DTYPES, torch.int64, torch.bool])
    @pytest.mark.parametrize("border", ["flush", "zeros", "reflect"])
    def test_tensors_hold_what_arrays_hold(self, dtype, border):
        image = random((2, 3, 20, 30), torch.uint8).to(dtype)
        grid = TileGrid((20, 30), (16, 9), (7, 5), border)
        expected = extract(image.float().numpy(), grid)
        tiles = extract(image, grid)
        assert tiles.dtype == dtype
        assert (tiles.float().numpy() == expected).all()
        assert torch.equal(extract(image, grid, start=2, stop=5), tiles[:, 2:5])
        assert torch.equal(extract(image[0], grid), tiles[0])
        assert torch.equal(extract(image.to(memory_format=torch.channels_last), grid), tiles)

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "complex32", "uint16"])
    @pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
    def test_tensors_that_numpy_has_no_dtype_for(self, name):
        image = random((2, 20, 30), torch.uint8).to(getattr(torch, name))
        grid = TileGrid((20, 30), (16, 9), (7, 5), "reflect")
        tiles = extract(image, grid)
        assert tiles.dtype == image.dtype
        assert torch.equal(tiles.to(torch.complex64), extract(image.to(torch.complex64), grid))
        assert torch.equal(extract(image, grid, start=2, stop=5).to(torch.complex64), tiles[2:5].to(torch.complex64))

    def test_a_range_of_tiles(self):
        image = np.random.default_rng(0).random((1, 40, 50))
        grid = TileGrid((40, 50), 16, 12)
        assert (extract(image, grid, start=3, stop=7) == extract(image, grid)[3:7]).all()
        assert extract(image, grid, start=12).shape == (0, 1, 16, 16)

    def test_what_a_few_tiles_take_does_not_depend_on_how_many_there_are(self):
        image = np.broadcast_to(np.arange(300_000, dtype=np.float32), (1, 300_000, 300_000))
        grid = TileGrid(image.shape[1:], 4, 1)  # a place for each of its tiles would take 1.4 TB
        expected = np.broadcast_to(np.arange(7, 11), (2, 1, 4, 4)) + np.arange(2).reshape(2, 1, 1, 1)
        start = 1000 * grid.shape[1] + 7
        for source in (image, torch.arange(300_000.0).expand(1, 300_000, 300_000)):
            assert (np.asarray(extract(source, grid, start=start, stop=start + 2)) == expected).all()
        with pytest.raises(
            RuntimeError, match="fn failed on tiles 0 to 1 of 89998200009, the first at row 0, column 0"
        ):
            sliding_window(None, image, grid, batch_size=2)

    def test_an_image_one_pixel_wide(self):
        image = np.arange(12.0).reshape(1, 1, 12).transpose(0, 2, 1)
        assert (
            extract(image, TileGrid((12, 1), (4, 1), (4, 1)))[:, 0, :, 0].tolist()
            == np.arange(12).reshape(3, 4).tolist()
        )

    def test_bad_input(self):
        grid = TileGrid((40, 50), 16, 12)
        with pytest.raises(ValueError, match=r"image has shape \(1, 40, 51\)"):
            extract(np.zeros((1, 40, 51)), grid)
        with pytest.raises(TypeError, match="image is a list"):
            extract([1], grid)
        with pytest.raises(TypeError, match="image is object"):
            extract(np.full((1, 40, 50), None), grid)
        with pytest.raises(ValueError, match="image is on meta"):
            extract(torch.zeros(1, 40, 50, device="meta"), grid)
        with pytest.raises(TypeError, match=r"image is torch\.sparse_coo"):
            extract(torch.zeros(1, 40, 50).to_sparse(), grid)
        with pytest.raises(TypeError, match="image is a masked array, and tiles carry no mask"):
            extract(np.ma.masked_less(np.zeros((1, 40, 50)), 1), grid)
        with pytest.raises(TypeError, match="grid is a int; give a TileGrid"):
            extract(np.zeros((1, 40, 50)), 16)

    @pytest.mark.parametrize("options", [{}, {"start": 1, "stop": 5}])
    def test_tensors_that_torch_conjugates_or_negates_as_it_reads_them(self, options):
        grid = TileGrid((40, 50), 16, 12)
        whole = torch.complex(*random((2, 1, 40, 50), torch.float32))
        expected = extract(whole.imag.contiguous(), grid, **options)
        assert torch.equal(extract(whole.conj(), grid, **options).imag, -expected)
        assert torch.equal(extract(whole.conj().imag, grid, **options), -expected)


class TestExactness:
    @given(st.from_type(TileGrid), st.sampled_from(WINDOWS))
    def test_blend_undoes_extract_to_the_last_bit_of_float32(self, grid, window):
        image = random((2, *grid.size), torch.float32)
        assert torch.equal(blend(extract(image, grid), grid, window=window), image)

    @pytest.mark.parametrize("stride", [1, 2, 7, 13, 16, 31, 32])
    @pytest.mark.parametrize("window", WINDOWS)
    def test_at_odd_sizes_and_every_stride(self, stride, window):
        grid = TileGrid((67, 101), 32, stride)
        image = random((1, 67, 101), torch.float32)
        assert torch.equal(blend(extract(image, grid), grid, window=window), image)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_for_every_dtype(self, dtype):
        grid = TileGrid((67, 101), 32, 9, "reflect")
        image = random((2, 3, 67, 101), dtype)
        result = blend(extract(image, grid), grid, window="gaussian")
        assert result.dtype == dtype
        assert torch.allclose(result, image, rtol=1e-14 if dtype == torch.float64 else 0, atol=0)

    @pytest.mark.parametrize("window", WINDOWS)
    def test_a_constant_stays_that_constant(self, window):
        grid = TileGrid((101, 97), 32, 7)
        value = np.float32(0.1)
        tiles = np.full((len(grid), 1, 32, 32), value)
        mean, deviation = blend(tiles, grid, window=window, reduction="mean_std")
        assert (blend(tiles, grid, window=window) == value).all()
        assert (mean == value).all()
        assert (deviation == 0).all()

    def test_the_same_bits_for_every_number_of_threads(self):
        grid = TileGrid((211, 190), 40, 9)
        tiles = random((len(grid), 2, 40, 40), torch.float32)
        before = torch.get_num_threads()
        results = []
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(blend(tiles, grid, window="hann"))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    @pytest.mark.parametrize("waking", [0, 1 << 40])
    def test_the_same_bits_whether_work_is_worth_waking_a_thread_or_not(self, waking, monkeypatch):
        grid = TileGrid((301, 290), 64, 13)
        image = random((2, 301, 290), torch.float32)
        monkeypatch.setattr(tile_launch, "_WAKING", waking)
        tiles = extract(image, grid)
        assert torch.equal(blend(tiles, grid), image)


class TestBlend:
    @given(st.from_type(TileGrid), st.sampled_from(WINDOWS), st.sampled_from(REDUCTIONS))
    def test_it_equals_the_slow_way(self, grid, window, reduction):
        tiles = random((len(grid), 2, *grid.tile_shape)).numpy()
        result = blend(tiles, grid, window=window, reduction=reduction)
        expected = reference.blend(tiles, grid, weights_of(window, grid), reduction)
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-12)

    @given(st.from_type(TileGrid), st.sampled_from(["mean", "mean_std"]))
    def test_given_weights_that_are_not_separable(self, grid, reduction):
        rng = np.random.default_rng(1)
        tiles, weights = rng.random((len(grid), 1, *grid.tile_shape)), 0.1 + rng.random(grid.tile_shape)
        result = blend(tiles, grid, window=weights, reduction=reduction)
        np.testing.assert_allclose(result, reference.blend(tiles, grid, weights, reduction), rtol=1e-11, atol=1e-12)

    def test_given_pairs_are_products(self):
        grid = TileGrid((40, 50), (16, 12), 8)
        down, across = np.arange(1, 17), torch.arange(1, 13)
        tiles = random((len(grid), 1, 16, 12))
        expected = reference.blend(tiles, grid, np.outer(down, across))
        np.testing.assert_allclose(blend(tiles, grid, window=(down, across)), expected, rtol=1e-12)
        np.testing.assert_allclose(blend(tiles, grid, window=np.outer(down, across)), expected, rtol=1e-12)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_sums_are_float64_and_rounded_by_the_documented_rule(self, dtype, reduction):
        grid = TileGrid((45, 70), 24, 7)
        tiles = random((len(grid), 2, 24, 24), dtype)
        result = blend(tiles, grid, window="tent", reduction=reduction)
        exact = reference.blend(tiles.double().numpy(), grid, weights_of("tent", grid), reduction)
        deviation = torch.float32 if dtype == torch.uint8 else dtype
        if reduction == "mean_std":
            check_rounding(result[0], exact[0], dtype)
            check_rounding(result[1], exact[1], deviation)
        else:
            check_rounding(result, exact, dtype)

    def test_uint8_ties_go_to_even(self):
        grid = TileGrid((1, 3), (1, 2), 1)
        tiles = np.array([[0, 1], [2, 0]], np.uint8).reshape(2, 1, 1, 2)
        assert blend(tiles, grid).tolist() == [[[0, 2, 0]]]  # 1.5 becomes 2
        tiles = np.array([[0, 2], [3, 255]], np.uint8).reshape(2, 1, 1, 2)
        assert blend(tiles, grid).tolist() == [[[0, 2, 255]]]  # 2.5 becomes 2

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("reduction", ["mean", "max", "min"])
    def test_nan_is_not_hidden(self, dtype, reduction):
        grid = TileGrid((40, 40), 16, 8)
        tiles = torch.zeros(len(grid), 1, 16, 16, dtype=dtype)
        tiles[6, 0, 3, 4] = float("nan")
        y, x = grid.origins[6]
        bad = torch.isnan(blend(tiles, grid, reduction=reduction))
        expected = reference.blend(tiles.float().numpy(), grid, np.ones((16, 16)), reduction)
        np.testing.assert_array_equal(bad.numpy(), np.isnan(expected))
        assert bad[0, y + 3, x + 4]
        assert bad.sum() == 1

    def test_batches_arrays_and_strides(self):
        grid = TileGrid((40, 50), (16, 20), (7, 9))
        tiles = random((2, len(grid), 3, 16, 20), torch.float32)
        result = blend(tiles, grid, window="hann")
        assert torch.equal(result[1], blend(tiles[1], grid, window="hann"))
        turned = tiles.transpose(3, 4).contiguous().transpose(3, 4)
        assert torch.equal(result, blend(turned, grid, window="hann"))
        assert (result.numpy() == blend(turned.numpy(), grid, window="hann")).all()
        half = tiles.half()
        assert (blend(half, grid).numpy() == blend(half.numpy(), grid)).all()

    def test_fading_windows_leave_no_seam_where_tile_edges_are_off(self):
        grid = TileGrid((160, 160), 64, 32)
        ramp = np.broadcast_to(np.linspace(0, 1, 160), (1, 160, 160))  # a smooth result ...
        biased = extract(np.ascontiguousarray(ramp), grid)
        biased[..., :2] += 1  # ... but every tile's left edge is wrong

        def peak(window):
            steps = np.abs(np.diff(blend(biased, grid, window=window)[0, 80, 40:120]))
            return steps.max() / np.median(steps)

        assert peak("uniform") > 30
        assert peak("gaussian") < 3
        assert peak("hann") < 3

    def test_monais_gaussian_is_given_as_weights(self):
        monai = pytest.importorskip("monai.data")
        gaussian = monai.compute_importance_map((32, 24), mode="gaussian", sigma_scale=0.125)
        down, across = (np.exp(-0.5 * ((np.arange(n) + 0.5) / n * 8 - 4) ** 2) for n in (32, 24))
        np.testing.assert_allclose(gaussian.clamp(min=1e-3), np.maximum(np.outer(down, across), 1e-3), rtol=1e-4)
        grid = TileGrid((70, 60), (32, 24), (16, 12))
        tiles = random((len(grid), 1, 32, 24), torch.float32)
        pair = tuple(np.maximum(axis, 1e-3) for axis in (down, across))
        assert torch.equal(blend(tiles, grid, window="gaussian"), blend(tiles, grid, window=pair))

    @pytest.mark.parametrize("scale", [1e-320, 2.0**-1060, 3e-40, 7, 1e308])
    def test_only_the_ratios_of_weights_count(self, scale):
        grid = TileGrid((40, 40), 16, 8)
        tiles = random((len(grid), 1, 16, 16), torch.float32)
        ones, expected = torch.ones(16, 16, dtype=torch.bfloat16), blend(tiles, grid)
        for window in (ones, np.full((16, 16), scale), (np.full(16, scale), np.full(16, scale))):
            assert torch.allclose(blend(tiles, grid, window=window), expected, rtol=1e-6)

    def test_zero_weights_crop_tiles(self):
        grid = TileGrid((40, 40), 16, 8, "reflect")
        weights = np.zeros((16, 16))
        weights[4:12, 4:12] = 1
        image = random((1, 40, 40), torch.float32)
        assert torch.equal(blend(extract(image, grid), grid, window=weights), image)
        with pytest.raises(ValueError, match="leaves pixels of the image without any weight"):
            blend(extract(image, TileGrid((40, 40), 16, 8)), TileGrid((40, 40), 16, 8), window=weights)

    def test_bad_input(self):
        grid = TileGrid((40, 50), 16, 12)
        tiles = np.zeros((len(grid), 1, 16, 16))
        with pytest.raises(ValueError, match=r"tiles have shape \(11, 1, 16, 16\); this grid wants \(12, C, 16, 16\)"):
            blend(tiles[1:], grid)
        with pytest.raises(TypeError, match="tiles: int16 cannot be blended; convert to one of float64"):
            blend(tiles.astype(np.int16), grid)
        with pytest.raises(TypeError, match="tiles is a masked array, and tiles carry no mask"):
            blend(np.ma.masked_less(tiles, 1), grid)
        with pytest.raises(TypeError, match="grid is a tuple; give a TileGrid"):
            blend(tiles, (40, 50))
        with pytest.raises(ValueError, match="reduction is 'median'; give one of 'mean', 'max'"):
            blend(tiles, grid, reduction="median")

    @pytest.mark.parametrize(
        ("window", "kind", "words"),
        [
            ("kaiser", ValueError, "window is 'kaiser'; give one of 'uniform', 'gaussian', 'hann', 'tent'"),
            (np.ones((8, 16)), ValueError, r"window has the shape \(8, 16\)"),
            ((np.ones(16), np.ones(15)), ValueError, r"window has the shape \(16,\) and \(15,\)"),
            (-np.ones((16, 16)), ValueError, "negative, NaN or infinite"),
            (np.full((16, 16), np.nan), ValueError, "negative, NaN or infinite"),
            (object(), TypeError, "window is a object"),
            (None, TypeError, "window is a NoneType; give a name or an array of weights"),
            (np.ones((16, 16), complex), TypeError, "window is a ndarray; give a name or an array of weights, real"),
            ((np.r_[0, np.ones(15)], np.ones(16)), ValueError, "leaves pixels of the image without any weight"),
        ],
    )
    def test_bad_windows(self, window, kind, words):
        grid = TileGrid((40, 50), 16, 12)
        with pytest.raises(kind, match=words):
            blend(np.zeros((len(grid), 1, 16, 16)), grid, window=window)

    def test_more_pixels_than_narrow_integers_count(self, monkeypatch):
        """NumPy before 2 counts in 32 bits on Windows unless told otherwise."""
        arange = np.arange
        monkeypatch.setattr(np, "arange", lambda *bounds, dtype=np.int32: arange(*bounds, dtype=dtype))
        plan = make_plan(tuple(TileGrid((32, 64), 8, 8).geometry), "uniform")
        tables, _ = tile_launch._tables.__wrapped__(plan, 1 << 30, 1 << 29)
        assert tables.rows[:, 0].tolist() == [(1 << 30) * i - 8 * i * 8 for i in range(4)]
        assert tables.columns[:, 0].tolist() == [(1 << 29) * j - 8 * j for j in range(8)]
