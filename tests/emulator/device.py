"""The emulator as a device for `fastssim.cuda.launch`."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from emulate import Buffer, build, run

from fastssim.cuda.device import TorchDevice


class EmulatedDevice:
    """Kernels run on the CPU, thread by thread, in one order of threads and blocks; arrays are `Buffer`s."""

    def __init__(self, order=0, *, sanitize=False):
        self.order = order
        self.sanitize = sanitize
        self.names = {}  # dtypes that NumPy does not have: bfloat16 comes as uint16
        self.buffers = []
        self.launches = []

    def buffer(self, content):
        """Copy an array into a guarded buffer."""
        return self._keep(Buffer(content))

    def output(self, shape, dtype):
        """Make a guarded output."""
        return self._keep(Buffer.empty(shape, dtype))

    def _keep(self, buffer):
        self.buffers.append(buffer)
        return buffer

    def dtype(self, array):
        return self.names.get(id(array), str(array.array.dtype))

    def itemsize(self, array):
        return array.array.itemsize

    def strides(self, array):
        return tuple(step // array.array.itemsize for step in array.array.strides)

    def pointer(self, array):
        return array.array.ctypes.data

    def contiguous(self, array):
        return self.buffer(np.ascontiguousarray(array.array))

    def empty(self, like, shape, dtype):  # noqa: ARG002  # one device only
        return self.output(shape, dtype)

    def place(self, array):  # noqa: ARG002
        return "emulated"

    def upload(self, place, array):  # noqa: ARG002
        return self.buffer(array)

    def run(self, like, launch, argument):  # noqa: ARG002
        library = build(launch.instance.text, launch.instance.kernel, "Problem", sanitize=self.sanitize)
        run(library, argument, (launch.grid, 1, 1), (launch.block, 1, 1), order=self.order)
        for buffer in self.buffers:
            buffer.check()
        self.launches.append((library, argument, launch))


class EmulatedTorchDevice(TorchDevice):
    """Kernels run on the CPU, on tensors that lie there."""

    def run(self, like, launch, argument):  # noqa: ARG002
        library = build(launch.instance.text, launch.instance.kernel, "Problem")
        run(library, argument, (launch.grid, 1, 1), (launch.block, 1, 1))


def cuda_operators():
    """The operators of fastssim, as they would run on tensors of a GPU, for tensors on the CPU."""
    names = ("ssim_mean", "ssim_map", "ssim_mean_gradient", "ssim_map_gradient", "ssim_scales", "ssim_deliver")
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    return SimpleNamespace(
        **{name: partial(getattr(torch.ops.fastssim, name).default.redispatch, key) for name in names}
    )


class EmulatedArrayDevice(EmulatedTorchDevice):
    """Kernels run on the CPU, on NumPy's arrays in the place of CuPy's."""

    def dtype(self, array):
        return str(array.dtype)

    def itemsize(self, array):
        return array.itemsize

    def strides(self, array):
        return tuple(step // array.itemsize for step in array.strides)

    def pointer(self, array):
        return array.ctypes.data

    def place(self, array):  # noqa: ARG002
        return "emulated"

    def contiguous(self, array):
        return np.ascontiguousarray(array)

    def empty(self, like, shape, dtype):  # noqa: ARG002
        return np.empty(shape, dtype)
