"""Feature matching, a baseline of Bergmann et al. (2019): patches are compared in the eyes of a classifier, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ae.methods.features import alexnet, efficientnet_lite0
from ae.methods.l2 import L2

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ae.config import TrainConfig

AT_A_TIME = 1 << 16  # pixels; features of more take a CPU twice as long: they leave its caches, and their memory is new


class FM(L2):
    """Squared error plus the squared distance of features, per pixel; the residual is that of l2.

        loss = ( sum (x - x_hat)^2 + sum (F(x) - F(x_hat))^2 ) / pixels

    F: the first layers of a network trained to classify images, needed for training alone. In the paper these are
    AlexNet's first three convolutions, whose weights come from the file that `config.feature_weights` names; without
    one they are EfficientNet-Lite0's first four blocks, whose weights come with a package. See
    `ae.methods.features`.
    """

    name = "fm"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._features: list[nn.Module] = []  # in a list: no part of what is trained and saved

    def prepare(self) -> None:
        """Read the classifier's weights."""
        path = self.config.feature_weights
        self._features = [efficientnet_lite0() if path is None else alexnet(path)]

    def loss(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        """Squared error of pixels and features."""
        if not self._features:
            self.prepare()
        return super().loss(batch, seen)

    def distance(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """Squared error of pixels and features, over the number of pixels."""
        squared: Tensor = super().distance(batch, reconstruction)
        features = self._features[0].to(batch.device)
        height, width = batch.shape[-2:]
        several = len(batch) if batch.is_cuda else max(AT_A_TIME // (height * width), 1)
        parts = zip(batch.split(several), reconstruction.split(several), strict=True)
        return squared + sum(_apart(features, x, x_hat) for x, x_hat in parts) / batch.numel()


def _apart(features: nn.Module, x: Tensor, x_hat: Tensor) -> Tensor:
    """Sum (F(x) - F(x_hat))^2."""
    with torch.no_grad():
        expected = features(x)
    apart: Tensor = (features(x_hat).float() - expected.float()).square().sum()  # features may be an autocast's
    return apart
