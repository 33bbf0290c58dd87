from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssim.tiles import BORDERS, TileGrid, blend, extract, sliding_window, ssim_residual

GRID = TileGrid((40, 50), 16, 12)


def image_of(grid, dtype=np.float32):
    return np.random.default_rng(0).random((2, *grid.size)).astype(dtype)


class Slices:
    """What can be sliced and is no array; counts what is read."""

    def __init__(self, array):
        self._array = array
        self.shape = array.shape
        self.rows = []

    def __getitem__(self, key):
        self.rows.append((key[1].start, key[1].stop))
        return self._array[key]


class TestResult:
    @given(st.from_type(TileGrid), st.integers(1, 30), st.sampled_from(["uniform", "gaussian"]), st.booleans())
    def test_it_equals_the_unstreamed_way(self, grid, batch_size, window, lazy):
        image = image_of(grid)

        def fn(tiles):
            return np.concatenate([tiles**2, tiles.mean(axis=1, keepdims=True)], axis=1)

        expected = blend(fn(extract(image, grid)), grid, window=window)
        source = Slices(image) if lazy else image
        result = sliding_window(fn, source, grid, window=window, batch_size=batch_size)
        assert result.shape == (3, *grid.size)
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8])
    def test_tensors_in_tensors_out(self, dtype):
        image = (torch.rand(1, 40, 50) * 200).to(dtype)
        seen = []

        def fn(tiles):
            seen.append((type(tiles), tiles.dtype))
            return tiles

        assert torch.equal(sliding_window(fn, image, GRID, device="cpu"), image)
        assert set(seen) == {(torch.Tensor, dtype)}

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("view", [lambda a: a[..., ::-1], lambda a: np.broadcast_to(a[:1], a.shape)])
    def test_arrays_of_any_kind_come_back_for_tiles_of_tensors(self, view):
        image = image_of(GRID)
        found = sliding_window(lambda tiles: view(tiles.numpy()), torch.from_numpy(image), GRID)
        np.testing.assert_array_equal(found, sliding_window(view, image, GRID))

    def test_tensors_that_torch_negates_as_it_reads_them(self):
        image = torch.from_numpy(image_of(GRID))
        negated = torch.complex(image, image).conj().imag
        assert torch.equal(sliding_window(lambda tiles: tiles, negated, GRID), -image)
        assert torch.equal(sliding_window(lambda tiles: torch.complex(tiles, tiles).conj().imag, image, GRID), -image)

    def test_under_inference_mode_and_into_another_dtype(self):
        image = torch.rand(1, 40, 50)
        with torch.inference_mode():
            assert torch.equal(sliding_window(lambda t: t, image, GRID), image)
        out = torch.empty(1, 40, 50, dtype=torch.bfloat16)
        sliding_window(lambda t: t, image, GRID, out=out)
        assert torch.equal(out, image.bfloat16())

    def test_a_device_wants_tensors_and_arrays_come_back(self):
        image = image_of(GRID)
        result = sliding_window(torch.sqrt, image, GRID, device="cpu", window="hann")
        assert isinstance(result, np.ndarray)
        np.testing.assert_allclose(result, np.sqrt(image), rtol=1e-6)

    def test_several_maps_of_other_channels_and_scales(self):
        grid = TileGrid((48, 64), 16, 8)
        image = image_of(grid)

        def fn(tiles):
            return {
                "same": tiles,
                "half": tiles[:, :1, ::2, ::2],
                "double": tiles.repeat(2, axis=2).repeat(2, axis=3),
                "tall": tiles.repeat(3, axis=2),
            }

        result = sliding_window(fn, image, grid, window="gaussian", batch_size=5)
        assert list(result) == ["same", "half", "double", "tall"]
        np.testing.assert_array_equal(result["same"], image)
        assert result["half"].shape == (1, 24, 32)
        np.testing.assert_array_equal(result["half"], image[:1, ::2, ::2])
        np.testing.assert_array_equal(result["double"], image.repeat(2, axis=1).repeat(2, axis=2))
        np.testing.assert_array_equal(result["tall"], image.repeat(3, axis=1))
        pair = sliding_window(lambda t: (t, 1 - t), image, grid)
        assert isinstance(pair, tuple)
        np.testing.assert_array_equal(pair[0], image)

    def test_mean_and_deviation(self):
        image = image_of(GRID)
        steps = iter(np.random.default_rng(1).random(100).astype(np.float32))

        def fn(tiles):
            noise = np.array([next(steps) for _ in tiles], np.float32)
            return tiles + noise[:, None, None, None]

        noisy = sliding_window(fn, image, GRID, reduction="mean_std", batch_size=3)
        steps = iter(np.random.default_rng(1).random(100).astype(np.float32))
        expected = blend(fn(extract(image, GRID)), GRID, reduction="mean_std")
        for found, wanted in zip(noisy, expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        out = [np.empty_like(image) for _ in range(2)]
        steps = iter(np.random.default_rng(1).random(100).astype(np.float32))
        assert sliding_window(fn, image, GRID, reduction="mean_std", out=out) is out
        np.testing.assert_array_equal(out[1], expected[1])

    @pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
    @pytest.mark.parametrize("reduction", ["mean", "max", "mean_std"])
    def test_rows_go_straight_into_its_own_result_and_by_way_of_blocks_into_yours(self, batch_size, reduction):
        image = image_of(GRID)
        options = {"reduction": reduction, "batch_size": batch_size, "window": "gaussian"}
        own = sliding_window(lambda tiles: (tiles, tiles[:, :1, ::2, ::2]), image, GRID, **options)
        yours = [[np.full_like(array, 7) for array in (pair if reduction == "mean_std" else (pair,))] for pair in own]
        out = yours if reduction == "mean_std" else [arrays[0] for arrays in yours]
        sliding_window(lambda tiles: (tiles, tiles[:, :1, ::2, ::2]), image, GRID, out=out, **options)
        for mine, arrays in zip(own, yours, strict=True):
            for one, other in zip(mine if reduction == "mean_std" else (mine,), arrays, strict=True):
                assert np.array_equal(one, other)

    def test_a_batch_reaches_over_rows_of_tiles(self):
        sizes = []

        def fn(tiles):
            sizes.append(len(tiles))
            return tiles

        for batch_size in (1, 3, 4, 9, 64):
            sizes.clear()
            sliding_window(fn, image_of(GRID), GRID, batch_size=batch_size)
            assert max(sizes) == {1: 1, 3: 3, 4: 4, 9: 8, 64: 12}[batch_size]
            assert sum(sizes) == 12


class TestFiles:
    @pytest.mark.parametrize("border", BORDERS)
    def test_every_row_is_read_once_and_a_band_at_a_time(self, border):
        grid = TileGrid((300, 40), 32, 24, border)
        image = Slices(image_of(grid))
        steps = []
        sliding_window(lambda t: t, image, grid, batch_size=3, progress=lambda *step: steps.append(step))
        assert max(stop - start for start, stop in image.rows) <= 32
        counts = np.zeros(300, int)
        for start, stop in image.rows:
            counts[start:stop] += 1
        assert (counts[40:-40] == 1).all()
        assert counts.max() <= (1 if border in ("flush", "zeros") else 2)
        assert steps[-1] == (len(grid), len(grid))

    def test_memmaps(self, tmp_path):
        grid = TileGrid((300, 64), 32, 24)
        source = np.memmap(tmp_path / "in.raw", np.float32, "w+", shape=(2, 300, 64))
        source[:] = image_of(grid)
        target = np.memmap(tmp_path / "out.raw", np.float16, "w+", shape=(2, 300, 64))
        assert sliding_window(lambda t: t, source, grid, out=target) is target
        np.testing.assert_array_equal(target, source.astype(np.float16))

    def test_planes_without_channels(self):
        image = np.random.default_rng(0).random((40, 50), np.float32)
        out = np.empty((40, 50), np.float32)
        sliding_window(lambda t: t, image, GRID, out=out)
        np.testing.assert_array_equal(out, image)
        assert sliding_window(lambda t: t, torch.from_numpy(image), GRID).shape == (1, 40, 50)

    def test_an_image_of_another_byte_order_is_brought_into_ours_for_torch(self):
        image = image_of(GRID)
        result = sliding_window(lambda tiles: tiles, image.astype(">f4"), GRID, device="cpu", batch_size=np.int64(4))
        np.testing.assert_array_equal(result, image)

    @pytest.mark.parametrize("tensors", [True, False])
    def test_torchs_default_device_plays_no_part(self, tensors):
        image = torch.rand(1, 40, 50).bfloat16()
        kept, out = image.float(), torch.zeros(1, 40, 50)
        source = image if tensors else kept.numpy()
        tiles = extract(kept, GRID) if tensors else extract(kept.numpy(), GRID)
        torch.set_default_device("meta")  # what lies there cannot be read
        try:
            sliding_window(lambda tiles: tiles, source, GRID, out=out)
            residual = ssim_residual(tiles, image, GRID)
        finally:
            torch.set_default_device(None)
        assert torch.equal(out, kept)
        assert float(abs(residual).max()) == 0

    def test_what_only_has_a_shape_and_takes_rows(self):
        class Writer:
            shape = (2, 40, 50)
            rows = np.zeros(shape, np.float32)

            def __setitem__(self, key, value):
                self.rows[key] = value

        out = sliding_window(lambda tiles: tiles, image_of(GRID), GRID, out=Writer())
        np.testing.assert_array_equal(out.rows, image_of(GRID))

    def test_zarr(self, tmp_path):
        zarr = pytest.importorskip("zarr")
        image = image_of(GRID)
        source = zarr.create_array(tmp_path / "in.zarr", shape=image.shape, chunks=(1, 16, 50), dtype="f4")
        source[:] = image
        target = zarr.create_array(tmp_path / "out.zarr", shape=image.shape, chunks=(1, 16, 50), dtype="f4")
        sliding_window(lambda t: t, source, GRID, out=target, resume=tmp_path / "state.json")
        np.testing.assert_array_equal(target[:], image)
        closed = zarr.open_array(tmp_path / "out.zarr", mode="r")
        with pytest.raises(ValueError, match="out is read-only"):
            sliding_window(lambda t: t, source, GRID, out=closed)

    def test_h5py(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        image = image_of(GRID)
        with h5py.File(tmp_path / "images.h5", "w") as file:
            source = file.create_dataset("in", data=image, chunks=(1, 16, 50), compression="gzip")
            target = file.create_dataset("out", image.shape, np.float32)
            sliding_window(lambda t: t, source, GRID, out=target, resume=tmp_path / "state.json")
            np.testing.assert_array_equal(target[:], image)

    def test_tifffile(self, tmp_path):
        tifffile = pytest.importorskip("tifffile")
        image = image_of(GRID)
        tifffile.imwrite(tmp_path / "in.tiff", image[0])
        target = tifffile.memmap(tmp_path / "out.tiff", shape=(2, 40, 50), dtype=np.float32)
        sliding_window(lambda t: t.repeat(2, axis=1), tifffile.memmap(tmp_path / "in.tiff"), GRID, out=target)
        np.testing.assert_array_equal(target, image[:1].repeat(2, axis=0))
        zarr = pytest.importorskip("zarr")
        with tifffile.imread(tmp_path / "in.tiff", aszarr=True) as store:
            result = sliding_window(lambda t: t, zarr.open(store, mode="r"), GRID)
        np.testing.assert_array_equal(result, image[:1])


class Stopped(BaseException):
    """As KeyboardInterrupt, no error that fn makes."""


class TestInterruption:
    @pytest.mark.parametrize("border", ["flush", "circular"])
    @pytest.mark.parametrize("window", ["tent", "given"])
    def test_a_resumed_run_gives_the_same_bits(self, tmp_path, border, window):
        grid = TileGrid((200, 64), 32, 24, border)
        image = image_of(grid)
        window = 0.1 + np.random.default_rng(3).random((32, 32)) if window == "given" else window
        state = tmp_path / "state.json"
        shapes = {"a": (2, 200, 64), "b": (2, 100, 32)}
        calls = []

        def fn(tiles, stop=None):
            if len(calls) == stop:
                raise Stopped
            calls.append(len(tiles))
            return {"a": tiles * 2, "b": tiles[:, :, ::2, ::2]}

        window_for = window if isinstance(window, str) else "hann"
        expected = sliding_window(fn, image, grid, window=window_for, batch_size=2)
        out = {k: np.full(shape, np.nan, np.float32) for k, shape in shapes.items()}
        options = {"window": window_for, "batch_size": 2, "out": out, "resume": state}
        calls.clear()
        with pytest.raises(Stopped):
            sliding_window(lambda t: fn(t, stop=9), image, grid, **options)
        rows = json.loads(state.read_text())["finished_rows"]
        assert 0 < rows < 200
        np.testing.assert_array_equal(out["a"][:, :rows], expected["a"][:, :rows])
        np.testing.assert_array_equal(out["b"][:, : rows // 2], expected["b"][:, : rows // 2])
        assert np.isnan(out["a"][:, -1]).all()
        out["a"][:, :rows] = -1  # these are not written again
        calls.clear()
        steps = []
        sliding_window(fn, image, grid, progress=lambda *step: steps.append(step), **options)
        assert sum(calls) < len(grid)
        assert steps[-1] == (len(grid), len(grid))
        assert (out["a"][:, :rows] == -1).all()
        np.testing.assert_array_equal(out["a"][:, rows:], expected["a"][:, rows:])
        np.testing.assert_array_equal(out["b"], expected["b"])
        assert list(tmp_path.iterdir()) == []

    def test_a_run_stopped_after_its_last_row_is_complete(self, tmp_path):
        image, out, state = image_of(GRID), np.empty((2, 40, 50), np.float32), tmp_path / "state.json"

        def stop_at_the_end(done, of):
            if done == of:
                raise Stopped

        with pytest.raises(Stopped):
            sliding_window(lambda t: t, image, GRID, out=out, resume=state, progress=stop_at_the_end)
        assert json.loads(state.read_text())["finished_rows"] == 40
        assert sliding_window(lambda t: t, image, GRID, out=out, resume=state) is out
        np.testing.assert_array_equal(out, image)
        assert not state.exists()

    def test_a_record_of_something_else_is_refused(self, tmp_path):
        image, out, state = image_of(GRID), np.empty((2, 40, 50), np.float32), tmp_path / "state.json"

        def stop(_):
            raise KeyboardInterrupt

        calls = []

        def twice(tiles):
            calls.append(1)
            return stop(tiles) if len(calls) > 3 else tiles

        with pytest.raises(KeyboardInterrupt):
            sliding_window(twice, image, GRID, out=out, resume=state, batch_size=3)
        before = state.read_text()
        with pytest.raises(ValueError, match=r"another stride, window; remove it to begin anew"):
            sliding_window(lambda t: t, image, TileGrid((40, 50), 16, 8), window="hann", out=out, resume=state)
        with pytest.raises(ValueError, match="another reduction"):
            sliding_window(lambda t: t, image, GRID, out=out, resume=state, reduction="max")
        assert state.read_text() == before
        damaged = [
            json.dumps({**json.loads(before), "finished_rows": rows}) for rows in (-1, 41, 1.5, True, None, "12")
        ]
        for content in ("[]", "", *damaged):
            state.write_text(content)
            with pytest.raises(ValueError, match=r"is no record of an unfinished run|is damaged: .* rows are"):
                sliding_window(lambda t: t, image, GRID, out=out, resume=state)
        with pytest.raises(ValueError, match="resume needs `out`"):
            sliding_window(lambda t: t, image, GRID, resume=state)

    def test_what_fn_raises_names_the_tiles_and_finished_rows_stay(self):
        out = np.full((1, 40, 50), -1.0)
        calls = []

        def fn(tiles):
            calls.append(1)
            if len(calls) == 2:
                raise ZeroDivisionError("oops")
            return tiles

        words = "tiles 4 to 7 of 12, the first at row 12, column 0: ZeroDivisionError: oops"
        with pytest.raises(RuntimeError, match=words) as caught:
            sliding_window(fn, np.ones((1, 40, 50)), GRID, out=out, batch_size=4)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert (out[:, :12] == 1).all()
        assert (out[:, 12:] == -1).all()

    @pytest.mark.parametrize("end", ["read", "write"])
    def test_what_a_file_raises_comes_through(self, end):
        class Broken(Slices):
            dtype = np.dtype(np.float32)

            def __getitem__(self, key):
                if key[1].stop > 20 and end == "read":
                    raise OSError("the disk is gone")
                return super().__getitem__(key)

            def __setitem__(self, key, value):
                if key[1].stop > 20 and end == "write":
                    raise OSError("the disk is gone")
                self._array[key] = value

        out = np.full((2, 40, 50), -1, np.float32)
        with pytest.raises(OSError, match="the disk is gone"):
            sliding_window(lambda t: t, Broken(image_of(GRID)), GRID, out=Broken(out), batch_size=4)
        np.testing.assert_array_equal(out[:, :12], image_of(GRID)[:, :12] if end == "write" else out[:, :12])
        assert (out[:, 24:] == -1).all()

    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_from_fn_names_the_tile(self, dtype, value):
        calls = []

        def fn(tiles):
            calls.append(1)
            if len(calls) == 2:
                tiles[2, 0, 3, 3] = value
            return tiles

        out = np.full((1, 40, 50), -1, dtype)
        with pytest.raises(ValueError, match="NaN or infinity for tile 6, at row 12, column 24"):
            sliding_window(fn, np.ones((1, 40, 50), dtype), GRID, batch_size=4, out=out)
        assert (out[:, :12] == 1).all()
        assert (out[:, 12:] == -1).all()

    @pytest.mark.parametrize("reduction", ["mean", "max", "min", "mean_std"])
    @pytest.mark.parametrize("window", ["hann", "given"])
    @pytest.mark.parametrize("batch_size", [1, 3, 12])
    @pytest.mark.parametrize("value", [np.nan, -np.inf])
    def test_nan_is_found_however_tiles_are_cut_into_batches(self, reduction, window, batch_size, value):
        image = image_of(GRID)
        given = 0.1 + np.random.default_rng(3).random((16, 16)) if window == "given" else window
        done = []

        def fn(tiles):
            done.append(len(tiles))
            if sum(done) >= 8 and sum(done[:-1]) < 8:
                tiles[7 - sum(done[:-1]), 1, 15, 15] = value
            return tiles

        with pytest.raises(ValueError, match="NaN or infinity for tile 7, at row 12, column 34"):
            sliding_window(fn, image, GRID, window=given, reduction=reduction, batch_size=batch_size)
        assert sum(done) < 8 + batch_size

    def test_nan_beyond_the_image_is_dropped_with_what_lies_there(self):
        grid = TileGrid((40, 50), 16, 12, "reflect")
        (above, _), (left, _) = grid.halo
        image = image_of(grid)

        def fn(tiles):
            tiles[0, :, : above - 1] = np.nan
            tiles[0, :, :, : left - 1] = np.inf
            return tiles

        np.testing.assert_array_equal(sliding_window(fn, image, grid), image)

    def test_squares_that_overflow_are_not_taken_for_nan(self):
        image = image_of(GRID, np.float64)
        image[0, 13, 13] = 1e200
        signs = iter([1, -1] * 6)
        mean, deviation = sliding_window(lambda t: next(signs) * t, image, GRID, reduction="mean_std", batch_size=1)
        assert np.isfinite(mean).all()
        assert np.argwhere(~np.isfinite(deviation)).tolist() == [[0, 13, 13]]

    @pytest.mark.parametrize(
        "keep",
        [
            lambda tiles: tiles[:, :1],
            lambda tiles: torch.from_numpy(tiles)[:, :1],
            lambda tiles: np.asarray(memoryview(tiles))[:, :1],
            lambda tiles: np.from_dlpack(torch.from_numpy(tiles))[:, :1],
        ],
        ids=["view", "tensor", "memoryview", "DLPack"],
    )
    def test_tiles_that_fn_keeps_are_not_written_into(self, keep):
        image = image_of(GRID)
        kept = []

        def fn(tiles):
            kept.append(keep(tiles))
            return tiles

        sliding_window(fn, image, GRID, batch_size=2)
        sliding_window(lambda tiles: tiles, image + 1, GRID, batch_size=2)
        np.testing.assert_array_equal(np.concatenate(kept), extract(image, GRID)[:, :1])

    def test_tensors_that_fn_keeps_are_not_written_into(self):
        image = torch.from_numpy(image_of(GRID))
        kept = []

        def fn(tiles):
            kept.append(tiles.detach()[:, 1:])
            return tiles

        sliding_window(fn, image, GRID, batch_size=2)
        assert torch.equal(torch.cat(kept), extract(image, GRID)[:, 1:])

    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_tiles_that_fn_drops_give_their_place_to_the_next(self, kind):
        places = set()

        def fn(tiles):
            places.add(tiles.data_ptr() if isinstance(tiles, torch.Tensor) else tiles.ctypes.data)
            return tiles

        sliding_window(fn, kind(image_of(GRID)), GRID, batch_size=4)
        assert len(places) == 1
        sliding_window(fn, kind(image_of(GRID)), GRID, batch_size=3)
        assert len(places) == 1

    def test_what_a_failed_fn_held_is_not_written_into(self):
        image = image_of(GRID)
        kept = []

        def fn(tiles):
            kept.append(tiles)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            sliding_window(fn, image, GRID, batch_size=2)
        sliding_window(lambda tiles: tiles, image + 1, GRID, batch_size=2)
        np.testing.assert_array_equal(kept[0], extract(image, GRID)[:2])


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "kind", "words"),
        [
            ({"image": np.zeros((1, 40, 51))}, ValueError, r"image has shape \(1, 40, 51\)"),
            ({"image": np.zeros((1, 1, 40, 50))}, ValueError, r"this grid wants \(C, 40, 50\) or \(40, 50\)"),
            ({"image": 3}, TypeError, "image is a int"),
            ({"image": np.full((1, 40, 50), None)}, TypeError, "image is object; give numbers"),
            ({"image": np.ma.masked_less(np.zeros((1, 40, 50)), 1)}, TypeError, "image is a masked array"),
            ({"image": Slices(np.ma.masked_less(np.zeros((1, 40, 50)), 1))}, TypeError, "image is a masked array"),
            ({"fn": lambda t: np.ma.masked_less(t, 1)}, TypeError, "what fn returned is a masked array"),
            ({"grid": 16}, TypeError, "grid is a int; give a TileGrid"),
            (
                {"out": torch.zeros(1, 40, 50, dtype=torch.complex64).conj().imag},
                ValueError,
                "a view that torch negates",
            ),
            ({"batch_size": 0}, ValueError, "batch_size is 0"),
            ({"batch_size": 1.5}, ValueError, "batch_size is 1.5"),
            ({"window": "box"}, ValueError, "window is 'box'"),
            ({"reduction": "sum"}, ValueError, "reduction is 'sum'"),
            ({"fn": lambda t: t[:-1]}, ValueError, r"fn returned shape \(11, 1, 16, 16\) for tiles 0 to 11 of 12"),
            ({"fn": lambda t: t[0]}, ValueError, r"it must be \(12, C, h, w\)"),
            ({"fn": lambda t: t[..., :11]}, ValueError, "a scale of 11/16; the stride 12 .* must come out whole"),
            ({"fn": lambda _: None}, TypeError, "fn returned a NoneType"),
            ({"fn": lambda t: t.astype(np.int64)}, TypeError, "what fn returned: int64 cannot be blended"),
            ({"fn": lambda t: torch.from_numpy(t).bfloat16()}, TypeError, "bfloat16, which NumPy does not have"),
            ({"out": np.zeros((2, 40, 50))}, ValueError, r"out has shape \(2, 40, 50\); the result has \(1, 40, 50\)"),
            ({"out": [1]}, ValueError, "out has shape None"),
            ({"out": torch.zeros(50).expand(1, 40, 50)}, ValueError, "out is an expanded view, whose pixels share"),
            ({"out": np.zeros((1, 40, 50), np.uint8)}, TypeError, "out is uint8; the result is float64"),
            ({"out": torch.zeros(1, 40, 50, dtype=torch.uint8)}, TypeError, r"out is torch\.uint8"),
            (
                {"image": np.zeros((1, 40, 50), np.uint8), "out": np.zeros((1, 40, 50), np.int8)},
                TypeError,
                "out is int8; the result is uint8",
            ),
            (
                {"image": torch.zeros(1, 40, 50, dtype=torch.uint8), "out": torch.zeros(1, 40, 50, dtype=torch.int8)},
                TypeError,
                r"out is torch\.int8; the result is torch\.uint8",
            ),
            (
                {"resume": "nowhere/state.json", "out": np.zeros((1, 40, 50))},
                ValueError,
                "nowhere is no folder; make it",
            ),
            ({"fn": lambda t: (t, t), "out": [np.zeros((1, 40, 50))]}, ValueError, r"fn returned 2 maps \[0, 1\]"),
            ({"fn": lambda t: {"a": t}, "out": {"b": 1}}, ValueError, r"out has the maps \['b'\]; fn returned \['a'\]"),
            ({"fn": lambda t: {"a": t}, "out": {"a": np.zeros((1, 4, 5))}}, ValueError, r"out\['a'\] has shape"),
        ],
    )
    def test_it_is_named(self, change, kind, words):
        options = {"fn": lambda t: t, "image": np.zeros((1, 40, 50)), "grid": GRID} | change
        with pytest.raises(kind, match=words):
            sliding_window(**options)

    @pytest.mark.parametrize("change", [lambda rows: rows[:, :-1], lambda rows: rows[..., :-1], lambda rows: rows[0]])
    def test_rows_of_another_shape_than_the_image_says(self, change):
        class Short(Slices):
            def __getitem__(self, key):
                return change(super().__getitem__(key))

        words = r"image gave rows 0 to 15 as \(.*\); by its shape they are \(2, 16, 50\)"
        with pytest.raises(ValueError, match=words):
            sliding_window(lambda t: t, Short(image_of(GRID)), GRID, batch_size=4)

    def test_read_only_memory(self):
        closed = np.zeros((1, 40, 50))
        closed.flags.writeable = False
        with pytest.raises(ValueError, match="out is read-only; open it for writing"):
            sliding_window(lambda t: t, np.zeros((1, 40, 50)), GRID, out=closed)

    def test_the_image_is_not_written_into(self):
        image = np.zeros((1, 40, 50))
        with pytest.raises(ValueError, match="out shares the image's memory"):
            sliding_window(lambda t: t, image, GRID, out=image)
        tensor = torch.from_numpy(image)
        for source, out in [(tensor, tensor), (tensor, image), (image, tensor), (image, (image.copy(), tensor))]:
            with pytest.raises(ValueError, match="out shares the image's memory"):
                sliding_window(lambda t: t, source, GRID, out=out)

    @pytest.mark.parametrize("change", [np.float64, lambda tiles: tiles[:, :1], lambda tiles: tiles.repeat(2, 3)])
    def test_tiles_that_change_from_call_to_call(self, change):
        image = image_of(GRID)
        calls = []

        def fn(tiles):
            calls.append(1)
            return {"a": tiles if len(calls) == 1 else change(tiles)}

        words = (
            r"fn returned the map 'a' as tiles of shape .* for tiles 4 to 7 of 12; before, it returned tiles of shape"
        )
        with pytest.raises(ValueError, match=words + r" \(2, 16, 16\) and dtype float32"):
            sliding_window(fn, image, GRID, batch_size=4)

    def test_maps_that_change_from_call_to_call(self):
        calls = []

        def fn(tiles):
            calls.append(1)
            return tiles if len(calls) == 1 else (tiles, tiles)

        with pytest.raises(ValueError, match=r"fn returned the maps \[0, 1\] for tiles 4 to 7 of 12; before"):
            sliding_window(fn, np.zeros((1, 40, 50)), GRID, batch_size=4)


class _OnGpu:
    """What CuPy's arrays look like from here."""

    shape, dtype, __cuda_array_interface__ = (1, 40, 50), np.dtype(np.float32), {}

    def __getitem__(self, key):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


def test_arrays_of_cupy_are_told_how_they_can_be_taken():
    grid, array = TileGrid((40, 50), 16, 8), _OnGpu()
    words = r"{} is a .*_OnGpu, on a GPU; give torch\.from_dlpack\({}\), a tensor on the same memory"
    with pytest.raises(TypeError, match=words.format("image", "image")):
        sliding_window(lambda tiles: tiles, array, grid)
    with pytest.raises(TypeError, match=words.format("out", "out")):
        sliding_window(lambda tiles: tiles, np.zeros((1, 40, 50), np.float32), grid, out=array)
    with pytest.raises(TypeError, match=words.format("image", "image")):
        extract(array, grid)
    with pytest.raises(TypeError, match=words.format("tiles", "tiles")):
        blend(array, grid)
