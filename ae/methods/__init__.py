"""The published methods, one a file: what a training minimises, and what shows a defect afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ae.methods.base import Method
from ae.methods.fm import FM
from ae.methods.l2 import L2
from ae.methods.ssim import SSIM
from ae.methods.vae import VAE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ae.config import TrainConfig

__all__ = ["FM", "L2", "SSIM", "VAE", "Method", "check_needs", "make_method"]

_KINDS: dict[str, type[Method]] = {kind.name: kind for kind in (SSIM, L2, VAE, FM)}


def make_method(config: TrainConfig) -> Method:
    """Make the method that a configuration names, with a new network.

    Examples
    --------
    >>> from ae.config import TrainConfig
    >>> make_method(TrainConfig(method="l2")).name
    'l2'
    """
    return _KINDS[config.method](config).float()  # images are float32, whatever torch's default is


def check_needs(configs: Iterable[TrainConfig]) -> None:
    """Read what the trainings need: what the last lacks is said before the first has trained for hours.

    Raises
    ------
    ValueError
        If one cannot be read.
    """
    for config in {(each.method, each.feature_weights): each for each in configs}.values():
        make_method(config).prepare()
