"""Replace a library's functions in a running program, for code that cannot be edited."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastssim.compat.options import LIBRARIES, shim

if TYPE_CHECKING:
    from collections.abc import Iterator

Binding = tuple[dict[str, Any], str]  # a module's names, and one of them


@contextmanager
def patch(library: str) -> Iterator[None]:
    """Let a library's SSIM be fastssim's inside a ``with`` block, or a function that this decorates.

    It reaches every name of every loaded module that is bound to one of the library's functions or classes, so names
    that were imported with ``from ... import`` before the block too; modules that are loaded inside the block bind the
    replacement. On leaving, also by an exception, all of them are bound to the original again; blocks nest. It
    does not reach what holds the function by other ways: an object made beforehand, a default argument, an attribute of
    a class, a value in a list, a ``functools.partial``, a compiled function. It holds for all threads.

    Parameters
    ----------
    library : str
        "pytorch_msssim", "frame_analytics", "fused_ssim", "fussim", "torchmetrics", "kornia", "piq", "piqa", "monai",
        "skimage" or "cucim".

    Raises
    ------
    ValueError
        For another library.
    ImportError
        If the library is not installed.

    Examples
    --------
    >>> import pytorch_msssim  # doctest: +SKIP
    >>> with patch("pytorch_msssim"):  # doctest: +SKIP
    ...     pytorch_msssim.ssim.__module__
    'fastssim.compat.pytorch_msssim'
    """
    known = [name for name in LIBRARIES if hasattr(shim(name), "REPLACES")]
    if library not in known:
        raise ValueError(f"library is {library!r}; give one of {', '.join(map(repr, known))}")
    module = shim(library)
    pairs = [
        (getattr(original, name), getattr(module, name))
        for original, names in ((import_module(place), names) for place, names in module.REPLACES.items())
        for name in names
        if hasattr(original, name)  # not every release has all
    ]
    pairs = [(original, replacement) for original, replacement in pairs if original is not replacement]
    kept = {(id(names), name) for _, replacement in pairs for names, name in _bindings(replacement)}
    before: dict[tuple[int, str], Any] = {}  # some originals have one replacement
    try:
        for original, replacement in pairs:
            for names, name in _bindings(original):
                before[id(names), name] = original
                names[name] = replacement
        yield
    finally:
        for original, replacement in pairs:
            for names, name in _bindings(replacement):
                if (id(names), name) not in kept:
                    names[name] = before.get((id(names), name), original)


def _bindings(value: Any) -> list[Binding]:
    """Every name of a loaded module that is bound to a value."""
    return [
        (vars(module), name)
        for module in list(sys.modules.values())
        if isinstance(getattr(module, "__dict__", None), dict)
        for name, bound in list(vars(module).items())
        if bound is value
    ]
