"""The configuration of a training: every option, checked where it is made."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATCH = 128  # pixels of a patch, down and across: what the paper's network takes
METHODS = ("ssim", "l2")
AUGMENTATIONS = ("none", "flips", "rotations")
ESTIMATORS = ("reconstruction", "residual")
SCHEDULES = ("constant", "one-cycle")
_BOUNDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("latent", "epochs", "patches_per_epoch", "batch_size", "stride"), lambda v: v >= 1, "be at least 1"),
    (("patience", "minimum_area", "weight_decay", "seed", "gradient_clip"), lambda v: v >= 0, "not be negative"),
    (("scale", "learning_rate"), lambda v: v > 0, "be above 0"),
    (("time_budget",), lambda v: v is None or v > 0, "be above 0 seconds, or None"),
    (("warm_up",), lambda v: 0 <= v < 1, "be at least 0 and below 1"),
    (("held_out", "false_positive_rate"), lambda v: 0 < v < 1, "lie between 0 and 1"),
)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained and applied; the paper's values where it states them.

    Parameters
    ----------
    method : {"ssim", "l2"}
        What is minimised, and what shows a defect.
    latent : int
        Numbers in the code: 100 for textures, 500 for nanofibres.
    channels : {1, 3}
        1: images are read as grey, as in the paper.
    scale : float
        Images are scaled by this factor before anything else.
    epochs, patches_per_epoch, batch_size : int
        200 epochs of 10,000 random patches; the paper does not state its batch size.
    learning_rate, weight_decay : float
        Of Adam.
    schedule : {"one-cycle", "constant"}
        "constant" as in the paper; "one-cycle" rises to `learning_rate` and falls again, over the whole training.
    warm_up : float
        Share of the training, from its start, in which the squared error over the patches' variance is minimised
        instead: it leads off the plateau of a constant output, on which SSIM alone can stay.
    gradient_clip : float
        Longer gradients are shortened to this norm; 0 leaves them.
    augment : {"none", "flips", "rotations"}
        See `ae.data.Patches`.
    held_out : float
        Share of the good images kept from the fit, for early stopping and the threshold.
    patience : int
        Epochs without a better loss on held-out patches after which training stops; 0 never stops.
    seed : int
        Of weights, patches and the choice of held-out images.
    stride : int
        Pixels from tile to tile when images are segmented.
    estimator : {"reconstruction", "residual"}
        Average the tiles' reconstructions and compare once, or average the tiles' residual maps.
    false_positive_rate : float
        Share of the pixels of held-out good images above the threshold.
    minimum_area : int
        Smaller regions of a mask, in pixels, are dropped.
    time_budget : float, optional
        Seconds after which training ends, the schedule cut to fit; results then depend on the machine.

    Raises
    ------
    ValueError
        If a value makes no sense: names it.
    """

    method: str = "ssim"
    latent: int = 100
    channels: int = 1
    scale: float = 1.0
    epochs: int = 200
    patches_per_epoch: int = 10_000
    batch_size: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    schedule: str = "constant"
    warm_up: float = 0.0
    gradient_clip: float = 1.0
    augment: str = "none"
    held_out: float = 0.1
    patience: int = 20
    seed: int = 0
    stride: int = 32
    estimator: str = "reconstruction"
    false_positive_rate: float = 0.01
    minimum_area: int = 16
    time_budget: float | None = None

    def __post_init__(self) -> None:
        choices: dict[str, tuple[object, ...]] = {
            "method": METHODS,
            "channels": (1, 3),
            "schedule": SCHEDULES,
            "augment": AUGMENTATIONS,
            "estimator": ESTIMATORS,
        }
        for name, options in choices.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, options))}")
        for names, fits, allowed in _BOUNDS:
            for name in names:
                if not fits(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)}; it must {allowed}")
        if self.stride > PATCH:
            raise ValueError(f"stride is {self.stride}; tiles of {PATCH} pixels would leave gaps")
        if self.batch_size > self.patches_per_epoch:
            raise ValueError(
                f"batch_size is {self.batch_size}, more than the {self.patches_per_epoch} patches of an epoch"
            )


def config_from(content: dict[str, Any]) -> TrainConfig:
    """Make a configuration from JSON.

    Raises
    ------
    ValueError
        If a name is unknown or a value makes no sense.
    """
    unknown = set(content) - {field.name for field in fields(TrainConfig)}
    if unknown:
        raise ValueError(f"the configuration has unknown names {json.dumps(sorted(unknown))}; remove them")
    return TrainConfig(**content)
