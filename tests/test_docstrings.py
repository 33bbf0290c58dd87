"""Every example in a docstring runs and gives what it says; every public name has one."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import re
from importlib import import_module

import pytest

PACKAGES = ("fastssim", "ae", "bench")
MODULES = [
    found.name
    for package in PACKAGES
    for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    if found.name.rpartition(".")[2] not in {"__main__", "test_speed"}  # programs, not modules
]


@pytest.mark.parametrize("name", [*PACKAGES, *MODULES])
def test_examples_run(name):
    assert doctest.testmod(import_module(name), verbose=False).failed == 0


@pytest.mark.parametrize("package", ["fastssim", "fastssim.tiles", "ae"])
def test_public_names_have_an_example(package):
    public = {name: getattr(import_module(package), name) for name in import_module(package).__all__}
    without = [
        name
        for name, value in public.items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and not re.search(r"Examples\n-+\n(>>>|.*::\n\n    )", inspect.getdoc(value) or "")
    ]
    assert without == []
