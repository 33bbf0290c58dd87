"""Measures of a segmentation: exact, ties included, over all pixels of all images at once.

Scores are residuals, larger is worse. ROC AUC and average precision follow scikit-learn's definitions; PRO is the
per-region overlap of Bergmann et al. (2020): the mean, over connected defect regions, of the share of a region above a
threshold, as a function of the false-positive rate, integrated from 0 to 0.3 and divided by 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PRO_LIMIT = 0.3
CURVE_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """Counts above each distinct score, falling scores."""

    thresholds: NDArray[np.float32]  # distinct scores, largest first
    hits: NDArray[np.float64]  # positives (or weight of regions) at or above the threshold
    misses: NDArray[np.float64]  # negatives at or above the threshold


def cumulate(scores: NDArray[np.float32], negative: NDArray[np.bool_], *hits: NDArray[np.float64]) -> tuple[Curve, ...]:
    """Sort by score once and count; equal scores fall together.

    Parameters
    ----------
    scores, negative : ndarray, (n,)
        Score, and whether it is a negative.
    *hits : ndarray, (n,)
        Weights as positives, 0 for negatives; one curve for each.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]
    misses = np.cumsum(negative[order], dtype=np.float64)[last]
    return tuple(Curve(ranked[last], np.cumsum(weights[order])[last], misses) for weights in hits)


def roc_auc(curve: Curve) -> float:
    """Area under the ROC curve; NaN where one of the two classes is missing."""
    rates = _rates(curve)
    return _area(*rates) if rates is not None else float("nan")


def average_precision(curve: Curve) -> float:
    """Sum of precision times the recall gained, over falling thresholds; NaN without positives."""
    if not len(curve.hits) or curve.hits[-1] == 0:
        return float("nan")
    precision = curve.hits / (curve.hits + curve.misses)
    return float((precision * np.diff(curve.hits, prepend=0)).sum() / curve.hits[-1])


def best_f1(curve: Curve) -> tuple[float, float]:
    """Largest F1 over all thresholds, and the (lowest) score that counts as positive there."""
    if not len(curve.hits) or curve.hits[-1] == 0:
        return float("nan"), float("nan")
    f1 = 2 * curve.hits / (curve.hits + curve.misses + curve.hits[-1])
    best = int(np.argmax(f1))
    return float(f1[best]), float(curve.thresholds[best])


def pro(curve: Curve, limit: float = PRO_LIMIT) -> float:
    """Area under per-region overlap to a false-positive rate of `limit`, over `limit`.

    Parameters
    ----------
    curve : Curve
        With every defect pixel weighted by 1 / (pixels of its region), see `region_weights`.
    limit : float
        Where the integral ends; the curve is interpolated there.
    """
    rates = _rates(curve)
    if rates is None:
        return float("nan")
    false, overlap = rates
    at_limit = np.interp(limit, false, overlap)
    inside = false < limit
    return _area(np.r_[false[inside], limit], np.r_[overlap[inside], at_limit]) / limit


def region_weights(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weight every pixel of a defect by 1 / (pixels of its 8-connected region), so that each region counts as one."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel()).astype(np.float64)
    weights: NDArray[np.float64] = np.where(mask, 1 / sizes[labels], 0.0)
    return weights


def rates_at(threshold: float, residuals: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Return the true- and false-positive rate of the pixels above a threshold."""
    above = [(residual > threshold) for residual in residuals]
    hits = sum(int((a & m).sum()) for a, m in zip(above, masks, strict=True))
    alarms = sum(int(a.sum()) for a in above) - hits
    defects = sum(int(m.sum()) for m in masks)
    rest = sum(m.size for m in masks) - defects
    return {"true_positive_rate": _share(hits, defects), "false_positive_rate": _share(alarms, rest)}


def measure(residuals: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """Measure residual maps against masks.

    Parameters
    ----------
    residuals : sequence of ndarray, (H, W)
        One map an image; sizes may differ.
    masks : sequence of ndarray, (H, W), bool
        True where there is a defect; all False for a good image.

    Returns
    -------
    dict
        ``pixel_roc_auc``, ``average_precision``, ``pro``, ``best_f1``, ``best_f1_threshold``, ``image_roc_auc`` (an
        image's score is its largest residual) and ``images``; None where a class is missing.
        ``roc`` is the ROC curve thinned for a plot, {"fpr": [...], "tpr": [...]}.

    Examples
    --------
    >>> mask = np.zeros((4, 4), bool); mask[1:3, 1:3] = True
    >>> found = measure([mask.astype(np.float32)], [mask])
    >>> found["pixel_roc_auc"], found["pro"], found["best_f1"]
    (1.0, 1.0, 1.0)
    """
    scores = np.concatenate([residual.ravel() for residual in residuals])
    defect = np.concatenate([mask.ravel() for mask in masks])
    weights = np.concatenate([region_weights(mask).ravel() for mask in masks])
    pixels, regions = cumulate(scores, ~defect, defect.astype(np.float64), weights)
    image_scores = np.array([residual.max() for residual in residuals], np.float32)
    image_defect = np.array([mask.any() for mask in masks])
    (images,) = cumulate(image_scores, ~image_defect, image_defect.astype(np.float64))
    f1, threshold = best_f1(pixels)
    numbers = {
        "pixel_roc_auc": roc_auc(pixels),
        "average_precision": average_precision(pixels),
        "pro": pro(regions),
        "best_f1": f1,
        "best_f1_threshold": threshold,
        "image_roc_auc": roc_auc(images),
    }
    known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
    return {**known, "images": len(residuals), "roc": _thinned(pixels)}


def _rates(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the false- and the true-positive rate from (0, 0) to (1, 1)."""
    if not len(curve.hits) or curve.hits[-1] == 0 or curve.misses[-1] == 0:
        return None
    return np.r_[0, curve.misses / curve.misses[-1]], np.r_[0, curve.hits / curve.hits[-1]]


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the area under a curve of straight pieces."""
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _thinned(curve: Curve) -> dict[str, list[float]]:
    """Return a few hundred points of the ROC curve."""
    rates = _rates(curve)
    if rates is None:
        return {"fpr": [], "tpr": []}
    grid = np.linspace(0, 1, CURVE_POINTS) ** 2  # denser where the curve is steep
    return {"fpr": grid.round(5).tolist(), "tpr": np.interp(grid, *rates).round(5).tolist()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
