"""How far a run has come, in a file, so that a later one can go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastssim.tiles.windows import window_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from fastssim.tiles.grid import TileGrid

_FORMAT = 1


class Record:
    """A small JSON file: what is computed, and how many rows of it are finished; nothing where `path` is None."""

    def __init__(self, path: str | PathLike[str] | None, grid: TileGrid, window: Any, reduction: str) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.parent.is_dir():
            raise ValueError(f"resume is {str(path)!r}, but {self._path.parent} is no folder; make it first")
        name, weights = window_key(window, grid.tile_shape)
        self._height = grid.size[0]
        self._task = {
            "format": _FORMAT,
            "size": list(grid.size),
            "tile": list(grid.tile_shape),
            "stride": list(grid.geometry[4:6]),
            "border": grid.border,
            "window": name,
            "weights": hashlib.sha256(repr(weights).encode()).hexdigest(),
            "reduction": reduction,
        }

    def load(self) -> int:
        """Return how many rows an earlier run finished.

        Raises
        ------
        ValueError
            If the file is not such a record, or one of another task.
        """
        if self._path is None or not self._path.exists():
            return 0
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            finished = content.pop("finished_rows")
            whole = type(finished) is int and 0 <= finished <= self._height
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._path} is no record of an unfinished run; name another file") from error
        if not whole:
            raise ValueError(f"{self._path} is damaged: {finished!r} rows are finished; remove it to begin anew")
        if content != self._task:
            differing = sorted(key for key in self._task if content.get(key) != self._task[key])
            raise ValueError(f"{self._path} records a run with another {', '.join(differing)}; remove it to begin anew")
        return int(finished)

    def save(self, finished: int, targets: Iterable[Any]) -> None:
        """Note that the rows above `finished` are in the targets; the file is never half written."""
        if self._path is None:
            return
        for target in targets:
            # What a memmap holds outlives the process; to wait for the disk at every band would take minutes.
            if hasattr(target, "flush") and not isinstance(target, np.memmap):  # h5py
                target.flush()
        beside = self._path.with_name(f".{self._path.name}.part")
        beside.write_text(json.dumps({**self._task, "finished_rows": finished}) + "\n", encoding="utf-8")
        beside.replace(self._path)

    def remove(self) -> None:
        """Remove the file: the run is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
