"""The benchmark measures what it says, and says what it measured."""

import json

import pytest
import torch

from bench import __main__ as command
from bench import harness, results, roofline, ssim
from bench.cases import CASES, Case, images
from bench.peers import PEERS, Peer, forward, gradient

ROOFLINE = roofline.Roofline(threads=1, fma_per_second=1e11, bytes_per_second=1e10)


@pytest.fixture
def one_small_case(monkeypatch):
    monkeypatch.setattr(ssim, "CASES", (Case((2, 1, 48, 40)), Case((1, 1, 64, 64), quick=False)))
    monkeypatch.setattr(roofline, "measure", lambda: ROOFLINE)


def test_the_cases_are_those_of_the_documentation():
    assert [case.name for case in CASES] == ["16x1x128x128", "1x1x1024x1024", "4x3x512x512", "1x3x2160x3840"]
    x, y = images(CASES[0])
    assert x.dtype == torch.float32
    assert 0 <= x.min() < y.max() <= 1
    assert torch.equal(x, images(CASES[0])[0])  # every library and every run gets the same


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_computes_the_same_value_and_gradient(peer):
    pytest.importorskip(peer.package.replace("-", "_"))
    x, y = (image.double() for image in images(Case((2, 3, 40, 56))))
    own = PEERS[0].score()
    assert abs(forward(peer.score(), x, y) - forward(own, x, y)) < 1e-6
    expected = gradient(own, x, y)
    assert (gradient(peer.score(), x, y) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_rounds_are_interleaved():
    order = []
    harness.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    squeezed = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert squeezed[-4:] == ["a", "b", "a", "b"]


def test_summary_of_one_sample():
    assert harness.summary([0.004]) == {"median_ms": 4.0, "lower_ms": 4.0, "upper_ms": 4.0}


def test_the_roofline_takes_what_binds():
    assert ROOFLINE.seconds(fma=1e11, moved=1) == 1
    assert ROOFLINE.seconds(fma=1, moved=1e10) == 1


def test_the_roofline_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "COPIED", 1 << 20)
    monkeypatch.setattr(roofline, "REPEATS", 100)
    limits = roofline.measure()
    assert limits.threads == torch.get_num_threads()
    assert 1e8 < limits.fma_per_second < 1e14
    assert 1e8 < limits.bytes_per_second < 1e13


@pytest.mark.usefixtures("one_small_case")
def test_command_writes_results_and_table(tmp_path, capsys):
    command.main(["ssim", "--quick", "--rounds", "2", "--peers", "fastssim", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "ssim.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["ssim.json"]
    assert {row["case"] for row in content["rows"]} == {"2x1x48x40"}
    assert [row["kind"] for row in content["rows"]] == ["forward", "forward + gradient"]
    for row in content["rows"]:
        assert row["equal"]
        assert row["times_fastssim"] == 1
        least = 48 * 40 * 2 * (88 if row["kind"] == "forward" else 154) / 1e11
        assert row["roofline_share"] == pytest.approx(1e3 * least / row["median_ms"])
    assert "| 2x1x48x40 | fastssim" in printed
    assert "In none of the above." in printed


@pytest.mark.usefixtures("one_small_case")
def test_a_peer_that_computes_something_else_or_is_absent_is_marked(monkeypatch):
    def absent():
        raise ImportError("No module named 'nowhere'")

    others = (
        Peer("half", "nothing-of-that-name", lambda: lambda x, y: (x * y).mean() / 2, "valid"),
        Peer("absent", "nothing-of-that-name", absent, "valid"),
    )
    monkeypatch.setattr(ssim, "PEERS", (PEERS[0], *others))
    content = {**results.describe(), "suite": "ssim", **ssim.run(["fastssim", "half", "absent"], quick=True, rounds=1)}
    by_peer = {row["peer"]: row for row in content["rows"]}
    assert not by_peer["half"]["equal"]
    assert "median_ms" not in by_peer["absent"]
    page = results.markdown([("a run", content)])
    assert "differs by" in page
    assert "not measured: No module named 'nowhere'" in page


def test_losses_are_named():
    row = {"case": "c", "kind": "forward", "peer": "other", "times_fastssim": 0.5}
    assert "- c, forward: other takes 0.50 of our time" in results._losses([row])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "nobody"], "no peer is named nobody; there are fastssim, frame-analytics, pytorch-msssim"),
        (["--rounds", "0"], "--rounds is 0; give at least 1"),
        (["--threads", "0"], "--threads is 0; give at least 1"),
    ],
)
def test_wrong_words(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["ssim", *words])
    assert message in capsys.readouterr().err


def test_the_page_is_made_of_the_committed_results():
    root = command.ROOT
    files = sorted((root / "bench" / "results").glob("*.json"))
    found = [(f"bench/results/{path.name}", json.loads(path.read_text(encoding="utf-8"))) for path in files]
    assert (root / "docs" / "benchmarks.md").read_text(encoding="utf-8") == results.markdown(found)
