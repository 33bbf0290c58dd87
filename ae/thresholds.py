"""The score above which a pixel is a defect, from good images alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOUCHING = np.ones((3, 3))  # pixels that meet at a corner belong together


def threshold_by_rate(scores: Sequence[NDArray[np.float32]], rate: float) -> float:
    """Return the score that a share `rate` of the pixels exceeds.

    Examples
    --------
    >>> threshold_by_rate([np.arange(101, dtype=np.float32)[None]], 0.1)
    90.0
    """
    return float(np.quantile(np.concatenate([score.ravel() for score in scores]), 1 - rate))


def threshold_by_region(scores: Sequence[NDArray[np.float32]], area: float) -> float:
    """Return the lowest score above which no region (8-connected) of any image has `area` pixels or more.

    The rule of MVTec AD (Bergmann et al., 2019, section 4.3): a smallest defect is agreed on, and the threshold is
    raised until good images show none.

    Examples
    --------
    >>> threshold_by_region([np.array([[1, 5, 5, 2, 7]], np.float32)], 2)
    5.0
    """
    candidates = np.unique(np.concatenate([score.ravel() for score in scores]))
    low, high = 0, len(candidates) - 1  # nothing lies above the last
    while low < high:
        middle = (low + high) // 2
        if max(largest_region(score > candidates[middle]) for score in scores) < max(area, 1):
            high = middle
        else:
            low = middle + 1
    return float(candidates[high])


def largest_region(mask: NDArray[np.bool_]) -> int:
    """Pixels of the largest 8-connected region.

    Examples
    --------
    >>> largest_region(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool))
    2
    """
    labels, count = ndimage.label(mask, structure=TOUCHING)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0
