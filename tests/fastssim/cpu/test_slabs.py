from __future__ import annotations

import itertools

import pytest

from fastssim.cpu.launch import LARGE_SLAB, SLAB_PIXELS, _edges, kept_workspaces


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


class Interrupted(dict):
    """Ctrl-C comes as soon as it was brought up to date."""

    def update(self, **fields):
        super().update(**fields)
        raise KeyboardInterrupt


def test_workspaces_are_large_enough_after_one_who_wanted_smaller_was_interrupted():
    large, small = object(), object()
    kept = {}
    kept_workspaces(kept, large, lambda: (1000, 100, 10), "float32", 2)
    kept = Interrupted(kept)
    with pytest.raises(KeyboardInterrupt):
        kept_workspaces(kept, small, lambda: (10, 0, 1), "float32", 1)
    kept = dict(kept)
    addresses = kept_workspaces(kept, large, lambda: (1000, 100, 10), "float32", 2)
    assert [array.size for array in kept["arrays"]] == [1000, 100, 10] * 2
    assert [array.ctypes.data for array in kept["arrays"]] == [each for three in addresses for each in three]
