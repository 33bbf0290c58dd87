"""Numba kernels and their launch."""
