"""The one way this package calls Numba's compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
from numba.core.dispatcher import Dispatcher

from fastssim.cpu.machine_code import sources

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS: dict[str, Any] = {
    "nogil": True,  # the pool's threads run kernels side by side
    "error_model": "numpy",  # the default checks every division and stops vectorisation
    "fastmath": {"contract"},  # fused multiply-add; sums keep their order, NaN and infinity their meaning
}


#  Numba hands `forceinline` on to all that a function calls, which would be copied over and over.
_INNER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` with the entry that calls it, see `fastssim.cpu.entry`; Python cannot call it."""
    return numba.njit(**_INNER)(function)


def unmanaged(function: Callable[..., Any]) -> Any:
    """As `jit`, for what views many parts of buffers and makes or returns no array: nothing counts its references."""
    return numba.njit(**_INNER, _nrt=False)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """As `jit`, for what is called once a row or more often: its code becomes a part of the caller's."""
    return numba.njit(**{**_INNER, "forceinline": True})(function)


def merged(function: Callable[..., Any]) -> Any:
    """As `jit`, for what is called in one place: it becomes a part of its caller before types are known.

    What it calls is optimised once less; but it may not ask whether an argument is None.
    """
    return numba.njit(**_OPTIONS, inline="always")(function)


def kept(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call and keep the machine code on disk where a folder can be written."""
    try:
        dispatcher = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return numba.njit(**_OPTIONS)(function)
    if isinstance(dispatcher, Dispatcher):  # not where NUMBA_DISABLE_JIT is set
        kept_there: Any = dispatcher._cache._cache_file  # type: ignore[attr-defined]  # noqa: SLF001
        #  Numba alone looks at the function's own file, not at those of what it calls.
        kept_there._source_stamp = (*kept_there._source_stamp, sources())  # noqa: SLF001
    return dispatcher
