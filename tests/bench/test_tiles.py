from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import environments, results, roofline, tiles
from bench.calls import Calls

ROOFLINE = roofline.Roofline(threads=1, fma_per_second=1e11, bytes_per_second=1e10)
NAMES = [peer.name for peer in tiles.PEERS]


@pytest.fixture
def one_small_case(monkeypatch):
    monkeypatch.setattr(tiles, "CASES", (tiles.Case(96, 32, 8), tiles.Case(160, quick=False)))
    monkeypatch.setattr(roofline, "measure", lambda: ROOFLINE)


def test_the_figures_of_the_issue_are_measured():
    assert "2048x2048, tile 128, stride 32" in [case.name for case in tiles.CASES]


@pytest.mark.usefixtures("one_small_case")
def test_every_peer_gives_the_image_again_or_is_named_absent():
    content = {**results.describe(), "suite": "tiles", **tiles.run(NAMES, quick=True, rounds=1)}
    rows = {(row["kind"], row["peer"]): row for row in content["rows"]}
    assert len(rows) == 4 + 3 + 4 + 4
    for (kind, peer), row in rows.items():
        if "absent" in row:
            assert peer not in ("fastssim", "torch", "kornia")
            assert "python -m bench peers --install" in row["absent"]
            continue
        assert row["equal"], (kind, peer, row["value_error"])
        assert row["ns_per_pixel"] == pytest.approx(1e6 * row["median_ms"] / 96**2)
        if peer == "fastssim":
            assert row["times_fastssim"] == 1
            bytes_moved = 4 * (96**2 * 2 if "window" in kind else 96**2 + 81 * 32**2)
            assert row["bytes"] == bytes_moved
            assert row["fma"] == (0 if kind == "extract" else 81 * 32**2)
            assert row["roofline_share"] == pytest.approx(1e3 * bytes_moved / 1e10 / row["median_ms"])
    page = results.markdown([("a run", content)])
    assert "### blend, uniform" in page
    assert "| 96x96, tile 32, stride 8 | fastssim" in page


@pytest.mark.usefixtures("one_small_case")
def test_only_the_peers_that_are_named():
    rows = tiles.run(["torch"], quick=True, rounds=1)["rows"]
    assert {row["peer"] for row in rows} == {"torch"}
    assert all("times_fastssim" not in row for row in rows)


def test_a_peer_is_timed_in_a_process_of_its_own():
    image = torch.rand(1, 1, 96, 96)
    own = tiles.PEERS[0]
    with Calls() as calls:
        calls.inputs(image=image)
        options = {"kind": tiles.FADING, "tile": 32, "stride": 8}
        there = calls.remote(calls.worker(own), own, tiles.TABLES[0], tiles.TASK, **options)
        np.testing.assert_array_equal(there(), image[0].numpy())
        assert 0 < there.seconds(1) < 60


def test_every_peer_that_is_installed_by_itself_has_an_environment():
    for peer in tiles.PEERS:
        assert peer.environment is None or peer.version == environments.versions(peer.environment)[peer.package]
    assert {peer.environment for peer in tiles.PEERS} == {None, "monai", "tiler", "patchify", "pytorch-toolbelt"}
