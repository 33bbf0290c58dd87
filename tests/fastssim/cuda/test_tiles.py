"""The kernels of tiles on the CPU, by the emulator: to the last bit those of the CPU backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from device import EmulatedDevice
from emulate import run_sanitized, same_in_every_order

from fastssim.cpu import tile_launch as cpu
from fastssim.cuda import tile_launch as cuda
from fastssim.tiles import REDUCTIONS, WINDOWS, TileGrid
from fastssim.tiles.plan import NO_SUMS, SUM, Sums, make_plan
from fastssim.tiles.storage import deviation_dtype, stored
from fastssim.tiles.windows import window_key

GRIDS = [
    TileGrid((45, 70), 24, 7),
    TileGrid((40, 50), (16, 12), (7, 5), "reflect"),
    TileGrid((37, 150), (20, 140), (20, 3)),
    TileGrid((9, 5), 16, 4, "zeros"),
    TileGrid((33, 41), (33, 41), 1),
]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8)
GIVEN = 0.1 + np.random.default_rng(3).random((24, 24))


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch):
    """Blocks of one warp, so that small images have many; nothing is kept on a device that is gone."""
    monkeypatch.setattr(cuda, "THREADS", 32)
    cuda._tables.cache_clear()
    yield
    cuda._tables.cache_clear()


def plan_of(grid, window):
    given = 0.1 + np.random.default_rng(3).random(grid.tile_shape) if window == "given" else window
    return make_plan(tuple(grid.geometry), *window_key(given, grid.tile_shape))


def random(shape, dtype):
    values = torch.from_numpy(np.random.default_rng(0).random(shape))
    return (values * 255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def as_stored(tensor):
    """The array that a buffer takes: NumPy has no bfloat16."""
    return stored(tensor).view(np.float16) if tensor.dtype == torch.float16 else stored(tensor)


class Emulated:
    """The launcher on the emulator, for tensors."""

    def __init__(self, order=0, *, sanitize=False):
        self.device = EmulatedDevice(order, sanitize=sanitize)

    def buffer(self, tensor):
        buffer = self.device.buffer(as_stored(tensor))
        if tensor.dtype == torch.bfloat16:
            self.device.names[id(buffer)] = "bfloat16"
        return buffer

    def blend(self, tiles, plan, reduction):
        g = plan.geometry
        shape = (len(tiles), tiles.shape[2], g.height, g.width)
        out = self.buffer(torch.empty(shape, dtype=tiles.dtype))
        deviation = self.buffer(torch.empty(shape, dtype=deviation_dtype(tiles.dtype)))
        pair = reduction == "mean_std"
        cuda.gather(self.device, plan, self.buffer(tiles), reduction, out, deviation if pair else None)
        return [out.array, deviation.array] if pair else [out.array]


def blend_on_cpu(tiles, plan, reduction):
    g = plan.geometry
    shape = (len(tiles), tiles.shape[2], g.height, g.width)
    out, deviation = torch.empty(shape, dtype=tiles.dtype), torch.empty(shape, dtype=deviation_dtype(tiles.dtype))
    pair = reduction == "mean_std"
    for n, source in enumerate(stored(tiles)):
        cpu.gather(plan, source, reduction, stored(out)[n], stored(deviation)[n] if pair else None)
    return [as_stored(out), as_stored(deviation)] if pair else [as_stored(out)]


def assert_equal(found, expected):
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("window", [*WINDOWS, "given"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_blending_gives_the_bits_of_the_cpu(grid, window, reduction):
    plan = plan_of(grid, window)
    tiles = random((2, len(grid), 3, *grid.tile_shape), torch.float32)
    assert_equal(Emulated().blend(tiles, plan, reduction), blend_on_cpu(tiles, plan, reduction))


def test_wide_blocks(monkeypatch):
    monkeypatch.setattr(cuda, "THREADS", 128)
    grid = GRIDS[2]
    plan = plan_of(grid, "hann")
    tiles = random((1, len(grid), 1, *grid.tile_shape), torch.float32)
    assert_equal(Emulated().blend(tiles, plan, "mean"), blend_on_cpu(tiles, plan, "mean"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_for_every_dtype(dtype, reduction):
    grid = GRIDS[0]
    plan = plan_of(grid, "tent")
    tiles = random((1, len(grid), 2, 24, 24), dtype)
    assert_equal(Emulated().blend(tiles, plan, reduction), blend_on_cpu(tiles, plan, reduction))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_is_not_finite_comes_out_as_on_the_cpu(dtype, value, reduction):
    grid = GRIDS[0]
    plan = plan_of(grid, "hann")
    tiles = random((1, len(grid), 1, 24, 24), dtype)
    tiles[0, 3, 0, 5, 6] = value
    assert_equal(Emulated().blend(tiles, plan, reduction), blend_on_cpu(tiles, plan, reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("window", ["gaussian", "given"])
def test_every_order_of_threads_and_blocks_gives_the_same_bits(reduction, window):
    grid = GRIDS[1]
    tiles = random((1, len(grid), 2, *grid.tile_shape), torch.float32)

    def run(order):
        cuda._tables.cache_clear()
        return Emulated(order).blend(tiles, plan_of(grid, window), reduction)

    same_in_every_order(run)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("window", ["tent", "given"])
@pytest.mark.parametrize("grid", GRIDS[:2], ids=repr)
def test_tiles_in_pieces_give_the_same_bits(grid, window, reduction):
    plan = plan_of(grid, window)
    g, down, across = plan.geometry, plan.down.origins, plan.across.origins
    tiles = random((1, len(grid), 2, *grid.tile_shape), torch.float32)
    emulated = Emulated()
    states = 3 if reduction == "mean_std" else 1
    out, deviation = (np.full((1, 2, g.height, g.width), np.nan, np.float32) for _ in range(2))
    band_in, finished = NO_SUMS, 0

    def sums(origins, number, rows, columns):
        if number == len(origins):
            return NO_SUMS
        return Sums(emulated.device.output((states, 2, rows, columns), np.float64), int(origins[number]))

    for i in range(len(down)):
        y0, y1 = max(int(down[i]), g.top + finished), min(int(down[i]) + g.tile_height, g.top + g.height)
        end = g.height if i + 1 == len(down) else max(min(int(down[i + 1]) - g.top, g.height), finished)
        band_out = sums(down, i + 1, g.tile_height, g.canvas_width)
        rows = [emulated.device.output((1, 2, end - finished, g.width), np.float32) for _ in range(2)]
        carry_in, cut = NO_SUMS, len(across) // 2
        for j0, j1 in ((0, cut), (cut, len(across))):
            carry_out = sums(across, j1, g.tile_height, g.tile_width)
            piece = tiles[:, i * len(across) + j0 : i * len(across) + j1]
            cuda.gather(
                emulated.device, plan, emulated.buffer(piece), reduction, rows[0],
                rows[1] if reduction == "mean_std" else None,
                part=(i, i + 1, j0, j1), rows=(y0, y1), band=(band_in, band_out), carry=(carry_in, carry_out),
            )  # fmt: skip
            carry_in = carry_out
        out[:, :, finished:end], deviation[:, :, finished:end] = (buffer.array for buffer in rows)
        band_in, finished = band_out, end
    found = [out, deviation] if reduction == "mean_std" else [out]
    assert_equal(found, blend_on_cpu(tiles, plan, reduction))


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64, np.complex128])
def test_tiles_are_cut_out_as_on_the_cpu(grid, dtype):
    g = grid.geometry
    plan = make_plan(tuple(g), SUM)
    image = (np.random.default_rng(0).random((2, g.canvas_width, g.canvas_height, 3)) * 200).astype(dtype)
    image = image.transpose(0, 3, 2, 1)[:, :, ::-1]
    expected = np.empty((2, len(grid), 3, *grid.tile_shape), dtype)
    for n in range(2):
        cpu.copy(image[n], plan.origins, expected[n])
    device = EmulatedDevice()
    tiles = device.output(expected.shape, dtype)
    cuda.scatter(device, plan, device.buffer(image), tiles, weighted=False)
    np.testing.assert_array_equal(tiles.array, expected)
    few = device.output((2, 1, *expected.shape[2:]), dtype)
    cuda.scatter(device, plan, device.buffer(image), few, first=len(grid) - 1, weighted=False)
    np.testing.assert_array_equal(few.array, expected[:, -1:])


@pytest.mark.parametrize(("most", "launches"), [(18, 1), (9, 2), (7, 4), (1, 18)])
def test_more_tiles_than_one_launch_has_blocks_for(most, launches, monkeypatch):
    grid = GRIDS[1]
    g = grid.geometry
    image = np.random.default_rng(0).random((2, 3, 5, g.canvas_height, g.canvas_width))[:, :, 3].astype(np.float32)
    plan = make_plan(tuple(g), SUM)
    expected = np.empty((2, 9, 3, *grid.tile_shape), np.float32)
    for n in range(2):
        cpu.copy(image[n, :, 7:], plan.origins[12:21] - (7, 0), expected[n])
    blocks = 3 * g.tile_height  # of one tile
    monkeypatch.setattr(cuda, "MOST_BLOCKS", most * blocks + 1)
    device = EmulatedDevice()
    tiles = device.output(expected.shape, np.float32)
    cuda.scatter(device, plan, device.buffer(image[:, :, 7:]), tiles, first=12, first_row=7, weighted=False)
    assert len(device.launches) == launches
    np.testing.assert_array_equal(tiles.array, expected)


@pytest.mark.parametrize("grid", GRIDS[:3], ids=repr)
@pytest.mark.parametrize("window", ["gaussian", "given"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_adjoint_gives_the_bits_of_the_cpu(grid, window, dtype):
    g = grid.geometry
    plan = plan_of(grid, window)
    image = np.random.default_rng(0).random((2, 3, g.canvas_height, g.canvas_width)).astype(dtype)
    expected = np.empty((2, len(grid), 3, *grid.tile_shape), dtype)
    for n in range(2):
        cpu.scatter(plan, image[n], expected[n])

    def run(order):
        cuda._tables.cache_clear()
        device = EmulatedDevice(order)
        tiles = device.output(expected.shape, dtype)
        cuda.scatter(device, plan, device.buffer(image), tiles, weighted=True)
        return [tiles.array]

    assert_equal(same_in_every_order(run), [expected])


def test_sanitizers_find_nothing(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_tiles
from test_tiles import *

for grid in GRIDS[1:3]:
    for window in ("tent", "given"):
        tiles = random((1, len(grid), 2, *grid.tile_shape), torch.float32)
        Emulated(2, sanitize=True).blend(tiles, plan_of(grid, window), "mean_std")
        cuda._tables.cache_clear()
    g = grid.geometry
    device = EmulatedDevice(2, sanitize=True)
    image = device.buffer(np.random.rand(1, 2, g.canvas_height, g.canvas_width).astype(np.float32))
    tiles = device.output((1, len(grid), 2, *grid.tile_shape), np.float32)
    cuda.scatter(device, plan_of(grid, "given"), image, tiles, weighted=True)
    cuda._tables.cache_clear()
"""
    done = run_sanitized(program, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
