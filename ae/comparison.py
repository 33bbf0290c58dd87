"""Train and evaluate several methods on the same data, side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ae.checkpoints import is_finished
from ae.config import TrainConfig
from ae.data import DataFolder, digest, good_images, open_folder
from ae.evaluation import evaluate
from ae.methods import check_needs
from ae.reporting import report
from ae.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Comparison:
    """What a comparison found."""

    results: dict[str, dict[str, Any]]  # by method, see `ae.evaluation.evaluate`
    report: Path


def compare(
    data: Path | str | DataFolder,
    out: Path | str,
    methods: Sequence[str] = ("ssim", "l2"),
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    note: str = "",
    announce: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """Train each method with the same configuration, evaluate, and write one report.

    Parameters
    ----------
    data : Path or DataFolder
        In the layout of MVTec AD, with test images.
    out : Path
        Gets ``<method>/run``, ``<method>/evaluation`` and ``report.html``.
    methods : sequence of str
        Names of `ae.config.METHODS`, each once.
    config : TrainConfig, optional
        Everything but the method; the paper's values by default.
    resume : bool
        Continue an interrupted comparison, with the same images and options: finished trainings are kept.
    progress : bool
        Show progress bars.
    note : str
        A line for the top of the report.
    announce : callable
        Told in a line what begins.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        As `ae.training.train` and `ae.evaluation.evaluate`; if there is no method, or one twice; if a finished
        training had other options or is damaged.

    Examples
    --------
    ::

        from ae import TrainConfig, compare
        compare("data/grid", "comparison", config=TrainConfig(time_budget=600)).report
    """
    out = Path(out)
    folder = data if isinstance(data, DataFolder) else open_folder(data)
    config = config or TrainConfig()
    configs = [replace(config, method=method) for method in methods]
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"methods are {', '.join(methods) or 'none'}; give one or several, each once")
    if not folder.test:
        raise ValueError(f"{folder.root} has no test images to compare on; put them at test/<class>")
    finished = set()
    if resume:
        seen = digest(good_images(folder, config))
        finished = {each.method for each in configs if is_finished(out / each.method / "run", each, seen)}
    check_needs(each for each in configs if each.method not in finished)
    results = {}
    for each in configs:
        place = out / each.method
        if each.method not in finished:
            announce(f"training {each.method}")
            train(folder, place / "run", each, resume=resume, progress=progress)
        announce(f"evaluating {each.method} on {len(folder.test)} images")
        results[each.method] = evaluate(place / "run", folder, place / "evaluation")
    return Comparison(results, report(out, note=note))
