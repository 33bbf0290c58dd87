"""What the kernels' entries are called with: integers and floats in blocks of memory, and which parts are there.

A block is an array of 8-byte numbers in the order of its fields; a field of several numbers is an array in the kernel.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

_IMAGE = 6  # numbers of an image: address, kind, bytes from image to image, channel to channel, row to row, columns
#  what follows from a plan: where its arrays lie, their lengths, and its constants
PLAN = (
    ("rows", 1, "q"), ("row_count", 1, "q"), ("columns", 1, "q"), ("column_count", 1, "q"),
    ("pads", 6, "q"),  # rows, columns; the first padded row and column that tiles cover; a window's but one
    ("tiles", 1, "q"), ("tile_count", 1, "q"), ("planes", 1, "q"), ("channels", 1, "q"), ("pitch", 1, "q"),
    ("taps", 1, "q"), ("exact_taps", 1, "q"), ("uniform", 1, "q"),
    ("work_size", 1, "q"), ("room_size", 1, "q"), ("total_size", 1, "q"),
    ("constants", 4, "d"),  # C1, C2, u, factor of the exact taps
)  # fmt: skip
#  one call: images, then where results go, then what numbers are divided and multiplied by
CALL = (
    ("x", _IMAGE, "q"), ("y", _IMAGE, "q"), ("mask", _IMAGE, "q"), ("upstream", _IMAGE, "q"),
    ("sums", 1, "q"), ("ssim_map", 1, "q"),
    ("grad_x", 1, "q"), ("grad_y", 1, "q"), ("rim_x", 1, "q"), ("rim_y", 1, "q"),
    ("divisors", 2, "d"), ("scale", 1, "d"), ("l1", 1, "d"),
)  # fmt: skip
#  likewise of volumes
_VOLUME = 7  # numbers of a volume: those of an image, with bytes from plane to plane before those from row to row
VOLUME_PLAN = (
    ("planes", 1, "q"), ("plane_count", 1, "q"), ("rows", 1, "q"), ("row_count", 1, "q"), ("columns", 1, "q"),
    ("column_count", 1, "q"),
    ("places", 9, "q"),  # padding, the first padded places that bricks cover, a window's but one; each z, y, x
    ("bricks", 1, "q"), ("brick_count", 1, "q"), ("volumes", 1, "q"), ("channels", 1, "q"), ("windows", 1, "q"),
    ("taps", 1, "q"), ("sizes", 5, "q"), ("work_size", 1, "q"), ("total_size", 1, "q"),
    ("constants", 3, "d"),  # C1, C2, u
)  # fmt: skip
VOLUME_CALL = (
    ("x", _VOLUME, "q"), ("y", _VOLUME, "q"), ("upstream", _VOLUME, "q"),
    ("sums", 1, "q"), ("ssim_map", 1, "q"),
    ("grad_x", 1, "q"), ("grad_y", 1, "q"), ("outer_x", 1, "q"), ("outer_y", 1, "q"), ("rim_x", 1, "q"),
    ("rim_y", 1, "q"),
    ("divisors", 2, "d"), ("scale", 1, "d"),
)  # fmt: skip


def packer(fields: tuple[tuple[str, int, str], ...]) -> struct.Struct:
    """Return what packs a block's numbers into bytes."""
    return struct.Struct("".join(f"{count}{code}" for _, count, code in fields))


def layout(fields: tuple[tuple[str, int, str], ...]) -> np.dtype[np.void]:
    """Return a block as NumPy describes it."""
    kinds = {"q": np.int64, "d": np.float64}
    return np.dtype(
        [(name, kinds[code], (count,)) if count > 1 else (name, kinds[code]) for name, count, code in fields]
    )


class March(NamedTuple):
    """A kind of march: what is there and what is wanted; each has machine code of its own."""

    dtype: str  # of the arithmetic
    taps_y: int  # those that are given: of a mirrored window, up to the middle
    taps_x: int
    mirrored_y: bool
    mirrored_x: bool
    exact: bool  # filters in float64; taps_x only tells what buffers have room for
    mask: bool = False
    upstream: bool = False
    l1: bool = False
    ssim_map: bool = False
    grad_x: bool = False
    grad_y: bool = False

    @property
    def name(self) -> str:
        """A name for files."""
        parts = "".join("01"[there] for there in self[3:])
        return f"march-{self.dtype}-{self.taps_y}x{self.taps_x}-{parts}"

    @property
    def arguments(self) -> int:
        """How many its entry takes."""
        return 9


class VolumeMarch(NamedTuple):
    """A kind of march through volumes, as `March` through images."""

    dtype: str
    taps_z: int
    taps_y: int
    taps_x: int
    mirrored_z: bool
    mirrored_y: bool
    mirrored_x: bool
    upstream: bool = False
    ssim_map: bool = False
    grad_x: bool = False
    grad_y: bool = False

    @property
    def name(self) -> str:
        """A name for files."""
        parts = "".join("01"[there] for there in self[4:])
        return f"volume-{self.dtype}-{self.taps_z}x{self.taps_y}x{self.taps_x}-{parts}"

    @property
    def arguments(self) -> int:
        """How many its entry takes."""
        return 9


class Step(NamedTuple):
    """A step beside the march: "fold" padded pixels' gradients, "halve" images, "deliver" gradients over scales."""

    what: str
    dtype: str

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.what}-{self.dtype}"

    @property
    def arguments(self) -> int:
        """How many its entry takes."""
        return {"fold": 5, "halve": 14, "deliver": 10}[self.what]


Kind = March | VolumeMarch | Step
