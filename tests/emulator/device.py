"""The emulator as a device for `fastssim.cuda.launch`."""

from __future__ import annotations

import numpy as np
from emulate import Buffer, build, run


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
