"""Cut out, blend and slide over overlapping tiles, against what people use for it, on the CPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from bench import peers as scores
from bench import roofline
from bench.calls import Calls
from bench.measure import Row, attempt, timed, weigh
from fastssim.tiles import TileGrid, blend, extract, sliding_window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

BATCH = 64  # tiles that the function of a sliding window gets at a time
VALUE_TOLERANCE = 1e-5  # all do nothing to the image, which must come out again


@dataclass(frozen=True)
class Case:
    """One image of one channel, float32, and its tiles."""

    size: int
    tile: int = 128
    stride: int = 32
    quick: bool = True  # also with --quick

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.size}x{self.size}, tile {self.tile}, stride {self.stride}"

    @property
    def grid(self) -> TileGrid:
        """Where the tiles lie."""
        return TileGrid((self.size, self.size), self.tile, self.stride)


CASES = (Case(512), Case(2048, quick=False))


@dataclass(frozen=True)
class Peer(scores.Peer):
    """One library; for each kind that it does, a function of (case, image (1, 1, H, W)) makes the call to time."""

    devices: tuple[str, ...] = ("cpu",)
    kinds: dict[str, Callable[[Case, torch.Tensor], Callable[[], torch.Tensor]]] = field(default_factory=dict)


def _same(tiles: Any) -> Any:
    return tiles


def _own_extract(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    grid = case.grid
    return lambda: extract(image[0], grid)


def _own_blend(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    grid = case.grid
    tiles = extract(image[0], grid)
    return lambda: blend(tiles, grid)


def _own_slide(window: str) -> Callable[[Case, torch.Tensor], Callable[[], torch.Tensor]]:
    def prepare(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
        grid = case.grid
        return lambda: sliding_window(_same, image[0], grid, window=window, batch_size=BATCH)

    return prepare


def _unfold(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: F.unfold(image, case.tile, stride=case.stride)  # (1, pixels of a tile, tiles)


def _fold(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    columns = F.unfold(image, case.tile, stride=case.stride)
    count = torch.from_numpy(case.grid.coverage()).float()
    return lambda: F.fold(columns, (case.size, case.size), case.tile, stride=case.stride)[0] / count


def _kornia_extract(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    cut = import_module("kornia.contrib").extract_tensor_patches
    return lambda: cut(image, (case.tile, case.tile), stride=case.stride)


def _kornia_combine(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    library = import_module("kornia.contrib")
    tiles, whole = (case.tile, case.tile), (case.size, case.size)
    cut = library.extract_tensor_patches(image, tiles, stride=case.stride)
    return lambda: library.combine_tensor_patches(cut, whole, tiles, stride=case.stride)[0]


def _patchify(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Copy what is a view there; putting tiles back it does not blend, but lets the last one win."""
    cut, plane = import_module("patchify").patchify, image[0, 0].numpy()
    return lambda: torch.from_numpy(
        np.ascontiguousarray(cut(plane, (case.tile, case.tile), step=case.stride)).reshape(-1, 1, case.tile, case.tile)
    )


def _monai(mode: str) -> Callable[[Case, torch.Tensor], Callable[[], torch.Tensor]]:
    def prepare(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
        slide = import_module("monai.inferers").sliding_window_inference
        overlap = 1 - case.stride / case.tile
        return lambda: slide(image, (case.tile, case.tile), BATCH, _same, overlap=overlap, mode=mode)[0]

    return prepare


def _tiler(window: str) -> Callable[[Case, torch.Tensor], Callable[[], torch.Tensor]]:
    def prepare(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
        library = import_module("tiler")
        plane = image[0, 0].numpy()
        cutter = library.Tiler(plane.shape, (case.tile, case.tile), overlap=case.tile - case.stride)

        def call() -> torch.Tensor:
            merger = library.Merger(cutter, window=window)
            for number, tiles in cutter(plane, batch_size=BATCH):
                merger.add_batch(number, BATCH, _same(tiles))
            return torch.from_numpy(merger.merge(unpad=True, dtype=plane.dtype))[None]

        return call

    return prepare


def _toolbelt(weight: str) -> Callable[[Case, torch.Tensor], Callable[[], torch.Tensor]]:
    def prepare(case: Case, image: torch.Tensor) -> Callable[[], torch.Tensor]:
        library = _toolbelt_tiles()
        plane = image[0, 0].numpy()[..., None]
        slicer = library.ImageSlicer(plane.shape, case.tile, case.stride, weight=weight)

        def call() -> torch.Tensor:
            merger = library.TileMerger(slicer.target_shape, 1, slicer.weight)
            tiles = [np.moveaxis(tile, -1, 0) for tile in slicer.split(plane)]
            for start in range(0, len(tiles), BATCH):
                batch = torch.from_numpy(np.stack(tiles[start : start + BATCH]))
                merger.integrate_batch(_same(batch), slicer.crops[start : start + BATCH])
            return torch.from_numpy(
                slicer.crop_to_orignal_size(np.moveaxis(merger.merge().numpy(), 0, -1))[None, ..., 0]
            )

        return call

    return prepare


def _toolbelt_tiles() -> Any:
    """Load the one module that is needed: the package's other modules want torchvision."""
    package = find_spec("pytorch_toolbelt")
    if package is None or not package.submodule_search_locations:
        raise ImportError("No module named 'pytorch_toolbelt'")
    name = "pytorch_toolbelt_inference_tiles"
    file = Path(package.submodule_search_locations[0]) / "inference" / "tiles.py"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"No module at {file}")
    module = module_from_spec(spec)
    sys.modules[name] = module  # where its data classes look for their module
    spec.loader.exec_module(module)
    return module


def _loaded(module: str) -> Any:
    return import_module(module)


EXTRACT, BLEND = "extract", "blend, uniform"
UNIFORM, FADING = "sliding window, uniform", "sliding window, fading weights"


def _sliding(name: str, load: Callable[[], Any], slide: Callable[[str], Any], uniform: str, fading: str) -> Peer:
    """Describe a library with an environment of its own that slides alone, by its names of two windows."""
    return Peer(name, name, load, environment=name, kinds={UNIFORM: slide(uniform), FADING: slide(fading)})


PEERS = (
    Peer(
        "fastssim",
        "fastssim",
        partial(_loaded, "fastssim.tiles"),
        kinds={
            EXTRACT: _own_extract,
            BLEND: _own_blend,
            UNIFORM: _own_slide("uniform"),
            FADING: _own_slide("gaussian"),
        },
    ),
    Peer("torch", "torch", partial(_loaded, "torch"), kinds={EXTRACT: _unfold, BLEND: _fold}),
    Peer(
        "kornia", "kornia", partial(_loaded, "kornia.contrib"), kinds={EXTRACT: _kornia_extract, BLEND: _kornia_combine}
    ),
    Peer("patchify", "patchify", partial(_loaded, "patchify"), environment="patchify", kinds={EXTRACT: _patchify}),
    _sliding("monai", partial(_loaded, "monai.inferers"), _monai, "constant", "gaussian"),
    _sliding("tiler", partial(_loaded, "tiler"), _tiler, "boxcar", "triang"),
    _sliding("pytorch-toolbelt", _toolbelt_tiles, _toolbelt, "mean", "pyramid"),
)
TABLES, TASK = ("bench.tiles:PEERS",), "bench.tiles:prepare"


def prepare(peer: Peer, image: torch.Tensor, kind: str, tile: int, stride: int) -> Callable[[], torch.Tensor]:
    """Make the task: one kind of call on a square image, also in a peer's own process."""
    return peer.kinds[kind](Case(image.shape[-1], tile, stride), image)


def run(
    peers: Collection[str], *, quick: bool, rounds: int, announce: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Time the named peers on every case.

    Parameters
    ----------
    peers : collection of str
        Names of `PEERS`.
    quick : bool
        Leave out the cases that take long.
    rounds : int
        Samples of each measurement, at most.
    announce : callable
        Told in a line what begins.

    Returns
    -------
    dict
        ``roofline`` and ``rows``, see `bench.results`. The roofline counts each tile and the image once: read or
        written in `extract` and `blend`; in a sliding window, whose tiles need not leave the cache, the image alone. To
        blend takes a multiply-add for every pixel of a tile.
    """
    limits = roofline.measure()
    rows: list[Row] = []
    with Calls() as calls:
        for case in [case for case in CASES if case.quick or not quick]:
            image = torch.rand(1, 1, case.size, case.size, generator=torch.Generator().manual_seed(0))
            calls.inputs(image=image)
            for kind in (EXTRACT, BLEND, UNIFORM, FADING):
                announce(f"{case.name}: {kind}")
                able = [peer for peer in PEERS if peer.name in peers and kind in peer.kinds]
                rows += _measure(calls, case, kind, able, image, limits, rounds)
    return {"roofline": vars(limits), "rows": rows}


def _measure(
    calls: Calls,
    case: Case,
    kind: str,
    peers: list[Peer],
    image: torch.Tensor,
    limits: roofline.Roofline,
    rounds: int,
) -> list[Row]:
    """Check that every peer gives the image, or its tiles, and time them together."""
    expected = extract(image[0], case.grid).reshape(len(case.grid), -1) if kind == EXTRACT else image[0]
    options = {"kind": kind, "tile": case.tile, "stride": case.stride}
    made = {peer.name: partial(calls.make, peer, TABLES[0], TASK, **options) for peer in peers}
    checks = {name: _check(call, expected, kind) for name, call in made.items()}
    pixels, cut = case.size**2, len(case.grid) * case.tile**2
    moved = 4 * (2 * pixels if kind in (UNIFORM, FADING) else pixels + cut)
    rows = timed({"case": case.name, "kind": kind}, peers, made, checks, rounds)
    for row in rows:
        weigh(row, limits, pixels, 0 if kind == EXTRACT else cut, moved)
    return rows


def _check(make: Callable[[], Callable[[], Any]], expected: torch.Tensor, kind: str) -> Row:
    """Compare what a peer gives with what must come out."""
    found = attempt(lambda: torch.as_tensor(make()()))
    if isinstance(found, str):
        return {"absent": found}
    if kind == EXTRACT:
        found = found[0].T if found.ndim == 3 else found.reshape(len(expected), -1)
    difference = float((found - expected).abs().max())
    equal = difference <= VALUE_TOLERANCE
    return {"value_error": difference, "equal": equal, "comparable": equal}
