"""Images in, results out: arrays of any library as tensors (N, C, H, W) and back, without a copy where that can be.

Volumes are the same with one axis more, (N, C, D, H, W).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.utils.dlpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LARGEST = {torch.uint8: 255, torch.uint16: 65535}
DTYPES = (*FLOATS, *LARGEST)
_NAMES = "float16, bfloat16, float32, float64, uint8 or uint16"
_MASK_NAMES = "bool, uint8, or a float"
_SHAPES = {2: "(N, C, H, W), (C, H, W) or (H, W)", 3: "(N, C, D, H, W), (C, D, H, W) or (D, H, W) with dims=3"}


class Images(NamedTuple):
    """A pair of images as tensors (N, C, H, W) or (N, C, D, H, W), their weights, and how results go back."""

    x: torch.Tensor
    y: torch.Tensor
    mask: torch.Tensor | None  # expanded to the images' shape
    like: Any  # the first image as it came
    axes: int  # that it had; an array that speaks DLPack need not say

    def give_back(self, result: torch.Tensor, reduction: str) -> Any:
        """Return a result without the axes that were added, as the kind of array that came."""
        if type(self.like) is torch.Tensor and self.axes == self.x.ndim:
            return result
        axes = {"none": 2, "channel": 2, "image": 1}.get(reduction, 0)  # axes of images and channels in the result
        for _ in range(min(self.x.ndim - self.axes, axes)):
            result = result[0]
        if isinstance(self.like, torch.Tensor):
            return result
        if isinstance(self.like, np.ndarray):
            return result.numpy()[()]
        back = getattr(library_of(self.like), "from_dlpack", None)  # a wrapper of somebody's own has none
        return result if back is None else back(result)


def readable(image: torch.Tensor, *, fractions: bool) -> torch.Tensor:
    """Return the pixels as the kernels read them, in a dtype that torch computes with."""
    if image.dtype in LARGEST:
        pixels = image.to(torch.float32)
        return pixels / LARGEST[image.dtype] if fractions else pixels
    return image.float() if image.dtype in FLOATS[2:] else image


def take(x: Any, y: Any, mask: Any = None, dims: int = 2) -> Images:
    """Check a pair of images (volumes with dims=3) and a mask, and view them as tensors.

    Raises
    ------
    TypeError, ValueError
        What came, what is allowed, what to do.
    """
    if (  # what most calls bring, and nothing below would change or refuse
        type(x) is type(y) is torch.Tensor
        and mask is None
        and x.is_cpu
        and y.is_cpu
        and x.dtype == y.dtype == torch.float32
        and x.layout == y.layout == torch.strided
        and x.ndim == dims + 2
        and not (x.is_nested or y.is_nested)  # which have no shape
        and x.shape == y.shape
        and x.numel()
    ):
        return Images(x, y, None, x, dims + 2)
    a, b = _tensor("x", x), _tensor("y", y)
    if type(x) is not type(y) and isinstance(x, torch.Tensor) != isinstance(y, torch.Tensor):
        raise TypeError(f"x is a {type(x).__name__} and y a {type(y).__name__}; give two of one kind")
    _check("x", a, dims)
    _check("y", b, dims)
    if a.shape != b.shape:
        raise ValueError(f"x has shape {tuple(a.shape)} and y {tuple(b.shape)}; they must be equal")
    if a.device != b.device:
        raise ValueError(f"x is on {a.device} and y on {b.device}; move one of them")
    if a.is_meta:
        raise ValueError("x is on meta, where it has no pixels; give a tensor on the CPU or an NVIDIA GPU")
    if a.device.type not in {"cpu", "cuda"}:
        raise ValueError(f"x is on {a.device}; SSIM is computed on the CPU and on NVIDIA's GPUs: call .cpu() first")
    check_pixels(a.shape)
    weights = None if mask is None else _mask(mask, a)
    axes = a.ndim
    while a.ndim < dims + 2:
        a, b = a[None], b[None]
    return Images(a, b, weights if weights is None else weights.expand(a.shape), x, axes)


def _check(name: str, image: torch.Tensor, dims: int) -> None:
    """Check one image by itself."""
    if image.dtype not in DTYPES:
        raise TypeError(f"{name} is {image.dtype}; give {_NAMES}")
    check_shape(name, image.shape, dims)


def check_shape(name: str, shape: Sequence[int], dims: int) -> None:
    """Refuse what has too few axes or too many for images, or with dims=3 for volumes."""
    if not dims <= len(shape) <= dims + 2:
        hint = "; for volumes pass dims=3 to ssim, ssim_map, ssim_loss or l1_ssim_loss"
        raise ValueError(
            f"{name} has shape {tuple(shape)}; give {_SHAPES[dims]}{hint if (dims, len(shape)) == (2, 5) else ''}"
        )


def check_pixels(shape: Sequence[int]) -> None:
    """Refuse images, of one shape, that hold nothing."""
    if 0 in shape:
        raise ValueError(f"x has shape {tuple(shape)}, no pixel at all; give at least one image")


def _mask(mask: Any, image: torch.Tensor) -> torch.Tensor:
    """Check the weights of the pixels."""
    weights = _tensor("mask", mask)
    if weights.dtype not in {*FLOATS, torch.bool, torch.uint8}:
        raise TypeError(f"mask is {weights.dtype}; give {_MASK_NAMES}")
    if weights.requires_grad:
        raise ValueError("mask requires a gradient, which is not computed: call mask.detach() first")
    if weights.device != image.device:
        raise ValueError(f"mask is on {weights.device} and the images on {image.device}; move it there")
    try:
        weights.expand(image.shape)
    except RuntimeError as error:
        raise ValueError(
            f"mask has shape {tuple(weights.shape)}; it must broadcast to that of the images, {tuple(image.shape)}"
        ) from error
    if weights.dtype != torch.bool and weights.device.type == "cpu" and not torch.compiler.is_compiling():
        least, most = 0.0, 1.0
        with suppress(RuntimeError):  # of torch, for weights that are only traced, or many at once: nothing to look at
            least, most = (bound.item() for bound in weights.aminmax())
        if not (least >= 0 and most <= 1):
            raise ValueError(f"mask holds weights from {least} to {most}; they must lie in [0, 1]")
    return weights


def _tensor(name: str, array: Any) -> torch.Tensor:
    """View an array as a tensor, without a copy unless its strides are none that torch has."""
    if isinstance(array, torch.Tensor):
        if array.layout != torch.strided:
            raise TypeError(f"{name} is {array.layout}; give a dense tensor ({name}.to_dense())")
        if array.is_nested:
            raise TypeError(f"{name} is a nested tensor; give its images one by one, {name}.unbind()")
        return array
    if isinstance(array, np.ndarray):
        return _from_numpy(name, array)
    if hasattr(array, "__dlpack__"):
        if any(stride < 0 for stride in getattr(array, "strides", None) or ()):
            array = array.copy()  # of CuPy's or its like: torch would end the process
        return torch.utils.dlpack.from_dlpack(array)
    raise TypeError(
        f"{name} is a {type(array).__name__}; give a torch.Tensor, a NumPy array, or an array that speaks DLPack"
    )


def _from_numpy(name: str, array: NDArray[Any]) -> torch.Tensor:
    """Check an ndarray and view it as a tensor."""
    if array.dtype.kind not in "fub" or array.dtype.itemsize > 8 or not array.dtype.isnative:
        names = _MASK_NAMES if name == "mask" else _NAMES
        raise TypeError(f"{name} is an array of {array.dtype.str}; give {names} in this machine's byte order")
    if isinstance(array, np.ma.MaskedArray):  # whose mask torch would not see
        raise TypeError(f"{name} is a masked array; give {name}.data, and to leave pixels out mask=~{name}.mask")
    return viewed(array)


def viewed(array: NDArray[Any]) -> torch.Tensor:
    """View an ndarray as a tensor that nobody writes to: a read-only one, too, and one of any strides."""
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()  # torch has no negative strides, nor those of a field in a packed record
    if not array.flags.writeable:
        array = np.asarray(_Writeable(array))
    return torch.from_numpy(array)


class _Writeable:
    """A read-only array under an interface that does not say so; keeps it alive."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def library_of(array: Any) -> Any:
    """Return the module that an array belongs to."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules.get(type(array).__module__.partition(".")[0])
