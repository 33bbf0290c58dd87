"""The main job on real images: in a few minutes both methods find real defects better than chance.

Measured: ssim 0.80 pixel ROC AUC and 0.48 PRO, l2 0.66 and 0.34; the bounds leave room for another
processor's rounding, which changes the weights that a training ends with.
"""

from __future__ import annotations

import shutil

import pytest

from ae.comparison import compare
from ae.config import TrainConfig

CHANCE = 0.15  # PRO of random scores: a region is found to the share of the false-positive rate, 0 to 0.3
CLASSES = ("bent", "broken", "glue", "good", "metal_contamination", "thread")


@pytest.mark.data
@pytest.mark.slow
def test_both_methods_find_the_defects_of_a_grid(shared_data, tmp_path):
    source, root = shared_data / "mvtec_grid_512", tmp_path / "grid"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    shutil.copytree(source / "train", root / "train")
    shutil.copytree(source / "ground_truth", root / "ground_truth")
    for label in CLASSES:
        (root / "test" / label).mkdir(parents=True)
        for path in sorted((source / "test" / label).iterdir())[:2]:
            shutil.copy(path, root / "test" / label)
    config = TrainConfig(
        scale=0.5,
        epochs=4,
        patches_per_epoch=1600,
        batch_size=8,
        schedule="one-cycle",
        learning_rate=1e-3,
        warm_up=0.3,
        patience=0,
    )
    found = compare(root, tmp_path / "out", config=config, progress=False)
    assert found.report.is_file()
    for method, result in found.results.items():
        overall = result["all"]
        assert overall["pixel_roc_auc"] > 0.6, method
        assert overall["pro"] > 1.5 * CHANCE, method
