from __future__ import annotations

import itertools

import pytest

from fastssim.cpu.launch import LARGE_SLAB, SLAB_PIXELS, _edges


@pytest.mark.parametrize("threads", [1, 2, 64])
@pytest.mark.parametrize("pixels", [1, SLAB_PIXELS, 3 * SLAB_PIXELS, 40 * SLAB_PIXELS, 100 * LARGE_SLAB + 1])
@pytest.mark.parametrize("items", [1, 2, 7, 1000])
def test_slabs_share_all_items_and_are_neither_too_small_nor_too_many(items, pixels, threads):
    edges = _edges(items, pixels, threads)
    slabs = len(edges) - 1
    assert edges[0] == 0
    assert edges[-1] == items
    assert all(a < b for a, b in itertools.pairwise(edges))
    assert slabs == 1 or pixels / slabs >= SLAB_PIXELS
    assert slabs <= 8 * threads or pixels / slabs >= LARGE_SLAB
    assert slabs >= min(items, threads, pixels // SLAB_PIXELS)  # none goes without that could have one
