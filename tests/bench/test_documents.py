"""The documents hold no figure but those of committed results, and the gate finds a regression."""

import json
import re
import sys

import pytest

from bench import __main__ as command
from bench import results
from bench.compare import compare
from bench.peers import SSIM
from fastssim.cpu.simd import vector_bytes

pytest.importorskip("matplotlib")

FIGURE = re.compile(r"(\d+(?:\.\d+)?)\s?(?:x\b|times as|ns\b|ms\b|us\b|GB/s|GFMA/s|MP/s|megapixels)")
NAMES = [peer.name for peer in SSIM]


def committed():
    files = sorted((command.ROOT / "bench" / "results").glob("*.json"))
    return [(f"bench/results/{path.name}", json.loads(path.read_text(encoding="utf-8"))) for path in files]


def figures(text):
    """Every speed that a text claims: with a unit, or in a table's row that names a library."""
    found = [match.group(1) for match in FIGURE.finditer(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    for line in text.splitlines():
        if line.startswith("|") and any(name in line for name in NAMES):
            found += re.findall(r"(?<![\w.=-])\d+\.\d+(?![\w.])", line)
    return found


def test_the_page_is_made_of_the_committed_results():
    page = command.ROOT / "docs" / "benchmarks.md"
    assert page.read_text(encoding="utf-8") == results.markdown(committed())
    for _, content in committed():
        for name, *_ in results.pictures(content):
            assert (page.parent / name).exists()


def test_every_other_figure_is_one_of_the_page():
    page = results.markdown(committed())
    documents = [command.ROOT / "README.md", *(command.ROOT / "docs").glob("*.md")]
    for document in documents:
        if document.name != "benchmarks.md":
            for figure in figures(document.read_text(encoding="utf-8")):
                assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", page), f"{document.name}: {figure}"


def test_figures_are_found_in_prose_and_tables():
    text = "It takes 1.25 ms, 3x less.\n| case | kornia 0.9.0 | 7.5 |\n```\n9 ms\n```\n80 seconds"
    assert figures(text) == ["1.25", "3", "7.5"]


def test_a_page_of_no_results():
    assert results.markdown([]) == results.HEADER


def scaling_result():
    row = {"case": "pixels", "kind": "forward", "axis": "pixels", "version": "1"}
    rows = [row | {"peer": "fastssim", "value": 4**k, "least_ms": float(4**k)} for k in range(4)]
    rows.append(row | {"peer": "kornia", "value": 1, "least_ms": 2.0})
    rows.append(row | {"peer": "kornia", "value": 4, "absent": "died of SIGKILL", "died": True})
    fits = [{"kind": "forward", "axis": "pixels", "peer": "fastssim", "exponent": 1.0, "points": 4}]
    return {**results.describe(), "suite": "scaling", "rows": rows, "fits": fits}


def test_docs_writes_page_and_plots(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    command.main(["docs"])  # without results
    results.write(tmp_path / "bench" / "results" / "scaling.json", scaling_result())
    command.main(["docs"])
    page = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    picture = tmp_path / "docs" / "scaling-pixels-forward.svg"
    assert "![forward over pixels](scaling-pixels-forward.svg)" in page
    assert "| forward | pixels | fastssim | 1.00 |" in page
    assert f" threads, vectors of {8 * vector_bytes()} bits\n" in page  # twice as wide, twice as fast
    assert "not measured: died of SIGKILL" in page
    drawn = picture.read_bytes()
    assert b"<svg" in drawn
    command.main(["docs"])
    assert picture.read_bytes() == drawn  # the same results give the same file
    assert str(picture) in capsys.readouterr().out


def test_docs_names_a_damaged_result_and_leaves_the_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    command.main(["docs"])
    before = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "ssim.json").write_text('{"rows": [')
    with pytest.raises(SystemExit):
        command.main(["docs"])
    assert "ssim.json cannot be read" in capsys.readouterr().err
    assert (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8") == before


def test_a_run_on_a_gpu_is_drawn_beside_its_results(monkeypatch, tmp_path, capsys):
    rows = [
        {"case": case, "kind": kind, "peer": peer, "version": "1", "ns_per_pixel": 0.01 * (1 + number)}
        for case in ("16x1x128x128", "8x3x1080x1920")
        for kind in ("forward", "forward + gradient")
        for number, peer in enumerate(("fastssim", "fussim", "frame-analytics"))
    ]
    rows.append(
        {"case": "8x3x1080x1920", "kind": "forward", "peer": "kornia", "version": "1", "absent": "out of memory"}
    )
    monkeypatch.setattr("bench.gpu.run", lambda *_, **__: {"gpu": "NVIDIA H100", "rows": rows})
    command.main(["gpu", "--quick", "--out", str(tmp_path)])
    drawn = (tmp_path / "gpu.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert str(tmp_path / "gpu.svg") in capsys.readouterr().out
    page = results.markdown([("bench/results/gpu.json", json.loads((tmp_path / "gpu.json").read_text("utf-8")))])
    assert "![ns per pixel over case](gpu.svg)" in page
    monkeypatch.setitem(sys.modules, "bench.plots", None)
    command.main(["gpu", "--quick", "--out", str(tmp_path)])
    assert "no plot of gpu" in capsys.readouterr().err


def result(path, spread=1.0, **ratios):
    """Write a result; a ratio may be up to `spread` times more or less."""
    rows = [
        {"case": "c", "kind": "forward", "peer": peer, "version": "1", "times_fastssim": ratio}
        | {"times_lower": ratio / spread, "times_upper": ratio * spread}
        for peer, ratio in ratios.items()
    ]
    results.write(path, {"suite": "ssim", "rows": rows})
    return path


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (0.9, 0), (1.5, 0), (0.8, 1)])
def test_the_gate_goes_by_ratios(tmp_path, capsys, factor, status):
    old = result(tmp_path / "old.json", fastssim=1.0, a=10.0, b=4.0)
    new = result(tmp_path / "new.json", fastssim=1.0, a=10.0 * factor, b=4.0 * factor)
    if status:
        with pytest.raises(SystemExit, match="1"):
            command.main(["compare", str(old), str(new)])
    else:
        command.main(["compare", str(old), str(new)])
    printed = capsys.readouterr().out
    assert f"| ssim | c | forward | {factor:.2f} | a {factor:.2f}, b {factor:.2f} |" in printed
    assert ("slower" in printed) == bool(status)
    assert f"{2 if 0.9 <= factor <= 1 else 0} of 2 ratios agree within 15%" in printed


def test_mean_ratios_are_compared_where_both_results_have_them(tmp_path, capsys):
    old, new = result(tmp_path / "old.json", a=10.0, b=4.0), result(tmp_path / "new.json", a=10.0, b=4.0)
    for path, means in ((old, (10.0, 4.0)), (new, (8.0, 4.1))):
        content = json.loads(path.read_text("utf-8"))
        content["rows"] = [row | {"times_mean": mean} for row, mean in zip(content["rows"], means, strict=True)]
        results.write(path, content)
    command.main(["compare", str(old), str(new)])
    assert "2 of 2 ratios agree within 15%, 1 of 2 mean ratios" in capsys.readouterr().out


def test_the_tolerance_can_be_stated(tmp_path):
    old, new = result(tmp_path / "old.json", a=10.0), result(tmp_path / "new.json", a=9.0)
    command.main(["compare", str(old), str(new), "--tolerance", "0.2"])
    with pytest.raises(SystemExit, match="1"):
        command.main(["compare", str(old), str(new), "--tolerance", "0.05"])


def test_one_noisy_library_is_no_regression(tmp_path):
    old = result(tmp_path / "old.json", a=10.0, b=4.0, c=2.0)
    new = result(tmp_path / "new.json", a=7.0, b=4.0, c=2.0)
    (change,) = compare(old, new)
    assert change.speed["a"] == pytest.approx(0.7)
    assert change.mean == pytest.approx(0.7 ** (1 / 3))


@pytest.mark.parametrize(("spread", "mark"), [(1.05, "slower"), (1.2, "noisy: measure again")])
def test_what_the_rounds_allow_is_no_regression(tmp_path, capsys, spread, mark):
    old = result(tmp_path / "old.json", spread, a=10.0, b=4.0)
    new = result(tmp_path / "new.json", spread, a=8.0, b=3.2)
    if mark == "slower":
        with pytest.raises(SystemExit, match="1"):
            command.main(["compare", str(old), str(new)])
    else:
        command.main(["compare", str(old), str(new)])
    assert f"| ssim | c | forward | 0.80 | a 0.80, b 0.80 | {mark} |" in capsys.readouterr().out


def test_results_with_nothing_in_common(tmp_path):
    old, new = result(tmp_path / "old.json", a=1.0), result(tmp_path / "new.json", b=1.0)
    with pytest.raises(ValueError, match="no measurement in common"):
        compare(old, new)
    results.write(new, json.loads(old.read_text()) | {"format": 2})  # whose ratios are something else
    with pytest.raises(ValueError, match="no measurement in common: same format"):
        compare(old, new)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no result of python -m bench"):
        compare(old, tmp_path / "other.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"3", "is no result of python -m bench: it has no suite or no rows"),
        (b'{"suite": "ssim", "rows": 3}', "is no result of python -m bench: TypeError"),
        (b'{"suite": "ssim", "rows": [{"peer": "a", "times_fastssim": 1}]}', "is no result of .* KeyError.*case"),
        (b"\x86\xff", "cannot be read: 'utf-8' codec"),
    ],
)
def test_a_damaged_result_is_named(tmp_path, content, message):
    old, new = result(tmp_path / "old.json", a=1.0), tmp_path / "new.json"
    new.write_bytes(content)
    with pytest.raises(ValueError, match=rf"new\.json {message}"):
        compare(old, new)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        *(("times_fastssim", ratio) for ratio in (0, "nan", None, float("inf"))),
        *(("times_lower", ratio) for ratio in (0, "x", None, float("nan"))),
        ("times_upper", []),
        ("times_mean", -1),
    ],
)
def test_a_ratio_that_is_none_is_named(tmp_path, name, ratio):
    old, new = result(tmp_path / "old.json", a=1.0), result(tmp_path / "new.json", a=1.0)
    content = json.loads(new.read_text("utf-8"))
    content["rows"][0][name] = ratio
    results.write(new, content)
    with pytest.raises(ValueError, match=r"new\.json is no result of python -m bench"):
        compare(old, new)


def test_results_of_other_vectors_are_not_compared(tmp_path):
    for folder, ratios in (("old", {256: 25.0, 512: 67.0}), ("new", {256: 25.0})):
        for bits, ratio in ratios.items():
            path = result(tmp_path / folder / f"{bits}.json", a=ratio)
            results.write(path, json.loads(path.read_text("utf-8")) | {"machine": {"vector_bits": bits}})
    (change,) = compare(tmp_path / "old", tmp_path / "new")
    assert (change.suite, change.mean) == ("ssim, 256 bits", pytest.approx(1.0))
