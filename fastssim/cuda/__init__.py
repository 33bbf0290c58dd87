"""The CUDA backend: kernels in CUDA C++, compiled at the first use by NVRTC, launched through CuPy."""

from fastssim.cuda.device import usable

__all__ = ["usable"]
