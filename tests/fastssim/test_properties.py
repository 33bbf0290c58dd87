"""What holds of SSIM whatever the images."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssim import Gaussian, Taps, Uniform, ssim, ssim_map
from fastssim.plan import PADDINGS

WINDOWS = [Gaussian((5, 3), 1.5), Uniform((5, 3)), Taps(([1, 4, 6, 4, 1], [1, 2, 1]))]  # symmetric, of one size


@st.composite
def problems(draw):
    """Draw a pair of images of any kind of content, a window and a padding."""
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    height, width = draw(st.integers(5, 40)), draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    contrast = draw(st.sampled_from([1e-3, 0.1, 1.0]))
    x, y = 0.5 + contrast * (rng.random((2, n, c, height, width)) - 0.5)
    if draw(st.booleans()):
        y = np.round(x, 1)
    images = (torch.tensor(image, dtype=torch.float32) for image in (x, y))
    return (*images, {"window": draw(st.sampled_from(WINDOWS)), "padding": draw(st.sampled_from(PADDINGS))})


@given(problems())
def test_it_is_symmetric_and_never_beyond_one(problem):
    x, y, options = problem
    found = ssim_map(x, y, **options)
    torch.testing.assert_close(found, ssim_map(y, x, **options), rtol=0, atol=1e-5)
    assert found.abs().max() <= 1 + 1e-5
    assert (ssim_map(x, x, **options) == 1).all()


@given(problems(), st.sampled_from([[2], [3], [2, 3]]))
def test_it_turns_with_the_images(problem, axes):
    x, y, options = problem
    turned = ssim_map(x.flip(axes), y.flip(axes), **options)
    torch.testing.assert_close(turned.flip(axes), ssim_map(x, y, **options), rtol=0, atol=1e-5)


@given(problems())
def test_images_and_channels_know_nothing_of_each_other(problem):
    x, y, options = problem
    together = ssim(x, y, reduction="channel", **options)
    apart = [[ssim(a, b, **options) for a, b in zip(*pair, strict=True)] for pair in zip(x, y, strict=True)]
    torch.testing.assert_close(together, torch.tensor(apart), rtol=0, atol=1e-6)


@given(problems())
def test_reductions_agree_with_the_map(problem):
    x, y, options = problem
    windows = ssim_map(x, y, **options).double()
    for reduction, expected in (
        ("mean", windows.mean()),
        ("image", windows.mean((1, 2, 3))),
        ("channel", windows.mean((2, 3))),
        ("sum", windows.sum()),
    ):
        found = ssim(x, y, reduction=reduction, **options).double()
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)


@given(problems())
def test_away_from_the_border_padding_does_not_matter(problem):
    x, y, options = problem
    height, width = options["window"].shape
    inside = ssim_map(x, y, **options)
    if options["padding"] != "valid":
        inside = inside[..., height // 2 : -(height // 2), width // 2 : -(width // 2)]
    torch.testing.assert_close(inside, ssim_map(x, y, window=options["window"]), rtol=0, atol=1e-5)


@given(problems(), st.floats(0.25, 64))
def test_scaling_the_images_and_their_range_changes_nothing(problem, factor):
    x, y, options = problem
    scaled = ssim(x * factor, y * factor, data_range=factor, **options)
    torch.testing.assert_close(scaled, ssim(x, y, **options), rtol=0, atol=1e-5)
