"""One HTML file that shows a person what was measured and what was found; opens from disk, needs no network."""

from __future__ import annotations

import base64
import csv
import io
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, UndefinedError
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from ae.evaluation import MEASURES
from ae.files import read_json, write_text
from ae.images import read_pixels
from ae.metrics import PRO_LIMIT

IMAGES_PER_CLASS = 4
PICTURE = 512  # pixels at most, the longer side
OUTLINE = (255, 40, 80)


@dataclass(frozen=True)
class _Evaluation:
    """One method's evaluation as it lies in its folder."""

    title: str
    folder: Path
    result: dict[str, Any]


def report(folder: Path | str, *, note: str = "", images_per_class: int = IMAGES_PER_CLASS) -> Path:
    """Write ``report.html`` into a folder that holds one or several evaluations.

    Parameters
    ----------
    folder : Path
        An evaluation (``metrics.json``), or a folder of folders that hold one, as `ae.comparison.compare` leaves them.
        Each goes by its method's name, or by its folder's where several are of one method.
    note : str
        A line for the top of the page.
    images_per_class : int
        Images shown of each class; the page grows by some 100 KB for each.

    Returns
    -------
    Path
        The report: measures overall and for each class; ROC, PRO and training curves; the scores of all images, as a
        table that can be sorted and beside the threshold; and for some images of each class the image with the truth's
        outline and, for every method, reconstruction, residual and mask, to be compared under a slider and zoomed.

    Raises
    ------
    ValueError
        If there is no evaluation in the folder, or it is damaged, or several are of different test images.

    Examples
    --------
    >>> report("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no evaluation (metrics.json); run `ae evaluate` first
    """
    folder = Path(folder)
    try:
        page = _page(_evaluations(folder), note, images_per_class)
    except (AttributeError, KeyError, TypeError, UndefinedError) as error:
        raise ValueError(
            f"{folder} holds an evaluation that is damaged or of another version ({error!r}); evaluate again"
        ) from error
    path = folder / "report.html"
    write_text(path, page)
    return path


def _page(evaluations: list[_Evaluation], note: str, images_per_class: int) -> str:
    """Write the page."""
    environment = Environment(loader=PackageLoader("ae"), autoescape=True)
    return environment.get_template("report.html.j2").render(
        note=note,
        data=_shown(evaluations[0].result.get("data", evaluations[0].result["training"]["data"])),
        evaluations=evaluations,
        measures=MEASURES,
        best=_best(evaluations),
        roc=_rates(evaluations, "roc", "pixel_roc_auc", "true-positive rate (pixels)", 1.0),
        pro=_rates(evaluations, "pro_curve", "pro", "share of each region, mean", PRO_LIMIT),
        scores=_scores(evaluations),
        training=_training_curves(evaluations),
        samples=_samples(evaluations, images_per_class),
        classes=_classes(evaluations, images_per_class),
        images_per_class=images_per_class,
    )


def _evaluations(folder: Path) -> list[_Evaluation]:
    """Find the evaluations, ssim first."""
    paths = [folder / "metrics.json"] if (folder / "metrics.json").is_file() else sorted(folder.glob("**/metrics.json"))
    results = {path.parent: _read(path) for path in paths}
    if not results:
        raise ValueError(f"{folder} holds no evaluation (metrics.json); run `ae evaluate` first")
    tested = {tuple((sample["label"], sample["stem"]) for sample in result["samples"]) for result in results.values()}
    if len(tested) > 1:
        raise ValueError(f"{folder} holds evaluations of different test images; report on each by itself")
    methods = Counter(result["method"] for result in results.values())
    found = [
        _Evaluation(
            result["method"] if methods[result["method"]] == 1 else _shown(place.relative_to(folder).as_posix()),
            place,
            result,
        )
        for place, result in results.items()
    ]
    return sorted(found, key=lambda evaluation: (evaluation.result["method"] != "ssim", evaluation.title))


def _read(path: Path) -> dict[str, Any]:
    """Read what `ae.evaluation.evaluate` wrote."""
    result = read_json(path)
    wanted = {"method", "run", "config", "training", "threshold", "all", "classes", "samples"}
    if not isinstance(result, dict) or not wanted <= result.keys():
        raise ValueError(f"{path} is damaged or no evaluation; evaluate again")
    return result


def _best(evaluations: list[_Evaluation]) -> dict[str, float]:
    """Largest value of each measure, to set in bold where several methods are compared."""
    if len(evaluations) < 2:
        return {}
    values = {name: [e.result["all"][name] for e in evaluations] for name in MEASURES}
    return {
        name: max(v for v in row if v is not None) for name, row in values.items() if any(v is not None for v in row)
    }


def _samples(evaluations: list[_Evaluation], images_per_class: int) -> list[dict[str, Any]]:
    """Put every image's scores, over the threshold, and marked pixels side by side."""
    seen: Counter[str] = Counter()
    rows = []
    for number, sample in enumerate(evaluations[0].result["samples"]):
        seen[sample["label"]] += 1
        each = [(e.result["samples"][number], e.result["threshold"]) for e in evaluations]
        found = [(over_threshold(one["largest_residual"], threshold), one["area"]) for one, threshold in each]
        label, stem = sample["label"], sample["stem"]
        shown = seen[label] <= images_per_class
        rows.append(
            {"label": _shown(label), "stem": _shown(stem), "view": _view(label, stem), "shown": shown, "found": found}
        )
    return rows


def over_threshold(score: Any, threshold: float) -> Any:
    """Return score / threshold; of a threshold that is not above 0, what rises as the score does and is 1 there, too.

    Examples
    --------
    >>> over_threshold(6.0, 4.0), over_threshold(-1.0, -2.0), over_threshold(0.5, 0.0)
    (1.5, 1.5, 1.5)
    """
    return 1 + (score - threshold) / (abs(threshold) or 1)


def _view(label: str, stem: str) -> str:
    """Name an image's pictures within the page: hyphens of a label become slashes, so that no two images share one."""
    return _shown(f"{label.replace('-', '/')}-{stem}")


def _shown(text: str) -> str:
    r"""Write a name as a page can hold it: one that is no UTF-8 with its odd bytes as \udce4."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _classes(evaluations: list[_Evaluation], images_per_class: int) -> list[dict[str, Any]]:
    """Gather the pictures of every class: defects first, good images last."""
    samples = evaluations[0].result["samples"]
    labels = sorted({sample["label"] for sample in samples}, key=lambda label: (label == "good", label))
    return [
        {
            "label": _shown(label),
            "rows": [
                _row(evaluations, label, sample["stem"])
                for sample in [s for s in samples if s["label"] == label][:images_per_class]
            ],
        }
        for label in labels
    ]


def _row(evaluations: list[_Evaluation], label: str, stem: str) -> dict[str, Any]:
    """Gather one image's pictures."""
    first = evaluations[0].folder / "images" / label
    truths = [_pixels(e.folder / "images" / label / f"{stem}_truth.png") > 0 for e in evaluations]
    truth = truths[0]
    if any(other.shape != truth.shape for other in truths):
        raise ValueError(
            f"evaluations are of test images of different sizes, as {first / stem}; report on each by itself"
        )
    return {
        "stem": _shown(stem),
        "view": _view(label, stem),
        "image": _outlined(_pixels(first / f"{stem}_image.png"), truth),
        "methods": [_method_pictures(evaluation, label, stem, truth) for evaluation in evaluations],
    }


def _method_pictures(evaluation: _Evaluation, label: str, stem: str, truth: Any) -> dict[str, str]:
    """Draw what one method made of an image; residuals on one scale, from 0 to twice the method's threshold."""
    place = evaluation.folder / "images" / label
    residual = _pixels(place / f"{stem}_residual.tiff")
    colours = colormaps["inferno"](np.clip(over_threshold(residual, evaluation.result["threshold"]) / 2, 0, 1))[..., :3]
    return {
        "title": evaluation.title,
        "reconstruction": _data_uri(_pixels(place / f"{stem}_reconstruction.png")),
        "residual": _data_uri((colours * 255).astype(np.uint8)),
        "mask": _outlined(_pixels(place / f"{stem}_mask.png"), truth),
    }


def _pixels(path: Path) -> Any:
    """Read a picture or a residual that an evaluation wrote."""
    try:
        return read_pixels(path)
    except ValueError as error:
        raise ValueError(f"{error}, or evaluate again") from None


def _outlined(pixels: Any, truth: Any) -> str:
    """Draw the truth's outline on a picture."""
    colour = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3].copy()
    width = max(1, round(max(truth.shape) / PICTURE))
    colour[ndimage.binary_dilation(truth, iterations=width) & ~truth] = OUTLINE
    return _data_uri(colour)


def _data_uri(pixels: Any) -> str:
    """Put a picture, made smaller, into the page itself."""
    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.convert("RGB").save(file, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _rates(evaluations: list[_Evaluation], curve: str, area: str, label: str, limit: float) -> str:
    """Draw a curve over the false-positive rate, to `limit`."""
    figure, axes = _figure("false-positive rate (pixels)", label)
    axes.plot([0, 1], [0, 1], color="#bbb", linewidth=1, linestyle="--", label="chance")
    for evaluation in evaluations:
        rates, value = evaluation.result["all"][curve], evaluation.result["all"][area]
        name = _plain(evaluation.title) + ("" if value is None else f", area {value:.3f}")
        axes.plot(rates["fpr"], rates["tpr"], linewidth=2, label=name)
    axes.set(xlim=(0, limit), ylim=(0, 1.01))
    axes.legend(loc="lower right", frameon=False)
    return _svg(figure)


def _scores(evaluations: list[_Evaluation]) -> str:
    """Draw a histogram of the images' scores, good ones and defects, beside the threshold."""
    figure = Figure(figsize=(5, 1.2 + 1.6 * len(evaluations)), layout="constrained")
    for axes, evaluation in zip(np.atleast_1d(figure.subplots(len(evaluations))), evaluations, strict=True):
        samples, threshold = evaluation.result["samples"], evaluation.result["threshold"]
        kinds = {"defect": "#b42345", "good": "#2f6f9f"}
        parts = [
            [
                over_threshold(sample["largest_residual"], threshold)
                for sample in samples
                if (sample["label"] == "good") == (kind == "good")
            ]
            for kind in kinds
        ]
        axes.hist(parts, bins=30, stacked=True, label=list(kinds), color=list(kinds.values()))
        axes.axvline(1, color="#333", linewidth=1, linestyle="--")
        axes.set(xlabel=f"{_plain(evaluation.title)}: score / threshold", ylabel="images")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return _svg(figure)


def _training_curves(evaluations: list[_Evaluation]) -> str:
    """Draw the loss on held-out patches by epoch, each method's own loss over its first value."""
    figure, axes = _figure("epoch", "held-out loss, first epoch = 1")
    for evaluation in evaluations:
        steps, losses = _losses(Path(evaluation.result["run"]), evaluation.folder)
        if losses:
            axes.plot(steps, np.array(losses) / losses[0], linewidth=2, label=_plain(evaluation.title))
    axes.set_ylim(bottom=0)
    if axes.lines:
        axes.legend(frameon=False)
    return _svg(figure)


def _losses(run: Path, evaluation: Path) -> tuple[list[int], list[float]]:
    """Read the held-out losses of all parts of a training; a moved comparison is looked for beside its evaluation."""
    logs = run / "logs" if (run / "logs").is_dir() else evaluation.parent / "run" / "logs"
    losses: dict[int, float] = {}
    for path in sorted(logs.glob("csv/*/metrics.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row.get("held_out_loss"):
                        losses[int(row["epoch"])] = float(row["held_out_loss"])
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged ({error}); restore it or remove it") from None
    epochs = sorted(losses)  # a tenth part's log comes before the second's
    return epochs, [losses[epoch] for epoch in epochs]


def _plain(title: str) -> str:
    """Write a title for Matplotlib: a dollar begins no formula, and a line stands in front of none that is hidden."""
    return ("\u200b" if title.startswith("_") else "") + title.replace("$", r"\$")


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    """Make an empty plot in the page's style."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eee")
    return figure, axes


def _svg(figure: Figure) -> str:
    """Render a figure as SVG for the page: letters as outlines, or as text where Matplotlib's font lacks some."""
    for letters in ("path", "none"):
        file = io.StringIO()
        with warnings.catch_warnings(record=True) as lacking, rc_context({"svg.fonttype": letters}):
            warnings.filterwarnings("always", "Glyph .* missing from")
            figure.savefig(file, format="svg", metadata={"Date": None})
        if not lacking:
            break
    text = file.getvalue()
    return text[text.index("<svg") :]
