"""The way of tensors on a GPU, from the public functions to the kernels, with tensors in memory and the emulator."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch
from emulate import build, run

from fastssim.cuda import device, tile_launch
from fastssim.tiles import REDUCTIONS, Blender, TileGrid, blend, extract, gpu, sliding, sliding_window, storage

GRID = TileGrid((40, 50), (16, 18), (12, 7), "reflect")
FLUSH = TileGrid((40, 50), 16, 12)


class EmulatedTorch(device.TorchDevice):
    """Kernels run by the emulator on tensors in memory."""

    def __init__(self):
        self.kernels = []

    def run(self, like, launch, argument):  # noqa: ARG002
        library = build(launch.instance.text, launch.instance.kernel, "Problem")
        run(library, argument, (launch.grid, 1, 1), (launch.block, 1, 1))
        self.kernels.append(launch.instance.kernel)


class Movements:
    """Stands for the streams, which there are none of: copies at once, and counts."""

    def __init__(self, place):
        self.place = place
        self.moved = []

    def up(self, band):
        self.moved.append(("up", threading.current_thread()))
        return torch.from_numpy(np.array(band)), "event"

    def wait(self, moved, event):
        assert event == "event"
        return moved

    def ready(self):
        return "ready"

    def down(self, pixels, ready):
        assert ready == "ready"
        self.moved.append(("down", threading.current_thread()))
        return pixels.clone()


@pytest.fixture
def emulated(monkeypatch):
    """Tensors in memory pass for tensors on a GPU."""
    made = EmulatedTorch()
    monkeypatch.setattr(gpu, "device_of", lambda _: made)
    monkeypatch.setattr(tile_launch, "THREADS", 32)
    monkeypatch.setattr(sliding, "usable", lambda: True)
    tile_launch._tables.cache_clear()
    storage.GPUS.add("cpu")
    yield made
    storage.GPUS.discard("cpu")
    tile_launch._tables.cache_clear()


@pytest.fixture
def movements(monkeypatch):
    made = []
    monkeypatch.setattr(gpu, "Mover", lambda place: made.append(Movements(place)) or made[-1])
    return made


@pytest.mark.parametrize("grid", [GRID, FLUSH], ids=["reflect", "flush"])
def test_extract_and_blend_with_their_gradients(grid, request):
    image = torch.rand(2, 3, 40, 50)

    def all_of_it():
        x = image.clone().requires_grad_()
        tiles = extract(x, grid)
        result = blend(tiles * tiles, grid, window="gaussian")
        result.square().sum().backward()
        full = blend(tiles.detach(), grid, window=0.1 + torch.ones(grid.tile_shape).triu().numpy())
        few = extract(image, grid, start=3, stop=7)
        pair = blend(tiles.detach(), grid, window="hann", reduction="mean_std")
        return [tiles.detach(), result.detach(), x.grad, full, few, *pair]

    expected = all_of_it()
    emulated = request.getfixturevalue("emulated")
    found = all_of_it()
    assert set(emulated.kernels) == {"tiles_gather", "tiles_scatter"}
    for ours, wanted in zip(found, expected, strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.usefixtures("emulated", "movements")
def test_tensors_that_torch_conjugates_or_negates_as_it_reads_them():
    image = torch.rand(2, 40, 50)
    whole = torch.complex(image, image)
    few = extract(image, FLUSH, start=3, stop=7)
    assert torch.equal(extract(whole.conj(), FLUSH, start=3, stop=7).imag, -few)
    assert torch.equal(extract(whole.conj().imag, FLUSH, start=3, stop=7), -few)
    assert torch.equal(sliding_window(lambda tiles: tiles, whole.conj().imag, FLUSH), -image)
    negated, out = torch._neg_view(extract(image, FLUSH)), torch.empty(2, 40, 50)
    Blender(FLUSH, channels=2, dtype=torch.float32).push(negated, out)
    assert torch.equal(out, -image)


@pytest.mark.usefixtures("emulated")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("transform", [torch.func.vmap, partial(torch.compile, fullgraph=True, backend="aot_eager")])
def test_a_range_of_tiles_under_transforms(transform):
    images = torch.rand(2, 1, 40, 50)
    found = transform(lambda image: extract(image, FLUSH, start=3, stop=7) * 1)(images)
    assert torch.equal(found, extract(images, FLUSH, start=3, stop=7))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("piece", [1, 3, 11])
def test_tiles_in_pieces(reduction, piece, request):
    tiles = torch.rand(len(GRID), 2, *GRID.tile_shape)
    expected = blend(tiles, GRID, window="tent", reduction=reduction)
    emulated = request.getfixturevalue("emulated")
    out = [torch.full((2, 40, 50), torch.nan) for _ in range(2)]
    pair = reduction == "mean_std"
    blender = Blender(GRID, channels=2, dtype=torch.float32, window="tent", reduction=reduction)
    for start in range(0, len(GRID), piece):
        blender.push(tiles[start : start + piece], out if pair else out[0])
    assert set(emulated.kernels) == {"tiles_gather"}
    for found, wanted in zip(out, expected if pair else [expected], strict=False):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("border", ["flush", "reflect"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_sliding_moves_bands_up_and_rows_down_beside_what_is_computed(border, dtype, movements):
    grid = TileGrid((70, 50), 16, 12, border)
    image = (np.random.default_rng(0).random((2, 70, 50)) * 200).astype(dtype)
    seen = []

    def fn(tiles):
        seen.append(type(tiles))
        return tiles, tiles[:, :1]

    result = sliding_window(fn, image, grid, window="hann", batch_size=3, device="cpu")
    assert isinstance(result[0], np.ndarray)
    np.testing.assert_array_equal(result[0], image)
    np.testing.assert_array_equal(result[1], image[:1])
    assert set(seen) == {torch.Tensor}
    (mover,) = movements
    assert {way for way, _ in mover.moved} == {"up", "down"}
    assert threading.current_thread() not in {thread for _, thread in mover.moved}


@pytest.mark.usefixtures("emulated")
def test_rows_that_go_to_the_gpu_are_written_by_the_thread_whose_stream_computes_them(movements):
    image = np.random.default_rng(0).random((1, 70, 50), np.float32)
    out = torch.empty(1, 70, 50), np.empty((1, 70, 50), np.float32)
    grid = TileGrid((70, 50), 16, 12)
    sliding_window(lambda tiles: (tiles, tiles), image, grid, batch_size=3, out=out, device="cpu")
    for written in out:
        np.testing.assert_array_equal(written, image)
    (mover,) = movements
    assert {thread for way, thread in mover.moved if way == "down"} == {threading.current_thread()}


def test_bands_of_either_byte_order_are_moved():
    for kind in ("f4", "u2", "c16"):
        assert storage.torch_dtype(np.dtype(f">{kind}")) == storage.torch_dtype(np.dtype(f"<{kind}"))


@pytest.mark.usefixtures("emulated")
def test_tiles_on_a_gpu_are_not_blended_straight_into_memory():
    blender = Blender(FLUSH, channels=1, dtype=torch.float32)
    with pytest.raises(ValueError, match="tiles are on cpu, where kernels write to no memory; take the rows"):
        blender.blend_into((torch.empty(1, 40, 50),))


@pytest.mark.usefixtures("emulated", "movements")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_image_on_the_gpu_stays_there(dtype):
    image = torch.rand(2, 40, 50).to(dtype)
    for grid in (GRID, FLUSH):
        with torch.inference_mode():
            result = sliding_window(lambda t: t, image, grid, batch_size=5)
        assert result.dtype == dtype
        torch.testing.assert_close(result, image, rtol=1e-14, atol=0)
        assert torch.equal(sliding_window(lambda t: t, image[0], grid), result[:1])


@pytest.mark.usefixtures("emulated", "movements")
def test_nan_names_the_tile():
    def fn(tiles):
        tiles[2, 0, 3, 3] = torch.nan
        return tiles

    with pytest.raises(ValueError, match="NaN or infinity for tile 2, at row 0, column 24"):
        sliding_window(fn, torch.rand(1, 40, 50), FLUSH, batch_size=4)


def test_without_cupy_tiles_are_blended_on_the_cpu(monkeypatch):
    def missing():
        raise device.CudaUnavailableError("no CuPy")

    monkeypatch.setattr(sliding, "GPUS", {"cpu"})
    monkeypatch.setattr(device, "load_cupy", missing)
    monkeypatch.setattr(gpu, "Mover", None)  # cannot be called
    image = np.random.default_rng(0).random((1, 40, 50), np.float32)
    np.testing.assert_array_equal(sliding_window(lambda t: t, image, FLUSH, device="cpu"), image)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a GPU")
def test_without_a_gpu_the_message_says_so():
    with pytest.raises(device.CudaUnavailableError, match=r"device is cuda, but torch .* finds no GPU"):
        sliding_window(lambda t: t, torch.rand(1, 40, 50), FLUSH, device="cuda")
    with pytest.raises(device.CudaUnavailableError, match=r"device is cuda, but torch .* finds no GPU"):
        Blender(FLUSH, channels=1, dtype=torch.float32, device="cuda")
    with pytest.raises(ValueError, match="device is 'gpu'; give"):
        sliding_window(lambda t: t, torch.rand(1, 40, 50), FLUSH, device="gpu")
    with pytest.raises(TypeError, match="dtype is float32, but tiles on meta are tensors"):
        Blender(FLUSH, channels=1, device="meta")
