"""Run the originals' own test files against the drop-in modules: `python -m bench upstream`; needs the network.

Of the libraries that `fastssim.compat` replaces, pytorch-msssim alone ships its tests, scripts, in a source
distribution that pip fetches without compiling. They read pictures from the network, in whose place a generated picture
lies here. docs/drop-in.md says what cannot run, and why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from fastssim.compat.options import shim

SOURCE = "pytorch-msssim==1.0.0"
SCRIPTS = ("tests_comparisons_skimage.py", "tests_loss.py")
ROOT = Path(__file__).resolve().parent.parent
LONGEST = 900  # seconds of one script


def main() -> int:
    """Fetch, run, print a line for every script; return how many failed."""
    with tempfile.TemporaryDirectory(prefix="upstream-") as name:
        folder = Path(name)
        tests = _fetch(folder)
        if tests is None:
            return 1
        stand_in("pytorch_msssim", folder / "stand-in")
        _pictures(tests)
        return sum(_failed(tests / script, folder / "stand-in") for script in SCRIPTS)


def stand_in(library: str, folder: Path) -> None:
    """Write a module of the library's name that holds our functions."""
    folder.mkdir()
    (folder / f"{library}.py").write_text(f"from {shim(library).__name__} import *\n", encoding="utf-8")


def _fetch(folder: Path) -> Path | None:
    """Return the folder of the tests, or None where they cannot be fetched."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words = [*command, "--no-binary", ":all:", "--dest", str(folder), SOURCE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        print(f"{SOURCE} could not be fetched: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
        return None
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/tests"))


def _pictures(folder: Path) -> None:
    """Put a generated picture where the scripts look for downloaded ones."""
    from PIL import Image  # noqa: PLC0415  # of the extras `ae` and `bench`

    down, across = np.mgrid[:96, :128]
    grey = 127 + 80 * np.sin(down / 7) * np.cos(across / 9) + 20 * np.random.default_rng(0).standard_normal((96, 128))
    colour = np.stack([grey, grey.T[:96, :96].repeat(2, 1)[:, :128], 255 - grey], 2).clip(0, 255).astype(np.uint8)
    Image.fromarray(colour).save(folder / "kodim10.png")
    Image.fromarray(colour[:, :, 0]).save(folder / "einstein.png")


def _failed(script: Path, stand_in: Path) -> bool:
    """Run a script with our module in the original's place, and say how it went."""
    paths = os.pathsep.join([str(stand_in), str(ROOT)])
    done = subprocess.run(  # noqa: S603  # a pinned release of a library that the benchmarks install as well
        [sys.executable, script.name],
        cwd=script.parent,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    last = next(iter(reversed((done.stderr if done.returncode else done.stdout).strip().splitlines())), "")
    print(f"{'failed' if done.returncode else 'passed'} {script.name}: {last}")
    return done.returncode != 0
