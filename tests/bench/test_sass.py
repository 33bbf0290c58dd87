"""The static cost model: the machine code keeps to what the design promises."""

from __future__ import annotations

import pytest

from bench import sass
from fastssim.cuda.shipped import instances

pytest.importorskip("cuda.bindings.nvrtc", reason="no NVRTC: pip install cuda-bindings nvidia-cuda-nvrtc")
pytest.importorskip("cuda.pathfinder", reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")


def counted(name):
    instance = instances()[name]
    compiled = sass.compile_instance(instance, "sm_90")
    return instance, sass.cost(instance, compiled), compiled


def test_the_value_keeps_to_its_budget():
    instance, cost, _ = counted("float32, 11 taps, value")
    assert 88 <= cost.arithmetic <= 150  # 88: the multiply-adds of four maps, 11 taps, two ways
    assert cost.words <= 20
    assert sass.moved(instance) == 8


def test_value_and_gradient_keep_to_their_budget():
    instance, cost, compiled = counted("float32, 11 taps, value and gradient")
    assert 154 <= cost.arithmetic <= cost.arithmetic + cost.moving_arithmetic <= 260
    assert cost.words <= 45
    assert sass.moved(instance) == 12
    bounds = sass.bounds(instance, cost, sass.GPUS[0])
    assert bounds["issue"][0] <= 11  # ps/px·ch on an H100
    assert bounds["shared"][1] < bounds["issue"][0]
    assert sass.warps(instance, compiled, sass.GPUS[0]) >= 8


def test_the_code_that_moves_pivots_is_told_from_the_rest():
    blocks = sass.march_loop(*sass.disassemble(counted("float32, 11 taps, value")[2].cubin))
    kinds = [kind for _, kind in blocks]
    assert kinds.count("move") == 1
    assert kinds.count("look") == 1


def test_words_of_shared_memory():
    assert [sass._words(name) for name in ("LDS", "LDS.64", "STS.128", "LDS.U.128", "SHFL.BFLY", "LDG.E.128")] == [
        1,
        2,
        4,
        4,
        1,
        0,
    ]
