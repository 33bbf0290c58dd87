"""The CUDA backend: kernels in CUDA C++, compiled at the first use by NVRTC, launched through CuPy."""
