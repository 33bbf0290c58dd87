"""Run the originals' own test files against the drop-in modules: `python -m bench upstream`; needs the network.

Of the libraries that `fastssim.compat` replaces, pytorch-msssim (scripts), frame-analytics and scikit-image (for
pytest) ship their tests in a source distribution. They run in a process where `fastssim.patch` has put our functions in
the originals' place.
pytorch-msssim's scripts read pictures from the network, in whose place a generated one lies here. docs/drop-in.md says
what cannot run, and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 900  # seconds of one file
#  pip asks a source's build backend for its name and version, and scikit-image's compiles for that: this one reads them
BACKEND = """
import sys
from email.parser import HeaderParser
from pathlib import Path


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    about = Path("PKG-INFO").read_text(encoding="utf-8")
    fields = HeaderParser().parsestr(about)
    made = Path(folder) / f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(about, encoding="utf-8")
    (made / "WHEEL").write_text("Wheel-Version: 1.0\\n", encoding="utf-8")
    return made.name


__legacy__ = sys.modules[__name__]
"""
SCRIPT = """
import runpy, sys, fastssim
with fastssim.patch(sys.argv[1]):
    runpy.run_path(sys.argv[2], run_name="__main__")
"""
PYTEST = """
import sys, fastssim, pytest
with fastssim.patch(sys.argv[1]):
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", ".", *sys.argv[2:]]))
"""


@dataclass(frozen=True)
class Tests:
    """Test files of one library."""

    source: str  # what pip fetches
    library: str  # as `fastssim.patch` knows it
    files: tuple[str, ...]
    runner: str
    beside: tuple[str, ...] = ()  # what the files import
    without: str = ""  # a test that does not hold of ours; docs/drop-in.md says why


SHIPPED = (
    Tests(
        "pytorch-msssim==1.0.0",
        "pytorch_msssim",
        ("tests/tests_comparisons_skimage.py", "tests/tests_loss.py", "tests/tests_comparisons_2d3d.py"),
        SCRIPT,
    ),
    Tests(
        "frame-analytics==0.7.0",
        "frame_analytics",
        ("tests/test_metrics.py", "tests/test_training_metrics.py"),
        PYTEST,
        beside=("tests/validate.py",),
        without="test_backend_hint_contract",
    ),
    Tests("scikit-image==0.26.0", "skimage", ("tests/skimage/metrics/test_structural_similarity.py",), PYTEST),
)


def main() -> int:
    """Fetch, run, print a line for every file; return how many failed."""
    failed = 0
    for tests in SHIPPED:
        with tempfile.TemporaryDirectory(prefix="upstream-") as name:
            folder = Path(name)
            sources = _fetch(tests.source, folder)
            if sources is None:
                failed += len(tests.files)
                continue
            alone = folder / "alone"  # without the conftest.py and packages that lie about a file
            alone.mkdir()
            _pictures(alone)
            for file in tests.files + tests.beside:
                shutil.copy(sources / file, alone)
            for file in tests.files:
                failed += _failed(tests, alone, Path(file).name)
    return failed


def _fetch(source: str, folder: Path) -> Path | None:
    """Return the folder of a source distribution, or None where it cannot be fetched."""
    for module in ("mesonpy", "setuptools/build_meta"):
        path = folder / "backend" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BACKEND, encoding="utf-8")
    name = source.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words = ["--use-pep517", "--no-build-isolation", "--no-binary", name, "--dest", str(folder), source]
    environment = {**os.environ, "PYTHONPATH": str(folder / "backend")}
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        print(f"{source} could not be fetched: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
        return None
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return next(path.parent for path in folder.glob("*/PKG-INFO"))


def _pictures(folder: Path) -> None:
    """Put a generated picture where the scripts look for downloaded ones."""
    from PIL import Image  # noqa: PLC0415  # of the extras `ae` and `bench`

    down, across = np.mgrid[:96, :128]
    grey = 127 + 80 * np.sin(down / 7) * np.cos(across / 9) + 20 * np.random.default_rng(0).standard_normal((96, 128))
    colour = np.stack([grey, grey.T[:96, :96].repeat(2, 1)[:, :128], 255 - grey], 2).clip(0, 255).astype(np.uint8)
    Image.fromarray(colour).save(folder / "kodim10.png")
    Image.fromarray(colour[:, :, 0]).save(folder / "einstein.png")


def _failed(tests: Tests, folder: Path, file: str) -> bool:
    """Run a file with our module in the original's place, and say how it went."""
    words = ["--deselect", f"{file}::{tests.without}"] if tests.without else []
    try:
        done = subprocess.run(  # noqa: S603  # a pinned release of a library that the benchmarks install as well
            [sys.executable, "-c", tests.runner, tests.library, file, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        print(f"failed {tests.library} {file}: not done in {LONGEST} s")
        return True
    said = done.stdout + (done.stderr if done.returncode else "")
    printed = [line for line in said.splitlines() if line.strip()]
    print(f"{'failed' if done.returncode else 'passed'} {tests.library} {file}: {(printed or [''])[-1]}")
    return done.returncode != 0
