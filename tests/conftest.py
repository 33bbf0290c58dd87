"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real images, beside the checkout or where FASTSSIM_DATA says; the test is skipped where it is absent."""
    folder = Path(os.environ.get("FASTSSIM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; name their folder in FASTSSIM_DATA")
    return folder
