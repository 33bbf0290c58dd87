from __future__ import annotations

import numpy as np
import pytest
import torch

from ae.config import METHODS
from ae.methods import get_method
from fastssim import reference


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_have_no_loss_and_no_residual(name, channels):
    method = get_method(name)
    images = torch.rand(2, channels, 30, 40)
    assert method.name == name
    assert method.loss(images, images).item() == 0
    residual = method.residual(images, images)
    assert residual.shape == (2, 1, 30, 40)
    assert (residual == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_has_a_gradient_and_the_residual_shows_the_place(name):
    method = get_method(name)
    images = torch.rand(1, 1, 40, 40)
    changed = images.clone()
    changed[..., 20:24, 10:14] = 1 - changed[..., 20:24, 10:14]
    changed.requires_grad_()
    method.loss(images, changed).backward()
    assert changed.grad.abs().sum() > 0
    row, column = np.unravel_index(int(method.residual(images, changed.detach()).argmax()), (40, 40))
    assert 17 <= row <= 27
    assert 7 <= column <= 17


def test_ssim_is_the_reference_s_about_every_pixel():
    x, y = torch.rand(2, 1, 1, 30, 40)
    expected = 1 - reference.ssim(x, y, padding="reflect")
    np.testing.assert_allclose(get_method("ssim").residual(x, y), expected, atol=3e-6)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method is 'vae'; give one of 'ssim', 'l2'"):
        get_method("vae")
