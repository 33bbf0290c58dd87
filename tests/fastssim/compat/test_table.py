"""The table of what is covered says it of every parameter, and the page is the table."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastssim.compat import markdown, table
from fastssim.compat.options import LIBRARIES, MEANINGS, shim

ROOT = Path(__file__).resolve().parents[3]


def parameters(function):
    if function.__name__ == "FusedSSIMMap":
        function = function.apply
    return [name for name in inspect.signature(function).parameters if name not in {"self", "kwargs"}]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_parameter_is_in_the_table(library):
    rows = [row for row in table() if row.library == library]
    if hasattr(shim(library), "METRICS"):
        pytest.importorskip(shim(library).PACKAGE)
    covered = {(function, row.option) for row in rows for function in row.functions}
    for name in shim(library).__all__:
        for parameter in parameters(getattr(shim(library), name)) if name not in {"metrics", "losses"} else ():
            assert (name, parameter) in covered


def test_rows_are_well_formed():
    for row in table():
        assert row.coverage in MEANINGS
        assert "|" not in row.note
        if row.coverage != "native":
            assert row.note


def test_the_page_is_the_table():
    assert (ROOT / "docs" / "drop-in-options.md").read_text(encoding="utf-8") == markdown()


def test_importing_the_drop_ins_loads_none_of_the_originals():
    program = (
        "import json, sys; from fastssim.compat import table; table()\n"
        "names = ('pytorch_msssim', 'torchmetrics', 'kornia', 'skimage', 'piq', 'monai', 'cupy', 'numba')\n"
        "names += ('frame_analytics', 'fussim', 'piqa')\n"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
