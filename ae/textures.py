"""A data set out of one photograph: real brick, with generated defects and exact masks.

The photograph is scikit-image's ``brick.png`` (CC0, from the package itself, nothing is downloaded). Test images come
from its middle columns, good images from the columns at both sides, so that no pixel is in both. The defects are
generated; a defect's mask holds the pixels that it changed visibly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import skimage
from PIL import Image
from scipy import ndimage

from ae.data import DataFolder, open_folder
from ae.images import write_png

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Defect = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]

SIZE = 160  # pixels of a test image, down and across
LEFT, RIGHT = 176, 336  # the middle columns of the photograph's 512
TEST_IMAGES = 4  # of each class
MARGIN = 30  # pixels from an image's edge to a defect's middle
VISIBLE = 0.04  # a change of grey value, from 0 to 1


def write_demo_data(root: Path | str, seed: int = 0) -> DataFolder:
    """Write the data set in the layout of MVTec AD.

    Parameters
    ----------
    root : Path
        Folder, made where there is none.
    seed : int
        Of the defects' places and shapes.

    Returns
    -------
    DataFolder
        4 good training images, 4 good test images and 4 of each defect: scratch, stain, gap and shift.

    Examples
    --------
    >>> import tempfile
    >>> folder = write_demo_data(tempfile.mkdtemp())
    >>> len(folder.train), len(folder.test)
    (4, 20)
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    photograph = _photograph()
    for number, rows in enumerate((slice(0, 340), slice(340, 512))):
        _write(root / "train" / "good" / f"{number:03}_left.png", photograph[rows, :LEFT])
        _write(root / "train" / "good" / f"{number:03}_right.png", photograph[rows, RIGHT:])
    for label, defect in {"good": None, **DEFECTS}.items():
        for number in range(TEST_IMAGES):
            top = rng.integers(0, photograph.shape[0] - SIZE + 1)
            clean = photograph[top : top + SIZE, LEFT:RIGHT]
            image = clean if defect is None else defect(clean, rng)
            _write(root / "test" / label / f"{number:03}.png", image)
            if defect is not None:
                mask = changed(clean, image)
                write_png(root / "ground_truth" / label / f"{number:03}_mask.png", mask.astype(np.uint8) * 255)
    return open_folder(root)


def changed(clean: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the pixels that a defect changed visibly, single ones between them included."""
    mask: NDArray[np.bool_] = ndimage.binary_closing(np.abs(image - clean) > VISIBLE)
    return mask


def _photograph() -> NDArray[np.float64]:
    """Read the brick wall, 512 x 512, from scikit-image's own folder."""
    with Image.open(Path(skimage.__file__).parent / "data" / "brick.png") as image:
        pixels: NDArray[np.float64] = np.asarray(image.convert("L"), np.float64) / 255
        return pixels


def _write(path: Path, image: NDArray[np.float64]) -> None:
    write_png(path, np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _middle(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a place away from the edges."""
    return rng.uniform(MARGIN, SIZE - MARGIN, 2)


def _scratch(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a thin bent line, a little brighter than the stone."""
    start, end = _middle(rng), _middle(rng)
    t = np.linspace(0, 1, 400)[:, None]
    bend = rng.normal(0, 20, 2)
    points = start * (1 - t) + end * t + bend * np.sin(np.pi * t)
    rows, columns = np.clip(np.rint(points).astype(int), 0, SIZE - 1).T
    line = np.zeros(image.shape, bool)
    line[rows, columns] = True
    mask = ndimage.binary_dilation(line, iterations=1)
    scratched: NDArray[np.float64] = image + 0.22 * ndimage.gaussian_filter(mask.astype(float), 0.6)
    return scratched


def _stain(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Darken a region: its structure stays."""
    return _merged(image, 0.75 * image, _blob(rng, radius=rng.uniform(10, 16)))


def _gap(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Break a piece out: darker, with a rough ground."""
    ground = 0.6 * ndimage.gaussian_filter(image, 3) + 0.05 * ndimage.gaussian_filter(rng.normal(0, 2, image.shape), 1)
    return _merged(image, ground, _blob(rng, radius=rng.uniform(8, 14)))


def _shift(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Turn a patch by a quarter: every grey value as before, only the structure is wrong."""
    half = int(rng.integers(18, 25))
    row, column = np.rint(_middle(rng)).astype(int)
    mask = np.zeros(image.shape, bool)
    mask[row - half : row + half, column - half : column + half] = True
    turned = image.copy()
    turned[mask] = np.rot90(image[row - half : row + half, column - half : column + half]).ravel()
    return _merged(image, turned, mask)


def _blob(rng: np.random.Generator, radius: float) -> NDArray[np.bool_]:
    """Draw a round region with an irregular outline."""
    row, column = _middle(rng)
    y, x = np.mgrid[:SIZE, :SIZE]
    angle = np.arctan2(y - row, x - column)
    outline = radius * (1 + sum(rng.normal(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 5)))
    mask: NDArray[np.bool_] = np.hypot(y - row, x - column) < outline
    return mask


def _merged(image: NDArray[np.float64], inside: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Put `inside` where the mask is, its last pixel softened."""
    weight = np.minimum(ndimage.gaussian_filter(mask.astype(float), 0.7), mask)
    merged: NDArray[np.float64] = image * (1 - weight) + inside * weight
    return merged


DEFECTS: dict[str, Defect] = {"scratch": _scratch, "stain": _stain, "gap": _gap, "shift": _shift}
