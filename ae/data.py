"""Folders of images, and the random patches that a training sees.

Two layouts are read: that of MVTec AD (``train/good``, ``test/<class>``, ``ground_truth/<class>/<name>_mask.png``), and
a plain folder of defect-free images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import grid_sample
from torch.utils.data import IterableDataset

from ae.config import AUGMENTATIONS, PATCH
from ae.images import SUFFIXES, read_image, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ae.config import TrainConfig


@dataclass(frozen=True)
class Sample:
    """One test image."""

    path: Path
    label: str  # "good" or the defect's class
    mask: Path | None  # None for good images


@dataclass(frozen=True)
class DataFolder:
    """The images of one data set."""

    root: Path
    train: tuple[Path, ...]
    test: tuple[Sample, ...]  # empty for a plain folder


def open_folder(root: Path | str) -> DataFolder:
    """Find the images of a data set.

    Parameters
    ----------
    root : Path
        A folder in the layout of MVTec AD, or one that holds defect-free images.

    Returns
    -------
    DataFolder
        With images sorted by name.

    Raises
    ------
    ValueError
        If the folder is missing or holds no image, or a defect's mask is missing.

    Examples
    --------
    >>> open_folder("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere is no folder; check the path
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; check the path")
    if not (root / "train").is_dir():
        if (root / "test").is_dir():
            raise ValueError(f"{root} has test but no train/good; put defect-free images there")
        return DataFolder(root, images_in(root), ())
    train = images_in(root / "train" / "good")
    inside = (root / "test").iterdir() if (root / "test").is_dir() else ()
    folders = sorted(path for path in inside if path.is_dir() and not path.name.startswith("."))
    test = [
        Sample(path, folder.name, _mask(root, folder.name, path)) for folder in folders for path in images_in(folder)
    ]
    return DataFolder(root, train, tuple(test))


def load_images(paths: Sequence[Path], *, channels: int, scale: float, smallest: int) -> list[NDArray[np.float32]]:
    """Read images for patches of `smallest` pixels.

    Raises
    ------
    ValueError
        If one cannot be read or is smaller than a patch.
    """
    images = []
    for path in paths:
        image = scaled(read_image(path, channels), scale)
        check_size(path, image.shape[1:], smallest)
        images.append(image)
    return images


def good_images(folder: DataFolder, config: TrainConfig) -> list[NDArray[np.float32]]:
    """Read the good images of a data set as a training with this configuration does, see `load_images`."""
    return load_images(folder.train, channels=config.channels, scale=config.scale, smallest=PATCH)


def digest(images: Iterable[NDArray[np.float32]]) -> str:
    """Name what a training sees: equal for equal images (C, H, W) in the same order alone.

    Examples
    --------
    >>> one, other = np.zeros((1, 2, 3), np.float32), np.zeros((1, 3, 2), np.float32)
    >>> digest([one]) == digest([one.copy()]), digest([one]) == digest([other])
    (True, False)
    """
    found = hashlib.sha256()
    for image in images:
        found.update(repr(image.shape).encode())
        found.update(np.ascontiguousarray(image).data)
    return found.hexdigest()


def check_size(path: Path, size: tuple[int, ...], smallest: int) -> None:
    """Refuse an image into which no patch fits."""
    if min(size) < smallest:
        raise ValueError(
            f"{path} is {size[0]} x {size[1]} pixels at the chosen scale, smaller than a patch of"
            f" {smallest} x {smallest}; give larger images or a larger scale"
        )


def split_good(
    images: Sequence[NDArray[np.float32]], fraction: float, seed: int, smallest: int
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Divide good images into those to fit and those held out.

    A single image is cut in two across its longer side: the held-out part is the strip at its right or bottom, at least
    a patch wide.

    Parameters
    ----------
    images : sequence of (C, H, W)
        Good images.
    fraction : float
        Share held out, in [0, 1); at least one image. 0: all are fitted, and they are the held-out ones, too.
    seed : int
        Decides which.
    smallest : int
        Size of a patch.

    Raises
    ------
    ValueError
        If a single image is too small to be cut.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the held-out share is {fraction}; it must be at least 0 and below 1")
    if fraction == 0:
        return list(images), list(images)
    if len(images) == 1:
        (only,) = images
        wide = only.shape[2] >= only.shape[1]
        length = max(only.shape[1:])
        strip = min(max(smallest, round(length * fraction)), length - smallest)
        if strip < smallest:
            raise ValueError(
                f"one image of {length} pixels along its longer side cannot be cut into a part to fit and a part held"
                f" out, each {smallest} pixels wide; give a second good image"
            )
        rest, end = np.split(only, [length - strip], axis=2 if wide else 1)
        return [rest], [end]
    order = np.random.default_rng(seed).permutation(len(images))
    count = min(max(1, round(len(images) * fraction)), len(images) - 1)
    held = set(order[:count].tolist())
    fit = [image for i, image in enumerate(images) if i not in held]
    return fit, [images[i] for i in sorted(held)]


class Patches(IterableDataset[torch.Tensor]):
    """Batches of random patches; the same for the same seed, epoch and batch, whatever ran before.

    Parameters
    ----------
    images : sequence of ndarray, (C, H, W)
        Good images, none smaller than a patch. Larger images are drawn more often: every position is equally likely.
    patch : int
        Height and width of a patch.
    batch_size, batches : int
        Patches in a batch, batches in an epoch.
    seed : int
        Of the random numbers.
    augment : {"none", "flips", "rotations"}
        Crops as they are; mirrored and turned by quarter turns; or turned by any angle as well (MVTec AD), sampled
        bilinearly, where the image is large enough to hold the turned patch.

    Raises
    ------
    ValueError
        If the augmentation is unknown or an image is smaller than a patch.

    Examples
    --------
    >>> patches = Patches([np.zeros((1, 200, 300), np.float32)], patch=128, batch_size=4, batches=2, seed=0)
    >>> [tuple(batch.shape) for batch in patches]
    [(4, 1, 128, 128), (4, 1, 128, 128)]
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.float32]],
        *,
        patch: int,
        batch_size: int,
        batches: int,
        seed: int,
        augment: str = "none",
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise ValueError(f"augment is {augment!r}; give one of {', '.join(map(repr, AUGMENTATIONS))}")
        for number, image in enumerate(images):
            check_size(Path(f"image {number}"), image.shape[1:], patch)
        self._patch = patch
        self._batch_size = batch_size
        self._batches = batches
        self._seed = seed
        self._augment = augment
        self._sizes = np.array([image.shape[1:] for image in images])  # height and width of each
        self._sheet, self._corners = _sheet(images)
        self._pixels = torch.from_numpy(self._sheet)
        positions = (self._sizes - patch + 1).prod(axis=1).astype(np.float64)
        self._shares = positions / positions.sum()
        self.epoch = 0

    @property
    def nbytes(self) -> int:
        """Memory that the images take."""
        return self._sheet.nbytes

    def to(self, device: torch.device | str) -> Patches:
        """Keep the images on a device and draw there from now on, the same patches."""
        self._pixels = self._pixels.to(device)
        return self

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(self._batches):
            yield self.batch(number)

    def batch(self, number: int) -> torch.Tensor:
        """Draw one batch of this epoch, (batch_size, C, patch, patch)."""
        rng = np.random.default_rng((self._seed, self.epoch, number))
        chosen = rng.choice(len(self._sizes), self._batch_size, p=self._shares)
        y, x, angle, mirror = rng.random((self._batch_size, 4)).T
        height, width = self._sizes[chosen].T - self._patch + 1
        out = self._crops(chosen, y * height, x * width, self._patch)
        turned = (self._sizes[chosen].min(axis=1) >= _reach(self._patch)) & (self._augment == "rotations")
        if turned.any():
            some = np.flatnonzero(turned)
            out[some] = self._turned(chosen[some], y[some], x[some], angle[some] * 2 * np.pi)
        if self._augment != "none":
            quarters = np.where(turned, 0, (angle * 4).astype(int))
            for quarter in (1, 2, 3):
                some = np.flatnonzero(quarters == quarter)
                out[some] = torch.rot90(out[some], quarter, (2, 3))
            some = np.flatnonzero(mirror < 0.5)
            out[some] = out[some].flip(3)
        return out

    def _crops(self, chosen: NDArray[Any], top: NDArray[Any], left: NDArray[Any], size: int) -> torch.Tensor:
        """Cut squares of the chosen images."""
        places = self._corners[chosen] + np.stack([top, left], axis=1).astype(int)
        return torch.stack(
            [self._pixels[:, row : row + size, column : column + size] for row, column in places.tolist()]
        )

    def _turned(self, chosen: NDArray[Any], y: NDArray[Any], x: NDArray[Any], angle: NDArray[Any]) -> torch.Tensor:
        """Sample patches turned by `angle` about their middles, bilinearly; y, x in [0, 1) place those."""
        reach = _reach(self._patch)
        height, width = self._sizes[chosen].T
        down, across = y * (height - reach), x * (width - reach)
        top, left = np.rint(down), np.rint(across)
        #  places for torch run from -1 to 1, from the middle of a square's first pixel to that of its last
        numbers = np.stack([down - top, across - left, np.cos(angle), np.sin(angle)]) * 2 / (reach - 1)
        middle_y, middle_x, cosine, sine = torch.from_numpy(numbers[..., None, None]).to(self._pixels)
        step = torch.arange(self._patch).to(self._pixels) - (self._patch - 1) / 2
        places = torch.stack(
            [middle_x - sine * step[:, None] + cosine * step, middle_y + cosine * step[:, None] + sine * step], dim=-1
        )
        return grid_sample(self._crops(chosen, top, left, reach), places, align_corners=True)


def _sheet(images: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Put images (C, H, W) of any sizes on shelves, the highest first; return the sheet and each one's first pixel."""
    widest = max(image.shape[2] for image in images)
    corners = np.zeros((len(images), 2), np.intp)
    top = bottom = left = 0
    for number in sorted(range(len(images)), key=lambda number: -images[number].shape[1]):
        height, width = images[number].shape[1:]
        if left + width > widest or bottom == 0:
            top, bottom, left = bottom, bottom + height, 0
        corners[number] = top, left
        left += width
    sheet = np.zeros((images[0].shape[0], bottom, widest), np.float32)
    for (y, x), image in zip(corners, images, strict=True):
        sheet[:, y : y + image.shape[1], x : x + image.shape[2]] = image
    return sheet, corners


def _reach(size: int) -> int:
    """Pixels that a square of `size` needs to turn freely, and one for interpolation."""
    return int(np.ceil(size * np.sqrt(2))) + 1


def images_in(folder: Path) -> tuple[Path, ...]:
    """Find the images of one folder, sorted by name, hidden files left out; ValueError where there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; put images there")
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))  # macOS keeps a ._x.png beside x.png
    found = tuple(sorted(path for path in shown if path.suffix.lower() in SUFFIXES and path.is_file()))
    if not found:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)}); put images there or name another folder")
    return found


def _mask(root: Path, label: str, path: Path) -> Path | None:
    """Find the mask of a test image."""
    if label == "good":
        return None
    for name in (f"{path.stem}_mask.png", f"{path.stem}.png"):
        mask = root / "ground_truth" / label / name
        if mask.is_file():
            return mask
    raise ValueError(f"{path} has no mask; put it at {root / 'ground_truth' / label / f'{path.stem}_mask.png'}")
