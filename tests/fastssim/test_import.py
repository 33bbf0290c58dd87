"""What importing the package does, and does not do."""

from __future__ import annotations

import json
import subprocess
import sys


def test_import_loads_no_compiler_and_no_gpu_library():
    program = "import fastssim, json, sys; print(json.dumps([m for m in ('numba', 'cupy', 'ae') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""
