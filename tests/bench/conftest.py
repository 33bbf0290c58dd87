from __future__ import annotations

import pytest

from bench import cases, roofline

LIMITS = roofline.Roofline(threads=1, fma_per_second=1e11, bytes_per_second=1e10)


@pytest.fixture
def small(monkeypatch):
    """Small images and no measured rates, so that a suite runs in a second."""
    monkeypatch.setattr(cases, "CASES", (cases.Case((2, 1, 48, 40)), cases.Case((1, 1, 64, 64), quick=False)))
    monkeypatch.setattr(roofline, "measure", lambda *_: LIMITS)
