"""What is timed: every task makes, of a peer and images, a function that does the work once.

A suite names a task as ``module:function``, so that it can be done in another process too. It is called with the peer,
the images by name as tensors, and options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ae.models import Autoencoder

if TYPE_CHECKING:
    from bench.peers import Peer

Call = Callable[[], Any]
BLOBS = 1000  # Gaussians of the fit


def forward(peer: Peer, x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0, window: int = 11) -> Call:
    """Mean SSIM alone, as an evaluation calls it."""
    score, first, second = peer.score(), peer.prepare(x, data_range), peer.prepare(y, data_range)

    def call() -> Any:
        with torch.no_grad():
            return score(first, second, data_range, window)

    return call


def gradient(peer: Peer, x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0, window: int = 11) -> Call:
    """Mean SSIM and its gradient by x, as a training step calls it."""
    score = peer.score()
    x = x.detach().requires_grad_()

    def call() -> torch.Tensor | None:
        score(x, y, data_range, window).backward()
        found, x.grad = x.grad, None  # not kept: the next call's memory is measured
        return found

    return call


def train_step(peer: Peer, x: torch.Tensor) -> Call:
    """One step of Adam for the autoencoder of the paper, on one batch of patches.

    A sigmoid keeps what it draws in [0, 1]: piq and piqa refuse other values.
    """
    score = peer.score()
    torch.manual_seed(0)
    model = Autoencoder(x.shape[1]).to(device=x.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-4)
    batch = x.contiguous(memory_format=torch.channels_last)

    def call() -> float:
        optimiser.zero_grad()
        loss = 1 - score(torch.sigmoid(model(batch)).contiguous(), x, 1.0, 11)
        loss.backward()
        optimiser.step()
        return float(loss.item())

    return call


def fit_step(peer: Peer, x: torch.Tensor) -> Call:
    """One step of a fit as in 3D Gaussian splatting: coloured blobs, loss 0.8 L1 + 0.2 (1 - SSIM), Adam.

    The blobs are added, not sorted and composited, so that drawing them is two matrix products and the loss is what
    takes the time; what they draw is cut off at 1, since piq and piqa refuse other values.
    """
    score = peer.score()
    channels, height, width = x.shape[1:]
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(BLOBS, 2, generator=generator).to(x.device).requires_grad_()
    scales = torch.full((BLOBS, 2), -3.5, device=x.device).requires_grad_()
    colours = (0.05 * torch.rand(channels, BLOBS, generator=generator)).to(x.device).requires_grad_()
    optimiser = torch.optim.Adam([centres, scales, colours], lr=1e-2)
    places = [torch.linspace(0, 1, length, device=x.device) for length in (height, width)]

    def call() -> float:
        optimiser.zero_grad()
        down, across = (
            torch.exp(-0.5 * ((places[axis] - centres[:, axis, None]) / scales[:, axis, None].exp()) ** 2)
            for axis in (0, 1)
        )
        drawn = torch.stack([(colour[:, None] * down).T @ across for colour in colours])[None].clamp(0, 1)
        loss = 0.8 * nn.functional.l1_loss(drawn, x) + 0.2 * (1 - score(drawn, x, 1.0, 11))
        loss.backward()
        optimiser.step()
        return float(loss.item())

    return call
