"""Tiles across an image: as few vectors as can be, and gradients where their columns go round the strips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Taps, Uniform, l1_ssim_loss, reference, ssim_map
from fastssim.cpu import buffers, launch
from fastssim.plan import Plan

HALO, LANES = 10, 16
LONGEST = buffers.longest(HALO + 1, LANES, gradient=True)
GRADIENT = 1e-6  # relative L2


def spans(columns, before, most=(LONGEST, 1 << 30), pad=0):
    """Spans of pixels where there are columns `before` a tile, else of windows."""
    covered = (pad, columns - pad) if before else (0, columns - HALO)
    return buffers.tile_spans(covered, columns, HALO, before, LANES, most), covered


def vectors(cut, columns, before):
    return [buffers.strip_of(min(x1 + HALO, columns) - max(x0 - before, 0), LANES) for x0, x1 in cut]


@pytest.mark.parametrize("before", [0, HALO])
@pytest.mark.parametrize("columns", [11, 64, 65, 128, 512, 576, 577, 590, 1024, 3840, 10007])
def test_tiles_cover_every_column_once_in_strips_that_fit(columns, before):
    cut, (first, last) = spans(columns, before)
    assert (cut[0][0], cut[-1][1]) == (first, last)
    assert all(x0 < x1 for x0, x1 in cut)
    assert [x1 for _, x1 in cut[:-1]] == [x0 for x0, _ in cut[1:]]
    assert max(vectors(cut, columns, before)) <= LONGEST


@pytest.mark.parametrize("before", [0, HALO])
@pytest.mark.parametrize("columns", [128, 512, 576])
def test_an_image_that_fills_strips_takes_no_vector_more(columns, before):
    cut, _ = spans(columns, before)
    assert vectors(cut, columns, before) == [columns // LANES]


def test_tiles_are_cut_where_strips_are_full():
    assert vectors(spans(1024, HALO)[0], 1024, HALO) == [36, 32]  # two of 36, were they of one width


def test_values_take_longer_strips_than_gradients():
    longest = buffers.longest(HALO + 1, LANES, gradient=False)
    assert vectors(spans(1024, 0, (longest, 1 << 30))[0], 1024, 0) == [1024 // LANES]
    assert longest + HALO < buffers.pitch(HALO + 1, LANES) / LANES


def test_tiles_of_equal_cost_are_few_and_alike():
    assert spans(590, HALO)[0] == [(0, 310), (310, 590)]


def test_a_tile_has_no_more_columns_than_it_may():
    cut, covered = spans(100, HALO, (LONGEST, 16), pad=5)
    assert (cut[0][0], cut[-1][1]) == covered
    assert max(x1 - x0 for x0, x1 in cut) == 16


@pytest.mark.parametrize("padding", ["valid", "zeros", "reflect"])
@pytest.mark.parametrize("window", [Gaussian(), Uniform(7), Taps([1, 0, 0, 0, 0.2])], ids=str)
@pytest.mark.parametrize("width", [11, 20, 63, 64, 65, 118, 128, 502, 503, 566, 567, 576, 577, 1033])
def test_gradients_where_columns_go_round(images, width, window, padding):
    x, y = images((1, 2, 17, width))
    x.requires_grad_()
    found = ssim_map(x, y, window=window, padding=padding)
    upstream = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(found, x, upstream)
    expected = reference.ssim_gradient(x.detach(), y, upstream, window=window, padding=padding)
    assert np.linalg.norm(gradient.numpy() - expected) <= GRADIENT * np.linalg.norm(expected)


def tiles_of_gradient(shape):
    taps = Gaussian().weights_y
    return launch._layout(Plan(shape, "float32", taps, taps, 1e-4, 9e-4), gradient=True).tiles.tolist()


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((1, 1, 1024, 1024), 8),  # rather than high ones: there would be few
        ((1, 1, 700, 1000), 12),  # as many as they can be
        ((1, 1, 128, 128), 1),
        ((2, 3, 2160, 128), 11),
        ((16, 4, 2160, 128), 5),
    ],
    ids=str,
)
def test_tiles_are_large_where_they_are_many(monkeypatch, shape, tiles):
    monkeypatch.setattr(launch, "lanes_of", lambda _: LANES)
    launch._layout.cache_clear()
    cut = tiles_of_gradient(shape)
    launch._layout.cache_clear()
    assert len(cut) == tiles
    rows = [y1 - y0 for y0, y1, *_ in cut]
    assert max(rows) <= buffers.TILE_ROWS[1]
    assert max(rows) - min(rows) <= 1


@pytest.mark.parametrize("shape", [(8, 1, 13, 640), (2, 4, 13, 1033), (64, 1, 300, 12), (64, 1, 1030, 11)], ids=str)
def test_gradients_of_wide_and_of_high_tiles(images, shape):
    x, y = images(shape)
    x.requires_grad_()
    found = ssim_map(x, y)
    upstream = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(found, x, upstream)
    expected = reference.ssim_gradient(x.detach(), y, upstream)
    assert np.linalg.norm(gradient.numpy() - expected) <= GRADIENT * np.linalg.norm(expected)


@pytest.mark.parametrize("padding", ["valid", "zeros", "replicate"])
@pytest.mark.parametrize("width", [11, 12, 54, 64, 118, 128, 576, 577])
def test_the_distance_counts_every_pixel_once_where_columns_go_round(images, width, padding):
    x, y = images((1, 2, 17, width))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(l1_ssim_loss(x, y, alpha=0.5, padding=padding), x)
    windows = np.ones_like(reference.ssim(x.detach(), y, padding=padding))
    similarity = reference.ssim_gradient(x.detach(), y, windows / windows.size, padding=padding)
    expected = 0.5 * (np.sign((x.detach() - y).numpy()) / x.numel() - similarity)
    assert np.linalg.norm(gradient.numpy() - expected) <= GRADIENT * np.linalg.norm(expected)
