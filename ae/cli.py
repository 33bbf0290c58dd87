"""The command line ``ae``: each command is one documented Python call."""

from __future__ import annotations

import functools
import inspect
import io
import sys
from dataclasses import fields
from errno import ENAMETOOLONG
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.progress import Progress

from ae.config import PRESETS, TrainConfig, preset
from ae.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field

app = typer.Typer(
    help="Find defects in images with autoencoders trained on defect-free ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
console = Console(markup=False, emoji=False)  # what is printed are paths and errors as they are, [red] and :x: included
errors = Console(stderr=True, markup=False, emoji=False)
FEW = 3  # held-out images that tell little of how good ones differ

Data = Annotated[Path, typer.Argument(help="Data set in the layout of MVTec AD, or a folder of defect-free images.")]
Tested = Annotated[Path, typer.Argument(help="Data set in the layout of MVTec AD, with test images and their masks.")]
Run = Annotated[Path, typer.Argument(help="Run folder that `ae train` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results, made where there is none.")]
Device = Annotated[str, typer.Option(help="Where the network works: cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]

OPTIONS = {
    "method": "What is minimised: ssim, l2, vae or fm.",
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
    "initialisation": "Of the weights: kaiming, or torch (its default).",
    "output": "Of the network: linear or sigmoid.",
    "ssim_window": "Of SSIM: gaussian or box.",
    "window_size": "Of SSIM, in pixels, odd.",
    "constants": "c1 and c2 of SSIM: squared (0.0001 and 0.0009) or literal (0.01 and 0.03).",
    "loss_scales": "Scales of multi-scale SSIM in the loss; 1 is SSIM.",
    "l1_share": "Share of the mean absolute error in the SSIM loss.",
    "noise": "Standard deviation of noise on what the network sees.",
    "erased": "Share of a patch that the network does not see and fills in.",
    "augment": "none, flips (and quarter turns) or rotations (by any angle).",
    "held_out": "Share of the good images kept for early stopping and the threshold; 0 fits all.",
    "patience": "Epochs without a better held-out loss before training stops; 0 never stops.",
    "precision": "Of the network's layers in training: float32 or bfloat16 (faster where the hardware has it).",
    "seed": "Of weights, patches and the choice of held-out images.",
    "vae_samples": "Codes that vae averages over; 0 decodes their mean.",
    "feature_weights": "File with AlexNet's weights, for fm; without one, EfficientNet-Lite0's (extra fm).",
    "stride": "Pixels from tile to tile when whole images are segmented.",
    "estimator": "Average the tiles' reconstruction, or their residual maps.",
    "blending": "Weights in that average: gaussian, uniform, hann or tent.",
    "test_flips": "Average over mirrored tiles, too.",
    "residual_scales": "Average the residual over so many scales.",
    "difference": "Multiply the residual by this power of the difference of local means; 0 does not.",
    "opening": "Open the residual by a disc of this diameter; 0 does not.",
    "smoothing": "Blur the residual by a Gaussian of this standard deviation in pixels; 0 does not.",
    "normalise": "Scores: none, contrast (by good images' residuals at such contrast), level (less the image's own"
    " median, as far as good images differ), median (less all of it) or image (by its own spread, too).",
    "threshold_rule": "rate (--false-positive-rate) or region (good images show none of --minimum-area).",
    "false_positive_rate": "Share of good pixels above the threshold.",
    "minimum_area": "Drop smaller regions, in pixels.",
    "time_budget": "End a training after this long (90s, 15m, 2h), the schedule cut to fit.",
    "least_epochs": "Train so many epochs even where --time-budget has no room for them.",
}


def takes_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--preset`` and an option for each field of `TrainConfig`, in place of its parameter `config`."""
    kinds = get_type_hints(TrainConfig)
    options = {field.name: _option(field, kinds[field.name]) for field in fields(TrainConfig)}
    own = inspect.signature(command, eval_str=True)
    if "methods" in own.parameters:
        del options["method"]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        context: typer.Context = given.pop("context")
        name = given.pop("preset")
        chosen = {field: given.pop(field) for field in options}
        if chosen["time_budget"] is not None:
            chosen["time_budget"] = duration(chosen["time_budget"])
        if name is not None:
            chosen = {field: value for field, value in chosen.items() if _was_given(context, field)}
        try:
            command(**given, config=TrainConfig(**chosen) if name is None else preset(name, **chosen))
        except KeyboardInterrupt:
            errors.print(
                "ae: stopped; the same command with --resume continues from the last checkpoint", soft_wrap=True
            )
            raise typer.Exit(130) from None

    chosen_preset = inspect.Parameter(
        "preset",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(help=f"Other defaults: {' or '.join(PRESETS)}.")],
    )
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.parameters.items() if name != "config"]
    wrapped.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[context_parameter, *kept, chosen_preset, *options.values()]
    )
    return wrapped


def _option(field: Field[Any], kind: Any) -> inspect.Parameter:
    """Make the command-line option of a field of `TrainConfig`."""
    names = (f"--{field.name.replace('_', '-')}",) if kind is bool else ()
    if field.name == "time_budget":
        kind = str | None
    annotation = Annotated[kind, typer.Option(*names, help=OPTIONS[field.name])]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _was_given(context: typer.Context, option: str) -> bool:
    """Tell whether an option stands on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def duration(text: str) -> float:
    """Read a time such as 90s, 15m or 2h; return seconds.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> duration("1.5m")
    90.0
    """
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        raise ValueError(f"the time {text!r} is none; give seconds, minutes or hours: 90s, 15m, 2h") from None


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
    _warn_of_few(folder)


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

    _show_comparison(run_compare(data, out, _words(methods), config, resume=resume, announce=_announce))


@app.command()
def segment(
    run: Run,
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or patterns in quotes.")],
    out: Out,
    device: Device = "cpu",
) -> None:
    """Mark the defects in images of any size: residual maps, masks, overlays, tables of regions."""
    from ae.batch import segment as run_segment  # noqa: PLC0415

    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("images")
        batch = run_segment(
            run,
            images,
            out,
            device=device,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    for path in batch.overlays:
        console.print(path, soft_wrap=True)
    console.print(f"regions: {out / 'regions.csv'}, {out / 'regions.json'}", soft_wrap=True)
    for reason in batch.failures.values():
        errors.print(f"ae: {_one_line(ValueError(reason))}", highlight=False, soft_wrap=True)
    if batch.failures:
        files = "file" if len(batch.failures) == 1 else "files"
        errors.print(f"ae: {len(batch.failures)} {files} could not be segmented, or not as a whole", soft_wrap=True)
        raise typer.Exit(2)


@app.command()
def evaluate(run: Run, data: Tested, out: Out, device: Device = "cpu") -> None:
    """Measure a run on a data set's test images."""
    from ae.evaluation import classes_table, metrics_table  # noqa: PLC0415
    from ae.evaluation import evaluate as run_evaluate  # noqa: PLC0415

    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("images")
        result = run_evaluate(
            run, data, out, device=device, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )
    console.print(metrics_table({result["method"]: result}))
    if result["classes"]:
        console.print(classes_table(result))
    console.print(f"measures: {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of one or several evaluations.")],
    images: Annotated[int, typer.Option(min=0, help="Images shown of each class.")] = 4,
) -> None:
    """Write one HTML file that shows measures, curves and pictures."""
    from ae.reporting import report as run_report  # noqa: PLC0415

    console.print(f"report: {run_report(folder, images_per_class=images)}", soft_wrap=True)


@app.command()
def export(run: Run, out: Annotated[Path, typer.Option("--out", help="The file, .onnx.")]) -> None:
    """Write a run's network as ONNX, for programs without Python or torch."""
    from ae.exporting import export as run_export  # noqa: PLC0415

    console.print(f"network: {run_export(run, out)}", soft_wrap=True)


@app.command()
def calibrate(
    run: Run,
    data: Data,
    threshold_rule: Annotated[str | None, typer.Option(help=OPTIONS["threshold_rule"])] = None,
    false_positive_rate: Annotated[float | None, typer.Option(help=OPTIONS["false_positive_rate"])] = None,
    minimum_area: Annotated[int | None, typer.Option(help=OPTIONS["minimum_area"])] = None,
) -> None:
    """Find another threshold for a trained run, on the good images that it was trained with.

    What is not given stays as it is in the run.
    """
    from ae.calibration import recalibrate  # noqa: PLC0415
    from ae.data import open_folder  # noqa: PLC0415
    from ae.run import load_run, save_run  # noqa: PLC0415

    options = {
        "threshold_rule": threshold_rule,
        "false_positive_rate": false_positive_rate,
        "minimum_area": minimum_area,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    changed = recalibrate(load_run(run), open_folder(data), **given)
    save_run(changed)
    console.print(f"threshold: {changed.threshold:.6g}", soft_wrap=True)


@app.command()
def experiment(
    root: Annotated[Path, typer.Argument(help="Folder of data sets in the layout of MVTec AD.")],
    out: Out,
    sets: Annotated[str, typer.Option(help="Data sets, separated by commas.")] = "mvtec_grid_512",
    variants: Annotated[str, typer.Option(help="Variants of ae.experiments, separated by semicolons.")] = "best",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    time_budget: Annotated[str | None, typer.Option(help="End each training after this long (90s, 15m, 2h).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training.")] = None,
    precision: Annotated[str | None, typer.Option(help=OPTIONS["precision"])] = None,
    feature_weights: Annotated[str | None, typer.Option(help=OPTIONS["feature_weights"])] = None,
) -> None:
    """Train and measure variants on data sets, a file for each; finished ones are kept, interrupted ones go on."""
    from ae.experiments import experiment as run_experiment  # noqa: PLC0415
    from ae.experiments import rows_of, tables  # noqa: PLC0415

    changes = {
        "time_budget": None if time_budget is None else duration(time_budget),
        "epochs": epochs,
        "precision": precision,
        "feature_weights": feature_weights,
    }
    if wrong := [seed for seed in _words(seeds) if not seed.isdecimal()]:
        raise ValueError(f"seeds: {', '.join(wrong)} is no whole number; give some, separated by commas")
    rows = rows_of(_words(sets), _words(variants, ";"), [int(seed) for seed in _words(seeds)])
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    run_experiment(root, out, rows, announce=_announce, **given)
    _announce(tables(out))


@app.command()
def results(folder: Annotated[Path, typer.Argument(help="Folder that `ae experiment` wrote.")]) -> None:
    """Print the tables of experiments, mean and spread over the seeds, as Markdown."""
    from ae.experiments import tables  # noqa: PLC0415

    _announce(tables(folder))


def main() -> None:
    """Run the command line; a mistake of the user's becomes one clear line and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that it cannot encode, as stderr shows them
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError) as error:
        errors.print(f"ae: {_one_line(error)}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)


def _words(text: str, separator: str = ",") -> list[str]:
    """Take a list of words apart."""
    return [word.strip() for word in text.split(separator) if word.strip()]


def _announce(line: str) -> None:
    """Say what begins."""
    console.print(line, soft_wrap=True)


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


def _warn_of_few(folder: Path) -> None:
    """Say that a threshold is of few images."""
    held_out = read_json(folder / "config.json")["training"]["images"]["held_out"]
    if held_out < FEW:
        source = f"{held_out} held-out image{'s' * (held_out != 1)}" if held_out else "images that were fitted"
        hint = f"if masks show too much, ae calibrate {folder} FOLDER_OF_GOOD_IMAGES"
        errors.print(f"ae: {folder} has its threshold from {source}, and good ones may differ; {hint}", soft_wrap=True)


def _one_line(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        of_name = isinstance(error, (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError))
        hint = "check the path" if of_name or error.errno == ENAMETOOLONG else "free space or check the permissions"
        return f"{where}{error.strerror}; {hint}"
    return " ".join(str(error).split())
