"""Extract and blend overlapping tiles (Numba): every output number is a sum in one fixed order, hence reproducible."""

from __future__ import annotations

from typing import Any

from fastssim.cpu.jit import jit


@jit
def extract_tiles(image: Any, origins: Any, begin: int, end: int, out: Any) -> None:
    """Copy tiles begin .. end-1 of image [C, H, W] into out [T, C, h, w]; origins [T, 2] are their first pixels."""
    for tile in range(begin, end):
        y, x = origins[tile, 0], origins[tile, 1]
        for channel in range(out.shape[1]):
            for row in range(out.shape[2]):
                for column in range(out.shape[3]):
                    out[tile, channel, row, column] = image[channel, y + row, x + column]


@jit
def add_tiles(tiles: Any, columns: Any, weights_y: Any, weights_x: Any, begin: int, end: int, band: Any) -> None:
    """Add tiles [T, C, h, w] of one row of tiles to rows begin .. end-1 of band [C, h, W], float64.

    Tile t begins at column columns[t] and is weighted by weights_y [h] and weights_x [T, w].
    """
    for channel in range(band.shape[0]):
        for row in range(begin, end):
            for tile in range(tiles.shape[0]):
                target = band[channel, row, columns[tile] : columns[tile] + tiles.shape[3]]
                source = tiles[tile, channel, row]
                weights = weights_x[tile]
                for column in range(tiles.shape[3]):
                    target[column] += weights_y[row] * weights[column] * source[column]
