"""Overlapping tiles of an image of any size: cut them out, put them together again, run a function over them.

A `TileGrid` covers every pixel: where the stride leaves a rest, a last tile sits flush with the edge. `blend` gathers:
every output pixel is one sum over the few tiles that cover it, in a fixed order and in float64, with weights divided by
their sum; no map of counts is kept, a constant image comes back unchanged (in float64, to within its last bit), and
results are the same to the last bit for every number of threads. `Blender` does the same for tiles that come piece by
piece, and hands over a row of the image when the last tile that covers it is in; `sliding_window` runs a function over
an image on disk that way, in memory that depends on the image's width, the tile and the batch, not on the image's
height. Tensors on a GPU stay there: `fastssim.cuda` has the same kernels.
"""

from fastssim.tiles.blending import blend
from fastssim.tiles.extraction import extract
from fastssim.tiles.grid import BORDERS, TileGrid
from fastssim.tiles.plan import REDUCTIONS
from fastssim.tiles.residual import ssim_residual
from fastssim.tiles.sliding import sliding_window
from fastssim.tiles.stream import Blender, Rows
from fastssim.tiles.windows import WINDOWS

__all__ = [
    "BORDERS",
    "REDUCTIONS",
    "WINDOWS",
    "Blender",
    "Rows",
    "TileGrid",
    "blend",
    "extract",
    "sliding_window",
    "ssim_residual",
]
