from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ae.metrics import measure, rates_at


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
    assert rates_at(0.5, [residual], [mask]) == {"true_positive_rate": 0.5, "false_positive_rate": 0.5}
    assert np.isnan(rates_at(0.5, [residual], [mask & False])["true_positive_rate"])
