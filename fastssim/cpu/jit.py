"""The one way this package calls Numba's compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS: dict[str, Any] = {
    "nogil": True,  # the pool's threads run kernels side by side
    "error_model": "numpy",  # the default checks every division and stops vectorisation
    "fastmath": {"contract"},  # fused multiply-add; sums keep their order, NaN and infinity their meaning
}


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` with the entry that calls it, see `fastssim.cpu.entry`; Python cannot call it."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def unmanaged(function: Callable[..., Any]) -> Any:
    """As `jit`, for what views many parts of buffers and makes or returns no array: nothing counts its references."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False, **_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """As `jit`, for what is called once a row or more often: its code becomes a part of the caller's."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True, **_OPTIONS)(function)


def kept(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call and keep the machine code on disk where a folder can be written."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return numba.njit(**_OPTIONS)(function)
