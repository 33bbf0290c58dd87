"""The images that every benchmark shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    """One size of input."""

    shape: tuple[int, ...]  # (N, C, H, W), of volumes (N, C, D, H, W)
    quick: bool = True  # also with --quick
    gpu: bool = False  # on a GPU only
    checked: int | None = None  # images that are compared with the slow reference: the first so many, or all

    @property
    def name(self) -> str:
        """As people write it: 4x3x512x512."""
        return "x".join(map(str, self.shape))

    @property
    def pixels(self) -> int:
        """Pixels of all channels of all images."""
        return math.prod(self.shape)


CASES = (
    Case((16, 1, 128, 128)),
    Case((1, 1, 1024, 1024), quick=False),
    Case((4, 3, 512, 512)),
    Case((1, 3, 2160, 3840), quick=False),
    Case((8, 3, 1080, 1920), quick=False, gpu=True, checked=1),
)


def selected(*, quick: bool, smallest: int = 1, device: str = "cpu") -> list[Case]:
    """Return the cases of a run on a device, those with at least `smallest` pixels down and across."""
    return [
        case
        for case in CASES
        if (case.quick or not quick) and (device == "cuda" or not case.gpu) and min(case.shape[2:]) >= smallest
    ]


def images(case: Case, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw an image and a worse copy of it, float32 in [0, 1]: smooth structure, fine texture, then noise.

    Examples
    --------
    >>> x, y = images(CASES[0])
    >>> x.shape == y.shape == CASES[0].shape
    True
    """
    generator = torch.Generator().manual_seed(seed)
    planes, lengths = case.shape[:2], case.shape[2:]
    coarse = torch.rand(*planes, *(length // 16 + 1 for length in lengths), generator=generator)
    mode = "bicubic" if len(lengths) == 2 else "trilinear"
    smooth = torch.nn.functional.interpolate(coarse, size=lengths, mode=mode, align_corners=False)
    x = (0.8 * smooth + 0.2 * torch.rand(case.shape, generator=generator)).clamp(0, 1)
    y = (x + 0.1 * torch.randn(case.shape, generator=generator)).clamp(0, 1)
    return x, y


@dataclass(frozen=True)
class HardCase:
    """A pair of images on which float32 loses digits."""

    name: str
    x: torch.Tensor  # (1, 1, H, W), float32
    y: torch.Tensor
    data_range: float = 1.0


def hard_cases(size: int = 96) -> list[HardCase]:
    """Draw the hard pairs: bright and flat, 16 bits, dark, constant, checkerboard, edges.

    Examples
    --------
    >>> [case.name for case in hard_cases()]
    ['bright flat', '16 bits', 'dark', 'constant', 'checkerboard', 'edges']
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, size, size)
    noise = [torch.randn(shape, generator=generator) for _ in range(4)]
    x, y = images(Case(shape))
    wide = torch.arange(size) // 24
    squares = (wide[:, None] + wide).remainder(2).float().expand(shape).contiguous()
    odd = (torch.arange(size)[:, None] + torch.arange(size)).remainder(2).float().expand(shape).contiguous()
    return [
        HardCase("bright flat", 0.98 + 0.002 * noise[0], 0.98 + 0.002 * noise[1]),
        HardCase("16 bits", (x * 65535).round(), (y * 65535).round(), 65535.0),
        HardCase("dark", 0.002 * noise[2].abs(), 0.002 * noise[3].abs()),
        HardCase("constant", torch.full(shape, 0.5), torch.full(shape, 0.6)),
        HardCase("checkerboard", odd, 1 - 0.9 * odd),
        HardCase("edges", 0.1 + 0.8 * squares + 0.01 * noise[0], 0.1 + 0.8 * squares + 0.01 * noise[1]),
    ]
