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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["ssim_mean", "ssim_map", "ssim_mean_gradient", "ssim_map_gradient"])
def test_operators_keep_their_promises_to_torch(name, masked):
    x, y = torch.rand(2, 2, 1, 14, 13)
    mask = (torch.rand(2, 1, 14, 13) > 0.5) if masked else None
    problem = (x, y, mask, [0.25, 0.5, 0.25], [0.25, 0.5, 0.25], 1e-4, 9e-4, "reflect", 1.0, False)
    extra = {
        "ssim_mean": ("image", None),
        "ssim_map": (),
        "ssim_mean_gradient": ("mean", None, True),
        "ssim_map_gradient": (torch.rand(2, 1, 14, 13), True),
    }[name]
    operator = getattr(torch.ops.fastssim, name).default
    torch.library.opcheck(operator, (*problem, *extra), test_utils=("test_schema", "test_faketensor"))
