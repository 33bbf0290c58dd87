"""Tensors in and out of the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """View a CPU tensor as a NumPy array of the same strides, without a copy."""
    array: NDArray[Any] = tensor.detach().numpy()
    return array


def check_images(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse what no backend computes: anything but tensors (N, C, H, W) of one shape, dtype and device.

    Raises
    ------
    TypeError, ValueError
        What came, what is allowed, what to do.
    """
    for name, image in (("x", x), ("y", y)):
        if not isinstance(image, torch.Tensor):
            raise TypeError(
                f"{name} is a {type(image).__name__}; give a torch.Tensor (torch.as_tensor({name}) makes one)"
            )
        if image.dtype not in DTYPES:
            raise TypeError(f"{name} is {image.dtype}; float32 and float64 are computed: call {name}.float() first")
        if image.layout != torch.strided:
            raise TypeError(f"{name} is {image.layout}; give a dense tensor ({name}.to_dense())")
        if image.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(image.shape)}; give (N, C, H, W), one image as {name}[None]")
        if image.device.type != "cpu":
            raise ValueError(f"{name} is on {image.device}; this version computes on the CPU: call {name}.cpu() first")
    if x.shape != y.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; they must be equal")
    if x.dtype != y.dtype:
        raise TypeError(f"x is {x.dtype} and y {y.dtype}; convert one of them")
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, no pixel at all; give at least one image")
