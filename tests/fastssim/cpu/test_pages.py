from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fastssim import ssim
from fastssim.cpu import pages
from fastssim.tiles import TileGrid, extract

SMAPS = Path("/proc/self/smaps")


@pytest.fixture
def advised(monkeypatch):
    """What is asked of the system: (first byte, bytes)."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(pages, "_advise", lambda: lambda at, size, _: asked.append((at, size)))
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 14, raising=False)
    return asked


def test_the_whole_pages_of_a_large_tensor_are_asked_for(advised):
    tensor = torch.empty(pages.LEAST + 5, dtype=torch.uint8)
    assert pages.in_large_pages(tensor) is tensor
    ((at, size),) = advised
    assert at % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
    before, behind = at - tensor.data_ptr(), tensor.data_ptr() + tensor.numel() - (at + size)
    assert 0 <= before < mmap.PAGESIZE
    assert 0 <= behind < mmap.PAGESIZE


def test_small_tensors_are_left_alone(advised):
    pages.in_large_pages(torch.empty(pages.LEAST - 1, dtype=torch.uint8))
    pages.in_large_pages(torch.empty(0))
    assert not advised


def test_a_system_without_large_pages_is_left_alone(monkeypatch):
    pages._advise.cache_clear()
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert pages._advise() is None
    tensor = torch.empty(pages.LEAST)
    assert pages.in_large_pages(tensor) is tensor
    pages._advise.cache_clear()


@pytest.mark.skipif(not SMAPS.exists(), reason="no Linux")
def test_the_system_notes_the_advice():
    tensor = pages.in_large_pages(torch.empty(1 << 27, dtype=torch.uint8))
    middle = tensor.data_ptr() + (1 << 26)
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*?^VmFlags: ([^\n]*)$", SMAPS.read_text(), re.MULTILINE | re.DOTALL)
    if not found:
        pytest.skip("a system that tells no flags")
    (flags,) = (flags for begin, end, flags in found if int(begin, 16) <= middle < int(end, 16))
    assert "hg" in flags.split() or not Path("/sys/kernel/mm/transparent_hugepage").exists()


def test_gradients_maps_and_tiles_are_in_large_pages(advised):
    x, y = (torch.rand(1, 1, 1100, 1100).requires_grad_() for _ in range(2))
    ssim(x, y).backward()
    assert len(advised) == 2
    with torch.no_grad():
        ssim(x, y, reduction="none")
    assert len(advised) == 3
    tiles = extract(torch.rand(1, 600, 600), TileGrid((600, 600), 128, 32))
    assert len(advised) == 4
    assert tiles.data_ptr() % 64 == 0
    extract(np.zeros((1, 600, 600), np.float32), TileGrid((600, 600), 128, 32))  # NumPy asks by itself
    assert len(advised) == 4
