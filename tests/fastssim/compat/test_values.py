"""Kinds of images that a drop-in module takes, whether its original is installed or not."""

from __future__ import annotations

import pytest
import torch

from fastssim.compat import piq, piqa, pytorch_msssim


def test_images_of_16_bits(images):
    x, y = ((image * 65535).to(torch.int32).to(torch.uint16) for image in images((1, 1, 24, 30)))
    expected = piq.ssim(x.double(), y.double(), data_range=65535.0, downsample=False)
    torch.testing.assert_close(
        piq.ssim(x, y, data_range=65535.0, downsample=False).double(), expected, atol=1e-6, rtol=0
    )
    with pytest.raises(AssertionError, match=r"Expected values in \[0, 255.0\]"):
        piq.ssim(x, y, data_range=255.0)
    assert piqa.SSIM(n_channels=1, value_range=65535.0)(x.float(), y.float()).isfinite()


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
def test_a_module_is_made_where_tensors_have_no_memory(name):
    with torch.device("meta"):
        module = getattr(pytorch_msssim, name)(data_range=1.0)
    assert module.win.is_meta
