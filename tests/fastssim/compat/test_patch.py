"""`fastssim.patch`: what it reaches, and that nothing of it stays."""

from __future__ import annotations

import functools
import importlib
import sys
import types

import pytest
import torch

import fastssim
from fastssim.compat import pytorch_msssim as ours
from fastssim.compat.options import shim

theirs = pytest.importorskip("pytorch_msssim")


@pytest.fixture
def program(monkeypatch):
    """Load a module that has imported the library's names before."""
    module = types.ModuleType("some_program")
    source = "from pytorch_msssim import ssim, SSIM as Loss\ndef score(x, y): return ssim(x, y, 1.0)\n"
    exec(compile(source, "some_program.py", "exec"), vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "some_program", module)
    return module


def names(*modules):
    return [{name: id(value) for name, value in vars(module).items()} for module in modules]


def test_names_are_replaced_and_restored(program):
    before = names(theirs, sys.modules["pytorch_msssim.ssim"], program)
    with fastssim.patch("pytorch_msssim"):
        assert theirs.ssim is program.ssim is ours.ssim
        assert program.Loss is theirs.SSIM is ours.SSIM
        assert theirs.ms_ssim is ours.ms_ssim
        x = torch.rand(1, 1, 20, 20)
        assert program.score(x, x) == 1
    assert names(theirs, sys.modules["pytorch_msssim.ssim"], program) == before


def test_restored_after_an_exception(program):
    with pytest.raises(RuntimeError, match="inside"), fastssim.patch("pytorch_msssim"):
        raise RuntimeError("inside")
    assert program.ssim is theirs.ssim is not ours.ssim


def test_blocks_nest(program):
    with fastssim.patch("pytorch_msssim"):
        with fastssim.patch("pytorch_msssim"), fastssim.patch("kornia"):
            assert program.ssim is ours.ssim
        assert program.ssim is ours.ssim
    assert program.ssim is theirs.ssim is not ours.ssim


def test_what_was_bound_inside_the_block_is_restored_and_our_own_names_stay(program):
    program.ours = ours.ssim
    with fastssim.patch("pytorch_msssim"):
        program.later = theirs.ssim
    assert program.later is theirs.ssim
    assert program.ours is ours.ssim


def test_it_decorates(program):
    @fastssim.patch("pytorch_msssim")
    def inside():
        return program.ssim

    assert inside() is ours.ssim
    assert program.ssim is theirs.ssim


def test_what_it_does_not_reach():
    held = {"partial": functools.partial(theirs.ssim, data_range=1.0), "list": [theirs.ssim]}
    with fastssim.patch("pytorch_msssim"):
        assert held["partial"].func is held["list"][0] is not theirs.ssim


@pytest.mark.parametrize(
    ("library", "place", "name"),
    [
        ("kornia", "kornia.losses", "ssim_loss"),
        ("torchmetrics", "torchmetrics.image", "StructuralSimilarityIndexMeasure"),
        ("monai", "monai.losses", "SSIMLoss"),
        ("frame_analytics", "frame_analytics", "ms_ssim"),
        ("skimage", "skimage.metrics", "structural_similarity"),
    ],
)
def test_other_libraries(library, place, name):
    module = pytest.importorskip(place)
    original = getattr(module, name)
    for loaded, replaced in shim(library).REPLACES.items():
        assert set(replaced) <= set(dir(importlib.import_module(loaded)))  # of the release that is pinned here
    with fastssim.patch(library):
        assert getattr(module, name).__module__.startswith("fastssim.compat")
    assert getattr(module, name) is original


def test_a_release_without_some_functions_has_the_others_replaced(monkeypatch):
    module = types.ModuleType("fused_ssim")
    module.fused_ssim = original = lambda x, y: None  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "fused_ssim", module)
    with fastssim.patch("fused_ssim"):
        assert module.fused_ssim.__module__ == "fastssim.compat.fused_ssim"
    assert module.fused_ssim is original
    assert not hasattr(module, "fused_l1_ssim_loss")


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match="library is 'torch'; give one of 'pytorch_msssim'"), fastssim.patch("torch"):
        pass


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fused_ssim", None)
    with pytest.raises(ImportError, match="fused_ssim"), fastssim.patch("fused_ssim"):
        pass


def test_a_class_and_its_other_name_are_both_replaced_and_restored():
    package = pytest.importorskip("torchmetrics")
    for name in shim("torchmetrics").METRICS:
        before = getattr(package, name), getattr(package.image, name)
        with fastssim.patch("torchmetrics"):
            assert getattr(package, name) is getattr(package.image, name) is getattr(shim("torchmetrics"), name)
        assert (getattr(package, name), getattr(package.image, name)) == before


@pytest.mark.filterwarnings("ignore")  # of their age
def test_the_older_places_of_torchmetrics_functions_call_ours():
    functional = pytest.importorskip("torchmetrics.functional")
    x = torch.rand(1, 1, 4, 4)  # smaller than half a window, which only ours mirrors again and again
    older = functional.structural_similarity_index_measure
    with pytest.raises(RuntimeError):
        older(x, x, data_range=1.0)
    with fastssim.patch("torchmetrics"):
        assert older(x, x, data_range=1.0) == 1
