from __future__ import annotations

import numpy as np

from ae.images import read_image, read_mask
from ae.textures import DEFECTS, SIZE, write_demo_data


def test_masks_are_exact_and_the_same_seed_gives_the_same_images(tmp_path):
    folder = write_demo_data(tmp_path / "a", seed=3)
    again = write_demo_data(tmp_path / "b", seed=3)
    assert {sample.label for sample in folder.test} == {"good", *DEFECTS}
    for sample, twin in zip(folder.test, again.test, strict=True):
        assert sample.path.read_bytes() == twin.path.read_bytes()
        image = read_image(sample.path)[0]
        assert image.shape == (SIZE, SIZE)
        if sample.mask is not None:
            mask = read_mask(sample.mask, image.shape)
            assert 50 < mask.sum() < 0.1 * mask.size


def test_only_the_mask_is_changed():
    rng = np.random.default_rng(0)
    clean = rng.random((SIZE, SIZE))
    for defect in DEFECTS.values():
        image, mask = defect(clean, rng)
        assert (image[mask] != clean[mask]).mean() > 0.5
        outside = ~mask
        assert np.abs(image - clean)[outside].max() < 0.13  # a scratch's soft rim; nothing else reaches out
