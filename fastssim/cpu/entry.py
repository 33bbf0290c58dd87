"""Entries to the kernels that take nothing but integers (Numba): no array and no tuple is unpacked at a call.

An entry is `fastssim.cpu.ssim`'s march for one kind of call, or a step beside it; it reads the blocks of
`fastssim.cpu.kinds`. This module is loaded only where machine code must be made, see `fastssim.cpu.machine_code`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import from_dtype, types
from numba.np.unsafe.ndarray import to_fixed_tuple

from fastssim.cpu import delivery, scales, ssim, volume
from fastssim.cpu.buffers import CHUNK
from fastssim.cpu.jit import jit
from fastssim.cpu.kinds import CALL, PLAN, VOLUME_CALL, VOLUME_PLAN, Kind, Step, VolumeMarch, layout
from fastssim.cpu.pixels import view
from fastssim.cpu.simd import begin_turns, end_turns, given, next_slab, slab_done

if TYPE_CHECKING:
    from collections.abc import Callable

_INT = np.int64
_ALL = 1 << 48  # more numbers than an output has: the march knows where each ends
_PLAN, _CALL, _VOLUME_PLAN, _VOLUME_CALL = (
    from_dtype(layout(fields)) for fields in (PLAN, CALL, VOLUME_PLAN, VOLUME_CALL)
)


class Compiled(NamedTuple):
    """An entry as the compiler made it."""

    address: int  # in this process
    symbol: str
    code: bytes  # an object file
    needs: list[str]  # functions that the code calls and does not hold


def compiled(kind: Kind) -> Compiled:
    """Compile the entry of a kind."""
    if isinstance(kind, Step):
        function = _STEPS[kind.what](np.dtype(kind.dtype).type)
    else:
        function = _volume_march(kind) if isinstance(kind, VolumeMarch) else _march(kind)
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
    """Write the entry of `ssim.ssim_tiles`: threads take turns at a call's slabs, see `fastssim.cpu.pool`."""
    number = np.dtype(kind.dtype).type
    taps_y, taps_x = kind.taps_y, kind.taps_x
    exact, mask, upstream, l1, ssim_map, grad_x, grad_y = (True if there else None for there in kind[5:])
    down_of, across_of = _taps(taps_y, mirrored=kind.mirrored_y), _taps(taps_x, mirrored=kind.mirrored_x)

    def entry(
        plan_at: int, call_at: int, counts: int, slabs: int, stretches: int, leads: int,
        work: int, room: int, total: int,
    ) -> None:  # fmt: skip
        plan, call = view(plan_at, _PLAN, 1)[0], view(call_at, _CALL, 1)[0]
        rows, columns = view(plan.rows, _INT, plan.row_count), view(plan.columns, _INT, plan.column_count)
        taps = view(plan.taps, number, taps_y + taps_x)
        down, across = taps[:taps_y], taps[taps_y:]
        high, wide = plan.pads[4] + 1, plan.pads[5] + 1
        exact_taps = view(plan.exact_taps, np.float64, 2 * (high + wide))
        items = plan.planes * plan.tile_count
        begin_turns(counts, leads)
        slab = next_slab(counts, slabs, stretches)
        while slab >= 0:
            ssim.ssim_tiles(
                call.x, call.y, given(mask, call.mask), given(upstream, call.upstream),
                (number(call.divisors[0]), number(call.divisors[1])),
                (rows, columns, plan.pads[0], plan.pads[1], plan.pads[2], plan.pads[3], plan.pads[4], plan.pads[5]),
                view(plan.tiles, _INT, (plan.tile_count, 4)),
                items * slab // slabs, items * (slab + 1) // slabs, plan.channels, plan.pitch,
                (down_of(down, 1), across_of(across, 1), down_of(down, -1), across_of(across, -1)),
                (number(plan.constants[0]), number(plan.constants[1]), number(plan.constants[2])),
                number(call.scale), given(l1, number(call.l1)),
                view(work, number, plan.work_size),
                given(exact, (
                    view(room, np.float64, plan.room_size), exact_taps[:high], exact_taps[high : high + wide],
                    exact_taps[high + wide : high + wide + high], exact_taps[high + wide + high :],
                    plan.constants[3], plan.uniform != 0,
                )),
                view(total, number, plan.total_size),
                view(call.sums, np.float64, (plan.planes, plan.tile_count, 3)),
                given(ssim_map, view(call.ssim_map, number, _ALL)),
                given(grad_x, view(call.grad_x, number, _ALL)), given(grad_y, view(call.grad_y, number, _ALL)),
                given(grad_x, view(call.rim_x, number, _ALL)), given(grad_y, view(call.rim_y, number, _ALL)),
            )  # fmt: skip
            slab_done(counts)
            slab = next_slab(counts, slabs, stretches)
        end_turns(counts, slabs, leads)

    return entry


def _volume_march(kind: Any) -> Callable[..., None]:
    """Write the entry of `volume.ssim_brick`, for bricks by turns as `_march`'s for tiles."""
    number = np.dtype(kind.dtype).type
    taps_z, taps_y, taps_x = kind[1:4]
    upstream, ssim_map, grad_x, grad_y = (True if there else None for there in kind[7:])
    deep_of, down_of, across_of = (
        _taps(count, mirrored=mirrored) for count, mirrored in zip(kind[1:4], kind[4:7], strict=True)
    )

    def entry(
        plan_at: int, call_at: int, counts: int, slabs: int, stretches: int, leads: int,
        work: int, room: int, total: int,
    ) -> None:  # fmt: skip
        plan, call = view(plan_at, _VOLUME_PLAN, 1)[0], view(call_at, _VOLUME_CALL, 1)[0]
        planes, rows = view(plan.planes, _INT, plan.plane_count), view(plan.rows, _INT, plan.row_count)
        columns = view(plan.columns, _INT, plan.column_count)
        at = plan.places
        taps = view(plan.taps, number, taps_z + taps_y + taps_x)
        deep, down, across = taps[:taps_z], taps[taps_z : taps_z + taps_y], taps[taps_z + taps_y :]
        bricks = view(plan.bricks, _INT, (plan.brick_count, 6))
        sums = view(call.sums, np.float64, (plan.volumes, plan.brick_count))
        items = plan.volumes * plan.brick_count
        begin_turns(counts, leads)
        slab = next_slab(counts, slabs, stretches)
        while slab >= 0:
            for item in range(items * slab // slabs, items * (slab + 1) // slabs):
                each, brick = divmod(item, plan.brick_count)
                n, c = divmod(each, plan.channels)
                sums[each, brick] = volume.ssim_brick(
                    call.x, call.y, given(upstream, call.upstream), n, c,
                    (planes, rows, columns, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]),
                    bricks[brick], (plan.sizes[0], plan.sizes[1], plan.sizes[2], plan.sizes[3], plan.sizes[4]),
                    (deep_of(deep, 1), down_of(down, 1), across_of(across, 1),
                     deep_of(deep, -1), down_of(down, -1), across_of(across, -1)),
                    (number(plan.constants[0]), number(plan.constants[1]), number(plan.constants[2]),
                     number(call.divisors[0]), number(call.divisors[1]), number(0)),
                    number(call.scale), view(work, number, plan.work_size), view(total, number, plan.total_size),
                    given(ssim_map, view(call.ssim_map, number, _ALL)), each * plan.windows,
                    given(grad_x, view(call.grad_x, number, _ALL)), given(grad_y, view(call.grad_y, number, _ALL)),
                    given(grad_x, view(call.outer_x, number, _ALL)), given(grad_y, view(call.outer_y, number, _ALL)),
                    given(grad_x, view(call.rim_x, number, _ALL)), given(grad_y, view(call.rim_y, number, _ALL)),
                    each,
                )  # fmt: skip
            slab_done(counts)
            slab = next_slab(counts, slabs, stretches)
        end_turns(counts, slabs, leads)

    return entry


def _taps(count: int, *, mirrored: bool) -> Any:
    """Make what turns an array of taps into a tuple as kernels take it, forwards (1) or backwards (-1)."""
    if mirrored:
        return jit(lambda taps, direction: (to_fixed_tuple(taps, count),))
    return jit(lambda taps, direction: to_fixed_tuple(taps[::direction], count))


def _fold(number: Any) -> Callable[..., None]:
    """Write the entry of `delivery.fold`."""

    def entry(plan_at: int, begin: int, end: int, rim: int, gradient: int) -> None:
        plan = view(plan_at, _PLAN, 1)[0]
        rows, columns = view(plan.rows, _INT, plan.row_count), view(plan.columns, _INT, plan.column_count)
        delivery.fold(
            rows, columns, plan.pads[0], plan.pads[1], begin, end, view(rim, number, _ALL), view(gradient, number, _ALL)
        )  # fmt: skip

    return entry


def _halve(number: Any) -> Callable[..., None]:
    """Write the entry of `scales.halve`."""

    def entry(
        start: int, kind: int, image: int, channel: int, row: int, column: int, divisor: int,
        channels: int, height: int, width: int, begin: int, end: int, work: int, out: int,
    ) -> None:  # fmt: skip
        scales.halve(
            (start, kind, image, channel, row, column), number(divisor), channels, height, width, begin, end,
            view(work, number, 2 * CHUNK), view(out, number, _ALL),
        )  # fmt: skip

    return entry


def _deliver(number: Any) -> Callable[..., None]:
    """Write the entry of `scales.deliver`."""

    def entry(
        gradient: int, coarser: int, upstream: int, count: int, planes: int, height: int, width: int,
        begin: int, end: int, work: int,
    ) -> None:  # fmt: skip
        scales.deliver(
            view(gradient, number, _ALL), view(coarser, number, _ALL), view(upstream, number, count * planes),
            count, planes, height, width, begin, end, view(work, number, 2 * width),
        )  # fmt: skip

    return entry


_STEPS = {"fold": _fold, "halve": _halve, "deliver": _deliver}
