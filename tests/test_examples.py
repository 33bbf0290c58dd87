"""The example programs run, and give the same result with the library and with the drop-in module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(
    ("program", "options", "needs", "tolerance"),
    [
        ("restore.py", ["--steps", "3", "--size", "48"], "pytorch_msssim", 1e-4),
        ("fit_gaussians.py", ["--steps", "3", "--size", "48"], "torch", 1e-4),
        ("evaluate.py", ["--size", "64"], "skimage", 1e-5),
    ],
)
def test_example(program, options, needs, tolerance):
    pytest.importorskip(needs)
    done = subprocess.run(
        [sys.executable, EXAMPLES / program, *options], capture_output=True, text=True, check=True, cwd=EXAMPLES.parent
    )
    results = [float(found) for found in re.findall(r": result (\S+) in [\d.]+ s$", done.stdout, re.MULTILINE)]
    assert len(results) == 2
    assert results[0] == pytest.approx(results[1], abs=tolerance)
    assert re.search(r"^speed-up: [\d.]+$", done.stdout, re.MULTILINE)
