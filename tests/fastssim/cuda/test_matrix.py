"""Every instance that ships compiles for every architecture, within its budget, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.sass import compile_instance
from fastssim.cuda import geometry
from fastssim.cuda.shipped import ARCHITECTURES, instances

pytest.importorskip("cuda.bindings.nvrtc", reason="no NVRTC: pip install cuda-bindings nvidia-cuda-nvrtc")

BUDGETS = json.loads((Path(__file__).parent / "budgets.json").read_text(encoding="utf-8"))


def test_every_instance_has_a_budget():
    assert {name for name in BUDGETS if name != "why"} == set(instances())


@pytest.mark.parametrize("name", instances())
def test_compiles_within_its_budget_and_without_spilling(name):

    registers, shared = BUDGETS[name]
    for architecture in ARCHITECTURES:
        compiled = compile_instance(instances()[name], architecture)
        assert compiled.spilled == 0, architecture
        assert compiled.registers <= registers, architecture
        assert compiled.shared <= shared, architecture
        if instances()[name].kernel == "march":
            assert compiled.shared <= geometry._shared_bytes(instances()[name])
