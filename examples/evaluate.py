"""Score noisy versions of scikit-image's textures with its SSIM, then with the drop-in module.

The line that changes:

    from skimage.metrics import structural_similarity
    from fastssim.compat.skimage import structural_similarity
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from before_after import compare
from skimage import data


def evaluate(library: Any, size: int) -> float:
    """Return the mean score of all textures and levels of noise."""
    rng = np.random.default_rng(0)
    scores = []
    for texture in (data.brick(), data.grass(), data.gravel()):
        image = texture[:size, :size]
        for level in (5, 10, 20, 40):
            noisy = (image + level * rng.standard_normal(image.shape)).clip(0, 255).astype(np.uint8)
            scores.append(library.structural_similarity(image, noisy))
    return float(np.mean(scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of a picture's side, at most 512")
    given = parser.parse_args()
    compare(lambda library: evaluate(library, given.size), "skimage.metrics", "fastssim.compat.skimage")
