"""Megapixels a second through overlapping tiles and one autoencoder: our sliding window, MONAI's, anomalib's tiler."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ae.models import Autoencoder
from bench.calls import Calls
from bench.cases import Case, images
from bench.conventions import Convention
from bench.measure import attempt, chosen, timed
from bench.peers import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from bench.measure import Row
    from bench.peers import Score

    Slide = Callable[[torch.Tensor, Any, int], torch.Tensor]

TILE, STRIDE, BATCH = 128, 32, 32
CASES = (Case((1, 1, 512, 512)), Case((1, 1, 1024, 1024), quick=False))
TOLERANCE = 1e-5  # of the image that float64 gives
GAUSSIAN = Convention("Gaussian weights, a line's at least 1e-3")
BOUNDED = Convention("Gaussian weights, a pixel's at least 1e-3")
EQUAL = Convention("equal weights")
APART = Convention("tiles, not blended")


def _ours() -> Score:
    from fastssim.tiles import TileGrid, sliding_window  # noqa: PLC0415  # what is measured is loaded when asked for

    def slide(image: torch.Tensor, model: Any, *_: Any) -> torch.Tensor:
        grid = TileGrid((image.shape[2], image.shape[3]), TILE, STRIDE)
        blended: torch.Tensor = sliding_window(model, image[0], grid, window="gaussian", batch_size=BATCH)
        return blended[None]

    return slide


def _monai() -> Score:
    infer = import_module("monai.inferers").sliding_window_inference
    return lambda image, model, *_: infer(image, TILE, BATCH, model, overlap=1 - STRIDE / TILE, mode="gaussian")


def _anomalib() -> Score:
    package = find_spec("anomalib")
    if package is None or package.origin is None:
        raise ImportError("No module named 'anomalib'")
    #  the one file: the packages about it import thirty others; torchvision is there for random crops, not used here
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, ModuleType(name))
    spec = spec_from_file_location("anomalib_tiler", Path(package.origin).parent / "data" / "utils" / "tiler.py")
    assert spec is not None  # noqa: S101  # a .py file has one
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    tiler_kind = module.Tiler

    def slide(image: torch.Tensor, model: Any, *_: Any) -> torch.Tensor:
        tiler = tiler_kind(tile_size=TILE, stride=STRIDE)
        tiles = tiler.tile(image)
        result: torch.Tensor = tiler.untile(torch.cat([model(batch) for batch in tiles.split(BATCH)]))
        return result

    return slide


def _alone() -> Score:
    """Make the least that any can take: the network's time for tiles that were cut before, and are not blended."""
    from fastssim.tiles import TileGrid, extract  # noqa: PLC0415  # as above

    cut: list[torch.Tensor] = []

    def slide(image: torch.Tensor, model: Any, *_: Any) -> torch.Tensor:
        if not cut:
            grid = TileGrid((image.shape[2], image.shape[3]), TILE, STRIDE)
            cut.append(extract(image[0], grid))
        return torch.cat([model(batch) for batch in cut[0].split(BATCH)])

    return slide


PEERS = (
    Peer("fastssim", "fastssim", _ours, GAUSSIAN),
    Peer("network alone", "torch", _alone, APART),
    Peer("monai", "monai", _monai, BOUNDED, environment="monai"),
    Peer("anomalib", "anomalib", _anomalib, EQUAL, environment="anomalib"),
)
TABLES = ("bench.segment:PEERS",)


def reconstruct(peer: Peer, x: torch.Tensor) -> Callable[[], Any]:
    """Make the task: reconstruct an image through the network with random weights."""
    slide, model = peer.score(), network()

    def call() -> Any:
        with torch.inference_mode():
            return slide(x, model, 1.0, 0)

    return call


def network() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the paper's autoencoder, the same in every process."""
    torch.manual_seed(0)
    model = Autoencoder().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda tiles: model(tiles.contiguous(memory_format=torch.channels_last)).contiguous()


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time the named peers; as `bench.ssim.run`."""
    rows: list[Row] = []
    with Calls() as calls:
        for case in [case for case in CASES if case.quick or not quick]:
            announce(case.name)
            x, _ = images(case)
            calls.inputs(x=x)
            expected: dict[Any, NDArray[np.float64]] = {}
            wanted = chosen(TABLES[0], peers)
            make = {peer.name: partial(calls.make, peer, TABLES[0], "bench.segment:reconstruct") for peer in wanted}
            known = {peer.name: _checked(make[peer.name], peer, x, expected) for peer in wanted}
            for row in timed({"case": case.name, "kind": "reconstruct"}, wanted, make, known, rounds):
                if "median_ms" in row:
                    row["megapixels_per_second"] = case.pixels / row["median_ms"] / 1e3
                rows.append(row)
    return {"rows": rows}


def _checked(
    make: Callable[[], Callable[[], Any]], peer: Peer, x: torch.Tensor, expected: dict[Any, NDArray[np.float64]]
) -> Row:
    """Compare a peer's image with the slow twin's."""
    row: Row = {"convention": peer.convention.words}
    found = attempt(lambda: np.asarray(make()()))
    if isinstance(found, str):
        return row | {"absent": found}
    if peer.convention not in expected:
        expected[peer.convention] = twin(x, peer.convention)
    wanted = expected[peer.convention]
    if found.shape != wanted.shape:
        return row | {"absent": f"returned the shape {found.shape} for {wanted.shape}"}
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return row | {"value_error": error, "equal": error <= TOLERANCE, "comparable": error <= TOLERANCE}


def twin(x: torch.Tensor, convention: Any) -> NDArray[np.float64]:
    """Reconstruct (1, C, H, W) tile by tile, added up in float64 and divided by the weights' sum.

    A Gaussian has a sigma of an eighth of a tile. Tiles that are not blended stay as they are, (T, C, h, w).
    """
    model = network()
    line = np.exp(-0.5 * ((np.arange(TILE) - (TILE - 1) / 2) / (TILE / 8)) ** 2)
    bounded = np.maximum(line, 1e-3)
    weight = {
        GAUSSIAN: np.outer(bounded, bounded),
        BOUNDED: np.maximum(np.outer(line, line), 1e-3),
        EQUAL: np.ones((TILE, TILE)),
        APART: None,
    }[convention]
    apart: list[NDArray[Any]] = []
    total, weights = np.zeros(x.shape), np.zeros(x.shape)
    starts = [(*range(0, length - TILE, STRIDE), length - TILE) for length in x.shape[2:]]
    with torch.inference_mode():
        for top in starts[0]:
            places = [np.s_[..., top : top + TILE, left : left + TILE] for left in starts[1]]
            results = model(torch.cat([x[place] for place in places])).numpy()
            if weight is None:
                apart.append(results.astype(np.float64))
                continue
            for place, result in zip(places, results, strict=True):
                total[place] += weight * result
                weights[place] += weight
    return np.concatenate(apart) if apart else total / weights
