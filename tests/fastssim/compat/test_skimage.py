"""`fastssim.compat.skimage` against scikit-image, its gradient against differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastssim.compat import cucim
from fastssim.compat.skimage import structural_similarity as ours

theirs = pytest.importorskip("skimage.metrics").structural_similarity

WANG = {"gaussian_weights": True, "use_sample_covariance": False}
OPTIONS = [
    {},
    {"win_size": 5},
    {"use_sample_covariance": False, "K1": 0.02, "K2": 0.06},
    WANG,
    {"gaussian_weights": True, "sigma": 0.9},
    {"gaussian_weights": True, "win_size": 7},
    {"gaussian_weights": True, "sigma": 0.1, "win_size": 7},
]


def pair(shape, dtype=np.float32):
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(shape[0]) / 5).reshape(-1, *[1] * (len(shape) - 1))
    x = np.clip(0.5 + 0.4 * wave + 0.05 * rng.standard_normal(shape), 0, 1)
    y = np.clip(x + 0.1 * rng.standard_normal(shape), 0, 1)
    return [(image * 255 if np.issubdtype(dtype, np.integer) else image).astype(dtype) for image in (x, y)]


# One compiled kernel of volumes serves all windows of seven pixels; other options are seen on four axes.
VOLUMES = [((12, 14, 13), options) for options in OPTIONS if options.get("win_size") != 5 and options is not WANG]
SHAPES = [(33, 40), (61,), (33, 40, 3), (40, 3), (12, 13, 12, 11, 3)]


@pytest.mark.parametrize(("shape", "options"), [*itertools.product(SHAPES, OPTIONS), *VOLUMES], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_and_map(shape, dtype, options):
    x, y = pair(shape, dtype)
    if shape[-1] == 3:
        options = {**options, "channel_axis": -1}
    expected, true_map = theirs(x.astype(np.float64), y.astype(np.float64), data_range=1.0, full=True, **options)
    alike, alike_map = theirs(x, y, data_range=1.0, full=True, **options)
    mean, found_map = ours(x, y, data_range=1.0, full=True, **options)
    alone = ours(x, y, data_range=1.0, **options)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    assert type(mean) is type(alone) is type(alike)
    assert (found_map.dtype, found_map.shape) == (alike_map.dtype, alike_map.shape)
    assert abs(mean - expected) <= tolerance
    assert abs(alone - expected) <= tolerance
    assert np.abs(found_map - true_map).max() <= 2 * tolerance
    assert mean == alone


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_any_axis_may_hold_the_channels(axis):
    x, y = (np.moveaxis(image, -1, axis) for image in pair((30, 34, 3)))
    expected, true_map = theirs(
        x.astype(np.float64), y.astype(np.float64), data_range=1.0, channel_axis=axis, full=True
    )
    found, found_map = ours(x, y, data_range=1.0, channel_axis=axis, full=True)
    assert abs(found - expected) <= 1e-6
    assert np.abs(found_map - true_map).max() <= 2e-6


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", ">f4", "f2", "bool"])
def test_dtypes(kind):
    x, y = pair((30, 34), np.dtype(kind) if kind != "bool" else np.float32)
    if kind == "bool":
        x, y = x > 0.5, y > 0.5
    options = {} if np.dtype(kind).kind == "u" else {"data_range": 255}
    if kind == "u2":
        with pytest.warns(UserWarning, match="Setting data_range based on im1.dtype. data_range = 65535"):
            found = ours(x, y, full=True)
        with pytest.warns(UserWarning, match="Setting data_range"):
            expected = theirs(x, y, full=True)
    else:
        found, expected = ours(x, y, full=True, **options), theirs(x, y, full=True, **options)
    assert abs(found[0] - expected[0]) <= 1e-6
    assert found[1].dtype == expected[1].dtype
    assert ours(x[::-1, ::-1], y[::-1, ::-1], data_range=255) == pytest.approx(ours(x, y, data_range=255), abs=1e-6)


def test_the_range_of_mismatched_types_is_the_first_ones():
    x, y = pair((20, 20), np.uint8)
    with pytest.warns(UserWarning, match="mismatched dtypes"):
        found = ours(x, y.astype(np.int16))
    assert found == ours(x, y)
    with pytest.warns(UserWarning, match="data_range = 255"):
        assert ours(x.astype(np.int8), x.astype(np.int8)) == 1


@pytest.mark.parametrize(
    ("shape", "options"), [*itertools.product([(17, 19), (31,), (3, 16, 15)], OPTIONS), *VOLUMES], ids=str
)
def test_gradient_is_that_of_the_mean(shape, options):
    """Along random directions, by central differences of the mean itself."""
    x, y = pair(shape, np.float64)
    if shape[0] == 3:
        options = {**options, "channel_axis": 0}
    mean, gradient, full = ours(x, y, data_range=1.0, gradient=True, full=True, **options)
    assert (gradient.shape, gradient.dtype, full.shape) == (y.shape, y.dtype, y.shape)
    assert mean == pytest.approx(ours(x, y, data_range=1.0, gradient=True, **options)[0], abs=1e-14)
    rng = np.random.default_rng(1)
    for _ in range(3):
        step = 1e-5 * rng.standard_normal(shape)
        difference = ours(x, y + step, data_range=1.0, **options) - ours(x, y - step, data_range=1.0, **options)
        assert difference / 2 == pytest.approx((gradient * step).sum(), rel=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(33, 40), (40, 3)], ids=str)
def test_the_formula_of_scikit_image_on_request(shape, options):
    x, y = pair(shape, np.float64)
    if shape[-1] == 3:
        options = {**options, "channel_axis": -1}
    expected = theirs(x, y, data_range=1.0, gradient=True, full=True, **options)
    found = ours(x, y, data_range=1.0, gradient="skimage", full=True, **options)
    assert len(found) == 3
    assert np.abs(found[1] - expected[1]).max() <= 1e-12
    assert not np.allclose(found[1], ours(x, y, data_range=1.0, gradient=True, **options)[1], rtol=0.01, atol=0)


def test_errors(same_error):
    x = np.zeros((20, 20))
    same_error(ValueError, ours, theirs, x, x[:10], data_range=1)
    same_error(ValueError, ours, theirs, x, x)  # floats without a range
    same_error(ValueError, ours, theirs, x[:6], x[:6], data_range=1)
    same_error(ValueError, ours, theirs, x, x, win_size=6, data_range=1)
    same_error(ValueError, ours, theirs, x + 0j, x + 0j, data_range=1)
    for name in ("K1", "K2", "sigma"):
        same_error(ValueError, ours, theirs, x, x, data_range=1, **{name: -0.1})


def test_another_word_for_the_gradient_is_refused():
    x = np.zeros((20, 20))
    with pytest.raises(ValueError, match="gradient is 'matlab'"):
        ours(x, x, data_range=1, gradient="matlab")


def test_unknown_keywords_are_ignored_aloud():
    x, y = pair((20, 20))
    with pytest.warns(UserWarning, match="has no multichannel; ignored"):
        found = ours(x, y, data_range=1, multichannel=False)
    assert found == ours(x, y, data_range=1)
    theirs(x, y, data_range=1, multichannel=False)  # in silence


def test_cucim_is_the_same_function():
    assert cucim.structural_similarity is ours


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_gradient_does_not_depend_on_the_mode_of_torch(mode):
    x, y = pair((20, 21))
    expected = ours(x, y, data_range=1.0, gradient=True)
    with mode():
        found = ours(x, y, data_range=1.0, gradient=True)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_window_of_one_pixel_has_no_sample_covariance():
    x, y = pair((20, 21))
    for function in (ours, theirs):
        with pytest.raises(ZeroDivisionError):
            function(x, y, data_range=1.0, win_size=1)
