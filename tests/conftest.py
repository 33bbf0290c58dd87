"""What every test may ask for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # threads of one process wait for another's, spinning
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
from hypothesis import settings

# The compiler of CUDA 13, before kornia loads that of CUDA 12: cuda.bindings takes what is there.
with suppress(ImportError, RuntimeError):
    from cuda.bindings import nvrtc

    nvrtc.nvrtcVersion()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real images, beside the checkout or named by FASTSSIM_DATA; where it is absent, skip the test."""
    folder = Path(os.environ.get("FASTSSIM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; name their folder in FASTSSIM_DATA")
    return folder


settings.register_profile("fastssim", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("fastssim")
