"""Images and comparisons that the tests of SSIM share."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def images():
    """Make a smooth random pair with noise, in [0, 1]: structure at every scale, unlike white noise."""

    def make(shape, dtype=torch.float32, seed=0):
        rng = np.random.default_rng(seed)
        height, width = shape[-2:]
        wave = np.sin(np.arange(height)[:, None] / 5 + rng.random()) * np.cos(np.arange(width) / 7 + rng.random())
        x = np.clip(0.5 + 0.4 * wave + 0.05 * rng.standard_normal(shape), 0, 1)
        y = np.clip(x + 0.1 * rng.standard_normal(shape), 0, 1)
        return torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)

    return make


@pytest.fixture
def with_every_thread_count():
    """Call a function with several numbers of threads; return its results."""

    def results(function):
        before = torch.get_num_threads()
        found = []
        try:
            for threads in (1, 2, 3, 8):
                torch.set_num_threads(threads)
                found.append(function())
        finally:
            torch.set_num_threads(before)
        return found

    return results
