"""Feature matching, a baseline of Bergmann et al. (2019): patches are compared in the eyes of a classifier, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ae.methods.l2 import L2

if TYPE_CHECKING:
    from torch import Tensor

    from ae.config import TrainConfig

LAYERS = ("features.0", "features.3", "features.6")  # AlexNet's first three convolutions, as torchvision names them
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, which the classifier expects


class FM(L2):
    """Squared error plus the squared distance of features, per pixel; the residual is that of l2.

        loss = ( sum (x - x_hat)^2 + sum (F(x) - F(x_hat))^2 ) / pixels

    F: the first three convolutional layers of AlexNet, trained to classify images. Its weights come from the file that
    `config.feature_weights` names and are needed for training alone: a safetensors file, or one of PyTorch's that holds
    nothing but tensors, with torchvision's names (``features.0.weight`` and so on).
    """

    name = "fm"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._features: list[nn.Module] = []  # in a list: no part of what is trained and saved

    def prepare(self) -> None:
        """Read the classifier's weights."""
        if self.config.feature_weights is None:
            raise ValueError(
                "method fm compares features of AlexNet and needs its weights; name their file (--feature-weights)"
            )
        self._features = [load_features(self.config.feature_weights)]

    def loss(self, batch: Tensor, seen: Tensor | None = None) -> Tensor:
        """Squared error of pixels and features."""
        if not self._features:
            self.prepare()
        return super().loss(batch, seen)

    def distance(self, batch: Tensor, reconstruction: Tensor) -> Tensor:
        """Squared error of pixels and features, over the number of pixels."""
        features = self._features[0].to(batch.device)
        with torch.no_grad():
            expected = features(_coloured(batch))
        apart: Tensor = (features(_coloured(reconstruction)) - expected).square().sum() / batch.numel()
        squared: Tensor = super().distance(batch, reconstruction)
        return squared + apart


def load_features(path: Path | str) -> nn.Sequential:
    """Read the first three convolutional layers of AlexNet.

    Raises
    ------
    ValueError
        If the file is missing, damaged, holds more than tensors, or is of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a file with AlexNet's weights")
    try:
        weights: dict[str, Any] = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no file of weights ({_first_line(error)})") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"{path} holds more than tensors, which is not read; save it as safetensors") from None
    convolutions = (nn.Conv2d(3, 64, 11, 4, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.Conv2d(192, 384, 3, 1, 1))
    for name, layer in zip(LAYERS, convolutions, strict=True):
        try:
            layer.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} holds no weights of AlexNet ({_first_line(error)})") from None
    first, second, third = convolutions
    pool = nn.MaxPool2d(3, 2)
    features = nn.Sequential(first, nn.ReLU(), pool, second, nn.ReLU(), pool, third, nn.ReLU())
    return features.eval().requires_grad_(requires_grad=False)


def _coloured(patches: Tensor) -> Tensor:
    """Give patches in [0, 1] three channels and the colours that the classifier was trained on."""
    mean, spread = (patches.new_tensor(values)[:, None, None] for values in (MEAN, SPREAD))
    coloured: Tensor = (patches.expand(-1, 3, -1, -1) - mean) / spread
    return coloured


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
