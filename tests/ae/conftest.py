"""A tiny data set and a tiny trained run, made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ae.config import TrainConfig
from ae.images import write_png
from ae.training import train

TINY = TrainConfig(
    epochs=2,
    patches_per_epoch=8,
    batch_size=4,
    latent=8,
    held_out=0.34,
    stride=64,
    schedule="one-cycle",
    learning_rate=1e-3,
)


def stripes(height, width, phase=0.0):
    """A texture with structure, (H, W) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.rint(127 + 80 * np.sin(y / 6 + phase) * np.cos(x / 9)).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_config():
    """A training of seconds."""
    return TINY


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Data in the layout of MVTec AD: 3 good training images, 1 good and 2 defective test images."""
    root = tmp_path_factory.mktemp("data") / "stripes"
    for number in range(3):
        write_png(root / "train" / "good" / f"{number}.png", stripes(140, 150, number))
    write_png(root / "test" / "good" / "0.png", stripes(140, 150, 4))
    for number in range(2):
        image, mask = stripes(150, 140, 5 + number), np.zeros((150, 140), np.uint8)
        mask[40:60, 30 : 60 + number] = 255
        image[mask > 0] = 230
        write_png(root / "test" / "dent" / f"{number}.png", image)
        write_png(root / "ground_truth" / "dent" / f"{number}_mask.png", mask)
    return root


@pytest.fixture(scope="session")
def tiny_runs(tiny_data, tmp_path_factory):
    """A run folder for each method."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("ssim", "l2"):
        train(tiny_data, folder / method, replace(TINY, method=method), progress=False)
    return folder
