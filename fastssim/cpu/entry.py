"""Entries to the kernels that take nothing but integers (Numba): no array and no tuple is unpacked at a call.

An entry is `fastssim.cpu.ssim`'s march or fold for one kind of call; it reads the blocks of `fastssim.cpu.kinds`. This
module is loaded only where machine code must be made, see `fastssim.cpu.machine_code`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import carray, from_dtype, types
from numba.extending import intrinsic, overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from fastssim.cpu import ssim
from fastssim.cpu.jit import jit
from fastssim.cpu.kinds import CALL, PLAN, Fold, Kind, layout
from fastssim.cpu.simd import wanted

if TYPE_CHECKING:
    from collections.abc import Callable

_INT = np.int64
_PLAN, _CALL = (from_dtype(layout(fields)) for fields in (PLAN, CALL))


class Compiled(NamedTuple):
    """An entry as the compiler made it."""

    address: int  # in this process
    symbol: str
    code: bytes  # an object file
    needs: list[str]  # functions that the code calls and does not hold


def compiled(kind: Kind) -> Compiled:
    """Compile the entry of a kind."""
    function = _fold(kind) if isinstance(kind, Fold) else _march(kind)
    signature = (types.int64,) * kind.arguments
    dispatcher = jit(function)
    dispatcher.compile(signature)
    made = dispatcher.overloads[signature]
    symbol = made.fndesc.llvm_func_name
    declared = re.findall(r'^declare [^@]*@"?([^"(]+)', made.library.get_llvm_str(), re.MULTILINE)
    return Compiled(
        made.library.get_pointer_to_function(symbol),
        symbol,
        made.library._get_compiled_object(),  # noqa: SLF001  # what Numba's own cache keeps
        sorted({name for name in declared if not name.startswith("llvm.")}),
    )


def _march(kind: Any) -> Callable[..., None]:
    """Write the entry of `ssim.ssim_tiles`."""
    number = np.dtype(kind.dtype).type
    taps_y, taps_x = kind.taps_y, kind.taps_x
    mask, upstream, l1, ssim_map, grad_x, grad_y = (True if there else None for there in kind[3:])

    def entry(plan_at: int, call_at: int, begin: int, end: int, work: int, total: int) -> None:
        plan, call = _at(plan_at, _PLAN, 1)[0], _at(call_at, _CALL, 1)[0]
        rows, columns = _at(plan.rows, _INT, plan.row_count), _at(plan.columns, _INT, plan.column_count)
        taps = _at(plan.taps, number, taps_y + taps_x)
        down, across = taps[:taps_y], taps[taps_y:]
        ssim.ssim_tiles(
            call.x, call.y, _given(mask, call.mask), _given(upstream, call.upstream),
            (number(call.divisors[0]), number(call.divisors[1])),
            (rows, columns, plan.pads[0], plan.pads[1], plan.pads[2], plan.pads[3]),
            _at(plan.tiles, _INT, (plan.tile_count, 4)),
            begin, end, plan.channels, plan.pitch,
            (
                to_fixed_tuple(down, taps_y), to_fixed_tuple(across, taps_x),
                to_fixed_tuple(down[::-1], taps_y), to_fixed_tuple(across[::-1], taps_x),
            ),
            (number(plan.constants[0]), number(plan.constants[1]), number(plan.constants[2])),
            number(call.scale), _given(l1, number(call.l1)),
            _at(work, number, plan.work_size), _at(total, number, plan.total_size),
            _at(call.sums, np.float64, (plan.planes, plan.tile_count, 3)),
            _given(ssim_map, _at(call.ssim_map, number, 1)),
            _given(grad_x, _at(call.grad_x, number, 1)), _given(grad_y, _at(call.grad_y, number, 1)),
            _given(grad_x, _at(call.rim_x, number, 1)), _given(grad_y, _at(call.rim_y, number, 1)),
        )  # fmt: skip

    return entry


def _fold(kind: Fold) -> Callable[..., None]:
    """Write the entry of `ssim.fold`."""
    number = np.dtype(kind.dtype).type

    def entry(plan_at: int, begin: int, end: int, rim: int, gradient: int) -> None:
        plan = _at(plan_at, _PLAN, 1)[0]
        rows, columns = _at(plan.rows, _INT, plan.row_count), _at(plan.columns, _INT, plan.column_count)
        ssim.fold(
            rows, columns, plan.pads[0], plan.pads[1], begin, end, _at(rim, number, 1), _at(gradient, number, 1)
        )  # fmt: skip

    return entry


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    """Take an address as a pointer to numbers of the type `like`."""
    kind = types.CPointer(like.instance_type)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), codegen


@jit
def _at(address: int, like: Any, shape: Any) -> Any:
    """View memory as an array of the type `like`; nothing here checks the shape."""
    return carray(_pointer(address, like), shape)


def _given(there: Any, value: Any) -> Any:
    """Return a value, or None where `there` is None."""
    raise NotImplementedError  # kernels call what follows; its type says whether there is anything


@overload(_given)
def _(there: Any, value: Any) -> Any:
    def nothing(there: Any, value: Any) -> None:
        return None

    def something(there: Any, value: Any) -> Any:
        return value

    return something if wanted(there) else nothing
