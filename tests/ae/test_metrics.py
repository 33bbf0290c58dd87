from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ae.metrics import Rates, Tally, _bin, _lower_edge, measure


def slow_pro(residuals, masks, limit=0.3):
    """Per-region overlap by its definition: every threshold, every region."""
    thresholds = np.unique(np.concatenate([r.ravel() for r in residuals]))[::-1]
    points = [(0.0, 0.0)]
    good = np.concatenate([r[~m] for r, m in zip(residuals, masks, strict=True)])
    for threshold in thresholds:
        overlaps = []
        for residual, mask in zip(residuals, masks, strict=True):
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [(residual[labels == k] >= threshold).mean() for k in range(1, count + 1)]
        points.append(((good >= threshold).mean(), np.mean(overlaps)))
    area = 0.0
    for left, right in pairwise(points):
        a, b = min(left[0], limit), min(right[0], limit)
        if b > a:
            slope = (right[1] - left[1]) / (right[0] - left[0])
            area += (b - a) * (left[1] + slope * ((a + b) / 2 - left[0]))
    return area / limit


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([3, 10, 10_000]))  # few levels: many ties
    count = draw(st.integers(1, 4))
    residuals, masks = [], []
    for _ in range(count):
        shape = rng.integers(5, 20, 2)
        mask = ndimage.binary_dilation(rng.random(shape) < 0.05)
        residual = np.rint((rng.random(shape) + 0.5 * mask) * levels) / levels
        residuals.append(residual.astype(np.float32))
        masks.append(mask)
    masks[0][:2, :2] = True
    masks[0][-1, -1] = False
    return residuals, masks


@given(cases())
def test_measures_equal_their_definitions(case):
    residuals, masks = case
    scores = np.concatenate([r.ravel() for r in residuals])
    truth = np.concatenate([m.ravel() for m in masks])
    found = measure(residuals, masks)
    assert found["pixel_roc_auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    assert found["pro"] == pytest.approx(slow_pro(residuals, masks), abs=1e-6)
    assert found["best_f1"] == pytest.approx(max(f1_score(truth, scores >= t) for t in np.unique(scores)), abs=1e-6)
    at_best = scores >= np.float32(found["best_f1_threshold"])
    assert f1_score(truth, at_best) == pytest.approx(found["best_f1"], abs=1e-5)
    image_truth = np.array([m.any() for m in masks])
    if image_truth.all():
        assert found["image_roc_auc"] is None
    else:
        expected = roc_auc_score(image_truth, [r.max() for r in residuals])
        assert found["image_roc_auc"] == pytest.approx(expected, abs=1e-6)
    assert np.trapezoid(found["roc"]["tpr"], found["roc"]["fpr"]) == pytest.approx(found["pixel_roc_auc"], abs=0.02)


def test_every_region_counts_the_same_in_pro():
    mask = np.zeros((30, 30), bool)
    mask[1:11, 1:11] = True
    mask[20, 20] = True
    residual = np.zeros((30, 30), np.float32)
    residual[20, 20] = 1  # only the small region is found
    assert measure([residual], [mask])["pro"] == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-3)


def test_missing_classes_give_none():
    residual = np.random.default_rng(0).random((6, 6), np.float32)
    found = measure([residual], [np.zeros((6, 6), bool)])
    assert found["pixel_roc_auc"] is found["pro"] is found["best_f1"] is found["image_roc_auc"] is None
    assert found["roc"] == {"fpr": [], "tpr": []}


def test_rates_at_a_threshold():
    residual = np.array([[0.1, 0.9], [0.8, 0.2]])
    mask = np.array([[False, True], [False, True]])
    rates = Rates(0.5)
    rates.add(residual, mask, "dent")
    rates.add(residual, mask & False, "good")
    assert rates.measure({"dent"}) == {"true_positive_rate": 0.5, "false_positive_rate": 0.5}
    assert rates.measure() == {"true_positive_rate": 0.5, "false_positive_rate": 3 / 6}
    assert rates.measure({"good"}) == {"true_positive_rate": None, "false_positive_rate": 0.5}


@given(cases(), st.sampled_from([0, 150]))
def test_bins_are_within_their_stated_error(case, limit):
    residuals, masks = case
    residuals = [residual - np.float32(0.3) for residual in residuals]  # negative scores, too
    exact = measure(residuals, masks)
    tally = Tally(exact_pixels=limit)  # binned from the first or from a later image on
    for residual, mask in zip(residuals, masks, strict=True):
        tally.add(residual, mask)
    found = tally.measure()
    assert exact["auc_error"] == 0
    assert abs(found["pixel_roc_auc"] - exact["pixel_roc_auc"]) <= found["auc_error"] + 1e-9
    for name in ("average_precision", "best_f1", "pro"):
        assert found[name] == pytest.approx(exact[name], abs=0.05), name
    assert found["image_roc_auc"] == exact["image_roc_auc"]


def test_bins_of_many_pixels_are_within_1e_4():
    rng = np.random.default_rng(0)
    shape = (600, 700)
    mask = ndimage.binary_dilation(rng.random(shape) < 2e-4, iterations=5)
    residual = (rng.gamma(2, 0.05, shape) * (1 + mask)).astype(np.float32)
    exact, tally = measure([residual], [mask]), Tally(exact_pixels=0)
    tally.add(residual, mask)
    found = tally.measure()
    assert 0 < found["auc_error"] < 1e-3
    for name in ("pixel_roc_auc", "average_precision", "best_f1", "pro"):
        assert found[name] == pytest.approx(exact[name], abs=1e-4), name


def test_bins_keep_the_order_of_scores():
    scores = np.sort(np.r_[-np.logspace(-20, 10, 500), 0.0, np.logspace(-20, 10, 500)]).astype(np.float32)
    bins = _bin(scores)
    assert (np.diff(bins) >= 0).all()
    edges = _lower_edge(bins)
    assert (edges <= scores).all()
    assert (_bin(edges) == bins).all()
    assert (np.abs(scores - edges) <= 2**-11 * np.abs(edges) + 1e-38).all()


def test_labels_are_measured_apart():
    rng = np.random.default_rng(0)
    residuals, masks = rng.random((3, 20, 20), np.float32), rng.random((3, 20, 20)) < 0.2
    masks[2] = False
    for limit in (0, 10_000):
        tally = Tally(limit)
        for residual, mask, label in zip(residuals, masks, ("dent", "hole", "good"), strict=True):
            tally.add(residual, mask, label)
        found = tally.measure({"hole", "good"})
        assert found["images"] == 2
        assert found["pixel_roc_auc"] == pytest.approx(measure(residuals[1:], masks[1:])["pixel_roc_auc"], abs=1e-4)


def test_overlap_that_jumps_at_the_limit_counts_no_more():
    mask = np.arange(11)[None] == 7
    assert measure([np.arange(11, dtype=np.float32)[None]], [mask])["pro"] == 0  # 3 of 10 good pixels score more


def test_masks_of_numbers_and_wide_scores_are_as_good():
    rng = np.random.default_rng(0)
    for _ in range(20):
        residual, mask = rng.random((300, 3)), rng.random((300, 3)) < 0.2
        expected = measure([residual.astype(np.float32)], [mask])
        assert measure([residual], [mask.astype(np.uint8) * 255]) == expected
        tally = Tally(exact_pixels=0)
        tally.add(residual, mask)
        assert tally.measure()["pixel_roc_auc"] == pytest.approx(expected["pixel_roc_auc"], abs=1e-3)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="1 residuals came and 0 masks; give one mask for each"):
        measure([np.zeros((2, 2), np.float32)], [])
    with pytest.raises(ValueError, match="there is no residual to measure"):
        measure([], [])
    with pytest.raises(ValueError, match="empty or holds NaN"):
        measure([np.full((3, 4), np.nan, np.float32)], [np.zeros((3, 4), bool)])
    with pytest.raises(ValueError, match=r"a residual has shape \(3, 4\), its mask \(4, 3\)"):
        measure([np.zeros((3, 4), np.float32)], [np.zeros((4, 3), bool)])
    assert Rates(0.5).measure() == {"true_positive_rate": None, "false_positive_rate": None}
