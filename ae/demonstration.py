"""The main job from end to end on data that lies in an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ae.comparison import Comparison, compare
from ae.config import TrainConfig
from ae.textures import write_demo_data

if TYPE_CHECKING:
    from collections.abc import Callable

NOTE = (
    "Demonstration: real brick (scikit-image, CC0) with GENERATED defects. It shows that every part works,"
    " not how well the method finds real defects."
)
CONFIG = TrainConfig(
    time_budget=85,
    least_epochs=3,  # after fewer, on a busy machine, the reconstruction may still be a constant
    epochs=1000,
    patches_per_epoch=1200,
    schedule="one-cycle",
    learning_rate=1e-3,
    batch_size=4,  # in so short a time many small steps learn more than few large ones
    warm_up=0.5,
    augment="none",
    scale=2.0,
    held_out=0.25,
    patience=0,
)


def demo(
    out: Path | str = "demo", *, progress: bool = True, announce: Callable[[str], object] = lambda _: None
) -> Comparison:
    """Make the demonstration data, train ``ssim`` and ``l2`` for 85 seconds each, evaluate, and write a report.

    Trainings take longer where a machine needs more for three epochs.

    Parameters
    ----------
    out : Path
        Folder for data, runs and report; must not hold an earlier demonstration.
    progress : bool
        Show progress bars.
    announce : callable
        Told in a line what begins.

    Returns
    -------
    Comparison
        Measures by method and the report's path.

    Raises
    ------
    ValueError
        If `out` is a folder that is not empty.

    Examples
    --------
    ::

        from ae import demo
        demo("demo").report
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; name another folder (--out) or remove it")
    announce(NOTE)
    folder = write_demo_data(out / "data")
    return compare(folder, out, config=CONFIG, progress=progress, note=NOTE, announce=announce)
