"""The images that every benchmark shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    """One size of input."""

    shape: tuple[int, int, int, int]  # (N, C, H, W)
    quick: bool = True  # also with --quick

    @property
    def name(self) -> str:
        """As people write it: 4x3x512x512."""
        return "x".join(map(str, self.shape))

    @property
    def pixels(self) -> int:
        """Pixels of all channels of all images."""
        n, c, h, w = self.shape
        return n * c * h * w


CASES = (
    Case((16, 1, 128, 128)),
    Case((1, 1, 1024, 1024)),
    Case((4, 3, 512, 512)),
    Case((1, 3, 2160, 3840), quick=False),
)


def images(case: Case, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw an image and a worse copy of it, float32 in [0, 1]: smooth structure, fine texture, then noise.

    Examples
    --------
    >>> x, y = images(CASES[0])
    >>> x.shape == y.shape == CASES[0].shape
    True
    """
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = case.shape
    coarse = torch.rand(n, c, h // 16 + 1, w // 16 + 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=False)
    x = (0.8 * smooth + 0.2 * torch.rand(case.shape, generator=generator)).clamp(0, 1)
    y = (x + 0.1 * torch.randn(case.shape, generator=generator)).clamp(0, 1)
    return x, y
