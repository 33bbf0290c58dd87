"""The variational autoencoder, a baseline of Bergmann et al. (2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from ae.methods.l2 import L2
from ae.models import VariationalAutoencoder, draw

if TYPE_CHECKING:
    from torch import Tensor


class VAE(L2):
    """Squared error plus the divergence of the codes from N(0, I), both per pixel; the residual is that of l2.

    In training a code is drawn, z ~ N(mu, sigma^2) with mu and sigma from the encoder:

        loss = ( sum (x - x_hat)^2 + KL ) / pixels,    KL = sum (mu^2 + sigma^2 - 1 - log sigma^2) / 2

    Afterwards a tile is reconstructed from mu, or as the mean over `config.vae_samples` codes, whose noise is the same
    in every call.

    Examples
    --------
    >>> from ae.config import TrainConfig
    >>> method = VAE(TrainConfig(method="vae", latent=4)).eval()
    >>> method.reconstruct(torch.zeros(2, 1, 128, 128)).shape
    torch.Size([2, 1, 128, 128])
    """

    name = "vae"
    network = VariationalAutoencoder

    def loss(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        """Squared error plus divergence, over the number of pixels."""
        mean, log_variance = self._encode(batch if seen is None else seen)
        code = draw(mean, log_variance) if self.training else mean
        reconstruction = self._decode(code)
        return self.distance(batch, reconstruction) + divergence(mean, log_variance) / batch[0].numel()

    def reconstruct(self, tiles: Tensor) -> Tensor:
        """Reconstruct tiles, (N, C, 128, 128)."""
        if self.training or not self.config.vae_samples:
            return super().reconstruct(tiles)
        mean, log_variance = self._encode(tiles)
        generator = torch.Generator(mean.device).manual_seed(self.config.seed)
        codes = [draw(mean, log_variance, generator) for _ in range(self.config.vae_samples)]
        return torch.stack([self._decode(code) for code in codes]).mean(0)

    def _encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        patches = patches.contiguous(memory_format=torch.channels_last)
        mean, log_variance = cast(VariationalAutoencoder, self.model).encode(patches)
        return mean.float(), log_variance.float()  # an autocast ends with the network

    def _decode(self, code: Tensor) -> Tensor:
        reconstruction: Tensor = self.model.decoder(code)
        return reconstruction.float().contiguous()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)), summed over the code, mean over the batch.

    Examples
    --------
    >>> divergence(torch.zeros(3, 5), torch.zeros(3, 5)).item()
    0.0
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean() / 2
