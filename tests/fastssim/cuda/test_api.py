"""The public functions on a tensor of a GPU: by the emulator, and what they say where there is no GPU."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from device import EmulatedArrayDevice, EmulatedTorchDevice, cuda_operators
from ssim_checks import CHECKS, SOLID, SOLID_WINDOW, arrays, pair

import fastssim
from fastssim import autograd, scales
from fastssim.compat import pytorch_msssim
from fastssim.compat.torchmetrics import multiscale_structural_similarity_index_measure as ms_ssim_of_torchmetrics
from fastssim.cuda import arrays as of_arrays
from fastssim.cuda import device, launch
from fastssim.cuda.arrays import ssim_and_gradient


@pytest.fixture
def on_cuda(monkeypatch):
    """Send tensors of the CPU where those of a GPU go."""
    ours = cuda_operators()
    for module in (autograd, scales):
        monkeypatch.setattr(module, "_ops", ours)
    monkeypatch.setattr(autograd, "_operator", lambda name, *_: getattr(ours, name))


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_the_emulator(check, monkeypatch):
    monkeypatch.setattr(launch, "device_of", lambda _: EmulatedTorchDevice())
    check("cpu")


class StillDevice(EmulatedTorchDevice):
    """Counts kernels and starts none: for what torch does around them."""

    kernels = 0

    def run(self, like, launch, argument):  # noqa: ARG002
        self.kernels += 1

    def empty(self, like, shape, dtype):  # noqa: ARG002
        return torch.ones(shape, dtype=getattr(torch, dtype))


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    "loss",
    [
        fastssim.SSIMLoss(),
        fastssim.L1SSIMLoss(),
        lambda x, y: fastssim.l1_ssim_loss(x, y, mask=y > 0.3),
        lambda x, y: fastssim.ssim_map(x, y, padding="symmetric").square().mean(),
        fastssim.MSSSIMLoss(weights=(0.5, 0.5)),
        lambda x, y: fastssim.ms_ssim(x, y, weights=(0.5, 0.5), product="image"),
        lambda x, y: pytorch_msssim.ms_ssim(x, y, data_range=1.0, win_size=3, weights=[0.5, 0.5]),
        *(
            partial(ms_ssim_of_torchmetrics, data_range=1.0, betas=(0.5, 0.5), normalize=normalize)
            for normalize in ("relu", "simple", None)
        ),
    ],
    ids=["SSIM", "L1", "mask", "map", "MS-SSIM", "image", "pytorch-msssim", "torchmetrics", "simple", "raw"],
)
def test_no_step_waits_for_a_number_of_the_gpu(loss, monkeypatch):
    still = StillDevice()
    monkeypatch.setattr(launch, "device_of", lambda _: still)
    monkeypatch.setattr(scales, "watched", lambda *_: True)  # images are halved by torch, as on a GPU
    x, y = pair("cpu")
    with torch.autograd.profiler.profile() as profile:
        loss(x.requires_grad_(), y).backward()
    assert still.kernels >= 2
    assert not {event.name for event in profile.function_events} & {"aten::item", "aten::nonzero"}


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


def test_arrays_in_the_emulator(monkeypatch):
    for module in (launch, of_arrays):
        monkeypatch.setattr(module, "device_of", lambda _: EmulatedArrayDevice())
    arrays(np)
    arrays(np, SOLID[1:], window=SOLID_WINDOW, dims=3)


def test_arrays_of_a_range_far_from_one_in_the_emulator(monkeypatch):
    for module in (launch, of_arrays):
        monkeypatch.setattr(module, "device_of", lambda _: EmulatedArrayDevice())
    x, y = (image[0].numpy() for image in pair("cpu", (1, 2, 19, 23)))
    near = ssim_and_gradient(x, y)
    scale = np.float32(2.0**-40)  # whose fourth power float32 does not hold
    value, *gradients = ssim_and_gradient(x * scale, y * scale, data_range=float(scale))
    assert value == near[0]
    for gradient, expected in zip(gradients, near[1:], strict=True):
        np.testing.assert_allclose(gradient * scale, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "words"),
    [
        (np.zeros((20, 20), np.int32), np.zeros((20, 20)), {}, TypeError, "x is int32; give float16"),
        (np.zeros((20, 20)), np.zeros((20, 21)), {}, ValueError, r"x has shape \(20, 20\) and y \(20, 21\)"),
        (np.zeros(20), np.zeros(20), {}, ValueError, r"x has shape \(20,\); give"),
        (np.zeros((5, 5)), np.zeros((5, 5)), {}, ValueError, "5 x 5 pixels, smaller than the window of 11 x 11"),
        (np.zeros((1, 1, 9, 9, 9)), np.zeros((1, 1, 9, 9, 9)), {}, ValueError, "for volumes pass dims=3"),
        (np.zeros((9, 9)), np.zeros((9, 9)), {"dims": 3}, ValueError, r"give \(N, C, D, H, W\)"),
        (np.zeros((9, 20, 20)), np.zeros((9, 20, 20)), {"dims": 3}, ValueError, "9 x 20 x 20 pixels, smaller"),
        (np.zeros((0, 20, 20)), np.zeros((0, 20, 20)), {}, ValueError, "no pixel at all"),
        (np.zeros((20, 20)), np.zeros((20, 20)), {}, TypeError, "x is a numpy.ndarray; give a cupy.ndarray"),
        (torch.zeros(20, 20), torch.zeros(20, 20), {}, TypeError, "x is a torch.Tensor; give a cupy.ndarray"),
        ([[0.0] * 20] * 20, np.zeros((20, 20)), {}, TypeError, "x is a builtins.list; give a cupy.ndarray"),
    ],
)
def test_bad_arrays_are_refused(x, y, options, error, words):
    with pytest.raises(error, match=words):
        ssim_and_gradient(x, y, **options)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "image", "channel"])
def test_a_loss_without_l1_is_one_minus_ssim(reduction, masked, monkeypatch):
    monkeypatch.setattr(launch, "device_of", lambda _: EmulatedTorchDevice())
    x, y = (torch.rand(2, 2, 12, 15, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    mask = (x > 0.2).float() if masked else None
    taps = [0.25, 0.5, 0.25]
    problem = (mask, [], taps, taps, 1e-4, 9e-4, "valid", 1.0, True, reduction)
    ours = cuda_operators()
    value, by_x, by_y = ours.ssim_mean_gradient(x, y, *problem, None, True)
    made = launch._ready.cache_info().misses
    loss, loss_by_x, loss_by_y = ours.ssim_mean_gradient(x, y, *problem, 0.0, True)
    assert launch._ready.cache_info().misses == made  # SSIM's kernels, none with L1
    torch.testing.assert_close(loss, 1 - value, rtol=0, atol=1e-7)
    torch.testing.assert_close(ours.ssim_mean(x, y, *problem, 0.0), loss, rtol=0, atol=0)
    assert torch.equal(loss_by_x, -by_x)
    assert torch.equal(loss_by_y, -by_y)


def test_a_gradient_and_a_map_come_in_the_dtype_that_the_compiler_is_told(monkeypatch):
    monkeypatch.setattr(launch, "device_of", lambda _: EmulatedTorchDevice())
    taps = [0.25, 0.5, 0.25]
    problem = (None, [], taps, taps, 1e-4, 9e-4, "valid", 1.0, True)
    ours = cuda_operators()
    for dtype, other in ((torch.float16, torch.float16), (torch.float32, torch.uint8), (torch.float32, torch.float64)):
        x, y = (torch.zeros(1, 1, 9, 9, dtype=kind) for kind in (dtype, other))
        for name, rest in (
            ("ssim_mean", ("mean", None)),
            ("ssim_map", ()),
            ("ssim_mean_gradient", ("image", 0.5, True)),
        ):
            real = getattr(ours, name)(x, y, *problem, *rest)
            told = getattr(torch.ops.fastssim, name)(x.to("meta"), y.to("meta"), *problem, *rest)
            for a, b in zip(*((r if isinstance(r, (tuple, list)) else [r]) for r in (real, told)), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
