"""The convolutional autoencoder of Bergmann et al. (2019), Table 1, and its variational form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

SLOPE = 0.2  # of the LeakyReLU after every layer but the code and the output
#  out channels, kernel, stride, padding; 128 x 128 becomes 8 x 8
ENCODER = (
    (32, 4, 2, 1),
    (32, 4, 2, 1),
    (32, 3, 1, 1),
    (64, 4, 2, 1),
    (64, 3, 1, 1),
    (128, 4, 2, 1),
    (64, 3, 1, 1),
    (32, 3, 1, 1),
)


class Autoencoder(nn.Module):
    """Encode a patch of 128 x 128 pixels in `latent` numbers and decode it; the decoder mirrors the encoder.

    Parameters
    ----------
    channels : int
        1 for grey patches, 3 for colour.
    latent : int
        Numbers in the code: 100 for woven textures, 500 for nanofibres in the paper.
    output : {"linear", "sigmoid"}
        What the last layer's values pass through.
    initialisation : {"kaiming", "torch"}
        Kaiming's normal initialisation for the LeakyReLU's slope, or PyTorch's default, which leaves an SSIM loss on
        the plateau of a constant output for a very long time.

    Examples
    --------
    >>> model = Autoencoder(channels=1, latent=100)
    >>> model(torch.zeros(2, 1, 128, 128)).shape
    torch.Size([2, 1, 128, 128])
    >>> sum(parameter.numel() for parameter in model.parameters())
    1048549
    """

    per_latent = 1  # numbers that the encoder gives for each of the code

    def __init__(
        self, channels: int = 1, latent: int = 100, *, output: str = "linear", initialisation: str = "kaiming"
    ) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        before = channels
        for out, kernel, stride, padding in ENCODER:
            encoder += [nn.Conv2d(before, out, kernel, stride, padding), nn.LeakyReLU(SLOPE)]
            before = out
        encoder.append(nn.Conv2d(before, self.per_latent * latent, 8))
        decoder: list[nn.Module] = [nn.ConvTranspose2d(latent, before, 8), nn.LeakyReLU(SLOPE)]
        widths = [channels, *(out for out, *_ in ENCODER)]
        for (into, kernel, stride, padding), out in zip(reversed(ENCODER), reversed(widths[:-1]), strict=True):
            kind = nn.ConvTranspose2d if stride == 2 else nn.Conv2d
            decoder += [kind(into, out, kernel, stride, padding), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder[:-1], *([nn.Sigmoid()] if output == "sigmoid" else []))
        if initialisation == "kaiming":
            for layer in self.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    _kaiming(layer)

    def forward(self, patches: Tensor) -> Tensor:  # (N, C, 128, 128)
        """Reconstruct patches, (N, C, 128, 128)."""
        reconstruction: Tensor = self.decoder(self.encoder(patches))
        return reconstruction


class VariationalAutoencoder(Autoencoder):
    """The same network, whose encoder gives mean and log variance of every number of the code.

    Examples
    --------
    >>> model = VariationalAutoencoder(latent=10)
    >>> mean, log_variance = model.encode(torch.zeros(2, 1, 128, 128))
    >>> mean.shape, model.decoder(mean).shape
    (torch.Size([2, 10, 1, 1]), torch.Size([2, 1, 128, 128]))
    """

    per_latent = 2

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, 128, 128) to (N, latent, 1, 1), twice
        """Return mean and log variance of the code."""
        mean, log_variance = self.encoder(patches).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, patches: Tensor) -> Tensor:
        """Reconstruct patches from the mean of their codes."""
        reconstruction: Tensor = self.decoder(self.encode(patches)[0])
        return reconstruction


def draw(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw codes from N(mean, exp(log_variance))."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise


def _kaiming(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights so that a layer keeps its input's variance through a LeakyReLU.

    A transposed convolution of stride s meets each output with kernel^2 / s^2 of its taps.
    """
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):
        inputs = layer.in_channels * (taps / (layer.stride[0] * layer.stride[1]) if layer.stride[0] > 1 else 1)
    else:
        inputs = layer.in_channels * taps
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)
    nn.init.normal_(layer.weight, std=gain / inputs**0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
