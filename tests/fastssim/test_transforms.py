"""Derivatives by torch.func and forward mode: right, or refused with words that name the way."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from fastssim import Gaussian, l1_ssim_loss, ms_ssim, ssim

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func loads it
WINDOW = Gaussian((5, 3), 1.5)
SHAPE = (3, 1, 2, 13, 14)  # three examples, each a batch of one image


@pytest.fixture(scope="module")
def examples():
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))  # x, y and a tangent


def score(x, y, reduction="mean", **options):
    return ssim(x, y, window=WINDOW, reduction=reduction, **options)


def gradients(x, y, function=score):
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    return torch.autograd.grad(function(a, b), (a, b))


@pytest.mark.parametrize(
    "function",
    [
        score,
        lambda x, y: score(x, y, mask=torch.ones(13, 14).tril()),
        lambda x, y: l1_ssim_loss(x, y, window=WINDOW, padding="reflect"),
        lambda x, y: ms_ssim(x, y, window=WINDOW, weights=(0.4, 0.6)),
    ],
    ids=["mean", "mask", "l1", "ms"],
)
def test_torch_func_grad_is_the_gradient(examples, function):
    x, y = examples[:2, 0]
    found = torch.func.grad(function, argnums=(0, 1))(x, y)
    torch.testing.assert_close(found, gradients(x, y, function))


def test_gradients_of_many_examples_at_once_are_each_ones(examples):
    x, y, _ = examples
    found = torch.func.vmap(torch.func.grad(score))(x, y)
    torch.testing.assert_close(found, torch.stack([gradients(a, b)[0] for a, b in zip(x, y, strict=True)]))
    shared = torch.func.vmap(torch.func.grad(score), in_dims=(0, None))(x, y[0])
    torch.testing.assert_close(shared[1], gradients(x[1], y[0])[0])


@pytest.mark.parametrize("reduction", ["mean", "image", "channel", "none"])
def test_vmap_takes_each_example_by_itself(examples, reduction):
    x, y, _ = examples
    found = torch.func.vmap(lambda a, b: score(a, b, reduction))(x, y)
    assert torch.equal(found, torch.stack([score(a, b, reduction) for a, b in zip(x, y, strict=True)]))


def each_by_itself(x, y):
    return torch.func.vmap(score)(x, y).sum()


def through_grad(x, y):
    return torch.func.grad(each_by_itself, argnums=(0, 1))(x, y)


def through_backward(x, y):
    return gradients(x, y, each_by_itself)


def through_two(x, y):
    return gradients(x[:, None], y[:, None], lambda a, b: torch.func.vmap(torch.func.vmap(score))(a, b).sum())


@pytest.mark.parametrize("way", [through_grad, through_backward, through_two])
def test_gradients_go_through_vmap(examples, way):
    x, y, _ = examples
    each = [gradients(a, b) for a, b in zip(x, y, strict=True)]
    for found, expected in zip(way(x, y), zip(*each, strict=True), strict=True):
        torch.testing.assert_close(found.reshape(SHAPE), torch.stack(expected))


@pytest.mark.parametrize("function", [score, lambda x, y: ms_ssim(x, y, window=WINDOW, weights=(0.4, 0.6))])
def test_tangents_go_through_vmap(examples, function):
    x, y, tangent = examples
    expected = [torch.func.jvp(function, (a, b), (t, -t))[1] for a, b, t in zip(x, y, tangent, strict=True)]
    _, found = torch.func.jvp(torch.func.vmap(function), (x, y), (tangent, -tangent))
    torch.testing.assert_close(found, torch.stack(expected))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(image, change) for image, change in ((x, tangent), (y, -tangent))]
        found = forward_ad.unpack_dual(torch.func.vmap(function)(*duals)).tangent
        torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("reduction", ["mean", "sum", "image", "channel"])
def test_forward_mode_is_the_gradient_times_the_tangent(examples, reduction):
    x, y, tangent = examples[:, :, 0]

    def function(a):
        return score(a, y, reduction)

    jacobian = torch.autograd.functional.jacobian(function, x)
    expected = (jacobian * tangent).sum((-4, -3, -2, -1))
    value, found = torch.func.jvp(function, (x,), (tangent,))
    torch.testing.assert_close(value, function(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, expected)
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(x, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)


def test_both_images_may_have_tangents(examples):
    x, y, tangent = examples[:, 0]
    by_x, by_y = gradients(x, y)
    _, found = torch.func.jvp(score, (x, y), (tangent, -tangent))
    torch.testing.assert_close(found, ((by_x - by_y) * tangent).sum())


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians_agree_with_backward(examples, transform):
    x, y = examples[:2, 0, :, :1, :7, :6]
    torch.testing.assert_close(transform(lambda a: score(a, y))(x), gradients(x, y)[0])


def test_half_precision_gets_its_gradient_in_its_own_dtype(examples):
    x, y = examples[:2, 0]
    found = torch.func.grad(score)(x.half(), y)
    assert found.dtype == torch.float16
    assert torch.equal(found, gradients(x.half(), y)[0])


def twice(x, y):
    return torch.func.grad(lambda a: torch.func.grad(score)(a, y).sum())(x)


def along_a_vector(x, y):
    return torch.func.jvp(torch.func.grad(lambda a: score(a, y)), (x,), (y,))


def by_backward(x, y):
    a = x.clone().requires_grad_()
    torch.func.grad(score)(a, y).sum().backward()


def create_graph(x, y):
    a = x.clone().requires_grad_()
    torch.autograd.grad(score(a, y), a, create_graph=True)


def forward_over_reverse(x, y):
    a = x.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(score(forward_ad.make_dual(a, y), y)).tangent
        tangent.backward()


def hessian(x, y):
    torch.func.hessian(lambda a: score(a, y))(x)


@pytest.mark.parametrize("second", [twice, along_a_vector, by_backward, create_graph, forward_over_reverse, hessian])
def test_second_derivatives_are_refused(examples, second):
    with pytest.raises(NotImplementedError, match="no second derivative: call backward or grad without create_graph"):
        second(*examples[:2, 0])


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, x: torch.func.grad(lambda a: f(a).sum())(x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.vmap(torch.func.grad(lambda a: f(a).sum()))(x[None]),
        lambda f, x: torch.func.vmap(f)(x[None].clone().requires_grad_()),
    ],
    ids=["grad", "jvp", "vmap of grad", "backward of vmap"],
)
def test_a_map_has_derivatives_by_backward_only(examples, derivative):
    x, y = examples[:2, 0]
    with pytest.raises(NotImplementedError, match=r"reduce it, or use backward or torch.autograd.grad"):
        derivative(lambda a: score(a, y, "none"), x)
