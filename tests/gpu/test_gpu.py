"""The CUDA backend on a GPU: ``pytest -m gpu``. Everything here is skipped where there is none.

What any device must show stands in tests/emulator/ssim_checks.py and runs in the emulator, too; here is what only a GPU
can show.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ssim_checks import CHECKS, GRADIENT, MAP, SOLID, SOLID_WINDOW, VALUE, array, arrays, assert_close, pair, training

import fastssim
from fastssim import Gaussian, Uniform, reference
from fastssim.compat.cucim import structural_similarity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or a torch without CUDA"),
]
SHAPES = [(1, 1, 11, 11), (2, 3, 18, 23), (1, 1, 19, 600), (1, 2, 601, 17), (3, 1, 131, 257), (1, 3, 540, 961)]
ROOT = Path(__file__).resolve().parents[2]


def step(x, y, **options):
    """Mean and its gradients."""
    a, b = x.detach().requires_grad_(), y.detach().requires_grad_()
    value = fastssim.ssim(a, b, **options)
    return (value.detach(), *torch.autograd.grad(value, (a, b)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_any_device_must_show(check):
    check("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "window", [Gaussian(), Uniform(7), Gaussian(3, 0.5), Gaussian(17, 3.0), Gaussian(33, 6.0)], ids=repr
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_map_and_gradients_equal_the_reference(shape, window, dtype):
    if min(shape[2:]) < window.size:
        shape = (*shape[:2], shape[2] + window.size, shape[3] + window.size)
    x, y = pair("cuda", shape, dtype)
    expected = reference.ssim(array(x), array(y), window=window)
    value, grad_x, grad_y = step(x, y, window=window)
    assert abs(value.item() - expected.mean()) <= VALUE[dtype]
    assert np.abs(array(fastssim.ssim_map(x, y, window=window)) - expected).max() <= MAP[dtype]
    weights = np.full(expected.shape, 1 / expected.size)
    for ours, by in ((grad_x, (x, y)), (grad_y, (y, x))):
        exact = reference.ssim_gradient(*map(array, by), weights, window=window)
        assert_close(ours, exact, GRADIENT[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("padding", ["valid", "reflect"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 11, 11, 11), (2, 1, 13, 14, 75), (1, 2, 61, 19, 33), (1, 1, 40, 64, 96)], ids=str
)
def test_volumes_equal_the_reference(shape, padding, dtype):
    x, y = pair("cuda", shape, dtype)
    options = {"padding": padding, "dims": 3}
    expected = reference.ssim(array(x), array(y), **options)
    value, grad_x, grad_y = step(x, y, **options)
    assert abs(value.item() - expected.mean()) <= VALUE[dtype]
    assert np.abs(array(fastssim.ssim_map(x, y, **options)) - expected).max() <= MAP[dtype]
    weights = np.full(expected.shape, 1 / expected.size)
    for ours, by in ((grad_x, (x, y)), (grad_y, (y, x))):
        assert_close(ours, reference.ssim_gradient(*map(array, by), weights, **options), GRADIENT[dtype])


def test_results_are_the_same_to_the_bit_from_run_to_run():
    for shape, dims in (((2, 3, 300, 301), 2), ((1, 2, 40, 50, 61), 3)):
        x, y = pair("cuda", shape)
        options = {"padding": "reflect", "dims": dims}
        first = step(x, y, **options)
        for _ in range(5):
            assert all(torch.equal(a, b) for a, b in zip(first, step(x, y, **options), strict=True))


def test_kernels_run_on_the_current_stream():
    x, y = pair("cuda", (4, 3, 256, 256))
    expected = step(x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # what was queued before must be done first
        late = x.clone()
        results = step(late, y)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, results, strict=True))


def captured(step):
    """Warm up on a stream of its own, as torch asks for, and record a step."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles the kernels
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()
    return graph, value


def test_a_training_step_is_captured_in_a_graph():
    model, one = training("cuda")
    graph, value = captured(one)
    start = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    values = []
    for _ in range(3):
        graph.replay()
        values.append(value.item())
    model.load_state_dict(start)
    assert values == pytest.approx([one().item() for _ in range(3)], rel=1e-5)  # cuDNN may choose otherwise
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("augment", ["none", "flips", "rotations"])
def test_patches_are_drawn_on_the_gpu_as_on_the_cpu(augment):
    data = pytest.importorskip("ae.data")
    rng = np.random.default_rng(0)
    images = [rng.random((3, *size), np.float32) for size in ((60, 70), (40, 90), (50, 50))]
    options = {"patch": 32, "batch_size": 20, "batches": 1, "seed": 3, "augment": augment}
    expected, found = data.Patches(images, **options).batch(0), data.Patches(images, **options).to("cuda").batch(0)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5 if augment == "rotations" else 0)


def as_volumes(x):
    """A batch of images, channels for planes."""
    return x.unflatten(2, (1, -1)).transpose(1, 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: fastssim.ssim_loss(*map(as_volumes, (x, y)), window=Uniform((1, 5, 7)), padding="reflect", dims=3),
        lambda x, y: fastssim.l1_ssim_loss(*map(as_volumes, (x, y)), window=Uniform((1, 5, 7)), dims=3),
        lambda x, y: fastssim.ssim_loss(x, y, mask=y > 0.3),
        lambda x, y: fastssim.l1_ssim_loss(x, y, mask=y > 0.3),
        lambda x, y: fastssim.ssim_map(x, y, padding="symmetric").square().mean(),
        lambda x, y: 1 - fastssim.ms_ssim(x, y, weights=(0.5, 0.5)),
    ],
    ids=["volumes", "L1 of volumes", "mask", "L1 with a mask", "map", "MS-SSIM"],
)
def test_every_loss_is_captured_in_a_graph(loss):
    x, y = pair("cuda")
    x.requires_grad_()

    def one():
        x.grad = None
        value = loss(x, y)
        value.backward()
        return value.detach()

    graph, value = captured(one)
    recorded = x.grad
    graph.replay()
    replayed = value.item(), recorded.clone()
    assert one().item() == replayed[0]
    assert torch.equal(x.grad, replayed[1])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_a_step_never_waits_for_the_gpu():
    x, y = pair("cuda")
    mask = y > 0.3
    solid = pair("cuda", SOLID)

    def steps():
        step(x, y, mask=mask)
        step(*solid, window=SOLID_WINDOW, padding="symmetric", dims=3)
        a = x.clone().requires_grad_()
        fastssim.ms_ssim(a, y, weights=(0.5, 0.5)).backward()

    steps()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_half_precision_under_autocast():
    x, y = pair("cuda")
    model = torch.nn.Conv2d(2, 2, 3, padding=1).cuda()
    with torch.autocast("cuda", torch.float16):
        prediction = model(x)
        value = fastssim.ssim(prediction, y)
    assert prediction.dtype == torch.float16
    assert value.dtype == torch.float32
    exact = reference.ssim(array(prediction), array(y)).mean()
    assert abs(value.item() - exact) <= VALUE[torch.float32]
    (1e4 * value).backward()
    assert torch.isfinite(model.weight.grad).all()
    assert model.weight.grad.any()


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("loss", [fastssim.SSIMLoss(), fastssim.MSSSIMLoss(weights=(0.5, 0.5))], ids=repr)
def test_a_compiled_step(loss):
    x, y = pair("cuda")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    a = x.clone().requires_grad_()
    compiled(a, y).backward()
    b = x.clone().requires_grad_()
    loss(b, y).backward()
    assert torch.equal(a.grad, b.grad)


def test_cupy_arrays():
    cupy = pytest.importorskip("cupy")
    arrays(cupy)
    arrays(cupy, SOLID[1:], window=SOLID_WINDOW, dims=3)
    solid = pair("cuda", (12, 13, 14))
    mean, gradient, full = structural_similarity(*map(cupy.from_dlpack, solid), data_range=1, gradient=True, full=True)
    expected = structural_similarity(*map(array, solid), data_range=1, gradient=True, full=True)
    assert isinstance(full, cupy.ndarray)
    assert abs(float(mean) - expected[0]) <= VALUE[torch.float32]
    assert np.abs(cupy.asnumpy(full) - expected[2]).max() <= 5e-6
    assert_close(torch.from_dlpack(gradient), expected[1], GRADIENT[torch.float32])
    x, y = pair("cuda")
    a, b = cupy.from_dlpack(x), cupy.from_dlpack(y)
    value = fastssim.ssim(a, b, reduction="channel")
    assert isinstance(value, cupy.ndarray)
    assert (cupy.asnumpy(value) == fastssim.ssim(x, y, reduction="channel").cpu().numpy()).all()


def test_the_value_takes_no_memory_and_its_gradient_that_of_one_image():
    x, y = pair("cuda", (2, 3, 512, 512))
    size = x.numel() * x.element_size()
    a = x.clone().requires_grad_()
    step(x, y)
    for images, allowed in (((x, y), 0), ((a, y), size)):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = fastssim.ssim(*images)
        assert torch.cuda.max_memory_allocated() - before <= allowed + 2**20
        del value


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_the_tensors_device_decides():
    x, y = pair("cuda:1")
    results = step(x, y)
    assert all(result.device == x.device for result in results)
    there = step(x.to("cuda:0"), y.to("cuda:0"))
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(results, there, strict=True))


def test_images_on_different_devices_are_refused():
    x, y = pair("cuda")
    with pytest.raises(ValueError, match=r"x is on cuda:\d and y on cpu; move one of them"):
        fastssim.ssim(x, y.cpu())


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    side = 46400
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("less than 40 GiB of GPU memory are free")
    x = torch.full((1, 1, side, side), 0.5, dtype=torch.float16, device="cuda")
    y = x.clone()
    corner = (..., slice(side - 40, None), slice(side - 40, None))
    y[corner] = torch.rand(40, 40, device="cuda").half()
    x.requires_grad_()
    value = fastssim.ssim(x, y, reduction="sum")
    (gradient,) = torch.autograd.grad(value, x)
    part = (..., slice(side - 60, None), slice(side - 60, None))
    a, b = array(x[part]), array(y[part])
    windows = (side - 10) ** 2 - 50**2
    assert abs(value.item() - windows - reference.ssim(a, b).sum()) <= 2.0**-23 * windows  # a float32
    assert_close(gradient[part], reference.ssim_gradient(a, b, np.ones((1, 1, 50, 50))), 2**-10)
    assert not gradient[..., : side - 60, :].any()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer on this machine")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool):
    program = """
import sys
sys.path.insert(0, "tests/emulator")
from ssim_checks import equal_images, ms_ssim, paddings, volume_paddings
equal_images("cuda")
paddings("cuda")
ms_ssim("cuda")
volume_paddings("cuda")
"""
    # Without torch's cache every tensor ends where its memory does. What drivers and libraries ask in vain is no error.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    command = ["compute-sanitizer", "--tool", tool, *options, "--error-exitcode", "9", sys.executable, "-c", program]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
