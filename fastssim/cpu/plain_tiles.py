"""What `fastssim.cpu.tile_launch` offers, by slow NumPy with its symbols: for ``NUMBA_DISABLE_JIT=1``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.tiles.plan import NO_SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastssim.tiles.plan import Plan, Sums

_START = {"mean": 0.0, "max": -np.inf, "min": np.inf}
_CHOOSE = {"max": np.maximum, "min": np.minimum}


def gather(
    plan: Plan,
    tiles: NDArray[Any],
    reduction: str,
    out: NDArray[Any],
    deviation: NDArray[Any] | None,
    *,
    part: tuple[int, int, int, int] | None = None,
    rows: tuple[int, int] | None = None,
    band: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
    carry: tuple[Sums, Sums] = (NO_SUMS, NO_SUMS),
) -> bool:
    """As `fastssim.cpu.tile_launch.gather`."""
    g, down, across = plan.geometry, plan.down, plan.across
    i0, i1, j0, j1 = part or (0, len(down.origins), 0, len(across.origins))
    y0, y1 = rows or (g.top, g.top + g.height)
    blocks = _Blocks(plan, reduction, _numbers(tiles).reshape(i1 - i0, j1 - j0, *tiles.shape[1:]), i0, j0, band, carry)
    norm = np.ones((g.canvas_height, g.canvas_width)) if plan.full is None else plan.norm()
    for y in range(y0, y1):
        i = _Cover(max(down.first[y], i0), min(down.last[y], i1), down.first[y], down.last[y])
        for x, x1, first, last in plan.spans.tolist():
            j = _Cover(max(first, j0), min(last, j1), first, last)
            if i.begin < i.end and j.begin < j.end and (acc := blocks.blend(y, x, x1, i, j)) is not None:
                value, std = _finished(reduction, acc, norm[y, x:x1])
                place = np.s_[:, y - y0, x - g.left : x1 - g.left]
                out[place] = _stored(value, out.dtype)
                if deviation is not None:
                    deviation[place] = _stored(std, deviation.dtype)
    return blocks.finite or reduction in _CHOOSE


class _Cover(NamedTuple):
    """Rows or columns of tiles begin .. end-1 that are at hand, of first .. last-1 that cover a pixel."""

    begin: int
    end: int
    first: int
    last: int


@dataclass
class _Blocks:
    """The tiles t (I, J, C, h, w) at hand, from row i0 and column j0 of tiles on."""

    plan: Plan
    reduction: str
    t: NDArray[np.float64]
    i0: int
    j0: int
    band: tuple[Sums, Sums]
    carry: tuple[Sums, Sums]
    finite: bool = True

    def blend(self, y: int, x: int, x1: int, i: _Cover, j: _Cover) -> NDArray[np.float64] | None:
        """Return the sums of the canvas pixels x .. x1-1 of the row y over all tiles, or hand them on."""
        r = self.plan.down.origins
        first_rows = i.begin == i.first
        taken, handed = (partial(_part, sums, y - sums.start, x, x1) for sums in self.band)
        acc = _begun(self.reduction, self._pixels(i.begin, j.begin, y, x, x1)) if first_rows else taken().copy()
        for row in range(i.begin, i.end):
            sums = self._row(row, acc[0], y, x, x1, j)
            if first_rows:
                acc[:-2] = sums[:-2]  # p, where an earlier tile of this row had it
            if j.end == j.last:
                full = self.plan.full is not None
                a = 1.0 if full else self.plan.down.weights[self.plan.down.kinds[row], y - r[row]]
                _add_row(self.reduction, acc, sums, a)
        if j.end < j.last:
            return None
        self.finite &= bool(np.isfinite(acc[-2:]).all())
        if i.end == i.last:
            return acc
        handed()[:] = acc
        return None

    def _row(self, i: int, p: NDArray[np.float64], y: int, x: int, x1: int, j: _Cover) -> NDArray[np.float64]:
        """Return the sums over the tiles at hand of one row of tiles and those before; hand on what lacks others."""
        row = y - self.plan.down.origins[i]
        taken, handed = (partial(_part, sums, row, x - sums.start, x1 - sums.start) for sums in self.carry)
        c, kinds = self.plan.across.origins, self.plan.across.kinds
        sums = _begun(self.reduction, p) if j.begin == j.first else taken().copy()
        for column in range(j.begin, j.end):
            b = self.plan.across.weights[kinds[column]] if self.plan.full is None else self.plan.full[row]
            _take_in(self.reduction, sums, self._pixels(i, column, y, x, x1), b[x - c[column] : x1 - c[column]])
        if j.end < j.last:
            self.finite &= bool(np.isfinite(sums[-2:]).all())
            handed()[:] = sums
        return sums

    def _pixels(self, i: int, j: int, y: int, x: int, x1: int) -> NDArray[np.float64]:
        """Return t_ij, (C, columns)."""
        r, c = self.plan.down.origins[i], self.plan.across.origins[j]
        return self.t[i - self.i0, j - self.j0, :, y - r, x - c : x1 - c]


def _part(sums: Sums, row: int, x: int, x1: int) -> NDArray[np.float64]:
    """View a row's sums, (states, C, columns)."""
    return sums.values[:, :, row, x:x1]


def copy(image: NDArray[Any], origins: NDArray[np.int64], out: NDArray[Any]) -> None:
    """As `fastssim.cpu.tile_launch.copy`."""
    for tile, (y, x) in zip(out, origins.tolist(), strict=True):
        tile[:] = image[:, y : y + out.shape[2], x : x + out.shape[3]]


def scatter(plan: Plan, image: NDArray[Any], out: NDArray[Any]) -> None:
    """As `fastssim.cpu.tile_launch.scatter`."""
    down, across = plan.down, plan.across
    for tile, (y, x) in enumerate(plan.origins.tolist()):
        i, j = divmod(tile, len(across.origins))
        weights = np.outer(down.weights[down.kinds[i]], across.weights[across.kinds[j]])
        weights = weights if plan.full is None else plan.full
        out[tile] = weights * image[:, y : y + out.shape[2], x : x + out.shape[3]]


def finite(pixels: NDArray[Any], exponent: tuple[int, int]) -> bool:  # noqa: ARG001  # the kernels look at bits
    """As `fastssim.cpu.tile_launch.finite`."""
    return bool(np.isfinite(_numbers(pixels)).all())


def _begun(reduction: str, p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Begin the sums (states, C, columns) of a pixel's tiles: one number, or p, s1 and s2."""
    if reduction == "mean_std":
        return np.stack([p, np.zeros_like(p), np.zeros_like(p)])
    return np.full((1, *p.shape), _START[reduction])


def _take_in(reduction: str, row: NDArray[np.float64], t: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    """Take in one tile's pixels."""
    if reduction == "mean":
        row[0] += b * t
    elif reduction == "mean_std":
        off = t - row[0]
        row[1] += b * off
        row[2] += b * off * off
    else:
        _CHOOSE[reduction](row[0], t, out=row[0])


def _add_row(reduction: str, acc: NDArray[np.float64], row: NDArray[np.float64], a: float) -> None:
    """Take in the sums over one row of tiles."""
    if reduction in _CHOOSE:
        _CHOOSE[reduction](acc, row, out=acc)
    else:
        acc[-2:] += a * row[-2:]


def _finished(
    reduction: str, acc: NDArray[np.float64], norm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the result and, for "mean_std", the deviation."""
    if reduction in _CHOOSE:
        return acc[0], acc[0]
    sums = acc[-2:] / norm
    if reduction == "mean":
        return sums[0], sums[0]
    return acc[0] + sums[0], np.sqrt(np.maximum(sums[1] - sums[0] * sums[0], 0))


def _numbers(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Read pixels as `fastssim.tiles.storage.stored` views them: float16 as int16, bfloat16 as uint16."""
    if pixels.dtype == np.int16:
        pixels = pixels.view(np.float16)
    elif pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) << 16).view(np.float32)
    return pixels.astype(np.float64)


def _stored(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round values to pixels in that view."""
    if dtype == np.uint8:
        return np.rint(values).astype(np.uint8)
    floats = values.astype(np.float32) if dtype != np.float64 else values
    if dtype == np.int16:
        return floats.astype(np.float16).view(np.int16)
    if dtype == np.uint16:
        return torch.from_numpy(floats).bfloat16().view(torch.int16).numpy().view(np.uint16)
    return floats
