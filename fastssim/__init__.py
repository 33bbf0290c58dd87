"""Fast, exact, differentiable windowed SSIM, and overlapping tiles.

Importing this package compiles nothing, writes nothing and loads no GPU library.
"""

__version__ = "0.1.0"
