"""Measures of a segmentation: over all pixels of all images at once, exact, ties included, up to 100 megapixels.

Beyond those, scores are counted in bins of a relative width of 2^-11: memory stays the same, the counts at the bins'
edges are exact, and the area's error is at most `auc_error`, which is found from the counts.

Scores are residuals, larger is worse. ROC AUC and average precision follow scikit-learn's definitions; PRO is the
per-region overlap of Bergmann et al. (2020): the mean, over connected defect regions, of the share of a region above a
threshold, as a function of the false-positive rate, integrated from 0 to 0.3 and divided by 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ae.thresholds import TOUCHING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    _Scores = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]  # good, bad, weights of the latter

PRO_LIMIT = 0.3
CURVE_POINTS = 400
EXACT_PIXELS = 100_000_000  # so many scores are sorted, more are binned
BITS = 20  # of a float32, the leading ones, that tell its bin


@dataclass(frozen=True)
class Curve:
    """Counts at or above falling thresholds."""

    thresholds: NDArray[np.float32]
    hits: NDArray[np.float64]  # positives (or weight of regions)
    misses: NDArray[np.float64]  # negatives
    error: float = 0.0  # of the area under the ROC curve at most


def cumulate(good: NDArray[np.float32], bad: NDArray[np.float32], *weights: NDArray[np.float64]) -> tuple[Curve, ...]:
    """Sort and count; equal scores fall together.

    The ROC curve is flat between one positive's score and the next: two points at each of those tell it all.

    Parameters
    ----------
    good : ndarray, (n,)
        Scores of negatives.
    bad : ndarray, (m,)
        Scores of positives.
    *weights : ndarray, (m,)
        How much each positive counts; one curve for each.
    """
    negatives = np.sort(good)
    order = np.argsort(-bad, kind="stable")
    ranked = bad[order]
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1] if len(ranked) else np.empty(0, int)
    falling = ranked[last]
    above, at_least = (len(good) - np.searchsorted(negatives, falling, side) for side in ("right", "left"))
    lowest = min((float(scores.min()) for scores in (good, bad) if len(scores)), default=0.0)
    thresholds = np.r_[np.repeat(falling, 2), np.float32(lowest)]
    misses = np.r_[np.stack([above, at_least], 1).ravel(), len(good)].astype(np.float64)

    def curve(weight: NDArray[np.float64]) -> Curve:
        found = np.cumsum(weight[order])[last]
        hits = np.r_[np.stack([np.r_[0.0, found[:-1]], found], 1).ravel() if len(found) else [], weight.sum()]
        return Curve(thresholds, hits, misses)

    return tuple(curve(weight) for weight in weights)


class Histogram:
    """Counts of scores in bins, for more pixels than can be sorted; `+` puts two together."""

    def __init__(self) -> None:
        self._bins = np.empty(0, np.int64)  # that hold something, rising
        self._counts = np.empty((3, 0))  # of negatives, positives and weights of regions in each

    def add(self, good: NDArray[np.float32], bad: NDArray[np.float32], weights: NDArray[np.float64]) -> None:
        """Count scores of negatives and positives, the latter also by their regions' weights."""
        bins, place = np.unique(_bin(np.concatenate([good, bad])), return_inverse=True)
        of_good, of_bad = place[: len(good)], place[len(good) :]
        size = len(bins)
        counts = np.stack([np.bincount(of_good, minlength=size), np.bincount(of_bad, minlength=size)]).astype(float)
        self._merge(bins, np.vstack([counts, np.bincount(of_bad, weights, size)]))

    def __add__(self, other: Histogram) -> Histogram:
        both = Histogram()
        for part in (self, other):
            both._merge(part._bins, part._counts)
        return both

    def _merge(self, bins: NDArray[np.int64], counts: NDArray[np.float64]) -> None:
        """Take in the counts of other bins."""
        both = np.union1d(self._bins, bins)
        total = np.zeros((3, len(both)))
        total[:, np.searchsorted(both, self._bins)] += self._counts
        total[:, np.searchsorted(both, bins)] += counts
        self._bins, self._counts = both, total

    def curves(self) -> tuple[Curve, Curve]:
        """Return the curves of pixels and of regions."""
        good, bad, regions = self._counts[:, ::-1]
        thresholds, misses = _lower_edge(self._bins[::-1]), np.cumsum(good)
        pairs = max(good.sum() * bad.sum(), 1.0)
        error = float((good * bad).sum() / 2 / pairs)  # what lies in one bin may be in any order
        return (
            Curve(thresholds, np.cumsum(bad), misses, error),
            Curve(thresholds, np.cumsum(regions), misses, error),
        )


def _bin(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Tell a score's bin: the leading bits of a float32, put in order."""
    bits = (scores + np.float32(0)).view(np.uint32)  # adding makes -0 a 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    bins: NDArray[np.int64] = (ordered >> (32 - BITS)).astype(np.int64)
    return bins


def _lower_edge(number: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the smallest score of a bin."""
    ordered = number.astype(np.uint32) << (32 - BITS)
    return np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered).astype(np.uint32).view(np.float32)


def roc_auc(curve: Curve) -> float:
    """Area under the ROC curve; NaN where one of the two classes is missing."""
    rates = _rates(curve)
    return _area(*rates) if rates is not None else float("nan")


def average_precision(curve: Curve) -> float:
    """Sum of precision times the recall gained, over falling thresholds; NaN without positives."""
    if not len(curve.hits) or curve.hits[-1] == 0:
        return float("nan")
    gained = np.diff(curve.hits, prepend=0)
    some = gained > 0
    precision = curve.hits[some] / (curve.hits + curve.misses)[some]
    return float((precision * gained[some]).sum() / curve.hits[-1])


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
    inside = false <= limit  # of a jump there, its foot is where the last piece ends
    return _area(np.r_[false[inside], limit], np.r_[overlap[inside], at_limit]) / limit


def region_weights(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weight every pixel of a defect by 1 / (pixels of its 8-connected region), so that each region counts as one."""
    labels, _ = ndimage.label(mask, structure=TOUCHING)
    sizes = np.bincount(labels.ravel()).astype(np.float64)
    weights: NDArray[np.float64] = np.where(mask, 1 / sizes[labels], 0.0)
    return weights


class Rates:
    """Shares of pixels above a threshold, image by image.

    Parameters
    ----------
    threshold : float

    Examples
    --------
    >>> rates = Rates(0.5)
    >>> rates.add(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[False, True], [False, True]]))
    >>> rates.measure()
    {'true_positive_rate': 0.5, 'false_positive_rate': 0.5}
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._counts: list[tuple[str, NDArray[np.int64]]] = []  # label; hits, defect pixels, alarms, good pixels

    def add(self, residual: NDArray[Any], mask: NDArray[np.bool_], label: str = "") -> None:
        """Take in an image's residual (H, W) and mask (H, W)."""
        above = residual > self._threshold
        hits, defects = int((above & mask).sum()), int(mask.sum())
        counts = np.array([hits, defects, int(above.sum()) - hits, mask.size - defects])
        self._counts.append((label, counts))

    def measure(self, labels: Collection[str] | None = None) -> dict[str, float | None]:
        """Return the true- and the false-positive rate over the images of some labels; None where there is nothing."""
        chosen = [counts for label, counts in self._counts if labels is None or label in labels]
        hits, defects, alarms, rest = np.sum(chosen, axis=0).tolist() if chosen else (0, 0, 0, 0)
        return {
            "true_positive_rate": hits / defects if defects else None,
            "false_positive_rate": alarms / rest if rest else None,
        }


def measure(residuals: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """Measure residual maps against masks.

    Parameters
    ----------
    residuals : sequence of ndarray, (H, W)
        One map an image; sizes may differ.
    masks : sequence of ndarray, (H, W), bool
        True, or a number above 0, where there is a defect; all False for a good image.

    Returns
    -------
    dict
        ``pixel_roc_auc``, ``average_precision``, ``pro``, ``best_f1``, ``best_f1_threshold``, ``image_roc_auc`` (an
        image's score is its largest residual) and ``images``; None where a class is missing. ``auc_error``: what the
        pixels' ROC AUC may be off, 0 up to 100 megapixels.
        ``roc`` is the ROC curve thinned for a plot, {"fpr": [...], "tpr": [...]}, ``pro_curve`` that of the regions.

    Raises
    ------
    ValueError
        If there is no map, one holds NaN, or a mask has another shape.

    Examples
    --------
    >>> mask = np.zeros((4, 4), bool); mask[1:3, 1:3] = True
    >>> found = measure([mask.astype(np.float32)], [mask])
    >>> found["pixel_roc_auc"], found["pro"], found["best_f1"]
    (1.0, 1.0, 1.0)
    """
    if len(residuals) != len(masks):
        raise ValueError(f"{len(residuals)} residuals came and {len(masks)} masks; give one mask for each")
    tally = Tally()
    for residual, mask in zip(residuals, masks, strict=True):
        tally.add(residual, mask)
    return tally.measure()


class Tally:
    """Residual maps as they come, image by image, and the measures over those of chosen labels.

    Parameters
    ----------
    exact_pixels : int
        Scores are kept and sorted up to so many pixels; then they are binned, those before, too.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), "good")
    >>> tally.measure({"good"})["images"]
    1
    """

    def __init__(self, exact_pixels: int = EXACT_PIXELS) -> None:
        self._exact_pixels = exact_pixels
        self._pixels = 0
        self._images: list[tuple[str, float, bool]] = []  # label, largest residual, whether there is a defect
        self._kept: list[tuple[str, _Scores]] = []
        self._binned: dict[str, Histogram] | None = None

    def add(self, residual: NDArray[np.float32], mask: NDArray[np.bool_], label: str = "") -> None:
        """Take in an image's residual (H, W) and mask (H, W)."""
        residual, mask = np.asarray(residual, np.float32), np.asarray(mask) > 0  # numbers would choose rows
        if residual.shape != mask.shape:
            raise ValueError(f"a residual has shape {residual.shape}, its mask {mask.shape}; give both of one image")
        if not residual.size or np.isnan(residual).any():
            raise ValueError("a residual is empty or holds NaN; give one number for each pixel")
        self._images.append((label, float(residual.max()), bool(mask.any())))
        self._pixels += residual.size
        self._kept.append((label, (residual[~mask], residual[mask], region_weights(mask)[mask])))
        if self._pixels > self._exact_pixels:
            self._binned = {} if self._binned is None else self._binned
            for name, scores in self._kept:
                self._binned.setdefault(name, Histogram()).add(*scores)
            self._kept = []

    def measure(self, labels: Collection[str] | None = None) -> dict[str, Any]:
        """Measure the images of some labels, or all; as `measure`."""
        if not any(labels is None or label in labels for label, _, _ in self._images):
            raise ValueError("there is no residual to measure; add one of these labels first")
        pixels, regions = self._curves(labels)
        images = [(score, bad) for label, score, bad in self._images if labels is None or label in labels]
        scores, bad = np.array([image[0] for image in images], np.float32), np.array([image[1] for image in images])
        (by_image,) = cumulate(scores[~bad], scores[bad], np.ones(int(bad.sum())))
        f1, threshold = best_f1(pixels)
        numbers = {
            "pixel_roc_auc": roc_auc(pixels),
            "average_precision": average_precision(pixels),
            "pro": pro(regions),
            "best_f1": f1,
            "best_f1_threshold": threshold,
            "image_roc_auc": roc_auc(by_image),
        }
        known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        shown = {"roc": _thinned(pixels, 1.0), "pro_curve": _thinned(regions, PRO_LIMIT)}
        return {**known, "auc_error": pixels.error, "images": len(images), **shown}

    def _curves(self, labels: Collection[str] | None) -> tuple[Curve, Curve]:
        """Return the curves of pixels and regions."""
        if self._binned is not None:
            chosen = [counts for name, counts in self._binned.items() if labels is None or name in labels]
            return sum(chosen, Histogram()).curves()
        parts = [scores for name, scores in self._kept if labels is None or name in labels]
        good, bad, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        pixels, regions = cumulate(good, bad, np.ones(len(bad)), weights)
        return pixels, regions


def _rates(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the false- and the true-positive rate from (0, 0) to (1, 1)."""
    if not len(curve.hits) or curve.hits[-1] == 0 or curve.misses[-1] == 0:
        return None
    return np.r_[0, curve.misses / curve.misses[-1]], np.r_[0, curve.hits / curve.hits[-1]]


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the area under a curve of straight pieces."""
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _thinned(curve: Curve, limit: float) -> dict[str, list[float]]:
    """Return a few hundred points of the ROC curve to a false-positive rate of `limit`."""
    rates = _rates(curve)
    if rates is None:
        return {"fpr": [], "tpr": []}
    grid = limit * np.linspace(0, 1, CURVE_POINTS) ** 2  # denser where the curve is steep
    return {"fpr": grid.round(5).tolist(), "tpr": np.interp(grid, *rates).round(5).tolist()}
