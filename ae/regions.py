"""Defects one by one: where they lie, how large and how strong they are; as CSV and as COCO JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ae.thresholds import TOUCHING

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("image", "region", "left", "top", "width", "height", "area", "mean_score", "largest_score")


@dataclass(frozen=True)
class Region:
    """One 8-connected region of a mask; lengths in pixels."""

    left: int
    top: int
    width: int
    height: int
    area: int
    mean_score: float
    largest_score: float
    mask: NDArray[np.bool_]  # (height, width), within the box


def find_regions(mask: NDArray[np.bool_], scores: NDArray[np.float32]) -> list[Region]:
    """Find the regions of a mask (H, W), the strongest first.

    Examples
    --------
    >>> mask = np.zeros((5, 6), bool); mask[1:3, 2:5] = True
    >>> [(r.left, r.top, r.width, r.height, r.area) for r in find_regions(mask, mask.astype(np.float32))]
    [(2, 1, 3, 2, 6)]
    """
    labels, _ = ndimage.label(mask, structure=TOUCHING)
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == number
        values = scores[rows, columns][inside]
        height, width = inside.shape
        mean, largest = float(values.mean(dtype=np.float64)), float(values.max())
        regions.append(Region(columns.start, rows.start, width, height, int(inside.sum()), mean, largest, inside))
    return sorted(regions, key=lambda region: -region.largest_score)


def table_rows(image: str, regions: list[Region]) -> list[tuple[object, ...]]:
    """Return a row of `COLUMNS` for each region of an image."""
    return [
        (image, number, r.left, r.top, r.width, r.height, r.area, f"{r.mean_score:.6g}", f"{r.largest_score:.6g}")
        for number, r in enumerate(regions)
    ]


class Coco:
    """Regions of many images in the format of COCO, every region an annotation of the category "defect"."""

    def __init__(self) -> None:
        self.content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "defect"}],
        }

    def add(self, image: str, size: tuple[int, int], regions: list[Region]) -> None:
        """Add an image of `size` (height, width) and its regions."""
        images, annotations = self.content["images"], self.content["annotations"]
        images.append({"id": len(images) + 1, "file_name": image, "height": size[0], "width": size[1]})
        for region in regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": 1,
                    "bbox": [region.left, region.top, region.width, region.height],
                    "area": region.area,
                    "iscrowd": 0,
                    "score": region.mean_score,
                    "largest_score": region.largest_score,
                    "segmentation": {"size": list(size), "counts": run_lengths(region, size)},
                }
            )


def run_lengths(region: Region, size: tuple[int, int]) -> list[int]:
    """Lengths of the runs outside and inside a region, column by column, outside first: COCO's uncompressed RLE.

    Examples
    --------
    >>> mask = np.zeros((3, 4), bool); mask[1:3, 1] = True
    >>> run_lengths(find_regions(mask, mask.astype(np.float32))[0], (3, 4))
    [4, 2, 6]
    """
    height, width = size
    within = np.zeros((region.width, region.height + 1), bool)  # column by column, each with one pixel more: no run's
    within[:, :-1] = region.mask.T
    column, row = np.divmod(np.flatnonzero(np.diff(within.ravel(), prepend=False)), region.height + 1)
    changes = (region.left + column) * height + region.top + row
    apart = np.diff(changes, append=height * width) > 0  # a run that goes on in the next column, or to the very end
    changes = changes[apart & np.r_[True, apart[:-1]]]
    lengths: list[int] = np.diff(changes, prepend=0, append=height * width).tolist()
    return lengths
