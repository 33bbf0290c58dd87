"""What the launcher says and does without a GPU."""

from __future__ import annotations

import errno
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastssim
from fastssim import Gaussian
from fastssim.cuda import device, geometry, launch
from fastssim.cuda.geometry import Task
from fastssim.plan import Plan

TAPS = Gaussian().weights_y
PLAN = Plan((2, 3, 64, 80), "float32", TAPS, TAPS, 1e-4, 9e-4)


@pytest.fixture(autouse=True)
def forget_cupy():
    for kept in (device.load_cupy, device._kernel):
        kept.cache_clear()
    yield
    for kept in (device.load_cupy, device._kernel):
        kept.cache_clear()


class FakeArray:
    """As much of a CuPy array as the launcher looks at."""

    __module__ = "cupy"

    def __init__(self, shape, dtype):
        self.host = np.empty(shape, dtype)
        self.dtype, self.shape, self.strides = self.host.dtype, self.host.shape, self.host.strides
        self.itemsize = self.host.itemsize
        self.data = SimpleNamespace(ptr=self.host.ctypes.data)
        self.device = nullcontext()


def fake_cupy(launched, *, available=True, broken=False):
    """Return a module that notes what is launched."""

    class RawKernel:
        def __init__(self, text, name, options):
            self.text, self.name, self.options = text, name, options

        @property
        def kernel(self):
            if broken:
                raise broken if isinstance(broken, OSError) else OSError("libnvrtc.so not found")
            return self

        def __call__(self, grid, block, arguments, stream):
            launched.append((self.name, grid, block, arguments, stream))

    cuda = SimpleNamespace(is_available=lambda: available, get_current_stream=lambda: "stream")
    return SimpleNamespace(cuda=cuda, RawKernel=RawKernel, empty=FakeArray, __version__="14.2.0")


def test_without_cupy_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    x = torch.rand(PLAN.shape)
    with pytest.raises(
        device.CudaUnavailableError, match=r'CuPy, which is not installed: pip install "fastssim\[cuda13\]'
    ):
        launch.value(PLAN, x, x)


@pytest.mark.parametrize("function", [fastssim.ssim, fastssim.ssim_map, fastssim.l1_ssim_loss, fastssim.ms_ssim])
def test_a_backend_that_is_named_says_what_it_lacks(function, monkeypatch):
    x = torch.rand(1, 1, 176, 176)
    assert torch.equal(function(x, x, backend="cpu"), function(x, x))
    with pytest.raises(ValueError, match="backend is 'gpu'; give one of 'cpu', 'cuda'"):
        function(x, x, backend="gpu")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(device.CudaUnavailableError, match="CuPy, which is not installed: pip install"):
        function(x, x, backend="cuda")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy([]))
    with pytest.raises(ValueError, match=r'the images lie on cpu: move them, x.to\("cuda"\)'):
        function(x, x, backend="cuda")


def test_without_a_gpu_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy([], available=False))
    x = FakeArray(PLAN.shape, "float32")
    with pytest.raises(device.CudaUnavailableError, match="finds no GPU: install NVIDIA's driver"):
        launch.value(PLAN, x, x)


def test_without_nvrtc_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy([], broken=True))
    x = FakeArray(PLAN.shape, "float32")
    with pytest.raises(device.CudaUnavailableError, match="NVRTC, CUDA's compiler, failed on march"):
        launch.value(PLAN, x, x)


def test_where_what_is_compiled_cannot_be_kept_the_message_says_so(monkeypatch):
    unwritable = PermissionError(errno.EACCES, "Permission denied", "/home/.cupy")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy([], broken=unwritable))
    x = FakeArray(PLAN.shape, "float32")
    with pytest.raises(device.CudaUnavailableError, match=r"cannot keep what it compiles .*/home/.cupy.* CUPY_CACHE"):
        launch.value(PLAN, x, x)


def test_a_copy_lies_on_the_gpu_of_its_original(monkeypatch):
    here = []

    @contextmanager
    def gpu():
        here.append("its GPU")
        yield
        here.clear()

    cupy = fake_cupy([])
    cupy.ascontiguousarray = lambda array: (array, *here)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = FakeArray(PLAN.shape, "float32")
    x.device = gpu()
    assert device.device_of(x).contiguous(x) == (x, "its GPU")


def test_a_value_with_its_gradient_takes_two_launches_on_the_current_stream(monkeypatch):
    launched = []
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(launched))
    x, y, gradient = (FakeArray(PLAN.shape, "float32") for _ in range(3))
    sums = launch.value_and_gradient(PLAN, x, y, None, 0.5, gradient, None)
    assert sums.value.shape == (2, 3)
    assert [(name, stream) for name, *_, stream in launched] == [("march", "stream"), ("reduce", "stream")]
    (argument,) = launched[0][3]
    assert argument["x"][0] == x.data.ptr
    assert argument["grad_x"][0] == gradient.data.ptr
    assert argument["grad_y"][0] == 0
    assert argument["scale"][0] == 0.5
    assert launched[0][1] == (geometry.march(PLAN, Task("float32", "float32", gradients=1)).grid,)


def test_steps_too_long_for_the_kernel_are_copied_away():
    far = SimpleNamespace(copied=False)
    strides = {False: (1, 1, 1, 2**30), True: (1, 1, 1, 1)}
    handler = SimpleNamespace(
        strides=lambda image: strides[image.copied],
        itemsize=lambda _: 4,
        contiguous=lambda _: SimpleNamespace(copied=True),
    )
    image, steps = geometry.described(handler, far)
    assert image.copied
    assert steps == (1, 1, 1, 1)


def test_an_axis_of_one_may_have_any_stride():
    row = torch.zeros(32).as_strided((1, 1, 1, 32), (1, 1, 2**29, 1))  # out of 2 GiB; contiguous to torch
    array = FakeArray((1, 1, 1, 32), "float32")
    array.strides = (4, 4, 2**31, 4)
    for image in (row, array):
        described, strides = geometry.described(device.device_of(image), image)
        assert described is image
        assert strides == (0, 0, 0, 1)


@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (16, 1, 128, 128), (8, 3, 1080, 1920), (1, 1, 5000, 12)])
@pytest.mark.parametrize("gradients", [0, 1, 2])
def test_every_block_has_work_and_large_images_have_many(shape, gradients):
    plan = Plan(shape, "float32", TAPS, TAPS, 1e-4, 9e-4)
    made = geometry.march(plan, Task("float32", "float32", gradients=gradients))
    fields = np.frombuffer(made.template, made.instance.argument)[0]
    assert made.grid == shape[0] * shape[1] * fields["segments"] * fields["strips"]
    assert fields["rows"] >= fields["segments"]
    assert fields["columns"] >= fields["strips"]
    owned = made.block * made.instance["COLUMNS"] - (10 if gradients else 0)
    assert -(-fields["columns"] // fields["strips"]) <= owned
    if np.prod(shape) > 1e6:
        assert made.grid >= geometry.BLOCKS


def test_the_python_side_knows_the_shared_memory_of_the_march():
    for gradients in (0, 1, 2):
        made = geometry.march(PLAN, Task("float32", "float32", gradients=gradients)).instance
        assert geometry._shared_bytes(made) <= geometry.SHARED_BYTES
