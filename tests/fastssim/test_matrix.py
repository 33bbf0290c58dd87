"""Every option beside every other: rows that hold each pair of two options' values, against the reference."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Taps, Uniform, reference, ssim
from fastssim.plan import PADDINGS, REDUCTIONS

WINDOWS = {
    "gaussian": Gaussian((5, 3), (1.2, 0.8)),
    "uniform": Uniform(7),
    "taps": Taps(([1, 2, 5], [3, 0, 1, 1, 1])),  # neither axis is symmetric
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.uint16]
SHAPES = [(1, 1, 1, 1), (2, 2, 7, 7), (1, 3, 13, 17), (1, 2, 131, 257), (1, 1, 3, 5000), (1, 1, 5000, 3)]
# Of one window of float32, without and with a mask (see test_options.py); a gradient's relative L2.
MAP = {torch.float32: (2e-6, 2e-6), torch.float64: (1e-11, 1e-10)}
GRADIENT = {torch.float32: (2e-6, 6e-6), torch.float64: (1e-12, 1e-11)}


def pairs(row):
    """All pairs of (option, value)."""
    return set(itertools.combinations(enumerate(row), 2))


def covering(*options):
    """Return few rows in which every pair of two options' values stands."""
    chance = random.Random(0)
    missing = {
        ((i, a), (j, b))
        for (i, first), (j, second) in itertools.combinations(enumerate(options), 2)
        for a, b in itertools.product(first, second)
    }
    while missing:
        (i, a), (j, b) = min(missing, key=str)
        drawn = []
        for _ in range(60):
            row = [chance.choice(values) for values in options]
            row[i], row[j] = a, b
            drawn.append(tuple(row))
        best = max(drawn, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        yield best


def stored(image, dtype):
    """Store an image in [0, 1], float64, as a dtype, and return it with the numbers that it then stands for."""
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    kept = image.to(dtype) if largest is None else (image * largest).round().to(dtype)
    return kept, kept.double().numpy() / (largest or 1)


def expected_value(windows, counted, reduction):
    """Reduce the reference's map, and return each window's weight in the sum of the result."""
    axes = {"image": (1, 2, 3), "channel": (2, 3)}.get(reduction, (0, 1, 2, 3))
    if reduction == "none":
        return windows, np.ones(windows.shape)
    number = np.ones((1,) * 4) if reduction == "sum" else counted.sum(axes, keepdims=True)
    weights = counted / np.maximum(number, 1)
    value = np.where(number > 0, (windows * weights).sum(axes, keepdims=True), 1)
    return value.reshape(value.shape[: {"image": 1, "channel": 2}.get(reduction, 0)]), weights


@pytest.mark.parametrize(
    ("window", "padding", "dtype", "reduction", "masked", "shape"),
    list(covering(list(WINDOWS), PADDINGS, DTYPES, REDUCTIONS, [False, True], SHAPES)),
    ids=str,
)
def test_every_pair_of_options_equals_the_reference(images, window, padding, dtype, reduction, masked, shape):
    taps = WINDOWS[window]
    if padding == "valid":
        shape = (*shape[:2], max(shape[2], taps.shape[0]), max(shape[3], taps.shape[1]))
    number = torch.float64 if dtype == torch.float64 else torch.float32
    first, second = images(shape, torch.float64)
    (x, a), (y, b) = stored(first, dtype), stored(second, number)
    y.requires_grad_()
    options = {"window": taps, "padding": padding}
    mask, counted = None, np.ones(1)
    if masked:
        rng = np.random.default_rng(3)
        weights = rng.random(shape[2:]) * (rng.random(shape[2:]) > 0.4)
        weights[:6, :5] = 0
        mask = torch.tensor(weights, dtype=torch.float32)
        counted = reference.counted(shape, mask, taps, padding)
    windows = reference.ssim(a, b, mask=mask, **options)
    wanted, by_window = expected_value(windows, np.broadcast_to(counted, windows.shape), reduction)

    value = ssim(x, y, reduction=reduction, mask=mask, **options)
    assert value.dtype == number
    bound = MAP[number][masked] if reduction == "none" else (2e-6 if number == torch.float32 else 1e-12)
    scale = windows.size if reduction == "sum" else 1
    assert np.abs(value.detach().numpy() - wanted).max() <= bound * scale
    plain = ssim(x, y.detach(), reduction=reduction, mask=mask, **options)
    torch.testing.assert_close(plain, value.detach(), rtol=1e-6, atol=1e-6)

    value.sum().backward()
    gradient = reference.ssim_gradient(b, a, by_window, mask=mask, **options)
    # the reference rounds its means, too: 1e-16 of a pixel, over C2, is 1e-13 of a gradient
    bound = GRADIENT[number][masked] * np.linalg.norm(gradient) + 1e-12
    assert np.linalg.norm(y.grad.numpy() - gradient) <= bound


def test_rows_hold_every_pair():
    options = ["ab", [1, 2, 3], "xyz", [True, False]]
    rows = list(covering(*options))
    assert len(rows) < 18  # of 36
    found = set().union(*map(pairs, rows))
    assert found == set().union(*map(pairs, itertools.product(*options)))
