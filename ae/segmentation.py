"""Find defects in whole images of any size, through overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from ae.config import PATCH
from ae.data import check_size
from ae.images import read_image, resize, scaled, to_bytes, write_png, write_tiff
from ae.run import load_run
from fastssim.tiles import TileGrid, sliding_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ae.config import TrainConfig
    from ae.methods import Method
    from ae.models import Autoencoder
    from ae.run import Run


@dataclass(frozen=True)
class Segmentation:
    """What was found in one image, as large as the image."""

    image: NDArray[np.float32]  # (C, H, W)
    reconstruction: NDArray[np.float32]  # (C, H, W)
    residual: NDArray[np.float32]  # (H, W), larger is worse
    mask: NDArray[np.bool_]  # (H, W), defects


def residual_map(
    model: Autoencoder,
    method: Method,
    image: NDArray[np.float32],
    config: TrainConfig,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reconstruct an image through overlapping tiles and compare.

    Parameters
    ----------
    model, method
        A trained autoencoder and its method.
    image : ndarray, (C, H, W)
        In [0, 1], at least 128 x 128 pixels.
    config : TrainConfig
        `stride` and `estimator`: "reconstruction" compares the image with the average of the tiles' reconstructions;
        "residual" averages the tiles' own residual maps. They differ, because SSIM is not linear.
    progress : callable, optional
        Called as ``progress(tiles done, tiles in all)``.

    Returns
    -------
    reconstruction : ndarray, (C, H, W)
    residual : ndarray, (H, W)
    """
    channels = image.shape[0]
    grid = TileGrid((image.shape[1], image.shape[2]), PATCH, config.stride)
    by_tile = config.estimator == "residual"

    def reconstruct(tiles: torch.Tensor) -> torch.Tensor:
        result = model(tiles.contiguous(memory_format=torch.channels_last)).contiguous()
        return torch.cat([result, method.residual(tiles, result)], dim=1) if by_tile else result

    pixels = torch.from_numpy(image)
    with torch.inference_mode():
        blended = sliding_window(reconstruct, pixels, grid, window="gaussian", batch_size=32, progress=progress)
        reconstruction = blended[:channels]
        residual = blended[channels:] if by_tile else method.residual(pixels[None], reconstruction[None])[0]
    return reconstruction.numpy(), residual[0].numpy()


def defect_mask(residual: NDArray[np.float32], threshold: float, minimum_area: int) -> NDArray[np.bool_]:
    """Mark the pixels above the threshold, without regions (8-connected) of fewer than `minimum_area` pixels.

    Examples
    --------
    >>> residual = np.zeros((4, 5)); residual[:2, :2] = 1; residual[3, 4] = 1
    >>> int(defect_mask(residual, 0.5, 2).sum())
    4
    """
    above = residual > threshold
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= minimum_area
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


class Segmenter:
    """Apply a trained model to images.

    Parameters
    ----------
    run : Run
        As `ae.run.load_run` reads it.

    Examples
    --------
    A run folder, an image, and its defects::

        segmenter = Segmenter.load("runs/grid")
        found = segmenter("part.png")
        found.mask.any()
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def load(cls, folder: Path | str) -> Segmenter:
        """Read the run folder `folder`; raises ValueError where it is not whole."""
        return cls(load_run(folder))

    def __call__(
        self, image: Path | str | NDArray[np.float32], progress: Callable[[int, int], object] | None = None
    ) -> Segmentation:
        """Segment one image.

        Parameters
        ----------
        image : path or ndarray (C, H, W) in [0, 1]
            Scaled by the run's `scale` first.
        progress : callable, optional
            Called as ``progress(tiles done, tiles in all)``.

        Raises
        ------
        ValueError
            If the image cannot be read, is smaller than a tile, has another number of channels, or holds NaN.
        """
        config = self.run.config
        name = "the image" if isinstance(image, np.ndarray) else image
        pixels = image if isinstance(image, np.ndarray) else read_image(image, config.channels)
        if pixels.ndim != 3 or pixels.shape[0] != config.channels:
            raise ValueError(f"{name} has shape {pixels.shape}; this run wants ({config.channels}, H, W)")
        if not np.isfinite(pixels).all():
            raise ValueError(f"{name} holds NaN or infinity; replace those pixels")
        pixels = pixels.astype(np.float32, copy=False)
        size = pixels.shape[1], pixels.shape[2]
        small = scaled(pixels, config.scale)
        check_size(Path(str(name)), small.shape[1:], PATCH)
        reconstruction, residual = residual_map(self.run.model, self.run.method, small, config, progress)
        residual = resize(residual[None], size)[0]
        mask = defect_mask(residual, self.run.threshold, config.minimum_area)
        return Segmentation(pixels, resize(reconstruction, size), residual, mask)


def segment(
    run: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """Segment image files and write what was found.

    For ``part.png``: ``part_residual.tiff`` (32-bit float), ``part_mask.png``, ``part_reconstruction.png`` and
    ``part_overlay.png`` (the image with the defects' outline), 8 bits.

    Parameters
    ----------
    run : Path
        A run folder.
    images : sequence of Path
        Image files; their names must differ.
    out : Path
        Folder for the results, made where there is none.
    progress : callable, optional
        Called as ``progress(tiles done, tiles in all)`` for every image.

    Returns
    -------
    list of Path
        The overlays.

    Raises
    ------
    ValueError
        If the run or an image cannot be read, or two images share a name.
    OSError
        If a result cannot be written; no half-written file is left.
    """
    stems = [Path(image).stem for image in images]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(
            f"two images are named {twice!r}, and so would be their results; segment them into two folders"
        )
    segmenter = Segmenter.load(run)
    return [
        write_segmentation(Path(out), stem, segmenter(image, progress))
        for stem, image in zip(stems, images, strict=True)
    ]


def write_segmentation(out: Path, stem: str, found: Segmentation) -> Path:
    """Write one image's results; return the overlay's path."""
    write_tiff(out / f"{stem}_residual.tiff", found.residual)
    write_png(out / f"{stem}_mask.png", found.mask.astype(np.uint8) * 255)
    write_png(out / f"{stem}_image.png", to_bytes(found.image))
    write_png(out / f"{stem}_reconstruction.png", to_bytes(found.reconstruction))
    path = out / f"{stem}_overlay.png"
    write_png(path, overlay(found.image, found.mask))
    return path


def overlay(
    image: NDArray[Any], mask: NDArray[np.bool_], colour: tuple[int, int, int] = (255, 0, 64)
) -> NDArray[np.uint8]:
    """Draw the outline of a mask on an image (C, H, W); return (H, W, 3) uint8."""
    pixels: NDArray[np.uint8] = to_bytes(np.repeat(image, 3, axis=0) if len(image) == 1 else image).copy()
    edge = ndimage.binary_dilation(mask, iterations=2) & ~mask
    pixels[edge] = colour
    return pixels
