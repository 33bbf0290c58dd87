"""The published methods: what a training minimises, and what shows a defect afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ae.config import METHODS
from ae.methods.l2 import L2
from ae.methods.ssim import SSIM

if TYPE_CHECKING:
    from torch import Tensor


class Method(Protocol):
    """One way to train an autoencoder and to compare an image with its reconstruction."""

    name: str

    def loss(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """Return the scalar to minimise for patches (N, C, H, W)."""

    def residual(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """Return how far each pixel is from its reconstruction, (N, C, H, W) to (N, 1, H, W); larger is worse."""


_KINDS: dict[str, type[Method]] = {"ssim": SSIM, "l2": L2}


def get_method(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> get_method("ssim").name
    'ssim'
    """
    if name not in _KINDS:
        raise ValueError(f"method is {name!r}; give one of {', '.join(map(repr, METHODS))}")
    return _KINDS[name]()
