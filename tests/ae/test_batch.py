from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ae.batch import expand, result_names, segment
from ae.data import open_folder
from ae.images import read_image
from ae.regions import find_regions, run_lengths
from ae.segmentation import Segmenter


def test_files_are_written_for_every_image_and_page_of_every_folder(tiny_data, tiny_runs, tmp_path):
    first = tiny_data / "test" / "dent" / "0.png"
    pixels = np.asarray(Image.open(first))
    tifffile.imwrite(tmp_path / "in.tif", np.stack([pixels] * 2).astype(np.uint16) * 257, photometric="minisblack")
    (tmp_path / "bad.png").write_bytes(b"no image")
    steps = []
    batch = segment(
        tiny_runs / "l2",
        [tiny_data / "test" / "dent", tmp_path / "bad.png", str(tmp_path / "i*.tif")],
        tmp_path / "out",
        progress=lambda *step: steps.append(step),
    )
    names = ["0_overlay.png", "1_overlay.png", "in_page0_overlay.png", "in_page1_overlay.png"]
    assert [path.name for path in batch.overlays] == names
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(batch.failures) == [tmp_path / "bad.png"]
    assert "is no image that can be read" in batch.failures[tmp_path / "bad.png"]
    out = tmp_path / "out"
    found = Segmenter.load(tiny_runs / "l2")(first)
    residual = tifffile.imread(out / "0_residual.tiff")
    assert residual.dtype == np.float32
    np.testing.assert_array_equal(residual, found.residual)
    np.testing.assert_allclose(tifffile.imread(out / "in_page1_residual.tiff"), residual, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "0_mask.png")) > 0, found.mask)
    assert read_image(batch.overlays[0], 3).shape == (3, 150, 140)
    assert len(list(out.iterdir())) == 4 * 5 + 2


def test_the_tables_hold_the_regions_of_the_masks(tiny_data, tiny_runs, tmp_path):
    run = shutil.copytree(tiny_runs / "l2", tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    content["threshold"] *= 0.5  # so that there is something to find
    (run / "config.json").write_text(json.dumps(content))
    segment(run, sorted((tiny_data / "test" / "dent").iterdir()), tmp_path)
    coco = json.loads((tmp_path / "regions.json").read_text())
    with (tmp_path / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(coco["annotations"]) > 0
    assert [image["file_name"] for image in coco["images"]] == ["0", "1"]
    for image in coco["images"]:
        mask = np.asarray(Image.open(tmp_path / f"{image['file_name']}_mask.png")) > 0
        assert mask.shape == (image["height"], image["width"])
        drawn = np.zeros(mask.shape, bool)
        for annotation in (a for a in coco["annotations"] if a["image_id"] == image["id"]):
            counts = annotation["segmentation"]["counts"]
            flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            region = flat.reshape(mask.shape, order="F")
            left, top, width, height = annotation["bbox"]
            assert region[top : top + height, left : left + width].sum() == region.sum() == annotation["area"]
            assert not (drawn & region).any()
            drawn |= region
        np.testing.assert_array_equal(drawn, mask)
    assert [(int(r["left"]), int(r["area"])) for r in rows] == [(a["bbox"][0], a["area"]) for a in coco["annotations"]]


def test_results_of_several_folders_lie_in_folders(tiny_data, tiny_runs, tmp_path):
    images = [tiny_data / "test" / "good" / "0.png", tiny_data / "test" / "dent" / "0.png"]
    batch = segment(tiny_runs / "ssim", images, tmp_path)
    assert batch.overlays == (tmp_path / "good" / "0_overlay.png", tmp_path / "dent" / "0_overlay.png")
    assert all(path.is_file() for path in batch.overlays)
    shutil.copy(images[0], tmp_path / "0.png")
    shutil.copy(images[0], tmp_path / "0.jpg")
    with pytest.raises(ValueError, match="two images are named '0'"):
        result_names([tmp_path / "0.png", tmp_path / "0.jpg"])


def test_results_stay_in_their_folder(tiny_data, tiny_runs, tmp_path, monkeypatch):
    for place in ("parts", "line/parts"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(tiny_data / "test" / "good" / "0.png", tmp_path / place)
    monkeypatch.chdir(tmp_path / "line")
    batch = segment(tiny_runs / "l2", ["../parts/0.png", "parts/0.png"], "found")
    assert [path.as_posix() for path in batch.overlays] == [
        "found/parts/0_overlay.png",
        "found/line/parts/0_overlay.png",
    ]
    assert sorted(path.name for path in (tmp_path / "line").iterdir()) == ["found", "parts"]


def test_results_take_the_place_of_no_image_and_of_no_other_result(tiny_data, tiny_runs, tmp_path):
    pixels = np.asarray(Image.open(tiny_data / "test" / "good" / "0.png"))
    tifffile.imwrite(tmp_path / "a.tif", np.stack([pixels] * 2), photometric="minisblack")
    for name in ("a_page1", "b", "b_mask"):
        shutil.copy(tiny_data / "test" / "dent" / "0.png", tmp_path / f"{name}.png")
    before = (tmp_path / "b_mask.png").read_bytes()
    batch = segment(tiny_runs / "l2", [tmp_path], tmp_path)
    assert (tmp_path / "b_mask.png").read_bytes() == before
    assert [path.name for path in batch.overlays] == ["a_page1_overlay.png", "b_mask_overlay.png"]
    assert "both named 'a_page1'" in batch.failures[tmp_path / "a.tif"]
    assert "b_mask.png, a result of b, would take the place of an image" in batch.failures[tmp_path / "b.png"]


def test_what_an_earlier_batch_wrote_beside_its_images_is_no_image(tiny_data, tiny_runs, tmp_path):
    pixels = np.asarray(Image.open(tiny_data / "test" / "dent" / "0.png"))
    tifffile.imwrite(tmp_path / "a.tif", np.stack([pixels] * 2), photometric="minisblack")
    for name in ("b", "c_mask"):
        shutil.copy(tiny_data / "test" / "dent" / "0.png", tmp_path / f"{name}.png")
    given = [tmp_path / name for name in ("a.tif", "b.png", "c_mask.png")]
    first = segment(tiny_runs / "l2", tmp_path, tmp_path)
    written = set(tmp_path.iterdir())
    assert first.failures == {}
    assert len(first.overlays) == 4
    assert expand(tmp_path) == expand(tmp_path / "*.[pt]*") == given
    assert segment(tiny_runs / "l2", tmp_path, tmp_path) == first
    assert set(tmp_path.iterdir()) == written
    assert expand(tmp_path / "b_mask.png") == [tmp_path / "b_mask.png"]  # who names it means it
    (tmp_path / "b_residual.tiff").unlink()
    assert tmp_path / "b_mask.png" in expand(tmp_path)  # a batch writes five files


def test_hidden_files_are_left_out(tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "data")
    for folder in ("train/good", "test/dent", "test/.thumbnails"):
        (tmp_path / "data" / folder).mkdir(exist_ok=True)
        (tmp_path / "data" / folder / "._0.png").write_bytes(b"AppleDouble")
    found = open_folder(tmp_path / "data")
    assert (len(found.train), len(found.test)) == (3, 3)
    assert len(expand([str(tmp_path / "data" / "train" / "*" / "*.png")])) == 3


def test_what_is_named_is_found_once_and_in_order(tiny_data):
    folder = tiny_data / "test" / "dent"
    assert expand([folder / "1.png", folder]) == [folder / "1.png", folder / "0.png"]
    assert expand([str(tiny_data / "test" / "*" / "0.p?g")]) == [
        folder / "0.png",
        tiny_data / "test" / "good" / "0.png",
    ]
    with pytest.raises(ValueError, match="no file matches"):
        expand([str(folder / "*.gif")])
    with pytest.raises(ValueError, match="holds no image"):
        expand([tiny_data])


def test_an_image_that_is_missing_stops_nothing(tiny_runs, tmp_path):
    batch = segment(tiny_runs / "ssim", [tmp_path / "gone.png"], tmp_path / "out")
    assert batch.overlays == ()
    assert "gone.png does not exist" in batch.failures[tmp_path / "gone.png"]


def test_a_link_to_itself_stops_nothing(tiny_data, tiny_runs, tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    batch = segment(tiny_runs / "l2", [tmp_path / "loop.png", tiny_data / "test" / "dent" / "1.png"], tmp_path / "out")
    assert [path.name for path in batch.overlays] == ["1_overlay.png"]
    assert list(batch.failures) == [tmp_path / "loop.png"]


def test_a_name_that_is_no_utf_8_has_its_rows(tiny_data, tiny_runs, tmp_path):
    run = shutil.copytree(tiny_runs / "l2", tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    content["threshold"] *= 0.5  # so that there is something to find
    (run / "config.json").write_text(json.dumps(content))
    image = tmp_path / os.fsdecode(b"t\xe4il.png")
    try:
        shutil.copy(tiny_data / "test" / "dent" / "0.png", image)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    batch = segment(run, [image], tmp_path / "out")
    assert not batch.failures
    coco = json.loads((tmp_path / "out" / "regions.json").read_text())
    with (tmp_path / "out" / "regions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(coco["annotations"]) > 0
    assert {row["image"] for row in rows} == {"t\\udce4il"}


def test_a_full_disk_leaves_no_half_file(tiny_data, tiny_runs, tmp_path, monkeypatch):
    def full(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OSError, match="No space left"):
        segment(tiny_runs / "ssim", [tiny_data / "test" / "good" / "0.png"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["regions.csv", "regions.json"]


def test_a_single_path_is_one_image(tiny_data, tiny_runs, tmp_path, monkeypatch):
    for number in range(2):
        shutil.copy(tiny_data / "test" / "dent" / f"{number}.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    for given in ("0.png", Path("0.png")):
        assert [path.name for path in segment(tiny_runs / "l2", given, "out").overlays] == ["0_overlay.png"]
    assert expand(["0.png", tmp_path / "0.png", "./0.png"]) == [Path("0.png")]


def test_a_page_that_cannot_be_used_stops_no_other(tiny_data, tiny_runs, tmp_path):
    pixels = np.asarray(Image.open(tiny_data / "test" / "dent" / "0.png"))
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (pixels, pixels[:60], pixels):
            file.write(page, photometric="minisblack")
    batch = segment(tiny_runs / "l2", [tmp_path / "a.tif"], tmp_path / "out")
    assert [path.name for path in batch.overlays] == ["a_page0_overlay.png", "a_page2_overlay.png"]
    assert batch.failures[tmp_path / "a.tif"].startswith(f"page 1: {tmp_path / 'a.tif'} is 60 x 140 pixels")


def test_names_that_are_too_long_stop_nothing(tiny_data, tiny_runs, tmp_path):
    long, longer = tmp_path / f"{'y' * 240}.png", tmp_path / f"{'x' * 300}.png"
    for place in (long, tmp_path / "zz.png"):
        shutil.copy(tiny_data / "test" / "dent" / "0.png", place)
    batch = segment(tiny_runs / "l2", [longer, long, tmp_path / "zz.png"], tmp_path / "out")
    assert [path.name for path in batch.overlays] == ["zz_overlay.png"]
    assert "cannot be read (File name too long)" in batch.failures[longer]
    assert "would be too long; give" in batch.failures[long]
    assert len(list((tmp_path / "out").iterdir())) == 5 + 2


def test_run_lengths_are_those_of_the_whole_mask():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(rng.integers(1, 8, 2))
        mask = rng.random(size) < rng.choice([0.3, 0.6, 0.9, 1.0])
        for region in find_regions(mask, mask.astype(np.float32)):
            whole = np.zeros(size, bool)
            whole[region.top : region.top + region.height, region.left : region.left + region.width] = region.mask
            counts = run_lengths(region, size)
            assert sum(counts) == whole.size
            assert all(counts[1:])
            flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            np.testing.assert_array_equal(flat.reshape(size, order="F"), whole)
