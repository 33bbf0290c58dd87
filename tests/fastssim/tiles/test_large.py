"""An image far larger than a band, through files, killed half-way and resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fastssim.tiles import TileGrid, sliding_window

SIZE = 40_000
TILE, STRIDE = 256, 256
MOST_GROWTH = 600 << 20  # bytes of resident memory
RUN = """
import sys
import numpy as np
from fastssim.tiles import TileGrid, sliding_window

def resident():  # bytes of memory of its own; pages of the files belong to the system
    words = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return 1024 * int(words["RssAnon"].split()[0])

folder, size, tile, stride = sys.argv[1], *map(int, sys.argv[2:])
source = np.memmap(folder + "/in.raw", np.uint8, "r", shape=(1, size, size))
target = np.memmap(folder + "/out.raw", np.uint8, "r+", shape=(1, size, size))
grid = TileGrid((size, size), tile, stride)
sliding_window(lambda tiles: 255 - tiles, np.zeros((1, 512, 512), np.uint8), TileGrid((512, 512), tile, stride))
before = resident()
most = 0

def progress(done, total):
    global most
    most = max(most, resident() - before)
    print(done * size // total, most, flush=True)  # rows, bytes

sliding_window(lambda tiles: 255 - tiles, source, grid, out=target, resume=folder + "/state.json", progress=progress)
"""


@pytest.fixture
def folder(tmp_path):
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("less than 4 GiB of the disk are free")
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_40000_by_40000_pixels_in_bounded_memory_killed_and_resumed(folder):
    for name in ("in.raw", "out.raw"):
        with (folder / name).open("wb") as file:
            file.truncate(SIZE * SIZE)  # sparse: zeros take no room on the disk
    source = np.memmap(folder / "in.raw", np.uint8, "r+", shape=(SIZE, SIZE))
    rng = np.random.default_rng(0)
    crops = [(y, x) for y in (0, 19_990, SIZE - 700) for x in (0, 30_011, SIZE - 600)]
    for y, x in crops:
        source[y : y + 700, x : x + 600] = rng.integers(0, 256, (700, 600), np.uint8)
    source.flush()
    command = [sys.executable, "-c", RUN, str(folder), str(SIZE), str(TILE), str(STRIDE)]
    state = folder / "state.json"

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        for line in first.stdout:
            if int(line.split()[0]) > SIZE // 2:
                first.kill()
                break
    assert first.returncode == -9
    assert SIZE // 3 < json.loads(state.read_text())["finished_rows"] < SIZE

    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not state.exists()
    reached, growth = second.stdout.splitlines()[-1].split()
    assert int(reached) == SIZE
    assert int(growth) < MOST_GROWTH
    target = np.memmap(folder / "out.raw", np.uint8, "r", shape=(SIZE, SIZE))
    for y, x in crops:  # the same as a smaller tiling of a crop
        crop = np.array(source[y : y + 700, x : x + 600])
        grid = TileGrid(crop.shape, 100, 60)
        expected = sliding_window(lambda tiles: 255 - tiles, crop, grid)[0]
        np.testing.assert_array_equal(target[y : y + 700, x : x + 600], expected)
    for row in range(0, SIZE, 997):
        np.testing.assert_array_equal(target[row], 255 - source[row])
