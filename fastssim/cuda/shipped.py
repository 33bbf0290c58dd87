"""The instances that users meet first: the tests compile them for all architectures, ``bench sass`` reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastssim.cuda import geometry, volume_launch
from fastssim.cuda.geometry import Task
from fastssim.plan import Plan
from fastssim.window import Gaussian, Uniform

if TYPE_CHECKING:
    from fastssim.cuda.instances import Instance

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
_SHAPE = (8, 3, 1080, 1920)
_ELEVEN, _SEVEN = Gaussian().weights_y, Uniform(7).weights_y
_PLAN = Plan(_SHAPE, "float32", _ELEVEN, _ELEVEN, 1e-4, 9e-4)
_TASK = Task("float32", "float32")
_TASKS: dict[str, dict[str, Any]] = {
    "value": {},
    "map": {"ssim_map": True},
    "value and gradient": {"gradients": 1},
    "value and both gradients": {"gradients": 2},
    "gradient of a map": {"gradients": 1, "upstream": True},
    "both gradients of a map": {"gradients": 2, "upstream": True},
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
    cases = {f"float32, 11 taps, {name}": (_PLAN, replace(_TASK, **options)) for name, options in _TASKS.items()}
    cases["float64, 11 taps, value"] = (wide, Task("float64", "float64"))
    cases["float64, 11 taps, value and gradient"] = (wide, Task("float64", "float64", gradients=1))
    cases["float64, 11 taps, gradient of a map"] = (wide, Task("float64", "float64", gradients=1, upstream=True))
    cases["float32, 7 taps, value and gradient"] = (seven, replace(_TASK, gradients=1))
    for dtype in ("float16", "bfloat16"):
        cases[f"{dtype}, 11 taps, value and gradient"] = (_PLAN, Task(dtype, dtype, gradients=1))
    cases["float32 against uint8, 11 taps, value and gradient"] = (_PLAN, Task("float32", "uint8", gradients=1))
    found: dict[str, Instance] = {}
    for name, (plan, task) in cases.items():
        launch = geometry.march(plan, task)
        found[name] = (launch or geometry.windows(plan, task)).instance
    both = replace(_TASK, gradients=2, upstream=True)
    found["float32, 11 taps, by the definition: windows"] = geometry.windows(_PLAN, both).instance
    found["float32, 11 taps, by the definition: pixels"] = geometry.pixels(_PLAN, both).instance
    for dtype in ("float32", "float64"):
        solid = replace(_PLAN, shape=(1, 1, 128, 256, 256), taps_z=_ELEVEN, dtype=dtype, padding="reflect")
        one, two = (Task(dtype, dtype, gradients=gradients) for gradients in (1, 2))
        for name, task, phase in (
            ("value", Task(dtype, dtype), volume_launch.WINDOWS),
            ("windows for a gradient", one, volume_launch.WINDOWS),
            ("gradient", one, volume_launch.POSITIONS),
            ("both gradients", two, volume_launch.POSITIONS),
            ("what padding repeats", one, volume_launch.PIXELS),
        ):
            found[f"{dtype} volumes, 11 taps, {name}"] = volume_launch.phase(solid, task, phase).instance
    found["sums"] = geometry.reduce(1, 1, 1.0, "float32").instance
    return found
