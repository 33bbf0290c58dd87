"""The machine code of SSIM's kernels: made once for a processor, kept in a file, and called through its address.

Numba's cache would do for the first of these, but a process that reads it loads all of Numba's compiler and, where
SciPy is installed, SciPy's linear algebra (0.5 s), it notices changes of one source file only, and a call through
Numba's dispatcher takes 40 to 100 us to unpack its arguments. Here a file is named by a hash of all that decides its
contents, a process that finds it compiles nothing, and a call takes 1 us.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import threading
from contextlib import suppress
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import llvmlite.binding as llvm
from numba.core import config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastssim.cpu.kinds import Kind

_HERE = Path(__file__).parent
#  Numba's functions write a result and an exception through their first two arguments; ours have neither.
_nothing = ctypes.create_string_buffer(16)
_engines: list[Any] = []  # machine code lives as long as its engine
_lock = threading.RLock()  # a signal's handler may ask for code while code is made


def _start_anew() -> None:
    """Forget a lock that another thread of the parent may have held."""
    global _lock  # noqa: PLW0603  # one lock a process
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@lru_cache(maxsize=1024)
def entry(kind: Kind) -> Callable[..., int]:
    """Return the entry of a kind, see `fastssim.cpu.entry`.

    It takes integers, or bytes where an address is due, lets other Python threads run, and returns 0, or another number
    where memory ran out.
    """
    with _lock:
        address = _loaded(kind) or _made(kind)
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * (2 + kind.arguments))(address)
    return partial(function, *nothing())


def nothing() -> tuple[int, int]:
    """Return the addresses that an entry takes before its integers."""
    address = ctypes.addressof(_nothing)
    return address, address + 8


def address_of(function: Any) -> int:
    """Return where the machine code lies that `entry` returned."""
    return ctypes.cast(function.func, ctypes.c_void_p).value or 0


def linked(text: str, symbol: str) -> int:
    """Compile a module of LLVM's language and return a function's address."""
    engine = _engine()
    engine.add_module(llvm.parse_assembly(text))
    engine.finalize_object()
    _engines.append(engine)
    address: int = engine.get_function_address(symbol)
    return address


def _made(kind: Kind) -> int:
    """Compile, keep the machine code where a folder can be written, and return the entry's address."""
    compiled = import_module("fastssim.cpu.entry").compiled(kind)  # loads Numba
    about = {"symbol": compiled.symbol, "needs": compiled.needs, "sha256": hashlib.sha256(compiled.code).hexdigest()}
    content = json.dumps(about).encode() + b"\n" + compiled.code
    for path in _paths(kind) if _unchanged() else ():
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with beside.open("xb") as file:  # a new one, and no link to another
                    file.write(content)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            for other in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
                if other != path:  # of sources that are no longer there
                    other.unlink(missing_ok=True)
            break
    address: int = compiled.address
    return address


def _loaded(kind: Kind) -> int | None:
    """Return the entry's address in machine code that was kept, or None."""
    for path in _paths(kind):
        with suppress(OSError, ValueError, LookupError, TypeError, RuntimeError):  # not ours, or spoilt
            with path.open("rb") as file:
                if not _trusted(file):
                    continue
                first, _, code = file.read().partition(b"\n")
            about = json.loads(first)
            if hashlib.sha256(code).hexdigest() == about["sha256"] and all(map(_known, about["needs"])):
                engine = _engine()
                engine.add_object_file(llvm.ObjectFileRef.from_data(code))
                engine.finalize_object()
                _engines.append(engine)
                address: int = engine.get_function_address(about["symbol"])
                return address
    return None


def _trusted(file: BinaryIO) -> bool:
    """Whether a file is from who decides what runs here anyway: this process's user, root, or this package's owner.

    A folder that `NUMBA_CACHE_DIR` names may be everybody's.
    """
    if not hasattr(os, "geteuid"):
        return True
    return os.fstat(file.fileno()).st_uid in {os.geteuid(), 0, _HERE.stat().st_uid}


def _known(function: str) -> bool:
    """Whether machine code may call a function by its name; Numba's own become known with its runtime."""
    if llvm.address_of_symbol(function) is None and function.startswith("NRT_"):
        context = import_module("numba.core.registry").cpu_target.target_context
        import_module("numba.core.runtime").rtsys.initialize(context)
    return llvm.address_of_symbol(function) is not None


def _engine() -> Any:
    """Return an engine without any code, which links an object file."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine()
    )


def _paths(kind: Kind) -> Iterator[Path]:
    """Places where the machine code of a kind may be, the best first."""
    name = f"{kind.name}-{_processor()}-{sources()}.o"
    return (folder / name for folder in folders())


def folders() -> Iterator[Path]:
    """Where machine code may be kept, the best first: where Numba would keep it."""
    if folder := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(folder) / "fastssim"
        return
    yield _HERE / "__pycache__"
    with suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastssim"


def sources() -> str:
    """Return a hash of the sources that machine code is made of, as they were when this module was loaded."""
    return _LOADED


def _sources_now() -> str:
    files = [*sorted(_HERE.glob("*.py")), _HERE.parent / "plan.py"]
    return _hash(*(file.read_text(encoding="utf-8") for file in files))


def _unchanged() -> bool:
    """Whether the sources are still those of the hash: modules loaded since, of an upgrade, may be others."""
    with suppress(OSError):
        return _sources_now() == _LOADED
    return False


@cache
def _processor() -> str:
    """Return a hash of the compiler, its settings, the processor, and the place of this package."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    settings += [("CPU", str(config.CPU_NAME)), ("features", str(config.CPU_FEATURES))]  # Numba's file sets them, too
    target = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return _hash(version("numba"), version("llvmlite"), str(settings), str(target), str(_HERE))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


_LOADED = _sources_now()
