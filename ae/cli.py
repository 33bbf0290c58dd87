"""The command line ``ae``: each command is one documented Python call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

app = typer.Typer(
    help="Find defects in images with autoencoders trained on defect-free ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)

Data = Annotated[Path, typer.Argument(help="Data set in the layout of MVTec AD, or a folder of defect-free images.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results, made where there is none.")]
Method = Annotated[str, typer.Option(help="ssim or l2.")]
Epochs = Annotated[int, typer.Option(help="Epochs of 10,000 random patches each.")]
Minutes = Annotated[
    float | None, typer.Option(help="End each training after this many minutes, the schedule cut to fit.")
]
Batch = Annotated[int, typer.Option("--batch-size", help="Patches in a batch.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="Of Adam; the highest of a one-cycle schedule.")]
Schedule = Annotated[str, typer.Option(help="constant (the paper's) or one-cycle (reaches the same loss far sooner).")]
Augment = Annotated[str, typer.Option(help="none, flips (and quarter turns) or rotations (by any angle).")]
Latent = Annotated[int, typer.Option(help="Numbers in the code: 100 for textures, 500 for nanofibres.")]
Channels = Annotated[int, typer.Option(help="1 reads images as grey, 3 as colour.")]
Scale = Annotated[float, typer.Option(help="Scale images by this factor first.")]
Seed = Annotated[int, typer.Option(help="Of weights, patches and the choice of held-out images.")]
Stride = Annotated[int, typer.Option(help="Pixels from tile to tile when whole images are segmented.")]
Estimator = Annotated[str, typer.Option(help="Average the tiles' reconstruction, or their residual maps.")]
Rate2 = Annotated[float, typer.Option("--false-positive-rate", help="Share of good pixels above the threshold.")]
Area = Annotated[int, typer.Option("--minimum-area", help="Drop smaller regions, in pixels.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]


@app.command()
def demo(out: Out = Path("demo")) -> None:
    """Train, segment, evaluate and report on embedded textures with generated defects (under 4 minutes on 2 cores)."""
    from ae.demonstration import demo as run_demo  # noqa: PLC0415  # torch loads for seconds: only where it is used

    _show_comparison(run_demo(out, announce=console.print))


@app.command()
def train(
    data: Data,
    out: Out,
    method: Method = "ssim",
    epochs: Epochs = 200,
    minutes: Minutes = None,
    batch_size: Batch = 32,
    learning_rate: Rate = 2e-4,
    schedule: Schedule = "constant",
    augment: Augment = "none",
    latent: Latent = 100,
    channels: Channels = 1,
    scale: Scale = 1.0,
    seed: Seed = 0,
    stride: Stride = 32,
    estimator: Estimator = "reconstruction",
    false_positive_rate: Rate2 = 0.01,
    minimum_area: Area = 16,
    resume: Resume = False,  # noqa: FBT002  # a flag on the command line
) -> None:
    """Train a model on defect-free images and write a run folder."""
    from ae.training import train as run_train  # noqa: PLC0415

    options = {name: value for name, value in locals().items() if name not in {"data", "out", "resume", "run_train"}}
    folder = run_train(data, out, _config(options), resume=resume)
    console.print(f"run folder: {folder}", soft_wrap=True)
    _warn_of_collapse(folder)


@app.command()
def compare(
    data: Data,
    out: Out,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "ssim,l2",
    epochs: Epochs = 200,
    minutes: Minutes = None,
    batch_size: Batch = 32,
    learning_rate: Rate = 2e-4,
    schedule: Schedule = "constant",
    augment: Augment = "none",
    latent: Latent = 100,
    channels: Channels = 1,
    scale: Scale = 1.0,
    seed: Seed = 0,
    stride: Stride = 32,
    estimator: Estimator = "reconstruction",
    false_positive_rate: Rate2 = 0.01,
    minimum_area: Area = 16,
    resume: Resume = False,  # noqa: FBT002
) -> None:
    """Train and evaluate several methods on one data set, side by side, with one report."""
    from ae.comparison import compare as run_compare  # noqa: PLC0415

    left_out = {"data", "out", "methods", "resume", "run_compare"}
    options = {name: value for name, value in locals().items() if name not in left_out}
    names = [name.strip() for name in methods.split(",")]
    _show_comparison(run_compare(data, out, names, _config(options), resume=resume, announce=console.print))


@app.command()
def segment(
    run: Annotated[Path, typer.Argument(help="Run folder that `ae train` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Out,
) -> None:
    """Mark the defects in images of any size: residual maps, masks and overlays."""
    from ae.segmentation import segment as run_segment  # noqa: PLC0415

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("tiles")
        paths = run_segment(
            run, images, out, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    for path in paths:
        console.print(path, soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder that `ae train` wrote.")], data: Data, out: Out
) -> None:
    """Measure a run on a data set's test images."""
    from ae.evaluation import evaluate as run_evaluate  # noqa: PLC0415
    from ae.evaluation import metrics_table  # noqa: PLC0415

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("images")
        result = run_evaluate(
            run, data, out, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    console.print(metrics_table({result["method"]: result}))
    console.print(f"measures: {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of one or several evaluations.")],
) -> None:
    """Write one HTML file that shows measures, curves and pictures."""
    from ae.reporting import report as run_report  # noqa: PLC0415

    console.print(f"report: {run_report(folder)}", soft_wrap=True)


def main() -> None:
    """Run the command line; a mistake of the user's becomes one clear line and exit status 2."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        errors.print("stopped; the same command with --resume continues from the last checkpoint")
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        errors.print(f"ae: {_one_line(error)}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _config(options: dict[str, Any]) -> Any:
    """Make a training configuration of command-line options."""
    from ae.run import TrainConfig  # noqa: PLC0415

    minutes = options.pop("minutes")
    return TrainConfig(**options, time_budget=None if minutes is None else 60 * minutes)


def _show_comparison(comparison: Any) -> None:
    """Print the measures side by side and where the report lies."""
    from ae.evaluation import metrics_table  # noqa: PLC0415

    console.print(metrics_table(comparison.results))
    for result in comparison.results.values():
        _warn_of_collapse(Path(result["run"]))
    console.print(f"report: {comparison.report.resolve()}", soft_wrap=True)


def _warn_of_collapse(folder: Path) -> None:
    """Say that a model learnt nothing but a constant."""
    from ae.files import read_json  # noqa: PLC0415

    if read_json(folder / "config.json")["training"]["collapsed"]:
        errors.print(f"ae: {folder} gives a constant output; train longer or with --schedule one-cycle", soft_wrap=True)


def _one_line(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; free space or check the permissions"
    return " ".join(str(error).split())
