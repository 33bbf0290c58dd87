from __future__ import annotations

import pytest
import torch

from ae.models import Autoencoder


@pytest.mark.parametrize(
    ("channels", "latent", "parameters"), [(1, 100, 1_048_549), (1, 500, 2_687_349), (3, 100, 1_050_599)]
)
def test_the_paper_s_layers(channels, latent, parameters):
    model = Autoencoder(channels, latent)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.encoder(torch.zeros(2, channels, 128, 128)).shape == (2, latent, 1, 1)
    assert model(torch.zeros(2, channels, 128, 128)).shape == (2, channels, 128, 128)


def test_the_start_is_no_constant():
    torch.manual_seed(0)
    model = Autoencoder()
    batch = torch.randn(8, 1, 128, 128)
    with torch.no_grad():
        output = model(batch)
    assert 0.2 < output.std() < 5  # variance survives 17 layers
    assert output.var(dim=0).mean() > 0.02  # and differs from patch to patch
