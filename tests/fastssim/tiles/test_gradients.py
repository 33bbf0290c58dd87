"""Cutting out and blending are linear and each is the other's adjoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from fastssim.tiles import BORDERS, WINDOWS, TileGrid, blend, extract

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func loads it
WEIGHTS = 0.1 + np.random.default_rng(3).random((8, 6))


@pytest.mark.parametrize("border", BORDERS)
def test_the_gradient_of_extract_is_the_sum_over_copies(border):
    grid = TileGrid((20, 17), (8, 6), (3, 4), border)
    image = torch.rand(2, 20, 17, dtype=torch.float64, requires_grad=True)
    tiles = extract(image, grid)
    upstream = torch.rand_like(tiles)
    (gradient,) = torch.autograd.grad(tiles, image, upstream)
    other = torch.rand_like(image)
    # <extract(v), u> = <v, extract'(u)> for any v
    torch.testing.assert_close((extract(other, grid) * upstream).sum(), (other * gradient).sum())
    assert torch.autograd.gradcheck(lambda x: extract(x, grid, start=1, stop=7), (image[:1],))


@pytest.mark.parametrize("border", ["flush", "reflect"])
@pytest.mark.parametrize("window", [*WINDOWS, WEIGHTS], ids=[*WINDOWS, "given"])
def test_the_gradient_of_blend_spreads_the_image_by_the_weights(window, border):
    grid = TileGrid((20, 17), (8, 6), (3, 4), border)
    tiles = torch.rand(2, len(grid), 1, 8, 6, dtype=torch.float64, requires_grad=True)
    image = blend(tiles, grid, window=window)
    upstream = torch.rand_like(image)
    (gradient,) = torch.autograd.grad(image, tiles, upstream)
    other = torch.rand_like(tiles)
    torch.testing.assert_close((blend(other, grid, window=window) * upstream).sum(), (other * gradient).sum())
    few = TileGrid((9, 8), (8, 6), 1, border)
    tiles = torch.rand(len(few), 1, 8, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: blend(t, few, window=window), (tiles,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: blend(t, few, window=window) ** 2, (tiles,), fast_mode=True)


def test_gradients_where_weights_fade_to_less_than_float32_holds():
    grid = TileGrid((64, 64), 32, 24)
    axis = np.exp(-0.5 * (np.arange(32) - 15.5) ** 2)  # 6e-53 at the edge, where one tile alone covers the image
    exact = torch.rand(len(grid), 1, 32, 32, dtype=torch.float64, requires_grad=True)
    rough = exact.detach().float().requires_grad_()
    for tiles in (exact, rough):
        blend(tiles, grid, window=np.outer(axis, axis)).sum().backward()
    torch.testing.assert_close(rough.grad.double(), exact.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_keep_the_dtype(dtype):
    grid = TileGrid((20, 17), (8, 6), (3, 4))
    exact = torch.rand(len(grid), 1, 8, 6, dtype=torch.float64).to(dtype).double().requires_grad_()
    rough = exact.detach().to(dtype).requires_grad_()
    for tiles in (exact, rough):
        (blend(tiles, grid, window="gaussian") ** 2).sum().backward()
    assert rough.grad.dtype == dtype
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(rough.grad.double(), exact.grad, rtol=4 * epsilon, atol=epsilon)


def test_gradients_of_zero_that_torch_keeps_no_memory_for():
    grid = TileGrid((40, 50), 16, 12)
    image = torch.rand(1, 40, 50, requires_grad=True)
    for function in (lambda: extract(image, grid), lambda: blend(extract(image, grid), grid)):
        torch.sgn(function()).sum().backward()
        assert (image.grad == 0).all()


def test_other_reductions_refuse_a_gradient():
    grid = TileGrid((20, 17), (8, 6), (3, 4))
    tiles = torch.rand(len(grid), 1, 8, 6, requires_grad=True)
    with pytest.raises(NotImplementedError, match='"max" does not carry through'):
        blend(tiles, grid, reduction="max")
    with torch.no_grad():
        assert blend(tiles, grid, reduction="max").shape == (1, 20, 17)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match='"max" does not carry through'):
        blend(forward_ad.make_dual(tiles.detach(), tiles.detach()), grid, reduction="max")


GRID = TileGrid((9, 8), (4, 3), (3, 2), "reflect")


@pytest.fixture(params=["blend", "extract", "a range"])
def linear(request):
    """Return one of the two operations, and a point and a tangent in its domain, float64."""
    functions = {
        "blend": lambda tiles: blend(tiles, GRID, window="hann"),
        "extract": lambda image: extract(image, GRID),
        "a range": lambda image: extract(image, GRID, start=1, stop=5),
    }
    shape = (len(GRID), 2, 4, 3) if request.param == "blend" else (2, 9, 8)
    generator = torch.Generator().manual_seed(0)
    return functions[request.param], *torch.rand(2, *shape, dtype=torch.float64, generator=generator)


class TestTransforms:
    def test_forward_mode_is_the_operation_on_the_tangent(self, linear):
        function, point, tangent = linear
        value, found = torch.func.jvp(function, (point,), (tangent,))
        assert torch.equal(value, function(point))
        assert torch.equal(found, function(tangent))
        with forward_ad.dual_level():
            dual = function(forward_ad.make_dual(point, tangent))
            assert torch.equal(forward_ad.unpack_dual(dual).tangent, function(tangent))

    def test_grad_vmap_and_both(self, linear):
        function, point, tangent = linear

        def score(x):
            return (function(x) ** 2).sum()

        x = point.clone().requires_grad_()
        score(x).backward()
        assert torch.equal(torch.func.grad(score)(point), x.grad)
        both = torch.stack([tangent, point], dim=1)
        assert torch.equal(torch.func.vmap(function, in_dims=1)(both)[1], function(point))
        assert torch.equal(torch.func.vmap(torch.func.grad(score), in_dims=1)(both)[1], x.grad)

    def test_second_derivatives(self, linear):
        function, point, tangent = linear

        def score(x):
            return (function(x) ** 2).sum()

        _, expected = torch.autograd.functional.hvp(score, point, tangent)
        _, found = torch.func.jvp(torch.func.grad(score), (point,), (tangent,))
        torch.testing.assert_close(found, expected)
        hessian = torch.func.hessian(score)(point).reshape(tangent.numel(), -1)
        torch.testing.assert_close(hessian @ tangent.reshape(-1), expected.reshape(-1))

    def test_gradcheck_in_every_mode(self, linear):
        function, point, _ = linear
        x = point.requires_grad_()
        modes = ("check_forward_ad", "check_batched_grad", "check_batched_forward_grad")
        assert torch.autograd.gradcheck(function, (x,), **dict.fromkeys(modes, True))


def test_a_range_of_tiles_compiles_without_a_break():
    image = torch.rand(2, 9, 8)
    compiled = torch.compile(lambda x: extract(x, GRID, start=1, stop=5) * 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image), extract(image, GRID, start=1, stop=5))


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("border", ["flush", "reflect", "zeros"])
def test_a_training_step_compiles_without_a_break(border):
    grid = TileGrid((20, 17), (8, 6), (3, 4), border)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    image = torch.rand(1, 20, 17)

    def forward(image):
        return blend(layer(extract(image, grid)), grid, window="gaussian").square().mean()

    results = []
    for function in (forward, torch.compile(forward, fullgraph=True, backend="aot_eager")):
        layer.zero_grad()
        x = image.clone().requires_grad_()
        value = function(x)
        value.backward()
        results.append((value.detach(), layer.weight.grad.clone(), x.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", ["tiles_gather", "tiles_gather_deviation", "tiles_scatter"])
def test_operators_keep_their_promises_to_torch(name):
    grid = TileGrid((20, 17), (8, 6), (3, 4))
    tiles, image = torch.rand(1, len(grid), 2, 8, 6), torch.rand(1, 2, 20, 17)
    arguments = {
        "tiles_gather": (tiles, list(grid.geometry), "hann", [], "mean"),
        "tiles_gather_deviation": (tiles, list(grid.geometry), "hann", []),
        "tiles_scatter": (image, list(grid.geometry), "sum", []),
    }[name]
    operator = getattr(torch.ops.fastssim, name).default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
