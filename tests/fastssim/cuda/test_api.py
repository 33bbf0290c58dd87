"""The public functions on a tensor of a GPU: by the emulator, and what they say where there is no GPU."""

from __future__ import annotations

import sys

import pytest
import torch
from device import EmulatedTorchDevice, cuda_operators
from ssim_checks import CHECKS, pair

import fastssim
from fastssim import autograd
from fastssim.cuda import device, launch


@pytest.fixture
def on_cuda(monkeypatch):
    """Send tensors of the CPU where those of a GPU go."""
    monkeypatch.setattr(autograd, "_ops", cuda_operators())


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_the_emulator(check, monkeypatch):
    monkeypatch.setattr(launch, "device_of", lambda _: EmulatedTorchDevice())
    check("cpu")


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    "loss", [fastssim.SSIMLoss(), fastssim.L1SSIMLoss(), fastssim.MSSSIMLoss(weights=(1, 1))], ids=repr
)
def test_a_training_step_without_cupy_says_what_to_install(loss, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    device.load_cupy.cache_clear()
    x, y = pair("cpu")
    model = torch.nn.Conv2d(2, 2, 3, padding=1)
    with pytest.raises(device.CudaUnavailableError, match=r"needs CuPy, which is not installed: pip install"):
        loss(model(x), y).backward()
