"""The static cost model: the machine code keeps to what the design promises."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench import sass, sass_peers
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
    assert 154 <= cost.arithmetic <= 260
    assert cost.words <= 45
    assert sass.moved(instance) == 12
    bounds = sass.bounds(instance, cost, sass.GPUS[0])
    assert bounds["issue"] <= 11  # ps/px·ch on an H100
    assert bounds["shared"] < bounds["issue"]
    assert sass.warps(instance["THREADS"], compiled, sass.GPUS[0]) >= 8


@pytest.mark.parametrize(
    ("name", "moved"), [("value", 10), ("value and gradient", 14), ("value and both gradients", 18)]
)
def test_halving_moves_a_quarter_of_both_images_more_and_costs_little(name, moved):
    _, plain, _ = counted(f"float32, 11 taps, {name}")
    instance, cost, _ = counted(f"float32, 11 taps, {name}, halving")
    assert sass.moved(instance) == moved
    assert cost.words <= plain.words + 2.5
    assert cost.arithmetic <= plain.arithmetic + 6


def test_a_step_of_ms_ssim_moves_28_bytes():
    assert sass.ms_ssim_moved(scales=1) == 12 + 8
    assert sass.ms_ssim_moved() == pytest.approx(28, abs=0.05)


def test_each_case_of_a_rows_number_has_an_equal_share():
    code = ["ISETP", "BRA", "FADD", "BRA", "FMUL", "FMUL", "BRA", "FFMA", "F2F.F64.F32 R2, R2", "DADD", "IADD3", "BRA"]
    code[1], code[3], code[6], code[11] = (f"{p}BRA `(.L_x_{i})" for p, i in (("@P0 ", 1), ("", 3), ("", 3), ("", 0)))
    labels = {".L_x_0": 0, ".L_x_1": 4, ".L_x_3": 10}
    shares = {block[0]: share for block, share in sass.march_loop(code, labels, 2)}
    assert shares == {"ISETP": 1, "FADD": 0.5, "FMUL": 0.5, "FFMA": 0, "IADD3": 1}
    with pytest.raises(RuntimeError, match="5 ways"):
        sass.march_loop(code, labels, 5)


@pytest.mark.parametrize("name", ["value", "value and gradient"])
def test_a_row_goes_down_by_one_case(name):
    loop = sass.march_loop(*sass.disassemble(counted(f"float32, 11 taps, {name}")[2].cubin), 6)
    once = sum(share * sum(line.startswith("FFMA") for line in block) for block, share in loop)
    every = sum(sum(line.startswith("FFMA") for line in block) for block, _ in loop)
    assert every - once >= 5 * 80  # the multiply-adds of four maps, two columns, down


def test_words_of_shared_memory():
    assert [sass.words(name) for name in ("LDS", "LDS.64", "STS.128", "LDS.U.128", "SHFL.BFLY", "LDG.E.128")] == [
        1,
        2,
        4,
        4,
        1,
        0,
    ]


def test_another_librarys_kernels_are_counted_by_the_part_of_a_tile_that_runs_them():
    pytest.importorskip("frame_analytics", reason="frame-analytics is not installed: pip install frame-analytics")
    costs = {}
    for name, kernel in sass_peers.KERNELS.items():
        compiled = sass.compile_text(sass_peers.source(), name, "sm_90", expression=kernel.expression)
        costs[name] = sass_peers.cost(kernel, compiled)
    value, _, second = costs.values()
    across = (64 + 10) / 64  # rows that a tile filters across for each that it filters down
    products = across * (4 * 11 + 3 * 11) + 4 * 11  # multiply-adds both ways; differences, products and squares across
    assert products <= value.arithmetic <= 1.2 * products
    rings = across * (2 * 11 + 4) + 4 * 12 / 2  # read and written across, read down by one thread for two windows
    assert rings <= value.words <= 1.5 * rings
    assert 3 * 11 * (across + 1) <= second.arithmetic <= 1.2 * 3 * 11 * (across + 1)


def test_where_another_library_is_absent_the_table_says_so(monkeypatch):
    monkeypatch.setattr(sass_peers, "find_spec", lambda _: None)
    assert sass._peer_rows("sm_90") == ["| frame-analytics: absent |"]


def test_a_source_that_is_laid_out_otherwise_is_refused(monkeypatch, tmp_path):
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "fa_cuda.cu").write_text("namespace fa {}")
    monkeypatch.setattr(sass_peers, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(RuntimeError, match="source has changed"):
        sass_peers.source()
