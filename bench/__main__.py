"""Measure (`python -m bench ssim`), compare two results, write `docs/benchmarks.md` from `bench/results`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench import environments, results, sass, upstream
from bench.compare import TOLERANCE, agreement, compare, slower, table
from bench.device import require_gpu
from bench.suites import SUITES, Suite

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, QUICK_ROUNDS = 60, 24
ON_GPU = [name for name, suite in SUITES.items() if suite.on_gpu]


def main(words: list[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.replace("`", ""))
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {**{name: suite.purpose for name, suite in SUITES.items()}, "all": "all of these"}.items():
        _add_options(commands.add_parser(name, help=purpose))
    machine_code = commands.add_parser("sass", help="what the CUDA kernels cost, from their machine code; needs no GPU")
    machine_code.add_argument("--arch", default="sm_90", help="architecture; by default sm_90, the H100")
    machine_code.add_argument(
        "--out", type=Path, help="folder for sass.json, or the .json itself, in place of the table"
    )
    commands.add_parser("docs", help="write docs/benchmarks.md and its plots from bench/results/*.json")
    commands.add_parser("upstream", help="fetch the originals' own test files and run them against fastssim.compat")
    peers = commands.add_parser("peers", help="list the libraries that need environments of their own")
    peers.add_argument("--install", action="store_true", help="make those environments")
    gate = commands.add_parser("compare", help="status 1 where fastssim became slower, by ratios to other libraries")
    gate.add_argument("old", type=Path, help="a result, or a folder of results")
    gate.add_argument("new", type=Path)
    gate.add_argument("--tolerance", type=float, default=TOLERANCE, help="change of a ratio that is noise")
    given = parser.parse_args(words)
    if given.command == "docs":
        _write_page(parser)
    elif given.command == "sass":
        if given.out is not None:
            _make_room(parser, given.out, several=False)
        _sass(given.arch, given.out)
    elif given.command == "upstream":
        sys.exit(upstream.main())
    elif given.command == "peers":
        _peers(install=given.install)
    elif given.command == "compare":
        _compare(parser, given)
    else:
        _measure(parser, given)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Give every suite the same options."""
    parser.add_argument("--peers", help="libraries, separated by commas; by default all")
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    parser.add_argument("--full", action="store_true", help="scaling: up to 2^28 pixels")
    parser.add_argument(
        "--rounds", type=int, help=f"samples of each at most; by default {ROUNDS}, quick {QUICK_ROUNDS}"
    )
    parser.add_argument("--threads", type=int, help="as torch.set_num_threads; by default what torch chose")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=f"of {', '.join(ON_GPU)}")
    parser.add_argument(
        "--out", type=Path, help="folder for SUITE.json, or the .json itself; by default the tables are printed only"
    )


def _measure(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Run one suite, or all that there are."""
    for name in ("rounds", "threads"):
        value = getattr(given, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; give at least 1")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    every = given.command == "all"
    suites = SUITES if every else {given.command: SUITES[given.command]}
    known = list(dict.fromkeys(peer for suite in suites.values() for peer in suite.peers))
    peers = known if given.peers is None else [name.strip() for name in given.peers.split(",")]
    unknown = sorted(set(peers) - set(known))
    if unknown:
        parser.error(f"no peer is named {', '.join(unknown)}; there are {', '.join(known)}")
    if given.device == "cuda" and not every and not suites[given.command].on_gpu:
        parser.error(f"{given.command} is measured on the CPU; --device cuda is of {', '.join(ON_GPU)}")
    if given.out is not None:
        _make_room(parser, given.out, several=every)
    for name, suite in suites.items():
        if given.device == "cuda" and not suite.on_gpu:
            _say(f"{name}: left out, it is measured on the CPU")
            continue
        try:
            _measure_one(name, suite, peers, given)
        except RuntimeError as error:  # no GPU
            if not every:
                sys.exit(f"{name}: {error}")
            _say(f"{name}: left out, {error}")


def _make_room(parser: argparse.ArgumentParser, out: Path, *, several: bool) -> None:
    """Make the folder that results go to."""
    if several and out.suffix == ".json":
        parser.error(f"--out is {out}: all writes several files; give a folder")
    try:
        _place(out, "any").parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out is {out}: {error.strerror}; give a folder")


def _measure_one(name: str, suite: Suite, peers: list[str], given: argparse.Namespace) -> None:
    """Run one suite, print its tables and keep its results."""
    if given.device == "cuda" and suite.on_gpu:
        require_gpu()
    start = time.perf_counter()
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    measured = suite.run(
        peers,
        quick=given.quick,
        rounds=rounds,
        announce=lambda line: _say(f"{name}: {line}"),
        device=given.device,
        full=given.full,
    )
    content: dict[str, Any] = {**results.describe(), "suite": name, "quick": given.quick, "rounds": rounds, **measured}
    print(results.section("this run", content), flush=True)
    _say(f"{name}: took {time.perf_counter() - start:.0f} s")
    if given.out is not None:
        path = _place(given.out, name)
        results.write(path, content)
        _say(f"{name}: results in {path}")
        _draw(content, path.parent)


def _place(out: Path, name: str) -> Path:
    """Return the file of a suite's results: `out` itself where it names one."""
    return out if out.suffix == ".json" else out / f"{name}.json"


def _write_page(parser: argparse.ArgumentParser) -> None:
    """Write the page of all committed results, and their plots."""
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    try:
        found = [(f"bench/results/{path.name}", results.read(path)) for path in files]
    except ValueError as error:
        parser.error(str(error))
    page = ROOT / "docs" / "benchmarks.md"
    results.write_text(page, results.markdown(found))
    print(page)
    for _, content in found:
        _draw(content, page.parent)


def _draw(content: dict[str, Any], folder: Path) -> None:
    """Draw the plots of a result, if it has any."""
    if not results.pictures(content):
        return
    try:
        from bench.plots import draw  # noqa: PLC0415  # where there is something to draw
    except ImportError as error:
        _say(f"no plot of {content['suite']}: {error}; pip install matplotlib")
    else:
        print(*draw(content, folder), sep="\n")


def _sass(architecture: str, out: Path | None) -> None:
    """Print the table or write its rows, or say in a line what is missing or what the compiler refuses."""
    try:
        if out is None:
            sass.main(architecture)
            return
        path = _place(out, "sass")
        results.write(path, {**results.describe(), "suite": "sass", "rows": sass.rows(architecture)})
        _say(f"sass: results in {path}")
    except ImportError as error:
        sys.exit(f'sass: {error}; the compiler comes with pip install ".[test]"')
    except RuntimeError as error:
        sys.exit(f"sass: {' '.join(str(error).split())}")


def _peers(*, install: bool) -> None:
    """Make the environments, or say which are there."""
    failed = environments.install(environments.ENVIRONMENTS) if install else {}
    for name, packages in environments.ENVIRONMENTS.items():
        try:
            state = str(environments.python(name))
        except ImportError:
            state = failed.get(name, "not there; python -m bench peers --install makes it")
        print(f"{name:10} {' '.join(packages)}: {state}")
    if failed:
        sys.exit(1)


def _compare(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Compare two results; end with status 1 where fastssim became slower."""
    if not 0 < given.tolerance < math.inf:
        parser.error(f"--tolerance is {given.tolerance}; give a share above 0, as {TOLERANCE}")
    try:
        changes = compare(given.old, given.new)
    except ValueError as error:
        parser.error(str(error))
    print(table(changes, given.tolerance), agreement(changes, given.tolerance), sep="\n\n")
    lost = [change for change in changes if slower(change, given.tolerance)]
    if lost:
        _say(f"fastssim is slower by more than {given.tolerance:.0%} in {len(lost)} of {len(changes)} measurements")
        sys.exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
