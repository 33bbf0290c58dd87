"""Fit coloured Gaussians to a picture with the loss of 3D Gaussian splatting, L1 and SSIM.

The line that changes:

    from fused_ssim import fused_ssim
    from fastssim.compat.fused_ssim import fused_ssim

fused-ssim needs an NVIDIA GPU; where it is not there, `convolutions.py` beside this file stands for it, the same SSIM
by convolutions as the trainers had it before.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

import torch
from before_after import compare


def fit(library: Any, steps: int, size: int, device: str = "cpu", blobs: int = 200) -> float:
    """Return the loss that the fit reaches."""
    generator = torch.Generator().manual_seed(0)
    places = torch.linspace(0, 1, size, device=device)
    target = torch.stack(
        [0.5 + 0.4 * torch.outer(torch.sin(9 * places + c), torch.cos(7 * places - c)) for c in range(3)]
    )[None]
    centres = torch.rand(blobs, 2, generator=generator).to(device).requires_grad_()
    scales = torch.full((blobs, 2), -3.0, device=device).requires_grad_()
    colours = (0.2 * torch.rand(3, blobs, generator=generator)).to(device).requires_grad_()
    optimiser = torch.optim.Adam([centres, scales, colours], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        down, across = (
            torch.exp(-0.5 * ((places - centres[:, axis, None]) / scales[:, axis, None].exp()) ** 2) for axis in (0, 1)
        )
        drawn = torch.stack([(colour[:, None] * down).T @ across for colour in colours])[None]
        loss = 0.8 * (drawn - target).abs().mean() + 0.2 * (1 - library.fused_ssim(drawn, target))
        loss.backward()
        optimiser.step()
    return float(loss.detach())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256, help="pixels of the picture's side")
    given = parser.parse_args()
    before = "fused_ssim" if torch.cuda.is_available() and find_spec("fused_ssim") else "convolutions"
    device = "cuda" if before == "fused_ssim" else "cpu"  # the same for both
    compare(lambda library: fit(library, given.steps, given.size, device), before, "fastssim.compat.fused_ssim")
