"""The CUDA backend on a GPU: ``pytest -m gpu``. Everything here is skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim import Gaussian, Uniform, reference
from fastssim.cuda import launch
from fastssim.plan import Plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or a torch without CUDA"),
]
VALUE = {torch.float32: 1e-6, torch.float64: 1e-13}
GRADIENT = {torch.float32: 2e-6, torch.float64: 1e-12}
SHAPES = [(1, 1, 11, 11), (2, 3, 18, 23), (1, 1, 19, 600), (1, 2, 601, 17), (3, 1, 131, 257), (1, 3, 540, 961)]


def pair(shape, dtype=torch.float32, device="cuda"):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64, generator=generator)
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    y = (x + 0.1 * torch.randn(shape, dtype=torch.float64, generator=generator)).clamp(0, 1)
    return x.to(device, dtype), y.to(device, dtype)


def plan_of(x, window=None):
    taps = (window or Gaussian()).weights_y
    return Plan(tuple(x.shape), "float64" if x.dtype == torch.float64 else "float32", taps, taps, 1e-4, 9e-4)


def step(x, y, window=None):
    """Mean and its gradients."""
    plan = plan_of(x, window)
    grad_x, grad_y = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(y.shape, dtype=y.dtype, device=x.device),
    )
    scale = 1 / np.prod(plan.map_shape)
    value = launch.value_and_gradient(plan, x, y, scale, grad_x, grad_y, mean=launch.Mean("all", scale, "float64"))
    return value, grad_x, grad_y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "window", [Gaussian(), Uniform(7), Gaussian(3, 0.5), Gaussian(17, 3.0), Gaussian(33, 6.0)], ids=repr
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_map_and_gradients_equal_the_reference(shape, window, dtype):
    if min(shape[2:]) < window.size:
        shape = (*shape[:2], shape[2] + window.size, shape[3] + window.size)
    x, y = pair(shape, dtype)
    expected = reference.ssim(x.cpu(), y.cpu(), window=window)
    value, grad_x, grad_y = step(x, y, window)
    assert abs(value.item() - expected.mean()) <= VALUE[dtype]
    ssim_map = torch.empty(expected.shape, dtype=dtype, device="cuda")
    launch.ssim_map(plan_of(x, window), x, y, ssim_map)
    bound = 1e-11 if dtype == torch.float64 else 3e-5 if window.size < 7 else 4e-6
    assert np.abs(ssim_map.cpu().numpy() - expected).max() <= bound
    weights = np.full(expected.shape, 1 / expected.size)
    for ours, by in ((grad_x, (x, y)), (grad_y, (y, x))):
        exact = reference.ssim_gradient(*(image.cpu() for image in by), weights, window=window)
        assert np.linalg.norm(ours.cpu().numpy() - exact) <= GRADIENT[dtype] * np.linalg.norm(exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    x, y = pair((2, 3, 60, 150), dtype)
    _, grad_x, _ = step(x, y)
    _, exact, _ = step(x.double(), y.double())
    torch.testing.assert_close(
        grad_x.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5 * exact.abs().max().item()
    )


def test_equal_images_are_exactly_one_with_a_gradient_of_exactly_zero():
    x, _ = pair((2, 3, 150, 290))
    value, grad_x, grad_y = step(x, x)
    assert value.item() == 1
    assert not grad_x.any()
    assert not grad_y.any()


def test_results_are_the_same_to_the_bit_from_run_to_run():
    x, y = pair((2, 3, 300, 301))
    first = step(x, y)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, step(x, y), strict=True))


def test_any_strides_give_the_same_bits():
    x, y = pair((2, 3, 64, 80))
    lasting = x.contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(step(x, y), step(lasting, y), strict=True))


def test_kernels_run_on_the_current_stream():
    x, y = pair((4, 3, 256, 256))
    expected = step(x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # what was queued before must be done first
        late = x.clone()
        results = step(late, y)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, results, strict=True))


def test_a_training_step_is_captured_in_a_graph():
    x, y = pair((2, 3, 64, 64))
    parameter = x.clone()

    def train():
        _, gradient, _ = step(parameter, y)
        parameter.add_(gradient, alpha=100)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        train()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train()
    parameter.copy_(x)
    for _ in range(3):
        graph.replay()
    captured = parameter.clone()
    parameter.copy_(x)
    for _ in range(3):
        train()
    assert torch.equal(captured, parameter)


def test_cupy_arrays_need_no_torch():
    cupy = pytest.importorskip("cupy")
    x, y = pair((2, 3, 64, 80))
    expected = step(x, y)
    a, b = cupy.from_dlpack(x), cupy.from_dlpack(y)
    grad_a, grad_b = cupy.empty_like(a), cupy.empty_like(b)
    scale = 1 / np.prod(plan_of(x).map_shape)
    value = launch.value_and_gradient(
        plan_of(x), a, b, scale, grad_a, grad_b, mean=launch.Mean("all", scale, "float64")
    )
    assert value.item() == expected[0].item()
    assert (cupy.asnumpy(grad_a) == expected[1].cpu().numpy()).all()
    assert (cupy.asnumpy(grad_b) == expected[2].cpu().numpy()).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_the_tensors_device_decides():
    x, y = pair((2, 3, 64, 80), device="cuda:1")
    results = step(x, y)
    assert all(result.device == x.device for result in results)
    assert all(
        torch.equal(a.cpu(), b.cpu()) for a, b in zip(results, step(x.to("cuda:0"), y.to("cuda:0")), strict=True)
    )


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    side = 46400
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("less than 20 GiB of GPU memory are free")
    x = torch.full((1, 1, side, side), 0.5, dtype=torch.float16, device="cuda")
    y = x.clone()
    corner = (..., slice(side - 40, None), slice(side - 40, None))
    y[corner] = torch.rand(40, 40, device="cuda").half()
    gradient = torch.empty_like(x)
    sums = launch.value_and_gradient(plan_of(x), x, y, 1.0, gradient, None)
    part = (..., slice(side - 60, None), slice(side - 60, None))
    a, b = x[part].cpu().float(), y[part].cpu().float()
    windows = (side - 10) ** 2 - 50**2
    assert abs(sums.item() - windows - reference.ssim(a, b).sum()) <= 1e-6 * 50**2
    exact = reference.ssim_gradient(a, b, np.ones((1, 1, 50, 50)))
    ours = gradient[part].cpu().numpy()
    np.testing.assert_allclose(ours, exact, rtol=2**-10, atol=1e-5 * np.abs(exact).max())
    assert not gradient[..., : side - 60, :].any()
