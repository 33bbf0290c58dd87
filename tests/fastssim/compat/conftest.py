"""How a drop-in function is held against the original."""

from __future__ import annotations

import pytest
import torch

from bench import environments
from bench.peers import _part_of


def _gradients(function, x, y):
    """Return the results of a function of two images, a list, and the gradients of all of them, weighted."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    results = function(x, y)
    results = list(results) if isinstance(results, (tuple, list)) else [results]
    generator = torch.Generator().manual_seed(2)
    weights = [torch.rand(result.shape, generator=generator).to(result.dtype) for result in results]
    total = sum((weight * result).sum() for weight, result in zip(weights, results, strict=True))
    return results, torch.autograd.grad(total, (x, y))


@pytest.fixture(scope="session")
def parity():
    """Hold ours in float32 against the original in float64, and its kinds of results against it in float32.

    Every value, of a map, too, is within 1e-6; gradients are within 1e-5 of the largest.
    """

    def check(ours, theirs, x, y, value=1e-6, gradient=1e-5):
        results, gradients = _gradients(ours, x, y)
        expected, true_gradients = _gradients(theirs, x.double(), y.double())
        alike = theirs(x, y)
        alike = list(alike) if isinstance(alike, (tuple, list)) else [alike]
        assert [(r.shape, r.dtype) for r in results] == [(r.shape, r.dtype) for r in alike]
        for found, true in zip(results, expected, strict=True):
            assert (found - true).abs().max() <= value
        for found, true in zip(gradients, true_gradients, strict=True):
            assert found.dtype == x.dtype
            assert true.abs().max() > 0
            assert (found - true).abs().max() <= gradient * true.abs().max()

    return check


@pytest.fixture(scope="session")
def same_error():
    """Let both functions fail on the same arguments, with the same kind of error."""

    def check(kind, ours, theirs, *arguments, **options):
        for function in (theirs, ours):
            with pytest.raises(kind) as found:
                function(*arguments, **options)
            assert isinstance(found.value, kind)

    return check


@pytest.fixture(scope="session")
def part_of():
    """Load parts of a library without its start, which needs torchvision; from bench's environment where it is."""
    with pytest.MonkeyPatch.context() as patched:

        def load(library, *parts):
            folder = next((environments.ROOT / library).glob(f"[lL]ib/**/site-packages/{library}"), None)
            if folder is not None:
                patched.syspath_prepend(str(folder.parent))
            try:
                return [_part_of(library, part) for part in parts]
            except ImportError:
                pytest.skip(f"{library} is not there; python -m bench peers --install brings it, without torchvision")

        yield load
