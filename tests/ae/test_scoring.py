from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ae.config import TrainConfig
from ae.corruption import corrupted
from ae.scoring import disc, fit_contrast, fit_level, local_contrast, multi_scale, normalised, opened, weighed
from ae.thresholds import largest_region, threshold_by_region

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("diameter", [2, 3, 4, 5])
def test_at_every_threshold_the_opened_residual_gives_the_opened_mask(diameter):
    residual = (RNG.integers(0, 5, (30, 25)) + 3 * (RNG.random((30, 25)) < 0.7)).astype(np.float32)
    found = opened(residual, diameter)
    assert (found <= residual).all()
    inner = (slice(diameter, -diameter),) * 2  # beyond the border there is nothing in the twin
    for threshold in range(8):
        fits = np.zeros(residual.shape, bool)
        for row in range(30 - diameter + 1):  # the union of the discs that fit into the mask
            for column in range(25 - diameter + 1):
                place = (slice(row, row + diameter), slice(column, column + diameter))
                if (residual[place] > threshold)[disc(diameter)].all():
                    fits[place] |= disc(diameter)
        np.testing.assert_array_equal((found > threshold)[inner], fits[inner])


def test_a_disc_of_no_width_changes_nothing():
    for diameter in (0, 1):
        np.testing.assert_array_equal(opened(np.eye(4, dtype=np.float32), diameter), np.eye(4))


def test_a_residual_at_several_scales_is_the_mean_of_them():
    image, reconstruction = torch.rand(2, 2, 1, 32, 48)

    def squared(x, y):
        return (x - y).square()

    assert torch.equal(multi_scale(squared, image, reconstruction, 1), squared(image, reconstruction))
    found = multi_scale(squared, image, reconstruction, 2)
    half = [part.reshape(2, 1, 16, 2, 24, 2).mean((3, 5)) for part in (image, reconstruction)]
    coarse = torch.nn.functional.interpolate(squared(*half), (32, 48), mode="bilinear")
    torch.testing.assert_close(found, (squared(image, reconstruction) + coarse) / 2)
    assert multi_scale(squared, image[..., :31, :47], reconstruction[..., :31, :47], 3).shape == (2, 1, 31, 47)


@pytest.mark.parametrize("height", [64, 63, 61, 57])
def test_coarser_scales_lie_where_the_finest_does(height):
    image = torch.zeros(1, 1, height, 40)
    image[:, :, 48:56] = 1  # a whole pixel at each of 4 scales

    def squared(x, y):
        return (x - y).square()

    rows = multi_scale(squared, image, torch.zeros_like(image), 4)[0, 0, :, 20]
    torch.testing.assert_close(rows[:56], multi_scale(squared, *_padded(image), 4)[0, 0, :56, 20])
    assert rows[-1] > 0 or height > 60


def _padded(image):
    """The image with its last row repeated to 64, and a black one."""
    beyond = 64 - image.shape[2]
    whole = torch.cat([image, image[:, :, -1:].expand(-1, -1, beyond, -1)], dim=2)
    return whole, torch.zeros_like(whole)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_weighed_residual_is_times_the_power_of_the_difference_of_local_means(power):
    image, reconstruction = torch.rand(2, 2, 3, 20, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    residual = torch.rand(2, 1, 20, 17, dtype=torch.float64)
    apart = ndimage.uniform_filter((image - reconstruction).numpy(), (0, 0, 5, 5), mode="mirror")
    expected = residual.numpy() * np.sqrt((apart**2).mean(1, keepdims=True)) ** power
    np.testing.assert_allclose(weighed(residual, image, reconstruction, power), expected, rtol=1e-9)
    assert weighed(residual, image, reconstruction, 0) is residual


def test_scores_by_contrast_are_of_mean_0_and_spread_1_at_every_contrast():
    images = [ndimage.gaussian_filter(RNG.random((1, 80, 90)), 1).astype(np.float32) for _ in range(3)]
    images[0] *= np.linspace(0, 1, 90, dtype=np.float32)
    residuals = [(local_contrast(i) * (2 + RNG.normal(size=i.shape[1:])) + 1).astype(np.float32) for i in images]
    good = fit_contrast(residuals, images)
    assert (np.diff(good.contrast) > 0).all()
    pairs = list(zip(residuals, images, strict=True))
    scores = np.concatenate([normalised(*pair, "contrast", good).ravel() for pair in pairs])
    contrast = np.concatenate([local_contrast(image).ravel() for image in images])
    for low, high in ((0.2, 0.4), (0.5, 0.7), (0.8, 0.95)):
        part = scores[(contrast > np.quantile(contrast, low)) & (contrast < np.quantile(contrast, high))]
        assert abs(part.mean()) < 0.1
        assert part.std() == pytest.approx(1, abs=0.15)


def test_a_constant_image_has_scores_too():
    flat = np.full((1, 40, 40), 0.5, np.float32)
    residual = RNG.random((40, 40)).astype(np.float32)
    scores = normalised(residual, flat, "contrast", fit_contrast([residual], [flat]))
    np.testing.assert_allclose(scores, (residual - residual.mean()) / residual.std(), atol=1e-4)
    assert np.isfinite(normalised(np.zeros((40, 40), np.float32), flat, "image")).all()
    assert normalised(residual, flat, "none") is residual


def test_levelled_scores_differ_less_between_images_by_the_share_that_lies_between_them():
    flat = np.zeros((1, 40, 41), np.float32)
    residuals = [(RNG.normal(size=(40, 41)) + level).astype(np.float32) for level in (-3.0, 0.0, 1.0, 6.0)]
    good = fit_level(residuals)
    medians = np.array([np.median(residual) for residual in residuals])
    within = np.mean([residual.var() for residual in residuals])
    assert good.share == pytest.approx(medians.var(ddof=1) / (medians.var(ddof=1) + within), rel=1e-5)
    assert 0.9 < good.share < 1
    scores = [normalised(residual, flat, "level", good) for residual in residuals]
    levels = [np.median(score) for score in scores]
    np.testing.assert_allclose(levels, medians - good.share * (medians - np.median(medians)), atol=1e-6)
    assert all(score.dtype == np.float32 for score in scores)
    assert fit_level(residuals[:1]).share == 0
    assert normalised(residuals[0], flat, "none", good) is residuals[0]


def test_less_the_median_half_of_an_image_scores_below_0():
    residual = RNG.random((40, 41)).astype(np.float32)
    scores = normalised(residual, np.zeros((1, 40, 41), np.float32), "median")
    assert scores.dtype == np.float32
    assert (scores > 0).sum() == (scores < 0).sum() == 820
    np.testing.assert_allclose(np.diff(scores.ravel()), np.diff(residual.ravel()), atol=1e-6)


class TestThresholdByRegion:
    @pytest.mark.parametrize("area", [0, 1, 3, 20, 10_000])
    def test_it_is_the_lowest_score_that_leaves_no_such_region(self, area):
        scores = [np.round(ndimage.gaussian_filter(RNG.random((20, 30)), 1), 2).astype(np.float32) for _ in range(2)]
        fitting = [
            value
            for value in np.unique(np.concatenate([score.ravel() for score in scores]))
            if all(largest_region(score > value) < max(area, 1) for score in scores)
        ]
        assert threshold_by_region(scores, area) == fitting[0]


class TestCorruption:
    def test_nothing_asked_for_changes_nothing(self):
        batch = torch.rand(2, 1, 128, 128)
        assert corrupted(batch, TrainConfig()) is batch

    def test_squares_become_the_patch_s_mean(self):
        batch = torch.rand(40, 3, 128, 128)
        torch.manual_seed(0)
        seen = corrupted(batch, TrainConfig(erased=0.25))
        gone = seen != batch
        mean = batch.mean(dim=(2, 3), keepdim=True).expand_as(batch)
        assert torch.equal(seen[gone], mean[gone])
        squares = gone.reshape(40, 3, 8, 16, 8, 16)
        share = squares.float().mean(dim=(3, 5))
        assert set(share.unique().tolist()) <= {0.0, 1.0}  # whole squares
        assert share.mean().item() == pytest.approx(0.25, abs=0.02)
        assert torch.equal(share[:, 0], share[:, 2])  # the same in every channel

    def test_noise_has_its_spread(self):
        batch = torch.rand(4, 1, 128, 128)
        assert (corrupted(batch, TrainConfig(noise=0.1)) - batch).std().item() == pytest.approx(0.1, rel=0.05)
