"""Autoencoders trained with a structural-similarity loss, and the defects they show.

Names are loaded when they are first used, so that ``import ae`` and ``ae --help`` are quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Autoencoder": "ae.models",
    "Segmenter": "ae.segmentation",
    "TrainConfig": "ae.config",
    "compare": "ae.comparison",
    "demo": "ae.demonstration",
    "evaluate": "ae.evaluation",
    "experiment": "ae.experiments",
    "export": "ae.exporting",
    "load_run": "ae.run",
    "recalibrate": "ae.calibration",
    "report": "ae.reporting",
    "segment": "ae.batch",
    "preset": "ae.config",
    "train": "ae.training",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ae' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
