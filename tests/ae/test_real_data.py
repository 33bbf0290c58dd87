"""The main job on real images: both methods find real defects far better than chance."""

from __future__ import annotations

import shutil

import pytest

from ae.comparison import compare
from ae.config import TrainConfig

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
        epochs=4,
        patches_per_epoch=2400,
        batch_size=16,
        schedule="one-cycle",
        learning_rate=1e-3,
        warm_up=0.3,
        patience=0,
        stride=64,
    )
    found = compare(root, tmp_path / "out", config=config, progress=False)
    assert found.report.is_file()
    for method, result in found.results.items():
        overall = result["all"]
        assert overall["pixel_roc_auc"] > 0.7, method
        assert overall["pro"] > 0.4, method
