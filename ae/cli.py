"""The command line ``ae``: each command is one documented Python call."""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.progress import Progress

from ae.config import TrainConfig
from ae.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

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
Run = Annotated[Path, typer.Argument(help="Run folder that `ae train` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results, made where there is none.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]

OPTIONS = {
    "method": "What is minimised: ssim or l2.",
    "latent": "Numbers in the code: 100 for textures, 500 for nanofibres.",
    "channels": "1 reads images as grey, 3 as colour.",
    "scale": "Scale images by this factor first.",
    "epochs": "Passes of --patches-per-epoch random patches.",
    "patches_per_epoch": "Patches in an epoch.",
    "batch_size": "Patches in a batch.",
    "learning_rate": "Of Adam; the highest of a one-cycle schedule.",
    "weight_decay": "Of Adam.",
    "schedule": "constant (the paper's) or one-cycle (reaches the same loss far sooner).",
    "warm_up": "Share of the training that first minimises the squared error, to leave a constant output sooner.",
    "gradient_clip": "Shorten longer gradients to this norm; 0 leaves them.",
    "augment": "none, flips (and quarter turns) or rotations (by any angle).",
    "held_out": "Share of the good images kept for early stopping and the threshold.",
    "patience": "Epochs without a better held-out loss before training stops; 0 never stops.",
    "seed": "Of weights, patches and the choice of held-out images.",
    "stride": "Pixels from tile to tile when whole images are segmented.",
    "estimator": "Average the tiles' reconstruction, or their residual maps.",
    "false_positive_rate": "Share of good pixels above the threshold.",
    "minimum_area": "Drop smaller regions, in pixels.",
    "time_budget": "End a training after this many minutes, the schedule cut to fit.",
}


def takes_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `TrainConfig`, in place of its parameter `config`."""
    kinds = get_type_hints(TrainConfig)
    options = {
        field.name: inspect.Parameter(
            "minutes" if field.name == "time_budget" else field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[kinds[field.name], typer.Option(help=OPTIONS[field.name])],
        )
        for field in fields(TrainConfig)
        if field.name in OPTIONS and not (field.name == "method" and "methods" in inspect.signature(command).parameters)
    }

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(option.name) for name, option in options.items()}
        if chosen["time_budget"] is not None:
            chosen["time_budget"] *= 60
        try:
            command(**given, config=TrainConfig(**chosen))
        except KeyboardInterrupt:
            errors.print(
                "ae: stopped; the same command with --resume continues from the last checkpoint", soft_wrap=True
            )
            raise typer.Exit(130) from None

    own = inspect.signature(command, eval_str=True)
    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.parameters.items() if name != "config"]
    wrapped.__signature__ = own.replace(parameters=[*kept, *options.values()])  # type: ignore[attr-defined]
    return wrapped


@app.command()
def demo(out: Out = Path("demo")) -> None:
    """Train, segment, evaluate and report on embedded textures with generated defects (under 4 minutes on 2 cores)."""
    from ae.demonstration import demo as run_demo  # noqa: PLC0415  # torch loads for seconds: only where it is used

    _show_comparison(run_demo(out, announce=_announce))


@app.command()
@takes_config
def train(data: Data, out: Out, config: TrainConfig, resume: Resume = False) -> None:  # noqa: FBT002  # a flag
    """Train a model on defect-free images and write a run folder."""
    from ae.training import train as run_train  # noqa: PLC0415

    folder = run_train(data, out, config, resume=resume)
    console.print(f"run folder: {folder}", soft_wrap=True)
    _warn_of_collapse(folder)


@app.command()
@takes_config
def compare(
    data: Data,
    out: Out,
    config: TrainConfig,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "ssim,l2",
    resume: Resume = False,  # noqa: FBT002
) -> None:
    """Train and evaluate several methods on one data set, side by side, with one report."""
    from ae.comparison import compare as run_compare  # noqa: PLC0415

    names = [name.strip() for name in methods.split(",")]
    _show_comparison(run_compare(data, out, names, config, resume=resume, announce=_announce))


@app.command()
def segment(run: Run, images: Annotated[list[Path], typer.Argument(help="Image files.")], out: Out) -> None:
    """Mark the defects in images of any size: residual maps, masks and overlays."""
    from ae.segmentation import segment as run_segment  # noqa: PLC0415

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("tiles")
        paths = run_segment(run, images, out, progress=lambda done, of: bar.update(task, completed=done, total=of))
    for path in paths:
        console.print(path, soft_wrap=True)


@app.command()
def evaluate(run: Run, data: Data, out: Out) -> None:
    """Measure a run on a data set's test images."""
    from ae.evaluation import evaluate as run_evaluate  # noqa: PLC0415
    from ae.evaluation import metrics_table  # noqa: PLC0415

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("images")
        result = run_evaluate(run, data, out, progress=lambda done, of: bar.update(task, completed=done, total=of))
    console.print(metrics_table({result["method"]: result}))
    console.print(f"measures: {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of one or several evaluations.")]) -> None:
    """Write one HTML file that shows measures, curves and pictures."""
    from ae.reporting import report as run_report  # noqa: PLC0415

    console.print(f"report: {run_report(folder)}", soft_wrap=True)


def main() -> None:
    """Run the command line; a mistake of the user's becomes one clear line and exit status 2."""
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        errors.print(f"ae: {_one_line(error)}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _announce(line: str) -> None:
    """Say what begins."""
    console.print(line, soft_wrap=True, markup=False)


def _show_comparison(comparison: Any) -> None:
    """Print the measures side by side and where the report lies."""
    from ae.evaluation import metrics_table  # noqa: PLC0415

    console.print(metrics_table(comparison.results))
    for result in comparison.results.values():
        _warn_of_collapse(Path(result["run"]))
    console.print(f"report: {comparison.report.resolve()}", soft_wrap=True)


def _warn_of_collapse(folder: Path) -> None:
    """Say that a model learnt no more than a constant."""
    if read_json(folder / "config.json")["training"]["collapsed"]:
        hint = "train longer, with --schedule one-cycle or --warm-up 0.4"
        errors.print(f"ae: {folder} reconstructs no better than a constant; {hint}", soft_wrap=True)


def _one_line(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; free space or check the permissions"
    return " ".join(str(error).split())
