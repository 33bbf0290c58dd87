"""A run folder: everything a trained model needs, and nothing that is unpickled.

``config.json`` holds the configuration, the threshold and how it was found; ``model.safetensors`` the weights; ``logs``
the training's curves; ``checkpoints`` what a resumed training starts from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from ae.config import TrainConfig, config_from
from ae.files import atomic, first_line, read_json, write_json
from ae.methods import Method, make_method
from ae.scoring import Contrast, Level

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A trained model as it lies in its folder."""

    folder: Path
    config: TrainConfig
    method: Method  # with the trained network
    threshold: float
    training: dict[str, Any]  # seconds, epochs, patches, losses, data
    contrast: Contrast | None = None  # for `normalise` "contrast"
    level: Level | None = None  # for `normalise` "level"

    @property
    def good(self) -> Contrast | Level | None:
        """What of good images' residuals makes scores, if any."""
        return self.contrast or self.level


def kept(good: Contrast | Level | None) -> dict[str, Any]:
    """Return the fields of a `Run` that hold what of good images' residuals makes scores."""
    return {
        "contrast": good if isinstance(good, Contrast) else None,
        "level": good if isinstance(good, Level) else None,
    }


def save_run(run: Run) -> None:
    """Write a run to its folder; ``config.json`` comes last, so that a folder that has one is whole."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in run.method.model.state_dict().items()}
    with atomic(run.folder / "model.safetensors") as beside:
        beside.write_bytes(save(weights, metadata={"format": str(FORMAT)}))
    content = {
        "format": FORMAT,
        "config": asdict(run.config),
        "threshold": run.threshold,
        **{name: good and asdict(good) for name, good in kept(run.good).items()},
        "training": run.training,
    }
    write_json(run.folder / "config.json", content)


def load_run(folder: Path | str) -> Run:
    """Read a run folder.

    Parameters
    ----------
    folder : Path
        As `ae.training.train` wrote it.

    Raises
    ------
    ValueError
        If a file is missing or damaged: names it.

    Examples
    --------
    >>> load_run("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere is no folder; give one that `ae train` wrote
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one that `ae train` wrote")
    path = folder / "config.json"
    content = read_json(path)
    try:
        config, threshold, training, good = _parsed(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error}); train again or restore it") from None
    method = make_method(config).eval()
    weights = folder / "model.safetensors"
    try:
        method.model.load_state_dict(load(weights.read_bytes()))
    except FileNotFoundError:
        raise ValueError(f"{weights} is missing; train again or restore it") from None
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{weights} is damaged or of another model ({first_line(error)}); train again or restore it"
        ) from None
    return Run(folder, config, method, threshold, training, **kept(good))


def _parsed(content: Any) -> tuple[TrainConfig, float, dict[str, Any], Contrast | Level | None]:
    """Take configuration, threshold, training and what good images show out of a ``config.json``."""
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']}, this version reads {FORMAT}")
    threshold = float(content["threshold"])
    if not math.isfinite(threshold):
        raise ValueError(f"threshold is {threshold}")
    config = config_from(content["config"])
    kind = {"contrast": Contrast, "level": Level}.get(config.normalise)
    if kind is not None and content.get(config.normalise) is None:
        raise ValueError(f"{config.normalise} is missing")
    good = None if kind is None else kind(**content[config.normalise])
    return config, threshold, dict(content["training"]), good
