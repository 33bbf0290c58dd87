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
from ae.files import first_line
from ae.images import read_image, resize, scaled, to_bytes, write_png, write_tiff
from ae.run import load_run
from ae.scoring import multi_scale, normalised, opened, smoothed, weighed
from ae.thresholds import TOUCHING
from fastssim.tiles import TileGrid, sliding_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ae.config import TrainConfig
    from ae.methods import Method
    from ae.run import Run

FLIPS: tuple[tuple[int, ...], ...] = (
    (),
    (2,),
    (3,),
    (2, 3),
)  # axes of (N, C, H, W); the first leaves tiles as they are


@dataclass(frozen=True)
class Segmentation:
    """What was found in one image, as large as the image."""

    image: NDArray[np.float32]  # (C, H, W)
    reconstruction: NDArray[np.float32]  # (C, H, W)
    residual: NDArray[np.float32]  # (H, W), larger is worse; the score, where the run normalises it
    mask: NDArray[np.bool_]  # (H, W), defects


def residual_map(
    method: Method,
    image: NDArray[np.float32],
    config: TrainConfig,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reconstruct an image through overlapping tiles and compare.

    Parameters
    ----------
    method : Method
        With a trained network, on any device.
    image : ndarray, (C, H, W)
        In [0, 1], at least 128 x 128 pixels.
    config : TrainConfig
        `stride`, `blending`, `test_flips`, `residual_scales`, `difference`, `opening`, `smoothing` and `estimator`:
        "reconstruction" compares the image with the average of the tiles' reconstructions; "residual" averages the
        tiles' own residual maps. They differ, because SSIM is not linear.
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
    flips = FLIPS if config.test_flips else FLIPS[:1]
    device = next(method.parameters()).device

    def residual_of(tiles: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        residual = multi_scale(method.residual, tiles, reconstruction, config.residual_scales)
        return weighed(residual, tiles, reconstruction, config.difference)

    def seen(tiles: torch.Tensor) -> torch.Tensor:
        result = method.reconstruct(tiles)
        return torch.cat([result, residual_of(tiles, result)], dim=1) if by_tile else result

    def averaged(tiles: torch.Tensor) -> torch.Tensor:
        mirrored = [seen(tiles.flip(axes)).flip(axes) for axes in flips]
        return (torch.stack(mirrored).mean(0) if len(flips) > 1 else mirrored[0]).cpu()

    pixels = torch.from_numpy(image)
    with torch.inference_mode():
        blended = sliding_window(
            averaged, pixels, grid, window=config.blending, batch_size=32, device=device, progress=progress
        )
        reconstruction = blended[:channels]
        residual = blended[channels:] if by_tile else residual_of(pixels[None], reconstruction[None])[0]
    return reconstruction.numpy(), smoothed(opened(residual[0].numpy(), config.opening), config.smoothing)


def defect_mask(residual: NDArray[np.float32], threshold: float, minimum_area: int) -> NDArray[np.bool_]:
    """Mark the pixels above the threshold, without regions (8-connected) of fewer than `minimum_area` pixels.

    Examples
    --------
    >>> residual = np.zeros((4, 5)); residual[:2, :2] = 1; residual[3, 4] = 1
    >>> int(defect_mask(residual, 0.5, 2).sum())
    4
    """
    above = residual > threshold
    labels, count = ndimage.label(above, structure=TOUCHING)
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
    def load(cls, folder: Path | str, device: str = "cpu") -> Segmenter:
        """Read the run folder `folder`; the network works on `device`.

        Raises
        ------
        ValueError
            If the folder is not whole, or the device is none that torch can compute on here.
        """
        try:
            place = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device is {device!r}; give cpu, cuda or cuda:N") from error
        if place.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device is {device!r}, but torch {torch.__version__} finds no GPU; leave it out, or take cpu"
            )
        run = load_run(folder)
        try:
            torch.ones(1, device=place).item()
        except (RuntimeError, AssertionError, ImportError) as error:  # as torch's parts say what they lack
            raise ValueError(
                f"device is {device!r}, on which torch cannot compute here ({first_line(error)}); give cpu or cuda"
            ) from None
        run.method.to(place)
        return cls(run)

    def __call__(
        self,
        image: Path | str | NDArray[np.float32],
        progress: Callable[[int, int], object] | None = None,
        *,
        name: str = "the image",
    ) -> Segmentation:
        """Segment one image.

        Parameters
        ----------
        image : path or ndarray (C, H, W) in [0, 1]
            Scaled by the run's `scale` first.
        progress : callable, optional
            Called as ``progress(tiles done, tiles in all)``.
        name : str
            What errors call an array.

        Raises
        ------
        ValueError
            If the image cannot be read, is smaller than a tile, has another number of channels, or holds NaN, integers
            or what is not in [0, 1].
        TypeError
            If it is neither a path nor an array, or a masked one, whose mask would be dropped.
        """
        config = self.run.config
        if not isinstance(image, (str, Path, np.ndarray)) or isinstance(image, np.ma.MaskedArray):
            raise TypeError(f"the image is a {type(image).__name__}; give a path, or an ndarray (C, H, W)")
        name = name if isinstance(image, np.ndarray) else str(image)
        pixels = image if isinstance(image, np.ndarray) else read_image(image, config.channels)
        if pixels.ndim != 3 or pixels.shape[0] != config.channels:
            raise ValueError(f"{name} has shape {pixels.shape}; this run wants ({config.channels}, H, W)")
        if not pixels.size:
            raise ValueError(f"{name} is empty, of shape {pixels.shape}; give one with pixels")
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(f"{name} holds NaN or infinity; replace those pixels")
        if pixels.dtype.kind != "f" or pixels.min() < 0 or pixels.max() > 1:
            span = f" from {pixels.min():g} to {pixels.max():g}" if pixels.dtype.kind in "iuf" else ""
            raise ValueError(f"{name} holds {pixels.dtype} numbers{span}; give floating point in [0, 1]")
        #  torch takes no array that is mirrored, image[::-1]; and a camera's memory may change later
        pixels = np.array(pixels, dtype=np.float32, order="C") if pixels is image else pixels
        size = pixels.shape[1], pixels.shape[2]
        small = scaled(pixels, config.scale)
        check_size(Path(name), small.shape[1:], PATCH)
        reconstruction, residual = residual_map(self.run.method, small, config, progress)
        residual = resize(normalised(residual, small, config.normalise, self.run.good)[None], size)[0]
        mask = defect_mask(residual, self.run.threshold, config.minimum_area)
        return Segmentation(pixels, resize(reconstruction, size), residual, mask)


def result_files(out: Path, stem: str) -> list[Path]:
    """Name the files of one image's results: residual, mask, image, reconstruction, overlay."""
    parts = ("residual.tiff", "mask.png", "image.png", "reconstruction.png", "overlay.png")
    return [out / f"{stem}_{part}" for part in parts]


def write_segmentation(out: Path, stem: str, found: Segmentation) -> Path:
    """Write one image's results; return the overlay's path."""
    residual, mask, image, reconstruction, outlined = result_files(out, stem)
    write_tiff(residual, found.residual)
    write_png(mask, found.mask.astype(np.uint8) * 255)
    write_png(image, to_bytes(found.image))
    write_png(reconstruction, to_bytes(found.reconstruction))
    write_png(outlined, overlay(found.image, found.mask))
    return outlined


def overlay(
    image: NDArray[Any], mask: NDArray[np.bool_], colour: tuple[int, int, int] = (255, 0, 64)
) -> NDArray[np.uint8]:
    """Draw the outline of a mask on an image (C, H, W); return (H, W, 3) uint8."""
    pixels: NDArray[np.uint8] = to_bytes(np.repeat(image, 3, axis=0) if len(image) == 1 else image).copy()
    edge = ndimage.binary_dilation(mask, iterations=2) & ~mask
    pixels[edge] = colour
    return pixels
