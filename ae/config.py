"""The configuration of a training: every option, checked where it is made, and the presets."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATCH = 128  # pixels of a patch, down and across: what the paper's network takes
METHODS = ("ssim", "l2", "vae", "fm")
AUGMENTATIONS = ("none", "flips", "rotations")
ESTIMATORS = ("reconstruction", "residual")
SCHEDULES = ("constant", "one-cycle")
INITIALISATIONS = ("kaiming", "torch")
OUTPUTS = ("linear", "sigmoid")
PRECISIONS = ("float32", "bfloat16")
SSIM_WINDOWS = ("gaussian", "box")
CONSTANTS = ("squared", "literal")
BLENDINGS = ("gaussian", "uniform", "hann", "tent")
NORMALISATIONS = ("none", "contrast", "level", "median", "image")
THRESHOLD_RULES = ("rate", "region")
SMOOTHEST = 1000  # standard deviation of a blur: what is wider than that is a slip
SCALES = 4  # of a multi-scale loss or residual at most: 128, 64, 32 and 16 pixels
_KINDS: dict[str, tuple[Any, str]] = {  # how a field is declared: what it takes
    "int": (int, "an int"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number, or None"),
    "bool": (bool, "True or False"),
    "str": (str, "a str"),
    "str | None": ((str, type(None)), "a str, or None"),
}
_BOUNDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("latent", "epochs", "patches_per_epoch", "batch_size", "stride"), lambda v: v >= 1, "be at least 1"),
    (("patience", "minimum_area", "seed", "vae_samples", "least_epochs"), lambda v: v >= 0, "not be negative"),
    (
        ("weight_decay", "gradient_clip", "noise", "difference"),
        lambda v: v >= 0,
        "not be negative",
    ),
    (("opening",), lambda v: 0 <= v <= PATCH, f"lie between 0 and {PATCH} pixels"),
    (("smoothing",), lambda v: 0 <= v <= SMOOTHEST, f"lie between 0 and {SMOOTHEST} pixels"),
    (("seed",), lambda v: v < 1 << 32, "be below 2 ** 32"),
    (("scale", "learning_rate"), lambda v: v > 0, "be above 0"),
    (("time_budget",), lambda v: v is None or v > 0, "be above 0 seconds, or None"),
    (("warm_up", "held_out", "erased"), lambda v: 0 <= v < 1, "be at least 0 and below 1"),
    (("l1_share",), lambda v: 0 <= v <= 1, "lie between 0 and 1"),
    (("false_positive_rate",), lambda v: 0 < v < 1, "lie between 0 and 1, both excluded"),
    (("loss_scales", "residual_scales"), lambda v: 1 <= v <= SCALES, f"lie between 1 and {SCALES}"),
    (("window_size",), lambda v: v >= 3 and v % 2 == 1, "be odd and at least 3"),
)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained and applied; the paper's values where it states them.

    Parameters
    ----------
    method : {"ssim", "l2", "vae", "fm"}
        What is minimised, and what shows a defect: see `ae.methods`.
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
    schedule : {"constant", "one-cycle"}
        "constant" as in the paper; "one-cycle" rises to `learning_rate` and falls again, over the whole training.
    warm_up : float
        Share of the training, from its start, in which the squared error over the patches' variance is minimised
        instead: it leads off the plateau of a constant output, on which SSIM alone can stay.
    gradient_clip : float
        Longer gradients are shortened to this norm; 0 leaves them.
    initialisation : {"kaiming", "torch"}
        Of the weights: for the LeakyReLU's slope, or PyTorch's default, with which SSIM stays on its plateau for long.
    output : {"linear", "sigmoid"}
        Of the network; the paper does not say.
    ssim_window : {"gaussian", "box"}
        Of SSIM, in loss and residual; the paper speaks of a patch about a pixel, which is a box.
    window_size : int
        Pixels of that window, odd; 11 in the paper. A Gaussian's sigma is 1.5 at 11 pixels, in proportion at others.
    constants : {"squared", "literal"}
        c1 and c2 of SSIM: (0.01 L)^2 and (0.03 L)^2 as Wang et al. define them, or 0.01 and 0.03, as the paper reads.
    loss_scales : int
        1: SSIM; 2 to 4: multi-scale SSIM with the first of Wang's weights, made to sum to 1.
    l1_share : float
        Share of the mean absolute error in the SSIM loss.
    noise : float
        Standard deviation of noise added to what the network sees; it reconstructs the clean patch.
    erased : float
        Share of a patch's area that the network does not see: rectangles of the patch's mean; it fills them in.
    augment : {"none", "flips", "rotations"}
        See `ae.data.Patches`.
    held_out : float
        Share of the good images kept from the fit, for early stopping and the threshold. 0 fits all, as the paper
        does, and takes the threshold from the images that were fitted: rather low.
    patience : int
        Epochs without a better loss on held-out patches after which training stops; 0 never stops.
    precision : {"float32", "bfloat16"}
        Of the network's layers in training, by autocast: weights, losses and whatever follows the training are float32
        with both. bfloat16 is faster on GPUs and on CPUs with AVX-512 BF16 or AMX, and slower on others.
    seed : int
        Of weights, patches and the choice of held-out images.
    vae_samples : int
        "vae" averages the reconstructions of so many codes drawn about the encoded one, 6 in the paper; 0 decodes the
        encoded one alone.
    feature_weights : str, optional
        File with the weights of AlexNet, whose features "fm" compares in training; None: it compares those of
        EfficientNet-Lite0, whose weights the extra `fm` brings. See `ae.methods.features`.
    stride : int
        Pixels from tile to tile when images are segmented.
    estimator : {"reconstruction", "residual"}
        Average the tiles' reconstructions and compare once, or average the tiles' residual maps.
    blending : {"gaussian", "uniform", "hann", "tent"}
        Weights of a tile's pixels in that average.
    test_flips : bool
        Average over the tile and its three mirror images; for models trained with `augment`.
    residual_scales : int
        Average the residual over so many scales, each half as large as the one before.
    difference : float
        The residual is multiplied by this power of the local difference, which is that of the means of 5 x 5 pixels:
        SSIM hardly sees that a bright region is darker than it should be. 0: it is not.
    opening : int
        Morphological opening of the residual by a disc of this diameter in pixels, which is that of the mask at every
        threshold: drops what is thinner. 0: none.
    smoothing : float
        Standard deviation, in pixels, of a Gaussian that the residual is blurred with, after the opening: a pixel's
        score is what its surroundings say together. 0: none.
    normalise : {"none", "contrast", "level", "median", "image"}
        "contrast": residuals less their mean, over their spread, on good images where the local contrast is the same;
        "level": less what the image's own median is above good images', times the share of good residuals' variance
        that lies between images; "median": less the image's own median; "image": that over its own spread, too. See
        `ae.scoring`.
    threshold_rule : {"rate", "region"}
        "rate": a share `false_positive_rate` of good pixels lies above; "region": no region of good images above it is
        as large as `minimum_area`, as MVTec AD does.
    false_positive_rate : float
        Share of the pixels of held-out good images above the threshold.
    minimum_area : int
        Smaller regions of a mask, in pixels, are dropped.
    time_budget : float, optional
        Seconds after which training ends, the schedule cut to fit; results then depend on the machine.
    least_epochs : int
        Epochs before which no `time_budget` ends training, so that a slow or busy machine takes longer instead.

    Raises
    ------
    TypeError
        If a value is of another kind than its field.
    ValueError
        If a value makes no sense: names it.

    Examples
    --------
    >>> TrainConfig(method="l2", epochs=20).learning_rate
    0.0002
    >>> TrainConfig(epochs=0)
    Traceback (most recent call last):
    ValueError: epochs is 0; it must be at least 1
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
    initialisation: str = "kaiming"
    output: str = "linear"
    ssim_window: str = "gaussian"
    window_size: int = 11
    constants: str = "squared"
    loss_scales: int = 1
    l1_share: float = 0.0
    noise: float = 0.0
    erased: float = 0.0
    augment: str = "none"
    held_out: float = 0.1
    patience: int = 20
    precision: str = "float32"
    seed: int = 0
    vae_samples: int = 0
    feature_weights: str | None = None
    stride: int = 32
    estimator: str = "reconstruction"
    blending: str = "gaussian"
    test_flips: bool = False
    residual_scales: int = 1
    difference: float = 0.0
    opening: int = 0
    smoothing: float = 0.0
    normalise: str = "none"
    threshold_rule: str = "rate"
    false_positive_rate: float = 0.01
    minimum_area: int = 16
    time_budget: float | None = None
    least_epochs: int = 0

    def __post_init__(self) -> None:
        choices: dict[str, tuple[object, ...]] = {
            "method": METHODS,
            "channels": (1, 3),
            "schedule": SCHEDULES,
            "initialisation": INITIALISATIONS,
            "output": OUTPUTS,
            "precision": PRECISIONS,
            "ssim_window": SSIM_WINDOWS,
            "constants": CONSTANTS,
            "augment": AUGMENTATIONS,
            "estimator": ESTIMATORS,
            "blending": BLENDINGS,
            "normalise": NORMALISATIONS,
            "threshold_rule": THRESHOLD_RULES,
        }
        for field in fields(self):
            _check_kind(field.name, str(field.type), getattr(self, field.name))
        for name, options in choices.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, options))}")
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), float) and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value}; it must be finite")
        for names, fits, allowed in _BOUNDS:
            for name in names:
                if not fits(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)}; it must {allowed}")
        if self.stride > PATCH:
            raise ValueError(f"stride is {self.stride}; tiles of {PATCH} pixels would leave gaps; give at most {PATCH}")
        if self.batch_size > self.patches_per_epoch:
            raise ValueError(
                f"batch_size is {self.batch_size}, more than the {self.patches_per_epoch} patches of an epoch; give"
                " a smaller batch or more patches"
            )
        smallest = PATCH >> (max(self.loss_scales, self.residual_scales) - 1)
        if self.window_size > smallest:
            raise ValueError(
                f"window_size is {self.window_size}, more than the {smallest} pixels of a patch at the smallest scale;"
                " give a smaller window or fewer scales"
            )


def _check_kind(name: str, kind: str, value: Any) -> None:
    """Refuse a value of another kind than its field is declared as."""
    allowed, wanted = _KINDS[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(f"{name} is {value!r}; give {wanted}")


# What a preset changes about `TrainConfig`; what is given beside it counts more.
PRESETS: dict[str, dict[str, Any]] = {
    # Bergmann et al. (2019): what it states is in TrainConfig's defaults already; nanofibres want latent=500.
    "paper": {
        "gradient_clip": 0.0,
        "ssim_window": "box",  # "a K x K patch centred at" a pixel
        "held_out": 0.0,
        "patience": 0,
        "vae_samples": 6,
        "stride": 30,
        "estimator": "reconstruction",  # "averaged the reconstructed pixel values"
        "blending": "uniform",
        "opening": 4,
        "minimum_area": 0,
    },
    # Leaves the plateau of SSIM's loss at once; learns brightness, too, of which SSIM sees little; averages maps of
    # SSIM, of three scales, instead of reconstructions, weighs them by the difference of local means, and blurs them:
    # docs/results.md tells what each brings.
    "best": {
        "epochs": 50,
        "learning_rate": 1e-3,
        "schedule": "one-cycle",
        "patience": 0,
        "l1_share": 0.5,
        "estimator": "residual",
        "residual_scales": 3,
        "difference": 0.5,
        "smoothing": 6.0,
    },
}


def preset(name: str, **options: Any) -> TrainConfig:
    """Make the configuration of a preset, changed by `options`.

    Parameters
    ----------
    name : {"paper", "best"}
        "paper": the protocol of Bergmann et al. (2019); "best": a faster schedule, SSIM mixed with the mean
        absolute error, and the average of the tiles' residual maps of three scales, weighed by the difference of local
        means and blurred.
    **options
        Fields of `TrainConfig`.

    Raises
    ------
    ValueError
        If there is no preset of that name.
    TypeError, ValueError
        As `TrainConfig`.

    Examples
    --------
    >>> preset("paper", latent=500).stride
    30
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; give one of {', '.join(map(repr, PRESETS))}")
    return replace(TrainConfig(), **PRESETS[name] | options)


def config_from(content: dict[str, Any]) -> TrainConfig:
    """Make a configuration from JSON.

    Raises
    ------
    ValueError
        If a name is unknown.
    TypeError, ValueError
        As `TrainConfig`.
    """
    unknown = set(content) - {field.name for field in fields(TrainConfig)}
    if unknown:
        raise ValueError(f"the configuration has unknown names {json.dumps(sorted(unknown))}; remove them")
    return TrainConfig(**content)
