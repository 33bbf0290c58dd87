"""Train a small network to remove noise with a loss from pytorch-msssim, then with the drop-in module.

The line that changes:

    from pytorch_msssim import ssim
    from fastssim.compat.pytorch_msssim import ssim
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from before_after import compare
from torch import nn


def pictures(count: int, size: int) -> torch.Tensor:
    """Draw smooth colour pictures in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=generator)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def train(library: Any, steps: int, size: int) -> float:
    """Return the SSIM that the network reaches."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    clean = pictures(2, size)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimiser.zero_grad()
        restored = noisy + network(noisy)
        loss = 1 - library.ssim(restored, clean, data_range=1.0)
        loss.backward()
        optimiser.step()
    return 1 - float(loss.detach())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256, help="pixels of a picture's side")
    given = parser.parse_args()
    compare(lambda library: train(library, given.steps, given.size), "pytorch_msssim", "fastssim.compat.pytorch_msssim")
