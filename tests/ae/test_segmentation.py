from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from ae.images import read_image
from ae.run import load_run
from ae.scoring import opened
from ae.segmentation import Segmenter, defect_mask, overlay, residual_map
from fastssim.tiles import TileGrid, blend, extract


def test_both_estimators_follow_their_definition(tiny_data, tiny_runs):
    run = load_run(tiny_runs / "ssim")
    image = read_image(tiny_data / "test" / "dent" / "0.png")
    grid = TileGrid(image.shape[1:], 128, 64)
    with torch.no_grad():
        tiles = torch.from_numpy(extract(image, grid))
        reconstructed = run.method.model(tiles)
        average = blend(reconstructed, grid, window="gaussian")[None]
        maps = blend(run.method.residual(tiles, reconstructed), grid, window="gaussian")[0]
        once = run.method.residual(torch.from_numpy(image)[None], average)[0, 0]
    for estimator, expected in (("reconstruction", once), ("residual", maps)):
        config = replace(run.config, estimator=estimator)
        reconstruction, residual = residual_map(run.method, image, config)
        np.testing.assert_allclose(residual, expected, atol=1e-4)
        np.testing.assert_allclose(reconstruction, average[0], atol=1e-5)


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


def test_bad_input_is_named(tiny_runs):
    segmenter = Segmenter.load(tiny_runs / "ssim")
    with pytest.raises(ValueError, match="the image is 100 x 200 pixels at the chosen scale, smaller than a patch"):
        segmenter(np.zeros((1, 100, 200), np.float32))
    with pytest.raises(ValueError, match=r"shape \(3, 200, 200\); this run wants \(1, H, W\)"):
        segmenter(np.zeros((3, 200, 200), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        segmenter(np.full((1, 200, 200), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"uint8 numbers from 7 to 7; give floating point in \[0, 1\]"):
        segmenter(np.full((1, 200, 200), 7, np.uint8))
    with pytest.raises(ValueError, match="float32 numbers from 0 to 255"):
        segmenter(np.linspace(0, 255, 40_000, dtype=np.float32).reshape(1, 200, 200))


@pytest.mark.parametrize("estimator", ["reconstruction", "residual"])
def test_mirrored_tiles_are_averaged_and_the_residual_is_opened(tiny_data, tiny_runs, estimator):
    run = load_run(tiny_runs / "l2")
    image = read_image(tiny_data / "test" / "dent" / "0.png")
    config = replace(run.config, estimator=estimator, stride=128, blending="uniform")
    crop = image[:, :128, :128].copy()  # one tile: mirroring the tile is mirroring the image
    parts = []
    for axes in ((), (1,), (2,), (1, 2)):
        reconstruction, residual = residual_map(run.method, np.flip(crop, axes).copy(), config)
        parts.append((np.flip(reconstruction, axes)[0], np.flip(residual, [axis - 1 for axis in axes])))
    reconstruction, residual = residual_map(run.method, crop, replace(config, test_flips=True))
    average = np.mean([part[0] for part in parts], axis=0)
    np.testing.assert_allclose(reconstruction[0], average, atol=1e-6)
    expected = np.mean([part[1] for part in parts], axis=0) if estimator == "residual" else (crop[0] - average) ** 2
    np.testing.assert_allclose(residual, expected, atol=1e-6)
    opened_map = residual_map(run.method, crop, replace(config, test_flips=True, opening=4))[1]
    np.testing.assert_array_equal(opened_map, opened(residual, 4))
    blurred = residual_map(run.method, crop, replace(config, test_flips=True, opening=4, smoothing=2.0))[1]
    np.testing.assert_array_equal(blurred, ndimage.gaussian_filter(opened(residual, 4), 2.0))


def test_a_mirrored_array_is_segmented_as_its_copy(tiny_runs):
    segmenter = Segmenter.load(tiny_runs / "l2")
    mirrored = np.random.default_rng(0).random((1, 140, 150), np.float32)[:, :, ::-1]
    np.testing.assert_array_equal(segmenter(mirrored).residual, segmenter(mirrored.copy()).residual)


def test_what_is_no_image_is_refused(tiny_runs):
    segmenter = Segmenter.load(tiny_runs / "l2")
    for image, kind, words in [
        (torch.zeros(1, 140, 140), TypeError, "the image is a Tensor; give a path, or an ndarray"),
        ([[0.0]], TypeError, "the image is a list"),
        (np.ma.zeros((1, 140, 140)), TypeError, "the image is a MaskedArray"),
        (np.zeros((1, 140, 140), object), ValueError, "object numbers; give floating point"),
        (np.zeros((1, 0, 140), np.uint8), ValueError, "is empty"),
    ]:
        with pytest.raises(kind, match=words):
            segmenter(image)


def test_an_image_may_be_read_only_and_change_afterwards(tiny_runs, recwarn):
    segmenter = Segmenter.load(tiny_runs / "l2")
    image = np.random.default_rng(0).random((1, 140, 150), np.float32)
    image.flags.writeable = False
    found = segmenter(image)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]
    before = image.copy()
    image.flags.writeable = True
    image[:] = 0
    np.testing.assert_array_equal(found.image, before)


def test_a_run_is_float32_whatever_torch_prefers(tiny_runs):
    image = np.random.default_rng(0).random((1, 140, 150), np.float32)
    expected = Segmenter.load(tiny_runs / "ssim")(image)
    torch.set_default_dtype(torch.float64)
    try:
        found = Segmenter.load(tiny_runs / "ssim")(image)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found.residual, expected.residual)
