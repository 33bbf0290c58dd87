"""A training step with the loss compiles whole, and whatever looks on at torch's operators sees ours."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import fastssim
from fastssim.compat import pytorch_msssim
from fastssim.compat.kornia import ssim_loss

WINDOW = fastssim.Gaussian((5, 3), 1.5)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("reduction", ["mean", "image", "none", "scales"])
def test_a_training_step_compiles_without_a_break(reduction):
    window = fastssim.Gaussian(7, 1.0)
    if reduction == "scales":
        loss = fastssim.MSSSIMLoss(window=window, weights=(0.4, 0.6))
    else:
        loss = fastssim.SSIMLoss(window=window, reduction=reduction)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    image = torch.rand(2, 1, 24, 20)

    def forward(image):
        return loss(layer(image), image).mean()

    results = []
    for function in (forward, torch.compile(forward, fullgraph=True, backend="aot_eager")):
        layer.zero_grad()
        value = function(image)
        value.backward()
        results.append((value.detach(), layer.weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("kind", ["images", "masked images", "volumes"])
@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("name", ["ssim_mean", "ssim_map", "ssim_mean_gradient", "ssim_map_gradient"])
def test_operators_keep_their_promises_to_torch(name, kind, padding):
    shape = (2, 1, 5, 14, 13) if kind == "volumes" else (2, 1, 14, 13)
    x, y = torch.rand(2, *shape)
    mask = (torch.rand(shape) > 0.5) if kind == "masked images" else None
    taps = [0.25, 0.5, 0.25]
    problem = (x, y, mask, taps if kind == "volumes" else [], taps, taps, 1e-4, 9e-4, padding, 1.0, False)
    windows = shape if padding == "reflect" else (*shape[:2], *(length - 2 for length in shape[2:]))
    extra = {
        "ssim_mean": ("image", None),
        "ssim_map": (),
        "ssim_mean_gradient": ("mean", None, True),
        "ssim_map_gradient": (torch.rand(windows), True),
    }[name]
    operator = getattr(torch.ops.fastssim, name).default
    torch.library.opcheck(operator, (*problem, *extra), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("gradients", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_the_operators_of_scales_keep_their_promises_to_torch(count, gradients):
    x, y = torch.rand(2, 2, 1, 14, 13)
    problem = (x, y, None, [], [0.25, 0.5, 0.25], [0.25, 0.5, 0.25], 1e-4, 9e-4, "reflect", 1.0, False, 1e12, count)
    checks = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(torch.ops.fastssim.ssim_scales.default, (*problem, gradients), **checks)
    means, gradient, coarser, *_ = torch.ops.fastssim.ssim_scales(*problem, max(gradients, 1))
    torch.library.opcheck(torch.ops.fastssim.ssim_deliver.default, (gradient, coarser, means), **checks)


class Listener(TorchDispatchMode):
    """Notes the operators of ours that are called."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastssim":
            self.heard.append(function._opname)
        return function(*args, **(kwargs or {}))


def test_a_mode_sees_the_operators_and_nothing_comes_out_differently():
    x, y = torch.rand(2, 2, 1, 14, 13)
    results = []
    for listener in (None, Listener()):
        if listener is not None:
            listener.__enter__()
        a = x.clone().requires_grad_()
        value = fastssim.ssim(a, y, window=WINDOW)
        value.backward()
        windows = fastssim.ssim(a, y, window=WINDOW, reduction="none")
        windows.sum().backward()
        results.append(
            [value.detach(), windows.detach(), a.grad, fastssim.ssim(x, y, window=WINDOW, reduction="image")]
        )
        if listener is not None:
            listener.__exit__(None, None, None)
    assert listener.heard == ["ssim_mean_gradient", "ssim_map", "ssim_map_gradient", "ssim_mean"]
    for direct, dispatched in zip(*results, strict=True):
        assert torch.equal(direct, dispatched)


def test_a_profile_names_the_operators():
    x = torch.rand(1, 1, 14, 13)
    with torch.autograd.profiler.profile() as profile:
        fastssim.ssim(x, x, window=WINDOW)
    assert "fastssim::ssim_mean" in {event.name for event in profile.function_events}


class Named(torch.Tensor):
    """A subclass of tensors."""


def test_a_subclass_stays_one():
    x = torch.rand(1, 1, 14, 13)
    found = fastssim.ssim(x.as_subclass(Named), x, window=WINDOW)
    assert type(found) is Named
    assert found.item() == 1
    parameter = torch.nn.Parameter(x)
    assert type(fastssim.ssim(parameter, x, window=WINDOW)) is torch.Tensor


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes are checked once, for the traced images
def test_a_trace_holds_the_operator_not_its_result():
    x, y, other = torch.rand(3, 1, 1, 14, 13)
    traced = torch.jit.trace(lambda a, b: fastssim.ssim(a, b, window=WINDOW), (x, y))
    assert traced(other, y) == fastssim.ssim(other, y, window=WINDOW)


@pytest.mark.parametrize("reduction", ["mean", "channel", "none"])
def test_images_on_the_cpu_are_computed_there_whatever_the_default_device(reduction):
    x, y = torch.rand(2, 1, 2, 14, 13)
    expected = fastssim.ssim(x, y, window=WINDOW, reduction=reduction)
    with torch.device("meta"):
        a = x.clone().requires_grad_()
        found = fastssim.ssim(a, y, window=WINDOW, padding="valid", reduction=reduction)
        found.sum().backward()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-6)
    assert a.grad.is_cpu


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", ["given window", "window made inside", "kornia"])
def test_shapes_and_numbers_may_be_symbols_and_windows_be_made_inside(kind, dynamic):
    def compare(x, y):
        if kind == "kornia":
            return ssim_loss(x, y, 5)
        return fastssim.ssim(x, y, window=WINDOW if kind == "given window" else fastssim.Gaussian((5, 3), 1.5))

    torch._dynamo.reset()
    x, y = torch.rand(2, 1, 1, 20, 21)
    compiled = torch.compile(compare, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    gradients = []
    for function in (compare, compiled):
        a = x.clone().requires_grad_()
        function(a, y).backward()
        gradients.append(a.grad)
    assert torch.equal(*gradients)


def test_a_mask_is_traced_where_its_values_are_not_known():
    x, y = torch.rand(2, 1, 1, 14, 13)

    def compare(x, y, mask):
        return fastssim.ssim(x, y, window=WINDOW, mask=mask)

    mask = torch.rand(14, 13)
    traced = make_fx(compare)(x, y, mask)
    assert torch.equal(traced(y, x, mask), compare(y, x, mask))
    with FakeTensorMode() as mode:
        assert compare(*map(mode.from_tensor, (x, y, mask))).shape == ()
    each = torch.func.vmap(compare, in_dims=(None, None, 0))(x, y, torch.stack([mask, mask.flip(0)]))
    torch.testing.assert_close(each[1], compare(x, y, mask.flip(0)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func loads it
def test_transforms_come_out_of_the_compiler_as_they_are():
    x, y = torch.rand(2, 2, 1, 14, 13)

    def compare(a, b):
        return fastssim.ssim(a, b, window=WINDOW)

    def through_vmap(a, b):
        return torch.func.vmap(compare)(a, b).sum()

    for function in (
        torch.func.grad(compare),
        torch.func.grad(through_vmap),
        torch.func.vmap(torch.func.grad(compare)),
    ):
        expected = function(x, y)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(function, backend="aot_eager")(x, y), expected)


@pytest.mark.parametrize("reduction", ["mean", "image", "none"])
def test_gradients_come_for_many_upstreams_at_once(reduction):
    x, y = torch.rand(2, 2, 1, 9, 10)
    x.requires_grad_()
    value = fastssim.ssim(x, y, window=WINDOW, reduction=reduction)
    upstreams = torch.rand(3, *value.shape)
    (together,) = torch.autograd.grad(value, x, upstreams, is_grads_batched=True, retain_graph=True)
    apart = [torch.autograd.grad(value, x, upstream, retain_graph=True)[0] for upstream in upstreams]
    torch.testing.assert_close(together, torch.stack(apart))


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "module",
    [
        pytorch_msssim.SSIM(data_range=1.0, win_size=5, channel=2),
        pytorch_msssim.SSIM(data_range=1.0, win_size=5, channel=2, size_average=False, nonnegative_ssim=True),
        pytorch_msssim.MS_SSIM(data_range=1.0, win_size=3, channel=2),
    ],
)
def test_modules_of_pytorch_msssim_compile_without_a_break(module, dtype):
    x, y = torch.rand(2, 2, 2, 40, 37, dtype=dtype)
    module = copy.deepcopy(module)  # knows its window still
    torch._dynamo.reset()
    gradients = []
    for function in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        a = x.clone().requires_grad_()
        function(a, y).sum().backward()
        gradients.append(a.grad)
    assert torch.equal(*gradients)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
def test_a_window_put_in_another_s_place_is_the_one_that_compiled_modules_use():
    module = pytorch_msssim.SSIM(data_range=1.0, win_size=3, channel=1)
    module.win = torch.tensor([[[[0.2, 0.6, 0.2]]]])
    x, y = torch.rand(2, 1, 1, 10, 11)
    torch._dynamo.reset()
    assert torch.compile(module, backend="aot_eager")(x, y) == module(x, y)
