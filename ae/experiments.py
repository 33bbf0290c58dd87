"""The experiments behind docs/results.md: rows of data set, variant and seed, each a file, run where it is missing."""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ae.calibration import recalibrate, trained_with
from ae.checkpoints import is_finished
from ae.config import TrainConfig, config_from, preset
from ae.data import digest, good_images, open_folder
from ae.evaluation import MEASURES, evaluate_run
from ae.files import read_json, write_json
from ae.methods import check_needs
from ae.run import load_run
from ae.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#  what each data set wants: nanofibres a longer code; textures at a scale where a patch shows a few periods
SETS: dict[str, dict[str, Any]] = {
    "nanotwice_a": {"latent": 500},
    "mvtec_grid_512": {"scale": 0.5},
    "mvtec_leather_512": {"scale": 0.5},
    "magnetic_tile_exp4": {},
    "fabric_stain": {},
}
#  preset and what is changed about it
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssim": ("paper", {}),
    "l2": ("paper", {"method": "l2"}),
    "ssim, three scales, blur 6": ("paper", {"residual_scales": 3, "smoothing": 6.0}),
    "l2, blur 6": ("paper", {"method": "l2", "smoothing": 6.0}),
    "vae": ("paper", {"method": "vae"}),
    "fm": ("paper", {"method": "fm"}),
    "best": ("best", {}),
    #  SSIM alone is minimised; its network applied otherwise
    "best, no l1": ("best", {"l1_share": 0.0}),
    "best, no l1, no difference": ("best", {"l1_share": 0.0, "difference": 0.0}),
    "best, no l1, difference 1": ("best", {"l1_share": 0.0, "difference": 1.0}),
    "best, no l1, no difference, one scale": ("best", {"l1_share": 0.0, "residual_scales": 1, "difference": 0.0}),
    "best, no l1, no difference, no blur": ("best", {"l1_share": 0.0, "smoothing": 0.0, "difference": 0.0}),
    "best, no l1, no difference, one scale, no blur": (
        "best",
        {"l1_share": 0.0, "residual_scales": 1, "smoothing": 0.0, "difference": 0.0},
    ),
    "best, no l1, no difference, blur 12": ("best", {"l1_share": 0.0, "smoothing": 12.0, "difference": 0.0}),
    #  the other reading of what the paper leaves open
    "ssim, c literal": ("paper", {"constants": "literal"}),
    "ssim, Gaussian window": ("paper", {"ssim_window": "gaussian"}),
    "ssim, averaged residuals": ("paper", {"estimator": "residual"}),
    "ssim, no opening": ("paper", {"opening": 0}),
    "ssim, sigmoid": ("paper", {"output": "sigmoid"}),
    "ssim, torch's start": ("paper", {"initialisation": "torch"}),
    #  the network of "best", applied otherwise: no training of its own
    "best, one reconstruction": ("best", {"estimator": "reconstruction"}),
    "best, uniform blending": ("best", {"blending": "uniform"}),
    "best, stride 16": ("best", {"stride": 16}),
    "best, flips": ("best", {"test_flips": True}),
    "best, no difference": ("best", {"difference": 0.0}),
    "best, difference 1": ("best", {"difference": 1.0}),
    "best, one scale": ("best", {"residual_scales": 1}),
    "best, two scales": ("best", {"residual_scales": 2}),
    "best, four scales": ("best", {"residual_scales": 4}),
    "best, no blur": ("best", {"smoothing": 0.0}),
    "best, blur 3": ("best", {"smoothing": 3.0}),
    "best, blur 4": ("best", {"smoothing": 4.0}),
    "best, blur 8": ("best", {"smoothing": 8.0}),
    "best, opening 4": ("best", {"opening": 4}),
    "best, by contrast": ("best", {"normalise": "contrast"}),
    "best, levelled": ("best", {"normalise": "level"}),
    "best, less the median": ("best", {"normalise": "median"}),
    "best, by image": ("best", {"normalise": "image"}),
    #  another training
    "best, l2": ("best", {"method": "l2"}),
    "best, constant rate": ("best", {"schedule": "constant", "learning_rate": 2e-4}),
    "best, torch's start": ("best", {"initialisation": "torch"}),
    "best, warm-up 0.3": ("best", {"warm_up": 0.3}),
    "best, batch 8": ("best", {"batch_size": 8}),
    "best, batch 16": ("best", {"batch_size": 16}),
    "best, batch 64": ("best", {"batch_size": 64}),
    "best, rate 2e-3": ("best", {"learning_rate": 2e-3}),
    "best, window 7": ("best", {"window_size": 7}),
    "best, window 15": ("best", {"window_size": 15}),
    "best, box window": ("best", {"ssim_window": "box"}),
    "best, three loss scales": ("best", {"loss_scales": 3}),
    "best, l1 0.2": ("best", {"l1_share": 0.2}),
    "best, l1 0.8": ("best", {"l1_share": 0.8}),
    "best, latent 50": ("best", {"latent": 50}),
    "best, latent 200": ("best", {"latent": 200}),
    "best, latent 500": ("best", {"latent": 500}),
    "best, noise 0.1": ("best", {"noise": 0.1}),
    "best, erased 0.25": ("best", {"erased": 0.25}),
    "best, trained on flips": ("best", {"augment": "flips"}),
    "best, trained on flips, flips": ("best", {"augment": "flips", "test_flips": True}),
    "best, rotations": ("best", {"augment": "rotations"}),
    "best, colour": ("best", {"channels": 3}),
}


@dataclass(frozen=True)
class Row:
    """One training and its measures."""

    data: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Its file's name, without suffix."""
        words = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in self.variant)
        return f"{self.data}_{words.replace('--', '-')}_{self.seed}"

    def config(self, **changes: Any) -> TrainConfig:
        """Put together preset, data set, variant and the changes for all rows; what comes later counts more."""
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}; give one of {', '.join(map(repr, VARIANTS))}")
        if Path(self.data).name != self.data:  # a row's file would lie elsewhere, where no table finds it
            raise ValueError(f"data set is {self.data!r}; give its folder's name alone, and as root what it lies in")
        base, options = VARIANTS[self.variant]
        return preset(base, **SETS.get(self.data, {}) | options | changes | {"seed": self.seed})


def experiment(
    root: Path | str,
    out: Path | str,
    rows: Iterable[Row],
    *,
    announce: Callable[[str], object] = lambda _: None,
    progress: bool = True,
    **changes: Any,
) -> list[Path]:
    """Run the rows that have no file yet; an interrupted row goes on where it was.

    Parameters
    ----------
    root : Path
        Folder of data sets in the layout of MVTec AD.
    out : Path
        Gets ``rows/<row>.json``; and ``runs``, the trained networks: rows that differ in how a network is applied
        share one.
    rows : iterable of Row
    announce : callable
        Told in a line what begins.
    progress : bool
        Show progress bars.
    **changes
        Fields of `TrainConfig`, for all rows: `time_budget` in seconds, `epochs`, `precision` and so on.

    Returns
    -------
    list of Path
        The rows' files.

    Raises
    ------
    ValueError
        If a row has no such variant, a data set is missing, or a row's file or network was made with other options or
        images.

    Examples
    --------
    ::

        from ae.experiments import experiment, rows_of
        experiment("data", "results", rows_of(["grid"], ["l2", "best"], [0, 1, 2]), epochs=20)
    """
    root, out = Path(root), Path(out)
    configs = {row: row.config(**changes) for row in rows}
    paths = {row: out / "rows" / f"{row.name}.json" for row in configs}
    digests: dict[tuple[Any, ...], str] = {}

    def images(row: Row) -> str:
        read_as = (row.data, configs[row].channels, configs[row].scale)
        if read_as not in digests:
            digests[read_as] = digest(good_images(open_folder(root / row.data), configs[row]))
        return digests[read_as]

    for row, path in paths.items():  # what is wrong with the last row is said before the first is trained for hours
        if not path.exists():
            open_folder(root / row.data)
            continue
        found = _read_row(path)
        if config_from(found["config"]) != configs[row]:
            raise ValueError(f"{path} was made with other options; name another folder, or remove it")
        known = found["training"].get("images_digest")
        if known and (root / row.data).is_dir() and known != images(row):
            raise ValueError(f"{path} was made with other images; name another folder, or remove it")
    check_needs(configs[row] for row, path in paths.items() if not path.exists())
    for row, path in paths.items():
        if not path.exists():
            announce(f"{row.data}: {row.variant}, seed {row.seed}")
            write_json(path, _measured(root, out, row, configs[row], images(row), progress=progress))
    return list(paths.values())


def _measured(root: Path, out: Path, row: Row, config: TrainConfig, images: str, *, progress: bool) -> dict[str, Any]:
    """Train, where no other row has, and measure."""
    folder = open_folder(root / row.data)
    base = trained_with(config)
    options = hashlib.sha256(json.dumps(asdict(base), sort_keys=True).encode()).hexdigest()[:12]
    place = out / "runs" / f"{row.data}_{options}"
    if not is_finished(place, base, images):
        train(folder, place, base, resume=True, progress=progress)
    changes = {name: value for name, value in asdict(config).items() if value != getattr(base, name)}
    run = recalibrate(load_run(place), folder, **changes)
    start = time.monotonic()
    result = evaluate_run(run, folder)
    overall = {name: value for name, value in result["all"].items() if name not in {"roc", "pro_curve"}}
    return {
        "data": row.data,
        "variant": row.variant,
        "seed": row.seed,
        "config": asdict(config),
        "measures": overall,
        "classes": {
            label: {name: found[name] for name in MEASURES} for label, found in sorted(result["classes"].items())
        },
        "training": run.training,
        "seconds_to_evaluate": round(time.monotonic() - start, 1),
        "made_with": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }


def tables(out: Path | str) -> str:
    """Write the rows of a folder as Markdown: a table for each data set, mean ± standard deviation over the seeds.

    Raises
    ------
    ValueError
        If there is no row, or a file is none.

    Examples
    --------
    >>> tables("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere/rows holds no row; run `ae experiment` first
    """
    folder = Path(out) / "rows"
    rows = [_read_row(path) for path in sorted(folder.glob("*.json"))]
    if not rows:
        raise ValueError(f"{folder} holds no row; run `ae experiment` first")
    parts = []
    for data in sorted({row["data"] for row in rows}):
        lines = [f"### {data}", "", f"| variant | seeds | {' | '.join(MEASURES.values())} | patches | minutes |"]
        lines.append("| --- | ---: |" + " ---: |" * (len(MEASURES) + 2))
        for variant in dict.fromkeys([*VARIANTS, *(row["variant"] for row in rows)]):  # those of other versions last
            some = [row for row in rows if row["data"] == data and row["variant"] == variant]
            if some:
                lines.append(_line(variant, some))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _read_row(path: Path) -> dict[str, Any]:
    """Read a row's file."""
    row: dict[str, Any] = read_json(path)
    parts = {"measures": MEASURES.keys(), "training": {"patches", "seconds"}}
    whole = isinstance(row, dict) and row.keys() >= {"data", "variant", "config"}
    if not whole or not all(isinstance(row.get(part), dict) and row[part].keys() >= parts[part] for part in parts):
        raise ValueError(f"{path} is no row of `ae experiment`; remove it")
    return row


def _line(variant: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write one variant's line."""
    cells = [variant, str(len(rows))]
    cells += [spread([row["measures"][name] for row in rows]) for name in MEASURES]
    cells.append(f"{statistics.mean(row['training']['patches'] for row in rows):,.0f}")
    cells.append(f"{statistics.mean(row['training']['seconds'] for row in rows) / 60:.1f}")
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float | None]) -> str:
    """Write mean ± standard deviation, without the latter for a single value.

    Examples
    --------
    >>> spread([0.9, 0.92, 0.94]), spread([0.5]), spread([None])
    ('0.920 ± 0.020', '0.500', '–')
    """
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.3f}"
    return f"{mean} ± {statistics.stdev(known):.3f}" if len(known) > 1 else mean


def rows_of(sets: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """Return every combination, seed by seed, so that a first figure of all comes before a second of any."""
    return [Row(data, variant, seed) for seed in seeds for data in sets for variant in variants]
