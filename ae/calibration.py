"""What is found out on good images after a training: the threshold, and what scores are normalised by."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ae.config import PATCH, TrainConfig
from ae.data import digest, good_images, split_good
from ae.images import scaled
from ae.run import kept
from ae.scoring import fit_contrast, fit_level, normalised
from ae.segmentation import residual_map
from ae.thresholds import threshold_by_rate, threshold_by_region

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ae.data import DataFolder
    from ae.methods import Method
    from ae.run import Run
    from ae.scoring import Contrast, Level

#  options that change how a trained network is applied, not the network
AFTERWARDS = (
    "vae_samples",
    "stride",
    "estimator",
    "blending",
    "test_flips",
    "residual_scales",
    "difference",
    "opening",
    "smoothing",
    "normalise",
    "threshold_rule",
    "false_positive_rate",
    "minimum_area",
)


def calibrate(
    method: Method, images: Sequence[NDArray[np.float32]], config: TrainConfig
) -> tuple[float, Contrast | Level | None]:
    """Find the threshold, and what scores are normalised by, on good images (C, H, W) at the run's scale.

    The threshold is one of scores brought back to the images' own size, as a `Segmenter` applies it: what lies between
    two small pixels is smoother than they are.
    """
    residuals = [residual_map(method, image, config)[1] for image in images]
    good: Contrast | Level | None = None
    if config.normalise == "contrast":
        good = fit_contrast(residuals, images)
    elif config.normalise == "level":
        good = fit_level(residuals)
    scores = [normalised(*pair, config.normalise, good) for pair in zip(residuals, images, strict=True)]
    scores = [scaled(score[None], 1 / config.scale)[0] for score in scores]
    if config.threshold_rule == "region":
        return threshold_by_region(scores, config.minimum_area), good
    return threshold_by_rate(scores, config.false_positive_rate), good


def recalibrate(run: Run, data: DataFolder, **options: Any) -> Run:
    """Apply a trained network otherwise: the same weights, with other options and the threshold that goes with them.

    Parameters
    ----------
    run : Run
    data : DataFolder
        The good images that the run was trained with, of which those are looked at that were held out; or others, all
        of which are.
    **options
        Fields of `TrainConfig` named in `AFTERWARDS`.

    Raises
    ------
    ValueError
        If an option belongs to the training, makes no sense, or the images do not fit the run.

    Examples
    --------
    ::

        run = recalibrate(load_run("runs/grid"), open_folder("data/grid"), threshold_rule="region", minimum_area=50)
        save_run(run)
    """
    if others := sorted(set(options) - set(AFTERWARDS)):
        raise ValueError(f"{', '.join(others)} cannot change after a training; train again")
    config = replace(run.config, **options)
    held_out = images = good_images(data, config)
    seen = digest(images)
    if run.training.get("images_digest", seen) == seen:
        _, held_out = split_good(images, config.held_out, config.seed, PATCH)
    method = copy(run.method)  # the same network; the run that was given keeps its options
    method.config = config
    threshold, good = calibrate(method, held_out, config)
    return replace(run, config=config, method=method, threshold=threshold, **kept(good))


def trained_with(config: TrainConfig) -> TrainConfig:
    """Return the configuration with all that comes after a training at its default: equal for equal networks."""
    defaults: dict[str, Any] = {field.name: field.default for field in fields(TrainConfig) if field.name in AFTERWARDS}
    return replace(config, **defaults)
