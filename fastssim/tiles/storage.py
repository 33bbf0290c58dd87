"""Pixels of every kind as the NumPy arrays that the kernels read and write.

Neither NumPy nor Numba computes with 16-bit floats as it should (bfloat16 is none of NumPy's types); the kernels take
them as integers of the same bits: float16 as int16, bfloat16 as uint16.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastssim.cpu.dispatch import launch_of
from fastssim.cpu.pages import LEAST, LINE, from_line, in_large_pages
from fastssim.cuda.device import CudaUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMPY = {
    np.dtype(np.float64): np.float64,
    np.dtype(np.float32): np.float32,
    np.dtype(np.float16): np.int16,
    np.dtype(np.uint8): np.uint8,
}
_TORCH = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.int16,
    torch.bfloat16: np.uint16,
    torch.uint8: np.uint8,
}
_EXPONENTS = {  # of a stored number: the exponent's lowest bit, and how many it has
    np.dtype(np.float64): (52, 11),
    np.dtype(np.float32): (23, 8),
    np.dtype(np.int16): (10, 5),
    np.dtype(np.uint16): (7, 8),
}
_LACKING = {  # dtypes that NumPy has not, and integers as large
    torch.bfloat16: torch.int16,
    torch.complex32: torch.int32,
    **{kind: torch.uint8 for name, kind in vars(torch).items() if name.startswith("float8_")},
}
GPUS = {"cuda"}  # kinds of devices
PIXELS = "float64, float32, float16, bfloat16 (tensors), uint8"


def check(name: str, array: Any) -> None:
    """Refuse anything but an array, or a dense tensor on the CPU or a GPU.

    Raises
    ------
    TypeError, ValueError
        What came, what is allowed, what to do.
    CudaUnavailableError
        If the tensor is on a GPU and what computes there is not installed.
    """
    if isinstance(array, torch.Tensor):
        if array.layout != torch.strided:
            raise TypeError(f"{name} is {array.layout}; give a dense tensor ({name}.to_dense())")
        if array.device.type == "cuda":
            from fastssim.cuda.device import load_cupy  # noqa: PLC0415  # loads CuPy, at the first use

            load_cupy()
        elif array.device.type != "cpu":
            raise ValueError(f"{name} is on {array.device}; give a tensor on the CPU or an NVIDIA GPU")
    elif isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, and tiles carry no mask; fill it (.filled) or leave the mask (.data)"
        )
    elif isinstance(array, np.ndarray) and array.dtype.hasobject:
        raise TypeError(f"{name} is {array.dtype}; give numbers")
    elif not isinstance(array, np.ndarray):
        refuse_cupy(name, array)
        raise TypeError(f"{name} is a {type(array).__name__}; give a NumPy array or a torch.Tensor")


def refuse_cupy(name: str, array: Any) -> None:
    """Refuse an array on a GPU that is no tensor: NumPy, which reads what slices, cannot read it.

    Raises
    ------
    TypeError
        With the tensor on the same memory.
    """
    if not isinstance(array, torch.Tensor) and hasattr(array, "__cuda_array_interface__"):
        raise TypeError(
            f"{name} is a {type(array).__module__}.{type(array).__qualname__}, on a GPU; give"
            f" torch.from_dlpack({name}), a tensor on the same memory"
        )


def place_of(device: Any) -> torch.device:
    """Take the name of a device.

    Raises
    ------
    ValueError
        If torch knows no such device.
    CudaUnavailableError
        If it is a GPU and torch finds none.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device is {device!r}; give "cpu", "cuda" or "cuda:N"') from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise CudaUnavailableError(
            f"device is {device}, but torch {torch.__version__} finds no GPU: install torch for your driver"
            " (https://pytorch.org/get-started), or leave device out to compute on the CPU"
        )
    return place


def on_gpu(array: Any) -> bool:
    """Tell whether an array is a tensor on a GPU."""
    return isinstance(array, torch.Tensor) and array.device.type in GPUS


def in_memory(array: Any) -> bool:
    """Tell whether an array lies in memory, not in a file."""
    return isinstance(array, torch.Tensor) or (isinstance(array, np.ndarray) and not isinstance(array, np.memmap))


def check_pixels(name: str, dtype: Any) -> None:
    """Refuse dtypes that cannot be blended.

    Raises
    ------
    TypeError
        What came, what is allowed.
    """
    if dtype not in (_TORCH if isinstance(dtype, torch.dtype) else _NUMPY):
        raise TypeError(f"{name}: {dtype} cannot be blended; convert to one of {PIXELS}")


def as_read(tensor: torch.Tensor) -> torch.Tensor:
    """Detach a tensor, copied where its memory is not what it says: conjugated, negated, or zeros that are nowhere."""
    detached = tensor.detach().resolve_conj().resolve_neg()
    return torch.zeros_like(detached) if detached._is_zerotensor() else detached  # noqa: SLF001  # no public word for it


def stored(array: Any) -> NDArray[Any]:
    """View an array or a tensor of one of `PIXELS` as the kernels take it, without a copy."""
    if isinstance(array, torch.Tensor):
        detached = as_read(array)
        if array.dtype in (torch.float16, torch.bfloat16):
            detached = detached.view(torch.int16)
        bits: NDArray[Any] = detached.numpy()
        return bits.view(_TORCH[array.dtype])
    return array.view(_NUMPY[array.dtype])  # type: ignore[no-any-return]


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Allocate an array, or a tensor where `dtype` is torch's; either in large pages.

    Large tensors are NumPy's memory: freed and allocated again it is the same, and in the caches. torch asks for memory
    that begins at a multiple of 64 bytes, and for that the system's allocator goes to and fro between two places.
    """
    if not isinstance(dtype, torch.dtype):
        return np.empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST:
        return torch.empty(shape, dtype=dtype, device="cpu")
    memory = from_line(np.empty(size + LINE, np.uint8), size)
    return in_large_pages(torch.from_numpy(memory).view(dtype).view(shape))


def deviation_dtype(dtype: Any) -> Any:
    """Dtype of a standard deviation of pixels of `dtype`: that of the pixels, float32 where they are integers."""
    if isinstance(dtype, torch.dtype):
        return dtype if dtype.is_floating_point else torch.float32
    return dtype if np.issubdtype(dtype, np.floating) else np.dtype(np.float32)


def torch_dtype(dtype: Any) -> torch.dtype:
    """Name a dtype, of either byte order, as torch does."""
    return dtype if isinstance(dtype, torch.dtype) else torch.from_numpy(native(np.empty(0, dtype))).dtype


def bits(tensor: torch.Tensor) -> NDArray[Any]:
    """View a tensor of any dtype as an array that can be copied; as integers where NumPy lacks it, as bfloat16.

    What torch conjugates or negates as it reads it comes as a copy.
    """
    detached = as_read(tensor)
    integers = _LACKING.get(tensor.dtype)
    array: NDArray[Any] = (detached if integers is None else detached.view(integers)).numpy()
    return array


def plain(array: Any) -> NDArray[Any]:
    """Turn pixels into an array of NumPy's own dtypes; bfloat16 becomes float32."""
    if not isinstance(array, torch.Tensor):
        return array  # type: ignore[no-any-return]
    widened: NDArray[Any] = (array.float() if array.dtype == torch.bfloat16 else array).cpu().numpy()
    return widened


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Bring an array into this machine's byte order, which torch wants."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def finite(array: Any) -> bool:
    """Tell whether there is neither NaN nor infinity among pixels."""
    if on_gpu(array):
        return bool(torch.isfinite(array).all())
    pixels = stored(array)
    return pixels.dtype == np.uint8 or launch_of("tiles").finite(np.ascontiguousarray(pixels), _EXPONENTS[pixels.dtype])


def check_target(name: str, target: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse an array that the result does not fit into.

    Raises
    ------
    TypeError, ValueError
        What it is, and what the result is.
    """
    refuse_cupy(name, target)
    found = getattr(target, "shape", None)
    if found is None or tuple(found) not in (shape, shape[1:] if shape[0] == 1 else shape):
        raise ValueError(f"{name} has shape {found if found is None else tuple(found)}; the result has {shape}")
    if getattr(getattr(target, "flags", None), "writeable", True) is False or getattr(target, "read_only", False):
        raise ValueError(f"{name} is read-only; open it for writing (a memmap with mode 'r+' or 'w+')")
    kind = getattr(target, "dtype", None)
    if kind is None:  # it only slices
        return
    if isinstance(target, torch.Tensor):
        if target.is_neg():
            raise ValueError(f"{name} is a view that torch negates; give a tensor of its own")
        if any(step == 0 and count > 1 for step, count in zip(target.stride(), target.shape, strict=True)):
            raise ValueError(f"{name} is an expanded view, whose pixels share memory; give {name}.contiguous()")
        fits = torch.can_cast(torch_dtype(dtype), target.dtype)
        largest = [torch.iinfo(each).max for each in (torch_dtype(dtype), target.dtype) if _whole(each)]
    else:
        result = plain(empty((0,), dtype)).dtype
        fits = np.can_cast(result, kind, "same_kind")
        largest = [np.iinfo(each).max for each in (result, np.dtype(kind)) if each.kind in "iu"]
    fits = fits and largest == sorted(largest)  # integers would wrap around
    if not fits:
        raise TypeError(f"{name} is {kind}; the result is {dtype}: convert that before, or give another array")


def _whole(dtype: torch.dtype) -> bool:
    """Tell whether numbers of a dtype are integers."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def assign(target: Any, first: int, end: int, pixels: Any) -> None:
    """Write finished rows to an array of any kind, (C, H, W) or (H, W)."""
    if on_gpu(target):
        with torch.inference_mode():  # which may have allocated it
            target[..., first:end, :] = torch.as_tensor(pixels, device=target.device)
        return
    if isinstance(target, torch.Tensor):  # as memory: torch forbids this thread to write what inference mode allocated
        target, value = bits(target), bits(torch.as_tensor(pixels, device="cpu").to(target.dtype))
    else:
        value = plain(pixels)
    if len(getattr(target, "shape", ())) == 2:
        target[first:end] = value[0]
    else:
        target[:, first:end] = value
