from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ae.data import Patches, load_images, open_folder, split_good
from ae.images import write_png

RNG = np.random.default_rng(0)


def image(height, width):
    return RNG.random((1, height, width), np.float32)


class TestFolders:
    def test_mvtec_layout(self, tiny_data):
        folder = open_folder(tiny_data)
        assert [path.name for path in folder.train] == ["0.png", "1.png", "2.png"]
        assert [(sample.label, sample.path.stem) for sample in folder.test] == [
            ("dent", "0"), ("dent", "1"), ("good", "0")
        ]  # fmt: skip
        assert folder.test[0].mask == tiny_data / "ground_truth" / "dent" / "0_mask.png"
        assert folder.test[2].mask is None

    def test_a_plain_folder_holds_good_images(self, tiny_data):
        folder = open_folder(tiny_data / "train" / "good")
        assert len(folder.train) == 3
        assert folder.test == ()

    def test_what_is_wrong_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="nothing is no folder"):
            open_folder(tmp_path / "nothing")
        with pytest.raises(ValueError, match="holds no image"):
            open_folder(tmp_path)
        (tmp_path / "test").mkdir()
        with pytest.raises(ValueError, match="no train/good"):
            open_folder(tmp_path)
        (tmp_path / "train").mkdir()
        with pytest.raises(ValueError, match="good is no folder"):
            open_folder(tmp_path)
        pixels = np.zeros((9, 9), np.uint8)
        write_png(tmp_path / "train" / "good" / "0.png", pixels)
        write_png(tmp_path / "test" / "hole" / "7.png", pixels)
        with pytest.raises(ValueError, match=r"7\.png has no mask; put it at .*hole.7_mask\.png"):
            open_folder(tmp_path)

    def test_an_image_smaller_than_a_patch_is_named(self, tiny_data):
        paths = open_folder(tiny_data).train
        with pytest.raises(
            ValueError, match=r"0\.png is 140 x 150 pixels at the chosen scale, smaller than a patch of 145"
        ):
            load_images(paths, channels=1, scale=1.0, smallest=145)
        with pytest.raises(ValueError, match=r"70 x 75 pixels"):
            load_images(paths, channels=1, scale=0.5, smallest=128)

    @pytest.mark.data
    @pytest.mark.parametrize(
        ("name", "train", "test"),
        [
            ("mvtec_grid_512", 132, 74),
            ("mvtec_leather_512", 4, 15),
            ("magnetic_tile_exp4", 108, 87),
            ("nanotwice_a", 5, 20),
            ("fabric_stain", 35, 14),
        ],
    )
    def test_the_real_sets_open(self, shared_data, name, train, test):
        folder = open_folder(shared_data / name)
        assert (len(folder.train), len(folder.test)) == (train, test)
        assert load_images(folder.train[:2], channels=1, scale=1.0, smallest=128)[0].dtype == np.float32


class TestSplit:
    def test_parts_are_disjoint_and_whole(self):
        images = [image(8, 8) for _ in range(10)]
        fit, held = split_good(images, 0.3, seed=1, smallest=4)
        assert (len(fit), len(held)) == (7, 3)
        assert {id(i) for i in fit} | {id(i) for i in held} == {id(i) for i in images}
        assert [id(i) for i in split_good(images, 0.3, seed=1, smallest=4)[1]] == [id(i) for i in held]

    def test_at_least_one_each(self):
        assert [len(part) for part in split_good([image(8, 8)] * 2, 0.01, 0, 4)] == [1, 1]
        assert [len(part) for part in split_good([image(8, 8)] * 2, 0.99, 0, 4)] == [1, 1]

    def test_one_image_is_cut_in_two(self):
        only = image(8, 20)
        (fit,), (held,) = split_good([only], 0.1, 0, smallest=6)
        assert (np.concatenate([fit, held], axis=2) == only).all()
        assert held.shape[2] == 6
        (fit,), (held,) = split_good([only.swapaxes(1, 2)], 0.1, 0, smallest=6)
        assert (np.concatenate([fit, held], axis=1) == only.swapaxes(1, 2)).all()
        assert held.shape[1] == 6
        (fit,), (held,) = split_good([only], 0.9, 0, smallest=6)  # a part to fit stays
        assert (fit.shape[2], held.shape[2]) == (6, 14)
        with pytest.raises(ValueError, match="one image of 11 pixels"):
            split_good([image(8, 11)], 0.1, 0, smallest=6)

    def test_a_share_of_nothing_fits_all_and_looks_at_all(self):
        images = [image(8, 8) for _ in range(3)]
        for part in split_good(images, 0, 0, 4):
            assert [id(i) for i in part] == [id(i) for i in images]

    def test_share_is_checked(self):
        with pytest.raises(ValueError, match=r"share is 1\.5"):
            split_good([image(8, 8)] * 3, 1.5, 0, 4)


class TestPatches:
    @pytest.mark.parametrize("augment", ["none", "flips", "rotations"])
    def test_the_same_seed_epoch_and_batch_give_the_same_patches(self, augment):
        images = [image(60, 70), image(50, 90)]
        options = {"patch": 32, "batch_size": 6, "batches": 3, "augment": augment}
        first, second = (list(Patches(images, seed=1, **options)) for _ in range(2))
        assert all((a == b).all() for a, b in zip(first, second, strict=True))
        later = Patches(images, seed=1, **options)
        later.epoch = 1
        assert not (later.batch(0) == first[0]).all()
        assert (later.batch(2) == list(later)[2]).all()
        assert not (Patches(images, seed=2, **options).batch(0) == first[0]).all()
        assert 0 <= first[0].min() <= first[0].max() <= 1
        assert len(later) == 3

    def test_crops_come_from_the_image_and_reach_every_corner(self):
        numbers = np.arange(36 * 36, dtype=np.float32).reshape(1, 36, 36)
        batch = Patches([numbers], patch=32, batch_size=400, batches=1, seed=0).batch(0).numpy()
        corners = {int(patch[0, 0, 0]) for patch in batch}
        assert corners == {y * 36 + x for y in range(5) for x in range(5)}
        assert (np.diff(batch, axis=3) == 1).all()

    def test_images_of_very_different_widths_take_little_more_memory_than_they_are(self):
        images = [image(32, 400), *(image(400, 32) for _ in range(12)), image(100, 200)]
        patches = Patches(images, patch=32, batch_size=1, batches=1, seed=0)
        assert patches._sheet.size < 1.5 * sum(one.size for one in images)
        for (y, x), one in zip(patches._corners, images, strict=True):
            np.testing.assert_array_equal(patches._sheet[:, y : y + one.shape[1], x : x + one.shape[2]], one)

    @pytest.mark.parametrize("augment", ["none", "flips", "rotations"])
    def test_patches_are_those_cut_one_by_one(self, augment):
        images = [image(60, 70), image(40, 90), image(50, 50), image(45, 33)]
        patches = Patches(images, patch=32, batch_size=60, batches=1, seed=3, augment=augment)
        rng = np.random.default_rng((3, 0, 0))
        shares = np.array([(i.shape[1] - 31) * (i.shape[2] - 31) for i in images])
        chosen = rng.choice(4, 60, p=shares / shares.sum())
        for found, which, (y, x, angle, mirror) in zip(
            patches.batch(0).numpy(), chosen, rng.random((60, 4)), strict=True
        ):
            whole = images[which]
            if augment == "rotations" and min(whole.shape[1:]) >= 47:
                step = np.arange(32) - 15.5
                down, across = (23 + place * (size - 47) for place, size in zip((y, x), whole.shape[1:], strict=True))
                cosine, sine = np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)
                rows = down + cosine * step[:, None] + sine * step
                columns = across - sine * step[:, None] + cosine * step
                patch = ndimage.map_coordinates(whole[0], [rows, columns], order=1)[None]
            else:
                top, left = int(y * (whole.shape[1] - 31)), int(x * (whole.shape[2] - 31))
                patch = whole[:, top : top + 32, left : left + 32]
                patch = patch if augment == "none" else np.rot90(patch, int(angle * 4), (1, 2))
            patch = patch[..., ::-1] if augment != "none" and mirror < 0.5 else patch
            np.testing.assert_allclose(found, patch, atol=1e-4 if augment == "rotations" else 0)

    def test_flips_keep_the_pixels(self):
        patch = image(32, 32)
        batch = Patches([patch], patch=32, batch_size=50, batches=1, seed=0, augment="flips").batch(0).numpy()
        assert len({item.tobytes() for item in batch}) == 8  # the square's symmetries
        assert all((np.sort(item.ravel()) == np.sort(patch.ravel())).all() for item in batch)

    def test_turned_patches_sample_a_plane_exactly(self):
        y, x = np.mgrid[:100, :100]
        plane = ((y + 2 * x) / 300).astype(np.float32)[None]
        batch = Patches([plane], patch=32, batch_size=20, batches=1, seed=0, augment="rotations").batch(0).numpy()
        slope = np.hypot(np.diff(batch, axis=2)[..., :31], np.diff(batch, axis=3)[..., :31, :])
        np.testing.assert_allclose(slope, np.sqrt(5) / 300, rtol=1e-3)

    def test_bad_options(self):
        with pytest.raises(ValueError, match="augment is 'mixup'"):
            Patches([image(40, 40)], patch=32, batch_size=1, batches=1, seed=0, augment="mixup")
        with pytest.raises(ValueError, match="image 0 is 20 x 40"):
            Patches([image(20, 40)], patch=32, batch_size=1, batches=1, seed=0)
