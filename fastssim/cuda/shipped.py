"""The instances that users meet first: the tests compile them for all architectures, ``bench sass`` reads them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastssim.cuda import geometry, tile_launch, volume_geometry
from fastssim.cuda.geometry import Task
from fastssim.plan import Plan
from fastssim.window import Gaussian, Uniform

if TYPE_CHECKING:
    from fastssim.cuda.instances import Instance

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
_SHAPE = (8, 3, 1080, 1920)
_ELEVEN, _SEVEN, _LARGE = Gaussian().weights_y, Uniform(7).weights_y, Uniform(33).weights_y
_PLAN = Plan(_SHAPE, "float32", _ELEVEN, _ELEVEN, 1e-4, 9e-4)
_TASK = Task("float32", "float32")
_TASKS: dict[str, dict[str, Any]] = {
    "value": {},
    "map": {"ssim_map": True},
    "value and gradient": {"gradients": 1},
    "value and both gradients": {"gradients": 2},
    "gradient of a map": {"gradients": 1, "upstream": True},
    "both gradients of a map": {"gradients": 2, "upstream": True},
    "value and gradient, with L1": {"gradients": 1, "l1": True},
    "value, halving": {"halves": True},
    "value and gradient, halving": {"gradients": 1, "halves": True},
    "value and both gradients, halving": {"gradients": 2, "halves": True},
}


def instances() -> dict[str, Instance]:
    """Return the instances by a name that says what each computes: dtype, taps, what.

    Examples
    --------
    >>> instances()["float32, 11 taps, value and gradient"].kernel
    'march'
    """
    wide = replace(_PLAN, dtype="float64")
    seven = replace(_PLAN, taps_y=_SEVEN, taps_x=_SEVEN)
    large = replace(_PLAN, taps_y=_LARGE, taps_x=_LARGE)
    cases = {f"float32, 11 taps, {name}": (_PLAN, replace(_TASK, **options)) for name, options in _TASKS.items()}
    cases["float64, 11 taps, value"] = (wide, Task("float64", "float64"))
    cases["float64, 11 taps, value and gradient"] = (wide, Task("float64", "float64", gradients=1))
    cases["float64, 11 taps, gradient of a map"] = (wide, Task("float64", "float64", gradients=1, upstream=True))
    cases["float32, 7 taps, value and gradient"] = (seven, replace(_TASK, gradients=1))
    for dtype in ("float16", "bfloat16"):
        cases[f"{dtype}, 11 taps, value and gradient"] = (_PLAN, Task(dtype, dtype, gradients=1))
    fractions, masked = replace(_PLAN, fractions=True), replace(_PLAN, masked=True)
    for dtype in ("uint8", "uint16"):
        name = f"float32 against {dtype}, 11 taps, value and gradient"
        cases[name] = (fractions, Task("float32", dtype, gradients=1))
    for name, gradients in (("value", 0), ("value and gradient", 1), ("value and both gradients", 2)):
        cases[f"float32, 11 taps, masked: {name}"] = (masked, replace(_TASK, gradients=gradients, mask="bool"))
    found = {name: geometry.first(plan, task).instance for name, (plan, task) in cases.items()}
    both = replace(_TASK, gradients=2, upstream=True)
    found["float32, 33 equal taps: boxes"] = geometry.first(large, both).instance
    found["float32, 33 equal taps: boxes_back"] = geometry.boxes_back(large, both).instance
    found["float32, 11 taps, by the definition: windows"] = geometry.windows(_PLAN, both).instance
    found["float32, 11 taps, by the definition: pixels"] = geometry.pixels(_PLAN, both).instance
    found["float32, by the definition: halve"] = geometry.halve(_PLAN, both).instance
    found["float32, MS-SSIM's gradient: deliver"] = geometry.deliver(_SHAPE, "float32", 5, 1).instance
    for dtype in ("float32", "float64"):
        solid = replace(_PLAN, shape=(1, 1, 128, 256, 256), taps_z=_ELEVEN, dtype=dtype, padding="reflect")
        one, two = (Task(dtype, dtype, gradients=gradients) for gradients in (1, 2))
        for name, task, phase in (
            ("value", Task(dtype, dtype), volume_geometry.WINDOWS),
            ("windows for a gradient", one, volume_geometry.WINDOWS),
            ("gradient", one, volume_geometry.POSITIONS),
            ("both gradients", two, volume_geometry.POSITIONS),
            ("what padding repeats", one, volume_geometry.PIXELS),
        ):
            found[f"{dtype} volumes, 11 taps, {name}"] = volume_geometry.phase(solid, task, phase).instance
        found[f"{dtype} volumes, 11 taps, by the definition: windows"] = geometry.windows(solid, two).instance
        found[f"{dtype} volumes, 11 taps, by the definition: pixels"] = geometry.pixels(solid, two).instance
    against = replace(_PLAN, shape=(1, 1, 128, 256, 256), taps_z=_ELEVEN, fractions=True)
    made = volume_geometry.phase(against, Task("float32", "uint8"), volume_geometry.WINDOWS)
    found["float32 volumes against uint8, 11 taps, value"] = made.instance
    found["sums"] = geometry.reduce(1, 1, "float32").instance
    return found | _tiles()


def _tiles() -> dict[str, Instance]:
    """Return the kernels of tiles."""
    width, cut = _SHAPE[3], partial(tile_launch.scatter_instance, width=128)
    blend = partial(tile_launch.gather_instance, width=width)
    dtypes = ("float64", "float32", "float16", "bfloat16", "uint8")
    found = {f"tiles, {dtype}, mean": blend(dtype, "mean", full=False) for dtype in dtypes}
    found |= {f"tiles, float32, {name}": blend("float32", name, full=False) for name in ("max", "min", "mean_std")}
    found["tiles, uint8, mean_std, given window"] = blend("uint8", "mean_std", full=True)
    found["tiles, cut out, 4 bytes"] = cut("unsigned int", weighted=False, full=False)
    found["tiles, cut out, 16 bytes"] = cut("Vector<unsigned long long, 2>", weighted=False, full=False)
    found["tiles, float32, adjoint"] = cut("float", weighted=True, full=False)
    found["tiles, float32, adjoint, given window"] = cut("float", weighted=True, full=True)
    return found
