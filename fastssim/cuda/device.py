"""Where kernels run: on the GPU of a torch tensor or of a CuPy array, compiled by NVRTC and launched by CuPy."""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np

    from fastssim.cuda.geometry import Launch
    from fastssim.cuda.instances import Instance

_OPTIONS = ("-std=c++17",)
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_INSTALL = 'pip install "fastssim[cuda13]" for a driver of CUDA 13, "fastssim[cuda12]" for one of CUDA 12'


class CudaUnavailableError(RuntimeError):
    """What the CUDA backend lacks on this machine, and how to get it."""


class Device(Protocol):
    """What the launcher needs to know of arrays, and how it starts kernels."""

    def dtype(self, array: Any) -> str:
        """Name of the dtype, as NumPy has it."""

    def itemsize(self, array: Any) -> int:
        """Bytes of one element."""

    def strides(self, array: Any) -> tuple[int, ...]:
        """Strides in elements; 0 along an axis of one, where any number may stand, also one too long for a kernel."""

    def pointer(self, array: Any) -> int:
        """Address of the first element."""

    def contiguous(self, array: Any) -> Any:
        """Return the array, or a contiguous copy."""

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """Memory for an array where `like` lies."""

    def place(self, array: Any) -> Any:
        """Which GPU an array lies on, as a value that can be hashed."""

    def upload(self, place: Any, array: np.ndarray) -> Any:
        """Copy an array to a GPU, before this returns."""

    def run(self, like: Any, launch: Launch, argument: np.ndarray) -> None:
        """Start a kernel on the current stream of the GPU where `like` lies."""


class _Stream(NamedTuple):
    """As much of a stream as CuPy's launch looks at."""

    ptr: int


class TorchDevice:
    """The GPU of a torch tensor, torch's current stream, torch's memory."""

    def dtype(self, array: Any) -> str:
        """Name of the dtype."""
        return str(array.dtype).removeprefix("torch.")

    def itemsize(self, array: Any) -> int:
        """Bytes of one element."""
        return int(array.element_size())

    def strides(self, array: Any) -> tuple[int, ...]:
        """Strides in elements."""
        return tuple(step if count > 1 else 0 for step, count in zip(array.stride(), array.shape, strict=True))

    def pointer(self, array: Any) -> int:
        """Address of the first element."""
        return int(array.data_ptr())

    def contiguous(self, array: Any) -> Any:
        """Return the tensor, or a contiguous copy."""
        return array.contiguous()

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """Memory from torch's allocator, which knows the stream and the graph that captures it."""
        import torch  # noqa: PLC0415  # CuPy alone is enough where no tensor comes

        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)

    def place(self, array: Any) -> Any:
        """Return the tensor's device."""
        return array.device

    def upload(self, place: Any, array: np.ndarray) -> Any:
        """Copy an array to a GPU; from memory that is not pinned, this waits."""
        import torch  # noqa: PLC0415

        return torch.from_numpy(array).to(place)

    def run(self, like: Any, launch: Launch, argument: np.ndarray) -> None:
        """Start a kernel on torch's stream, asked for at every launch: a kept one would miss a graph's capture."""
        import torch  # noqa: PLC0415

        load_cupy()
        with torch.cuda.device(like.device):
            _start(launch, argument, _Stream(torch.cuda.current_stream().cuda_stream))


class CupyDevice:
    """The GPU of a CuPy array, CuPy's current stream, CuPy's memory."""

    def dtype(self, array: Any) -> str:
        """Name of the dtype."""
        return str(array.dtype)

    def itemsize(self, array: Any) -> int:
        """Bytes of one element."""
        return int(array.itemsize)

    def strides(self, array: Any) -> tuple[int, ...]:
        """Strides in elements."""
        steps = zip(array.strides, array.shape, strict=True)
        return tuple(step // array.itemsize if count > 1 else 0 for step, count in steps)

    def pointer(self, array: Any) -> int:
        """Address of the first element."""
        return int(array.data.ptr)

    def contiguous(self, array: Any) -> Any:
        """Return the array, or a contiguous copy."""
        with array.device:
            return load_cupy().ascontiguousarray(array)

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """Memory from CuPy's pool."""
        with like.device:
            return load_cupy().empty(shape, dtype)

    def place(self, array: Any) -> Any:
        """Return the number of the array's GPU."""
        return int(array.device.id)

    def upload(self, place: Any, array: np.ndarray) -> Any:
        """Copy an array to a GPU; from memory that is not pinned, this waits."""
        cupy = load_cupy()
        with cupy.cuda.Device(place):
            return cupy.asarray(array)

    def run(self, like: Any, launch: Launch, argument: np.ndarray) -> None:
        """Start a kernel on CuPy's current stream."""
        device: AbstractContextManager[Any] = like.device
        with device:
            _start(launch, argument, load_cupy().cuda.get_current_stream())


TORCH, _CUPY = TorchDevice(), CupyDevice()


def device_of(array: Any) -> Device:
    """Return the way to handle an array: torch's or CuPy's."""
    return _CUPY if type(array).__module__.split(".")[0] == "cupy" else TORCH


@cache
def load_cupy() -> Any:
    """Import CuPy and make sure that it finds a GPU.

    Raises
    ------
    CudaUnavailableError
        What is missing, and how to install it.
    """
    try:
        import cupy  # noqa: PLC0415  # an optional extra, large, only for the GPU
    except ImportError as error:
        raise CudaUnavailableError(f"the CUDA backend needs CuPy, which is not installed: {_INSTALL}") from error
    if not cupy.cuda.is_available():
        raise CudaUnavailableError(
            f"CuPy {cupy.__version__} finds no GPU: install NVIDIA's driver (nvidia-smi shows it), and the CuPy of its"
            f" version ({_INSTALL}); or compute on the CPU: call x.cpu() first"
        )
    return cupy


def usable() -> bool:
    """Whether CuPy is there and finds a GPU."""
    try:
        load_cupy()
    except CudaUnavailableError:
        return False
    return True


@cache
def _kernel(instance: Instance) -> Any:
    """Return the kernel; CuPy compiles it at its first launch on each kind of GPU, and keeps the result on disk."""
    return load_cupy().RawKernel(instance.text, instance.kernel, options=_OPTIONS)


def _start(launch: Launch, argument: np.ndarray, stream: Any) -> None:
    """Launch on the current device, on a stream of CuPy's."""
    kernel = _kernel(launch.instance)
    try:
        kernel.kernel  # noqa: B018  # compiles, where it is not yet compiled for this device
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise CudaUnavailableError(
                f"CuPy cannot keep what it compiles ({error}): name a folder that can be written in the environment"
                " variable CUPY_CACHE_DIR, or set CUPY_CACHE_IN_MEMORY=1"
            ) from error
        raise CudaUnavailableError(
            f"NVRTC, CUDA's compiler, failed on {launch.instance.name}: where it is not found, {_INSTALL}"
        ) from error
    kernel((launch.grid,), (launch.block,), (argument,), stream=stream)
