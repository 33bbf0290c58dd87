from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ae.images import read_image
from ae.run import load_run
from ae.segmentation import Segmenter, defect_mask, overlay, residual_map, segment
from fastssim.tiles import TileGrid, blend, extract


def test_both_estimators_follow_their_definition(tiny_data, tiny_runs):
    run = load_run(tiny_runs / "ssim")
    image = read_image(tiny_data / "test" / "dent" / "0.png")
    grid = TileGrid(image.shape[1:], 128, 64)
    with torch.no_grad():
        tiles = torch.from_numpy(extract(image, grid))
        reconstructed = run.model(tiles)
        average = blend(reconstructed, grid, window="gaussian")[None]
        maps = blend(run.method.residual(tiles, reconstructed), grid, window="gaussian")[0]
        once = run.method.residual(torch.from_numpy(image)[None], average)[0, 0]
    for estimator, expected in (("reconstruction", once), ("residual", maps)):
        config = replace(run.config, estimator=estimator)
        reconstruction, residual = residual_map(run.model, run.method, image, config)
        np.testing.assert_allclose(residual, expected, atol=1e-4)
        np.testing.assert_allclose(reconstruction, average[0], atol=1e-5)


def test_files_are_written_for_every_image(tiny_data, tiny_runs, tmp_path):
    images = [tiny_data / "test" / "dent" / "0.png", tiny_data / "test" / "dent" / "1.png"]
    steps = []
    overlays = segment(tiny_runs / "l2", images, tmp_path / "out", progress=lambda *step: steps.append(step))
    assert [path.name for path in overlays] == ["0_overlay.png", "1_overlay.png"]
    assert steps[-1][0] == steps[-1][1]
    found = Segmenter.load(tiny_runs / "l2")(images[0])
    residual = tifffile.imread(tmp_path / "out" / "0_residual.tiff")
    assert residual.dtype == np.float32
    np.testing.assert_array_equal(residual, found.residual)
    mask = np.asarray(Image.open(tmp_path / "out" / "0_mask.png"))
    np.testing.assert_array_equal(mask > 0, found.mask)
    assert np.asarray(Image.open(overlays[0])).shape == (150, 140, 3)
    assert len(list((tmp_path / "out").iterdir())) == 10


def test_results_are_as_large_as_the_image_at_any_scale(tiny_runs):
    run = load_run(tiny_runs / "ssim")
    found = Segmenter(replace(run, config=replace(run.config, scale=0.5)))(
        np.random.default_rng(0).random((1, 261, 300), np.float32)
    )
    assert found.residual.shape == found.mask.shape == (261, 300)
    assert found.reconstruction.shape == found.image.shape == (1, 261, 300)


def test_small_regions_are_dropped():
    residual = np.zeros((10, 12), np.float32)
    residual[1:4, 1:4] = 1
    residual[4, 4] = 1  # touches at a corner: the same region
    residual[8, 8:10] = 1
    assert defect_mask(residual, 0.5, 3).sum() == 10
    assert defect_mask(residual, 0.5, 0).sum() == 12
    assert defect_mask(residual, 2.0, 1).sum() == 0


def test_the_outline_surrounds_the_mask():
    mask = np.zeros((20, 20), bool)
    mask[8:12, 8:12] = True
    drawn = overlay(np.zeros((1, 20, 20), np.float32), mask)
    assert (drawn[mask] == 0).all()
    assert (drawn[6:8, 9] == (255, 0, 64)).all()
    assert drawn[:5].max() == 0


def test_bad_input_is_named(tiny_data, tiny_runs, tmp_path):
    segmenter = Segmenter.load(tiny_runs / "ssim")
    with pytest.raises(ValueError, match="the image is 100 x 200 pixels at the chosen scale, smaller than a patch"):
        segmenter(np.zeros((1, 100, 200), np.float32))
    with pytest.raises(ValueError, match=r"shape \(3, 200, 200\); this run wants \(1, H, W\)"):
        segmenter(np.zeros((3, 200, 200), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        segmenter(np.full((1, 200, 200), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        segment(tiny_runs / "ssim", [tmp_path / "gone.png"], tmp_path)
    image = tiny_data / "test" / "good" / "0.png"
    with pytest.raises(ValueError, match="two images are named '0'"):
        segment(tiny_runs / "ssim", [image, tiny_data / "test" / "dent" / "0.png"], tmp_path)


def test_a_full_disk_leaves_no_half_file(tiny_data, tiny_runs, tmp_path, monkeypatch):
    def full(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OSError, match="No space left"):
        segment(tiny_runs / "ssim", [tiny_data / "test" / "good" / "0.png"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
