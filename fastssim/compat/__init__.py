"""Drop-in modules, each named after the library that it replaces: change one import line.

>>> from fastssim.compat.pytorch_msssim import ssim  # was: from pytorch_msssim import ssim

A module reproduces its library's signature, defaults, shapes, dtypes, kinds of errors and conventions (border, window,
pooling, what is averaged), and none of its defects; the library itself need not be installed. `table` tells for every
option whether the kernels cover it, `patch` replaces a library's functions in code that cannot be edited.
"""

from fastssim.compat.options import Option, markdown, table
from fastssim.compat.patching import patch

__all__ = ["Option", "markdown", "patch", "table"]
