"""From a plan of tiles and arrays on a GPU to tiles_gather.cu and tiles_scatter.cu, on the current stream."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastssim.cuda.geometry import Launch
from fastssim.cuda.instances import TYPES, Instance, instance
from fastssim.tiles.plan import NO_SUMS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fastssim.cuda.device import Device
    from fastssim.tiles.plan import Plan, Sums

HOW = {"mean": "MEAN", "max": "MAX", "min": "MIN", "mean_std": "MEAN_STD"}
THREADS = 128  # of a block, pixels of one row
MOST_BLOCKS = 2**31 - 1  # that one launch may have
_WORDS = {  # what is copied, by its bytes
    1: "unsigned char",
    2: "unsigned short",
    4: "unsigned int",
    8: "unsigned long long",
    16: "Vector<unsigned long long, 2>",
}


def gather_instance(dtype: str, reduction: str, width: int, *, full: bool) -> Instance:
    """Return the kernel that blends tiles of a dtype to rows of `width` pixels."""
    deviation = "float32" if dtype == "uint8" else dtype
    return instance(
        "tiles_gather", X=TYPES[dtype], OUT=TYPES[deviation], HOW=HOW[reduction], FULL=full, THREADS=_threads(width)
    )


def scatter_instance(kind: str, width: int, *, weighted: bool, full: bool) -> Instance:
    """Return the kernel that writes tiles of `width` pixels; kind: C++'s name of a pixel."""
    return instance("tiles_scatter", X=kind, WEIGHTED=weighted, FULL=full, THREADS=_threads(width))


def gather(
    device: Device,
    plan: Plan,
    tiles: Any,  # (N, T, C, h, w) contiguous, those of `part`
    reduction: str,
    out: Any,  # (N, C, rows, W) contiguous
    deviation: Any | None,  # the same, for "mean_std"
    *,
    part: tuple[int, int, int, int] | None = None,
    rows: tuple[int, int] | None = None,
    band: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
    carry: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
) -> None:
    """Blend the canvas rows `rows` as far as the tiles of `part` allow, as `fastssim.cpu.tile_launch.gather`."""
    g = plan.geometry
    n, channels = tiles.shape[0], tiles.shape[2]
    i0, i1, j0, j1 = part or (0, len(plan.down.origins), 0, len(plan.across.origins))
    y0, y1 = rows or (g.top, g.top + g.height)
    made = gather_instance(device.dtype(tiles), reduction, g.width, full=plan.full is not None)
    strips = -(-g.width // made["THREADS"])
    fields: dict[str, Any] = {
        **_shared(device, device.place(tiles), plan),
        "tiles": device.pointer(tiles),
        "out": device.pointer(out),
        "deviation": 0 if deviation is None else device.pointer(deviation),
        "channels": channels,
        "height": y1 - y0,
        "width": g.width,
        "tiles_y": len(plan.down.origins),
        "i0": i0,
        "i1": i1,
        "j0": j0,
        "j1": j1,
        "y0": y0,
        "x0": g.left,
        "out_rows": out.shape[2],
        "strips": strips,
        "band_pitch": g.canvas_width,
        "carry_row": int(plan.down.origins[i0]),
    }
    for name, sums in zip(("band_in", "band_out", "carry_in", "carry_out"), (*band, *carry), strict=True):
        _, _, sum_rows, columns = sums.values.shape
        if sum_rows * columns:
            fields[name] = device.pointer(sums.values)
        fields[f"{name}_plane"] = sum_rows * columns
        fields[f"{name}_row"] = fields[f"{name}_column"] = sums.start
        fields[f"{name}_pitch"] = columns
    _run(device, tiles, made, n * channels * (y1 - y0) * strips, fields)


def scatter(
    device: Device,
    plan: Plan,
    image: Any,  # (N, C, canvas H, canvas W), any strides; float32 or float64 where weighted
    tiles: Any,  # (N, stop - first, C, h, w) contiguous
    *,
    first: int = 0,
    first_row: int = 0,
    weighted: bool,
) -> None:
    """Cut tiles out of images, or write the adjoint of `gather` with "mean": every tile's weights times the image.

    first: number of the first tile. first_row: canvas row that the image begins with.
    """
    g = plan.geometry
    n, count, channels = tiles.shape[:3]
    kind = TYPES[device.dtype(image)] if weighted else _WORDS[device.itemsize(image)]
    made = scatter_instance(kind, g.tile_width, weighted=weighted, full=weighted and plan.full is not None)
    strips = -(-g.tile_width // made["THREADS"])
    steps = device.strides(image)
    fields: dict[str, Any] = {
        **_shared(device, device.place(image), plan),
        **dict(zip(("step_n", "step_c", "step_y", "step_x"), steps, strict=True)),
        "channels": channels,
        "strips": strips,
    }
    pixel, blocks = device.itemsize(image), channels * g.tile_height * strips  # of one tile
    origin, target = device.pointer(image) - first_row * steps[2] * pixel, device.pointer(tiles)
    for n0, n1, start, stop in _portions(n, count, MOST_BLOCKS // max(1, blocks)):
        fields["image"] = origin + n0 * steps[0] * pixel
        fields["tiles"] = target + (n0 * count + start) * channels * g.tile_height * g.tile_width * pixel
        fields["first"], fields["count"] = first + start, stop - start
        _run(device, image, made, (n1 - n0) * (stop - start) * blocks, fields)


def _portions(n: int, count: int, most: int) -> list[tuple[int, int, int, int]]:
    """Cut `count` tiles of each of n images into launches of at most `most`: (image, end, tile, end)."""
    if n * count <= most:
        return [(0, n, 0, count)]
    return [(i, i + 1, start, min(start + most, count)) for i in range(n) for start in range(0, count, most)]


class _Tables(NamedTuple):
    """A plan's weights on a GPU."""

    weights_y: Any
    weights_x: Any
    kinds_y: Any
    kinds_x: Any
    window: Any | None


@cache
def _tables(device: Any, place: Hashable, plan: Plan) -> _Tables:
    """Copy a plan's weights to a GPU, once and for good: a captured graph reads them whenever it is replayed."""
    upload = partial(device.upload, place)
    down, across = plan.down, plan.across
    return _Tables(
        upload(down.weights),
        upload(across.weights),
        upload(down.kinds.astype(np.int32)),
        upload(across.kinds.astype(np.int32)),
        None if plan.full is None else upload(plan.full),
    )


def _shared(device: Any, place: Hashable, plan: Plan) -> dict[str, int]:
    """Fields that both kernels have in common."""
    g = plan.geometry
    tables = _tables(device, place, plan)
    return {
        **{name: 0 if table is None else device.pointer(table) for name, table in tables._asdict().items()},
        "tile_height": g.tile_height,
        "tile_width": g.tile_width,
        "stride_y": g.stride_y,
        "stride_x": g.stride_x,
        "last_y": g.canvas_height - g.tile_height,
        "last_x": g.canvas_width - g.tile_width,
        "tiles_x": len(plan.across.origins),
    }


def _threads(width: int) -> int:
    """Threads of a block: whole warps, no more than a row of pixels needs."""
    return min(THREADS, -(-width // 32) * 32)


def _run(device: Device, like: Any, made: Instance, blocks: int, fields: dict[str, Any]) -> None:
    if blocks:
        launch = Launch(made, blocks, made["THREADS"], bytes(made.argument.itemsize))
        device.run(like, launch, launch.argument(fields))
