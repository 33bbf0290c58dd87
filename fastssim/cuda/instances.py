"""One instance of a kernel: its text with its options written in front, and the structure that it takes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FOLDER = Path(__file__).parent
_COMMON = ("common.cuh", "formula.cuh")
_BOXES = ("boxes", "boxes_back")
TYPES = {  # of memory; float64 is computed in float64, all others in float32
    "float64": "double",
    "float32": "float",
    "float16": "Half",
    "bfloat16": "BFloat",
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
}


@dataclass(frozen=True)
class Instance:
    """A kernel and its compile-time options.

    Options are C++ constants: an int or bool stands for itself, a string is the name of a type or an enumerator.
    """

    kernel: str  # the name of the function and of its file
    options: tuple[tuple[str, int | str], ...]

    def __getitem__(self, name: str) -> Any:
        """Value of an option."""
        return dict(self.options)[name]

    @property
    def name(self) -> str:
        """A short name for tables and messages."""
        return " ".join([self.kernel, *(f"{key}={value}" for key, value in self.options)])

    @cached_property
    def text(self) -> str:
        """The whole CUDA text; it includes nothing."""
        parts = [_text(name) for name in _COMMON]
        parts.append("".join(_definition(key, value) for key, value in self.options))
        if self.kernel in _BOXES:
            parts.append(_text("box.cuh"))
        return "".join([*parts, _text(f"{self.kernel}.cu")])

    @cached_property
    def argument(self) -> np.dtype[Any]:
        """The structure `Problem` of the kernel, laid out as in C."""
        return np.dtype(_ARGUMENTS[self.kernel](self), align=True)

    @cached_property
    def places(self) -> dict[str, tuple[struct.Struct, int]]:
        """How to write each number of the structure, and where."""
        fields: Mapping[str, Any] = self.argument.fields or {}
        return {name: (struct.Struct(kind.char), place[0]) for name, (kind, *place) in fields.items() if not kind.shape}


def instance(kernel: str, **options: int | str) -> Instance:
    """Make an instance; equal options give equal instances."""
    return Instance(kernel, tuple(options.items()))


@cache
def _text(name: str) -> str:
    """Text of one file, with its name for the compiler's messages."""
    return f'#line 1 "fastssim/cuda/{name}"\n' + (_FOLDER / name).read_text(encoding="utf-8")


def _definition(key: str, value: int | str) -> str:
    """Write an option as C++."""
    if key in ("T", "X", "Y", "W", "OUT"):
        return f"using {key} = {value};\n"
    if isinstance(value, bool):
        return f"constexpr bool {key} = {'true' if value else 'false'};\n"
    return f"constexpr int {key} = {value};\n"


def _pointers(*names: str) -> list[tuple[Any, ...]]:
    return [(name, np.uintp) for name in names]


def _integers(*names: str) -> list[tuple[Any, ...]]:
    return [(name, np.int32) for name in names]


def _steps(*images: str, plane: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """Fields: steps between images and channels (and planes) in elements, between rows and columns in bytes."""
    wide = [(f"{step}_{image}", np.int64) for step in ("image", "channel", *plane) for image in images]
    return [*wide, *_integers(*(f"{step}_{image}" for step in ("row", "column") for image in images))]


def _taps(of: Instance, axes: str = "yx") -> list[tuple[Any, ...]]:
    return [(f"taps_{axis}", _numpy(of["T"]), (of[f"TAPS_{axis.upper()}"],)) for axis in axes]


def _constants(number: str) -> list[tuple[Any, ...]]:
    return [(name, number) for name in ("c1", "c2", "spread", "twice_spread")]


def _march(of: Instance) -> list[tuple[Any, ...]]:
    number = _numpy(of["T"])
    return [
        *_pointers("x", "y", "mask", "upstream", "ssim_map", "grad_x", "grad_y", "sums", "counted", "distances"),
        *_pointers("half_x", "half_y"),
        *_steps("x", "y", "mask", "upstream"),
        *_integers("channels", "height", "width", "windows_y", "windows_x"),
        *_integers("first_y", "rows", "first_x", "columns", "segments", "strips"),
        *_constants(number),
        ("scale", number),
        ("l1", number),
        *_taps(of),
    ]


def _windows(of: Instance) -> list[tuple[Any, ...]]:
    number = _numpy(of["T"])
    return [
        *_pointers("x", "y", "mask", "upstream", "ssim_map", "maps", "sums", "counted", "distances"),
        *_steps("x", "y", "mask", "upstream", plane=("plane",)),
        ("windows", np.int64),
        *_integers("channels", "depth", "height", "width", "windows_z", "windows_y", "windows_x", "parts"),
        *_constants(number),
        *_taps(of, "zyx"),
    ]


def _pixels(of: Instance) -> list[tuple[Any, ...]]:
    return [
        *_pointers("x", "y", "mask", "maps", "grad_x", "grad_y"),
        *_steps("x", "y", "mask", plane=("plane",)),
        ("windows", np.int64),
        *_integers("channels", "depth", "height", "width", "windows_z", "windows_y", "windows_x", "parts"),
        ("scale", _numpy(of["T"])),
        ("l1", _numpy(of["T"])),
        *_taps(of, "zyx"),
    ]


def _boxes(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # the same for every instance
    return [
        *_pointers("x", "y", "upstream", "ssim_map", "maps", "sums"),
        *_steps("x", "y", "upstream"),
        ("windows", np.int64),
        *_integers("channels", "height", "width", "windows_y", "windows_x", "segments", "strips"),
        *_constants("float64"),
    ]


def _boxes_back(of: Instance) -> list[tuple[Any, ...]]:
    return [
        *_pointers("x", "y", "maps", "grad_x", "grad_y"),
        *_steps("x", "y"),
        ("windows", np.int64),
        *_integers("channels", "height", "width", "windows_y", "windows_x", "segments", "strips"),
        ("scale", _numpy(of["T"])),
    ]


def _halve(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # the same for every instance
    return [
        *_pointers("x", "y", "half_x", "half_y"),
        *_steps("x", "y"),
        *_integers("channels", "height", "width", "parts"),
    ]


def _deliver(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # as above
    return [
        *_pointers("gradient", "coarser", "upstream"),
        *((name, np.int64) for name in ("planes", "end")),
        *_integers("scales", "height", "width", "parts"),
    ]


def _volume(of: Instance) -> list[tuple[Any, ...]]:
    number = _numpy(of["T"])
    return [
        *_pointers("x", "y", "upstream", "ssim_map", "maps", "grad_x", "grad_y", "folded", "sums"),
        *_steps("x", "y", "upstream", plane=("plane",)),
        ("windows", np.int64),
        ("positions", np.int64),
        *_integers("channels", "depth", "height", "width"),
        *_integers(*(f"{name}_{axis}" for name in ("windows", "first", "covered") for axis in "zyx")),
        *_integers("segments", "tiles_y", "tiles_x", "parts"),
        *_constants(number),
        ("scale", number),
        *_taps(of, "zyx"),
    ]


def _reduce(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # the same for every instance
    numbers = [(name, np.float64) for name in ("windows", "offset", "scale", "l1")]
    return [*_pointers("sums", "counted", "distances", "out", "counts"), ("parts", np.int64), *numbers]


def _axes(*names: str) -> list[tuple[Any, ...]]:
    return _integers(*(f"{name}_{axis}" for name in names for axis in "yx"))


def _tiles_gather(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # the same for every instance
    sums = ("band_in", "band_out", "carry_in", "carry_out")
    return [
        *_pointers("tiles", "out", "deviation", "weights_y", "weights_x", "kinds_y", "kinds_x", "window", *sums),
        *((f"{name}_plane", np.int64) for name in sums),
        *_integers("channels", "height", "width", "tile_height", "tile_width"),
        *_axes("stride", "last", "tiles"),
        *_integers("i0", "i1", "j0", "j1", "y0", "x0", "out_rows", "strips"),
        *_integers("band_in_row", "band_out_row", "band_pitch"),
        *_integers("carry_row", "carry_in_column", "carry_out_column", "carry_in_pitch", "carry_out_pitch"),
    ]


def _tiles_scatter(of: Instance) -> list[tuple[Any, ...]]:  # noqa: ARG001  # as above
    return [
        *_pointers("image", "tiles", "weights_y", "weights_x", "kinds_y", "kinds_x", "window"),
        *((f"step_{axis}", np.int64) for axis in "ncyx"),
        *_integers("channels", "tile_height", "tile_width"),
        *_axes("stride", "last"),
        *_integers("tiles_x", "first", "count", "strips"),
    ]


def _numpy(number: str) -> str:
    return {"float": "float32", "double": "float64"}[number]


_ARGUMENTS: dict[str, Callable[[Instance], list[tuple[Any, ...]]]] = {
    "march": _march,
    "windows": _windows,
    "pixels": _pixels,
    "boxes": _boxes,
    "boxes_back": _boxes_back,
    "halve": _halve,
    "deliver": _deliver,
    "volume": _volume,
    "reduce": _reduce,
    "tiles_gather": _tiles_gather,
    "tiles_scatter": _tiles_scatter,
}
