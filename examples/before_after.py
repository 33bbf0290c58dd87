"""Run a program with one library, then with the drop-in module, and say how long each took."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def compare(program: Callable[[Any], float], before: str, after: str) -> None:
    """Call ``program(module)`` with the module named ``before`` and the one named ``after``; it returns a result.

    Each runs twice and the second run is timed, so that neither is charged with what it loads or compiles first.
    """
    seconds = {}
    for name in (before, after):
        try:
            module = import_module(name)
        except ImportError as error:
            print(f"{name}: not measured, {error}")
            continue
        program(module)
        start = time.perf_counter()
        result = program(module)
        seconds[name] = time.perf_counter() - start
        print(f"{name}: result {result:.5f} in {seconds[name]:.3f} s")
    if len(seconds) == 2:
        print(f"speed-up: {seconds[before] / seconds[after]:.1f}")
