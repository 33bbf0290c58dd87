"""A training step with the loss compiles whole."""

from __future__ import annotations

import pytest
import torch

import fastssim


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("reduction", ["mean", "image", "none"])
def test_a_training_step_compiles_without_a_break(reduction):
    loss = fastssim.SSIMLoss(window=fastssim.Gaussian(7, 1.0), reduction=reduction)
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
