from __future__ import annotations

import numpy as np

from ae.images import read_image, read_mask
from ae.textures import DEFECTS, LEFT, RIGHT, SIZE, VISIBLE, changed, write_demo_data


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


def test_the_mask_holds_what_is_changed_and_little_else():
    rng = np.random.default_rng(0)
    clean = rng.random((SIZE, SIZE))
    for defect in DEFECTS.values():
        image = defect(clean, rng)
        mask = changed(clean, image)
        assert np.abs(image - clean)[~mask].max() <= VISIBLE
        assert (np.abs(image - clean)[mask] > VISIBLE).mean() > 0.7


def test_no_pixel_is_in_training_and_test(tmp_path):
    folder = write_demo_data(tmp_path)
    assert sum(read_image(path).shape[2] for path in folder.train[:2]) == LEFT + 512 - RIGHT
    assert {read_image(sample.path).shape for sample in folder.test} == {(1, SIZE, RIGHT - LEFT)}
