"""Benchmarks of fastssim against reference implementations: ``python -m bench``."""
