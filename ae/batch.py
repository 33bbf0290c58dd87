"""Segment many image files: results are written as they come, and a file that cannot be read stops nothing."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ae.data import images_in
from ae.files import write_json
from ae.images import open_pages
from ae.regions import COLUMNS, Coco, find_regions, table_rows
from ae.segmentation import Segmenter, result_files, write_segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TextIO

    from ae.segmentation import Segmentation

LONGEST_NAME = 255  # bytes of a file's name, on all common systems
_PAGE = re.compile(r"_page\d+$")


@dataclass(frozen=True)
class Batch:
    """What became of a batch of files."""

    overlays: tuple[Path, ...]
    failures: dict[Path, str]  # files that could not be segmented, or some pages of them, and why


def segment(
    run: Path | str,
    images: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], object] | None = None,
) -> Batch:
    """Segment image files and write what was found, file by file.

    For ``part.png``: ``part_residual.tiff`` (32-bit float), ``part_mask.png``, ``part_image.png``,
    ``part_reconstruction.png`` and ``part_overlay.png`` (the image with the defects' outline), 8 bits. The pages of a
    TIFF file are images of their own, ``part_page0`` and so on. Where two files have one name, all results go to
    folders named as the files' own, from the first in which these differ. A file whose results would take the place of
    another's, or of an image that is given, is left out, and so is a page that cannot be read. All regions are in
    ``regions.csv``, which grows image by image, and in ``regions.json`` (COCO).

    Parameters
    ----------
    run : Path
        A run folder.
    images : sequence of Path, or one
        Image files, folders of them, or patterns such as ``parts/*/front*.png``.
    out : Path
        Folder for the results, made where there is none.
    device : str
        Where the network works.
    progress : callable, optional
        Called as ``progress(images done, images in all)``.

    Returns
    -------
    Batch
        Overlays, and the files that could not be segmented.

    Raises
    ------
    ValueError
        If the run cannot be read, a folder or pattern has no image, or two files would have results of one name.
    OSError
        If a result cannot be written; no half-written file is left.

    Examples
    --------
    ::

        from ae import segment
        segment("runs/grid", ["parts", "line2/*.tif"], "found").overlays
    """
    out = Path(out)
    paths = expand(images)
    names = result_names(paths)
    given = {os.path.realpath(path) for path in paths}
    check = partial(_check_places, names=names, out=out, given=given)
    segmenter = Segmenter.load(run, device)
    failures: dict[Path, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    (out / "regions.json").unlink(missing_ok=True)  # of another batch, beside this one's table
    #  a name that is no UTF-8 is written as in regions.json: \udce4
    with (out / "regions.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        results = _Results(out, file)
        try:
            for number, (path, name) in enumerate(zip(paths, names, strict=True)):
                if wrong := _segment_file(segmenter, path, name, check, results):
                    failures[path] = "; ".join(wrong)
                file.flush()
                if progress is not None:
                    progress(number + 1, len(paths))
        finally:
            write_json(out / "regions.json", results.coco.content)
    return Batch(tuple(results.overlays), failures)


class _Results:
    """What is written of a batch."""

    def __init__(self, out: Path, file: TextIO) -> None:
        self.overlays: list[Path] = []
        self.coco = Coco()
        self._out = out
        self._table = csv.writer(file)
        self._table.writerow(COLUMNS)

    def add(self, title: str, found: Segmentation) -> None:
        """Write what was found in one image."""
        place = self._out / title
        self.overlays.append(write_segmentation(place.parent, place.name, found))
        regions = find_regions(found.mask, found.residual)
        self._table.writerows(table_rows(title, regions))
        self.coco.add(title, (found.mask.shape[0], found.mask.shape[1]), regions)


def _segment_file(
    segmenter: Segmenter, path: Path, name: str, check: Callable[[list[str], str], None], results: _Results
) -> list[str]:
    """Segment the pages of a file; return what is wrong with it, or with some of its pages."""
    wrong = []
    try:
        with open_pages(path, segmenter.run.config.channels) as pages:
            titles = [name] if len(pages) == 1 else [f"{name}_page{page}" for page in range(len(pages))]
            check(titles, name)
            for page, (title, decode) in enumerate(zip(titles, pages, strict=True)):
                try:
                    found = segmenter(decode(), name=str(path))
                except ValueError as error:
                    wrong.append(str(error) if len(pages) == 1 else f"page {page}: {error}")
                else:
                    results.add(title, found)
    except ValueError as error:
        wrong.append(str(error))
    return wrong


def expand(images: Sequence[Path | str] | Path | str) -> list[Path]:
    """Find the files that paths, folders and patterns name, each once, in their order.

    What an earlier batch wrote beside the images of a folder or a pattern is left out.

    Raises
    ------
    ValueError
        If a folder or a pattern has no image.
    """
    found: list[Path] = []
    for given in [images] if isinstance(images, (str, Path)) else images:
        path = Path(given)
        if os.path.isdir(path):  # noqa: PTH112  # Path's raises an error where the name is too long
            found += _without_results(images_in(path))
        elif not os.path.exists(path) and any(sign in str(path) for sign in "*?["):  # noqa: PTH110  # as above
            matches = sorted(
                match
                for match in Path(path.anchor or ".").glob(_relative(path))
                if match.is_file() and not match.name.startswith(".")
            )
            if not matches:
                raise ValueError(f"no file matches {given}; check the pattern")
            found += _without_results(matches)
        else:
            found.append(path)
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # a link is a file of its own
    return list(unique.values())


def _without_results(paths: Sequence[Path]) -> list[Path]:
    """Leave out the results of an image that is among the paths, where all of them are there."""
    stems = {path.stem for path in paths}

    def written(path: Path) -> bool:
        title = path.stem.rpartition("_")[0]
        places = result_files(path.parent, title)
        of_one = path in places and not stems.isdisjoint({title, _PAGE.sub("", title)})
        return of_one and all(place.is_file() for place in places)

    return [path for path in paths if not written(path)]


def result_names(paths: Sequence[Path]) -> list[str]:
    """Name each file's results: by its stem, or with its folders where stems alone would clash.

    Raises
    ------
    ValueError
        If two files differ in their suffix alone.

    Examples
    --------
    >>> result_names([Path("a/dent/0.png"), Path("a/good/0.png")])
    ['dent/0', 'good/0']
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100  # takes ".." away, which leads out
        root = os.path.commonpath([path.parent for path in absolute])
        names = [path.relative_to(root).with_suffix("").as_posix() for path in absolute]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two images are named {twice!r}, and so would be their results; segment them one by one")
    return names


def _check_places(titles: list[str], name: str, *, names: Collection[str], out: Path, given: Collection[str]) -> None:
    """Refuse an image whose pages have another image's name, or whose results have the place of an image."""
    for title in titles:
        if title != name and title in names:
            raise ValueError(f"a page of {name} and another image are both named {title!r}; segment them one by one")
        for path in result_files(out, title):
            if len(os.fsencode(path.name)) > LONGEST_NAME:
                raise ValueError(
                    f"the name of {path}, a result of {name}, would be too long; give {name} a shorter one"
                )
            if os.path.realpath(path) in given:  # Path.resolve() fails on a link to itself
                raise ValueError(f"{path}, a result of {name}, would take the place of an image; name another folder")


def _relative(path: Path) -> str:
    return str(path.relative_to(path.anchor)) if path.anchor else str(path)
