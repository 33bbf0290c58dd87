"""Cut out overlapping tiles: copy them one behind the other, past the caches where they are many (Numba)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastssim.cpu.jit import inlined
from fastssim.cpu.jit import kept as jit
from fastssim.cpu.pixels import CACHE_LINE
from fastssim.cpu.simd import X86, begin_turns, end_turns, next_slab, slab_done

STREAMS = X86  # there are stores past the caches, and a fence behind them

_BYTE, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@intrinsic
def _copy_bytes(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy bytes from one address to another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, start = (builder.inttoptr(address, _BYTE.as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(builder, to, start, args[2], 1)
        return context.get_dummy_value()

    return types.void(target, source, count), codegen


@intrinsic
def _stream_lines(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """As `_copy_bytes`, past the caches: to whole cache lines."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_BYTE, CACHE_LINE).as_pointer()
        with cgutils.for_range_slice(builder, _I64(0), args[2], _I64(CACHE_LINE), inc=True) as (byte, _):
            to, start = (builder.inttoptr(builder.add(address, byte), kind) for address in args[:2])
            store = builder.store(builder.load(start, align=1), to, align=CACHE_LINE)
            store.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
        return context.get_dummy_value()

    return types.void(target, source, count), codegen


@inlined
def _stream_bytes(target: int, source: int, count: int) -> None:
    """As `_copy_bytes`, whole cache lines past the caches."""
    head = min(-target % CACHE_LINE, count)
    if head:
        _copy_bytes(target, source, head)
    end = head + (count - head) // CACHE_LINE * CACHE_LINE
    _stream_lines(target + head, source + head, end - head)
    if end < count:
        _copy_bytes(target + end, source + end, count - end)


@intrinsic
def _streams_arrive(typing: Any) -> Any:
    """Let what `_stream_lines` wrote be seen before what this thread writes next."""

    def codegen(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if STREAMS:
            fence = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse.sfence", fnty=fence), [])
        return context.get_dummy_value()

    return types.void(), codegen


@jit
def copy_tiles(
    counts: int, slabs: int, threads: int, leads: int, image: Any, origins: Any, height: int, out: int, width: int,
    stream: bool,  # noqa: FBT001  # kernels know no other way
) -> None:  # fmt: skip
    """Copy tiles of an image, each `height` rows of `width` bytes, to the address `out`, one behind the other.

    image: its address, and the bytes from channel to channel and from row to row; its channels. origins [T, 2]: first
    row and first byte of every tile. stream: past the caches. By turns, see `fastssim.cpu.pool.run_in_turns`.
    """
    start, channel_step, row_step, channels = image
    tiles = len(origins)
    begin_turns(counts, leads)
    slab = next_slab(counts, slabs, threads)
    while slab >= 0:
        for tile in range(tiles * slab // slabs, tiles * (slab + 1) // slabs):
            for channel in range(channels):
                source = start + channel * channel_step + origins[tile, 0] * row_step + origins[tile, 1]
                target = out + (tile * channels + channel) * height * width
                for row in range(height):
                    if stream:
                        _stream_bytes(target + row * width, source + row * row_step, width)
                    else:
                        _copy_bytes(target + row * width, source + row * row_step, width)
        _streams_arrive()
        slab_done(counts)
        slab = next_slab(counts, slabs, threads)
    end_turns(counts, slabs, leads)
