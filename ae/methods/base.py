"""What every method is: a network, a loss, a residual."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from ae.models import Autoencoder

if TYPE_CHECKING:
    from torch import Tensor

    from ae.config import TrainConfig


class Method(nn.Module):
    """A network, the loss that trains it, and the residual that shows defects.

    Parameters
    ----------
    config : TrainConfig
        The network's size and start, and the method's own options.
    """

    name: ClassVar[str]
    network: ClassVar[type[Autoencoder]] = Autoencoder

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        model = self.network(config.channels, config.latent, output=config.output, initialisation=config.initialisation)
        self.model: Autoencoder = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self) -> None:
        """Read what only a training needs; raises ValueError where that cannot be read."""

    def reconstruct(self, tiles: Tensor) -> Tensor:
        """Reconstruct tiles, (N, C, 128, 128)."""
        reconstruction: Tensor = self.model(tiles.contiguous(memory_format=torch.channels_last))
        return reconstruction.float().contiguous()  # an autocast ends with the network

    def loss(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the scalar to minimise for patches (N, C, 128, 128).

        `seen`: what the network is shown in their place, see `ae.corruption`.
        """
        return self.distance(batch, self.reconstruct(batch if seen is None else seen))

    @abstractmethod
    def distance(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """Return how far patches are from their reconstructions, one number."""

    @abstractmethod
    def residual(self, tiles: Tensor, reconstruction: Tensor) -> Tensor:
        """Return how far each pixel is from its reconstruction, (N, C, H, W) to (N, 1, H, W); larger is worse."""
