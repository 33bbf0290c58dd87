"""Run a function over the tiles of an image of any size and blend what it returns."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastssim.cuda.device import usable
from fastssim.tiles.bands import Bands
from fastssim.tiles.grid import whole
from fastssim.tiles.progress import Record
from fastssim.tiles.results import Results
from fastssim.tiles.storage import GPUS, bits, native, on_gpu, place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from fastssim.tiles.gpu import Mover
    from fastssim.tiles.grid import TileGrid


def sliding_window(
    fn: Callable[[Any], Any],
    image: Any,
    grid: TileGrid,
    *,
    window: Any = "uniform",
    reduction: str = "mean",
    batch_size: int = 64,
    out: Any = None,
    resume: str | PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Any:
    """Run a function over the tiles of an image and blend what it returns.

    Works down the image band by band: memory depends on the image's width, the tile and the batch, not on the height,
    so image and `out` may be larger than memory. While `fn` computes, one thread reads the next band from a file, and
    another writes finished rows to one. With a GPU and CuPy, tiles are cut out and blended there: rows of the image go
    up and finished rows come down, each on a stream of its own.

    Parameters
    ----------
    fn : callable
        Takes tiles (B, C, h, w), of the image's kind and dtype, and returns (B, C', h', w') of a dtype that `blend`
        takes, which no gradient goes through; or a tuple, list or dict of such maps. Maps may differ in channels and in
        scale: h' and w' may be a fraction or a multiple of h and w, if the grid's strides and the image's size come out
        whole at that scale.
    image : ndarray, torch.Tensor, or anything that slices as ``image[:, y0:y1]``
        (C, H, W), or (H, W), which is taken as one channel and slices as ``image[y0:y1]``: ``numpy.memmap``, zarr,
        h5py, tifffile's zarr store. Read band by band, every row once (twice where a border mirrors it).
    grid : TileGrid
        Its size must be the image's.
    window, reduction
        As for `blend`; for "mean_std" every map becomes a pair of mean and standard deviation.
    batch_size : int
        Tiles at a time, at most; rows of tiles are read together as far as they fit into a batch.
    out : optional
        Where the result goes, in the structure of what `fn` returns, each (C', H', W'), or (H', W') for one channel;
        anything that takes an assignment to ``out[:, y0:y1]`` or ``out[y0:y1]``. Rows are written as they are finished
        and stay valid whatever happens later.
    resume : path, optional
        A small file beside `out` that says how many rows are finished; kept up to date while the run lasts and removed
        when it ends. Where it exists, the run goes on behind those rows, with the same result to the last bit. It
        knows the grid, the window and the reduction, not the image and `fn`: these are yours to keep the same. It
        outlives a killed process, not a power cut: a memmap's last rows may not have reached the disk then.
    device : str or torch.device, optional
        Give tiles to `fn` as tensors there; by default where the image is.
    progress : callable, optional
        Called as ``progress(tiles done, tiles in all)`` after every batch.

    Returns
    -------
    ndarray, torch.Tensor, or `out`
        (C', H', W') each, of the image's kind, in the structure of what `fn` returns: a tuple of maps for a list.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or `fn` returns another shape, another dtype, NaN or infinity (beyond the
        image, where results are dropped, these may pass).
    CudaUnavailableError
        If `device` is a GPU and torch finds none.
    RuntimeError
        If `fn` raises: names the tiles, with the error as cause.

    Examples
    --------
    >>> from fastssim.tiles import TileGrid
    >>> image = np.random.default_rng(0).random((1, 300, 200), np.float32)
    >>> edges = sliding_window(lambda tiles: abs(tiles - 0.5), image, TileGrid((300, 200), tile=64, stride=48))
    >>> edges.shape
    (1, 300, 200)
    """
    batch_size = whole("batch_size", batch_size, 1)
    if resume is not None and out is None:
        raise ValueError("resume needs `out`: give something that lasts, such as a memmap with mode 'r+'")
    bands = Bands(image, grid)
    _check_apart(image, out)
    place = _device(device, image)
    mover = _mover(place)
    lift = None if on_gpu(image) else mover  # moves what is read
    record = Record(resume, grid, window, reduction)
    first_row = record.load()
    if first_row == grid.size[0]:  # stopped between the last row and the record's removal
        record.remove()
        return out
    tensors = isinstance(image, torch.Tensor)
    home = image.device if isinstance(image, torch.Tensor) else torch.device("cpu")
    results = Results(grid, window, reduction, out, tensors=tensors, home=home, mover=mover, first_row=first_row)
    across = grid.shape[1]
    together = max(1, batch_size // across)
    rows = range(results.first_tile // across, grid.shape[0], together)
    with ExitStack() as stack:
        stack.callback(bands.close)
        read = _done if bands.at_hand and lift is None else stack.enter_context(ThreadPoolExecutor(1)).submit
        write: Callable[..., Future[None] | _Here] | None = None
        written: Future[None] | _Here | None = None
        coming: Future[Any] | _Here = read(_read, bands, rows[0], together, lift)
        for row in rows:
            band = _arrived(coming.result(), lift)
            if row + together < grid.shape[0]:
                coming = read(_read, bands, row + together, together, lift)
            count = min(together, grid.shape[0] - row) * across
            for start in range(0, count, batch_size):
                first, end = row * across + start, row * across + min(start + batch_size, count)
                # No name is kept for the tiles: unless fn keeps them, the next take their place.
                returned = _call(fn, _given(bands.cut(band, row, first, end), image, place), first, end, grid)
                finished = results.take(returned, first, end)
                del returned
                if any(finished):
                    if written is not None:
                        written.result()
                    if write is None:
                        write = _done if results.at_hand else stack.enter_context(ThreadPoolExecutor(1)).submit
                    written = write(_write, results, finished, record, mover.ready() if mover else None)
                if progress is not None:
                    progress(end, len(grid))
        if written is not None:
            written.result()
    record.remove()
    return results.value


def _check_apart(image: Any, out: Any) -> None:
    """Refuse to write a result into the image's memory."""
    if any(_share(image, target) for target in _targets(out)):
        raise ValueError("out shares the image's memory, which is still to be read; give an array of its own")


def _targets(out: Any) -> list[Any]:
    """All arrays of a structure of them."""
    if isinstance(out, dict):
        out = tuple(out.values())
    return [array for part in out for array in _targets(part)] if isinstance(out, (tuple, list)) else [out]


def _share(image: Any, target: Any) -> bool:
    """Tell whether an image and where a result goes overlap in memory."""
    x, y = (bits(a) if isinstance(a, torch.Tensor) and not on_gpu(a) else a for a in (image, target))
    return isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and np.may_share_memory(x, y)


class _Here(NamedTuple):
    """What was done at once, as it was not worth a thread; it answers like a future."""

    value: Any

    def result(self) -> Any:
        """Return it."""
        return self.value


def _done(fn: Callable[..., Any], *args: Any) -> _Here:
    """Do it at once."""
    return _Here(fn(*args))


def _device(device: Any, image: Any) -> torch.device | None:
    """Return where `fn` wants its tiles, None for the CPU as they are there."""
    if device is None:
        return image.device if on_gpu(image) else None
    return place_of(device)


def _mover(place: torch.device | None) -> Mover | None:
    """Return what moves bands and rows; without a GPU or CuPy none, and tiles are cut and blended on the CPU."""
    if place is None or place.type not in GPUS or not usable():
        return None
    from fastssim.tiles import gpu  # noqa: PLC0415  # only where there is one

    return gpu.Mover(place)


def _read(bands: Bands, row: int, together: int, mover: Mover | None) -> Any:
    """Read a band; where there is a mover, begin to move it."""
    band = bands.read(row, together)
    return band if mover is None else mover.up(band)


def _arrived(band: Any, mover: Mover | None) -> Any:
    """Wait for a band that is being moved."""
    return band if mover is None else mover.wait(*band)


def _given(tiles: Any, image: Any, device: torch.device | None) -> Any:
    """Turn tiles into what `fn` takes."""
    if on_gpu(tiles):
        tiles = tiles.view(image.dtype) if isinstance(image, torch.Tensor) else tiles
        return tiles.to(device)
    if not isinstance(image, torch.Tensor):
        return tiles if device is None else torch.from_numpy(native(tiles)).to(device)
    tensor = torch.from_numpy(tiles).view(image.dtype)
    return tensor if device is None else tensor.to(device)


def _call(fn: Callable[[Any], Any], tiles: Any, first: int, end: int, grid: TileGrid) -> Any:
    """Call the user's function; say which tiles an error comes from."""
    try:
        return fn(tiles)
    except Exception as error:
        ((row, column),) = grid.corners(first, first + 1)
        raise RuntimeError(
            f"fn failed on tiles {first} to {end - 1} of {len(grid)}, the first at row {row}, column {column}:"
            f" {type(error).__name__}: {error}"
        ) from error


def _write(results: Results, finished: list[Any], record: Record, ready: Any) -> None:
    """Write finished rows and note how far they reach."""
    record.save(results.write(finished, ready), results.targets)
