"""Benchmarks of fastssim against reference implementations."""
