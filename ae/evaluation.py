"""Measure a run on the test images of a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from ae.data import DataFolder, open_folder
from ae.files import write_json
from ae.images import read_mask, write_png
from ae.metrics import Rates, Tally
from ae.segmentation import Segmenter, write_segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ae.data import Sample
    from ae.run import Run

MEASURES = {
    "pixel_roc_auc": "pixel ROC AUC",
    "average_precision": "average precision",
    "pro": "PRO",
    "best_f1": "best F1",
    "image_roc_auc": "image ROC AUC",
}
FIGURES = 5  # columns of a measure, which no narrow terminal cuts: 0.123


def evaluate(
    run: Path | str,
    data: Path | str | DataFolder,
    out: Path | str,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Segment every test image, measure, and write the results.

    Parameters
    ----------
    run : Path
        A run folder.
    data : Path or DataFolder
        A data set in the layout of MVTec AD, with test images.
    out : Path
        Folder for ``metrics.json`` and, under ``images/<class>``, what `ae.segmentation.write_segmentation` writes and
        the truth, ``<stem>_truth.png``.
    device : str
        Where the network works.
    progress : callable, optional
        Called as ``progress(images done, images in all)``.

    Returns
    -------
    dict
        The content of ``metrics.json``: ``method``, ``data`` (the data set's name), ``run`` (the folder's whole
        path), ``config``, ``training``, ``threshold``; ``all``: measures over all images, see `ae.metrics.measure`, and
        the rates at the run's threshold; ``classes``: the same for each defect class together with the good images;
        ``samples``: stem, label, largest residual and the area of the mask.

    Raises
    ------
    ValueError
        If the run, an image or a mask cannot be read, or the data set has no test images, or two of one name, or the
        device is a GPU and torch finds none.

    Examples
    --------
    ::

        from ae import evaluate
        evaluate("runs/grid", "data/grid", "runs/grid/evaluation")["all"]["pixel_roc_auc"]
    """
    out = Path(out)
    folder = data if isinstance(data, DataFolder) else open_folder(data)
    result = evaluate_run(Segmenter.load(run, device).run, folder, out=out, progress=progress)
    write_json(out / "metrics.json", result)
    return result


def evaluate_run(
    run: Run,
    folder: DataFolder,
    *,
    out: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Measure a run in memory: `evaluate` without ``metrics.json``, and without pictures where no `out` is given."""
    if not folder.test:
        raise ValueError(
            f"{folder.root} has no test images; put them at test/<class> with masks at ground_truth/<class>"
        )
    names = Counter((sample.label, sample.path.stem) for sample in folder.test)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise ValueError(
            f"{folder.root / 'test' / twice[0]} holds {names[twice]} images named {twice[1]}; results, and masks, would"
            " have one name: rename one"
        )
    segmenter = Segmenter(run)
    tally, rates = Tally(), Rates(run.threshold)
    samples = []
    if out is not None:  # of another evaluation, beside this one's pictures
        (out / "metrics.json").unlink(missing_ok=True)
    for number, sample in enumerate(folder.test):
        found = segmenter(sample.path)
        truth = _truth(sample, found.residual.shape)
        if out is not None:
            place = out / "images" / sample.label
            write_segmentation(place, sample.path.stem, found)
            write_png(place / f"{sample.path.stem}_truth.png", truth.astype(np.uint8) * 255)
        tally.add(found.residual, truth, sample.label)
        rates.add(found.residual, truth, sample.label)
        samples.append(
            {
                "stem": sample.path.stem,
                "label": sample.label,
                "largest_residual": float(found.residual.max()),
                "area": int(found.mask.sum()),
            }
        )
        if progress is not None:
            progress(number + 1, len(folder.test))
    labels = sorted({sample.label for sample in folder.test} - {"good"})
    return {
        "method": run.config.method,
        "data": folder.root.resolve().name,
        "run": str(run.folder.resolve()),
        "config": asdict(run.config),
        "training": run.training,
        "threshold": run.threshold,
        "all": tally.measure() | rates.measure(),
        "classes": {label: tally.measure({label, "good"}) | rates.measure({label, "good"}) for label in labels},
        "samples": samples,
    }


def metrics_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Put the measures of several evaluations side by side; `results` by title."""
    table = Table(title="Over all test images")
    table.add_column("", overflow="fold")
    for title in results:
        table.add_column(title, justify="right", min_width=FIGURES)
    for name, label in MEASURES.items():
        table.add_row(label, *(_number(result["all"][name]) for result in results.values()))
    table.add_row("best F1's threshold", *(_number(result["all"]["best_f1_threshold"]) for result in results.values()))
    table.add_row("training, seconds", *(f"{result['training']['seconds']:.0f}" for result in results.values()))
    return table


def classes_table(result: Mapping[str, Any]) -> Table:
    """Put the measures of an evaluation's defect classes, each with the good images, one below the other."""
    table = Table(title=f"Each class with the good images: {result['method']}")
    table.add_column("", overflow="fold")
    for label in MEASURES.values():
        table.add_column(label, justify="right", min_width=FIGURES)
    for name, measures in result["classes"].items():
        table.add_row(name, *(_number(measures[measure]) for measure in MEASURES))
    return table


def _truth(sample: Sample, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask of a test image, all False for a good one."""
    if sample.mask is None:
        return np.zeros(shape, bool)
    truth = read_mask(sample.mask, (shape[0], shape[1]))
    if not truth.any():  # as an image its score would count as a good one's
        raise ValueError(f"{sample.mask} marks nothing, but {sample.path} is no good image; mark the defect or move it")
    return truth


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
