"""Read and write images: 8- and 16-bit PNG, JPEG and TIFF, grey or colour, as float32 in [0, 1]."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from ae.files import atomic, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # whatever the file is called: it may hold several pages
_LAB = (tifffile.PHOTOMETRIC.CIELAB, tifffile.PHOTOMETRIC.ICCLAB, tifffile.PHOTOMETRIC.ITULAB)
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)  # whose YCbCr is decoded into RGB
_ORIENTATION = 274  # the tag of EXIF and TIFF
_PNG_BITS = 24  # the byte of a PNG file that tells the bits of a number
_ROWS = 256  # of an image that are converted at a time
_UNLIMITED = threading.Lock()  # Pillow's limit of pixels is one for all threads
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's mode "L"


def read_image(path: Path | str, channels: int = 1) -> NDArray[np.float32]:
    """Read an image.

    Parameters
    ----------
    path : Path
        PNG, JPEG or TIFF; up to 16 bits, signed ones of TIFF from 0 on, or floating-point TIFF with values in [0, 1].
        Of any size. What a camera notes about its orientation is obeyed.
    channels : {1, 3}
        1: colour becomes grey by its BT.601 luma. 3: grey becomes three equal channels. Transparency is dropped.

    Returns
    -------
    ndarray, (channels, H, W), float32 in [0, 1]

    Raises
    ------
    ValueError
        If the file is missing, unreadable, truncated, of several pages, of another number of channels or of another
        kind of number, or if it holds NaN or values outside [0, 1]: names the file.

    Examples
    --------
    >>> read_image("missing.png")
    Traceback (most recent call last):
    ...
    ValueError: missing.png does not exist; check the path
    """
    path = Path(path)
    with open_pages(path, channels) as pages:
        if len(pages) > 1:
            raise ValueError(
                f"{path} holds {len(pages)} pages, where one image is wanted; save each as a file of its own"
            )
        return pages[0]()


def read_pages(path: Path | str, channels: int = 1) -> list[NDArray[np.float32]]:
    """Read every page of a TIFF file, or the one image of any other file.

    Parameters
    ----------
    path, channels
        As for `read_image`. Pages that are smaller versions of another, or its transparency, are left out.

    Returns
    -------
    list of ndarray, (channels, H, W), float32 in [0, 1]
        Sizes may differ.

    Raises
    ------
    ValueError
        As `read_image`.
    """
    with open_pages(path, channels) as pages:
        return [page() for page in pages]


@contextmanager
def open_pages(path: Path | str, channels: int = 1) -> Iterator[list[Callable[[], NDArray[np.float32]]]]:
    """Open a file for what `read_pages` reads, page by page: each is a function that decodes it, and may fail alone."""
    path = Path(path)
    with _opened(path) as pages:
        yield [partial(_read_page, page, path, channels) for page in pages]


def read_pixels(path: Path | str) -> NDArray[Any]:
    """Read what `write_png` or `write_tiff` wrote, its numbers as they are; ValueError as `read_image`."""
    path = Path(path)
    with _opened(path) as pages, _decoding(path):
        return pages[0]()


def _read_page(decode: Callable[[], NDArray[Any]], path: Path, channels: int) -> NDArray[np.float32]:
    """Decode a page, and bring it into (channels, H, W), float32 in [0, 1]."""
    with _decoding(path):
        pixels = decode()
    return _planes(pixels, path, channels)


def _planes(pixels: NDArray[Any], path: Path, channels: int) -> NDArray[np.float32]:
    """Bring decoded pixels into (channels, H, W), float32 in [0, 1]."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; give 1 (grey) or 3 (colour)")
    largest = _largest(pixels, path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ValueError(
            f"{path} has shape {pixels.shape}; grey, or colour with 3 channels, is read: save it as one image"
        )
    colour = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
    planes = np.empty((channels, *colour.shape[:2]), np.float32)
    for top in range(0, len(colour), _ROWS):  # a large image is in float64 a few rows at a time
        part = colour[top : top + _ROWS] / largest
        if channels == 1 and part.shape[2] == 3:
            part = part @ _LUMA[:, None]
        planes[:, top : top + _ROWS] = part.transpose(2, 0, 1)
    return planes


def read_mask(path: Path | str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask: pixels above half of the largest number that the file can hold are defect.

    Parameters
    ----------
    path : Path
        An image file.
    shape : (int, int)
        Height and width that it must have.

    Returns
    -------
    ndarray, (H, W), bool

    Raises
    ------
    ValueError
        If the file cannot be read or has another size, or if what it marks is too dark: 1 of 255, say.
    """
    mask = read_image(path)[0]
    if mask.shape != tuple(shape):
        raise ValueError(f"{path} is {mask.shape[0]} x {mask.shape[1]} pixels, its image {shape[0]} x {shape[1]}")
    result: NDArray[np.bool_] = mask > 0.5
    if mask.any() and not result.any():
        raise ValueError(
            f"{path} marks nothing: no pixel is above half, the largest {mask.max():.2g} of 1; save 0 and 255"
        )
    return result


def resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image (C, H, W) to (height, width): area means where it shrinks, bilinear where it grows."""
    height, width = size
    if image.shape[1:] == (height, width):
        return image
    method = Image.Resampling.BOX if height < image.shape[1] else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(plane).resize((width, height), method)) for plane in image])


def scaled(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Resize an image (C, H, W) by a factor."""
    return resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[2] * scale))))


def write_png(path: Path | str, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG, whole or not at all."""
    with atomic(path) as beside:
        Image.fromarray(pixels).save(beside, format="PNG")


def write_tiff(path: Path | str, pixels: NDArray[np.float32]) -> None:
    """Write (H, W) float32 as TIFF, whole or not at all."""
    with atomic(path) as beside:
        tifffile.imwrite(beside, pixels.astype(np.float32, copy=False), compression="zlib")


def to_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn (C, H, W) in [0, 1] into (H, W) or (H, W, 3) uint8, values outside cut off."""
    planes = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    pixels: NDArray[np.uint8] = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    return pixels


@contextmanager
def _opened(path: Path) -> Iterator[list[Callable[[], NDArray[Any]]]]:
    """Open a file; give what decodes its pages into (H, W) or (H, W, channels), whatever their numbers."""
    with _decoding(path), path.open("rb") as content:
        is_tiff = path.suffix.lower() in TIFF or content.read(4) in _TIFF_STARTS
    if not is_tiff:
        yield [partial(_decode_picture, path)]
        return
    with ExitStack() as stack:
        with _decoding(path):
            file = stack.enter_context(tifffile.TiffFile(path))
            pages = [page for page in file.pages if not page.is_reduced]
            pages = [page for page in pages if not page.is_mask] or pages  # transparency of the page before
            if not pages:
                raise ValueError("it has no page")
            #  ImageJ stores more than 4 GB so
            if len(pages) == 1 and (held := file.series[0].size // pages[0].size) > 1:
                raise tifffile.TiffFileError(f"its one page stands for {held} images; save each as a page of its own")
        yield [partial(_decode_page, page) for page in pages]


def _decode_picture(path: Path) -> NDArray[Any]:
    """Decode a PNG or JPEG file."""
    with _UNLIMITED:  # a person's own images may be of any size
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if image.format == "PNG" and image.mode in {"RGB", "RGBA", "LA"}:  # of which Pillow keeps 8 bits
            with path.open("rb") as file:
                file.seek(_PNG_BITS)
                bits = file.read(1)[0]
            if bits == 16:
                return _turned(imagecodecs.png_decode(path.read_bytes()), orientation)
        if image.mode in {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}:
            return _turned(np.asarray(image.convert("RGB")), orientation)
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        if image.mode == "I":  # how some versions of Pillow decode 16 bits
            pixels = pixels.astype(np.uint16)
        return _turned(pixels, orientation)


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror pixels (H, W) or (H, W, channels) as EXIF and TIFF number it, 1: as they are."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _decode_page(page: Any) -> NDArray[Any]:
    """Decode a page of a TIFF file, its channels last, into grey or red, green and blue, turned as it says."""
    tag = page.tags.get(_ORIENTATION)
    return _turned(_page_as_stored(page), 1 if tag is None else tag.value)


def _page_as_stored(page: Any) -> NDArray[Any]:
    """Decode a page of a TIFF file as it lies there."""
    ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends) > page.parent.filehandle.size:  # JPEG is decoded without its end, too
        raise ValueError("its end is missing")
    if page.photometric in _LAB or (page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression not in _JPEG):
        raise tifffile.TiffFileError(f"its colours are {page.photometric.name}; save grey or RGB")
    pixels: NDArray[Any] = page.asarray()
    if page.axes.startswith("S"):  # planar
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        colours = (page.colormap >> 8).astype(np.uint8)  # some write v as 256 v, others as 257 v
        return np.moveaxis(colours[:, pixels], 0, -1)
    bits = page.bitspersample
    if pixels.dtype.kind == "u" and isinstance(bits, int) and bits < 8 * pixels.dtype.itemsize:  # 4 or 12 bits, say
        pixels = pixels / (2**bits - 1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return ~pixels if pixels.dtype.kind in "bu" else 1 - pixels
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:  # cyan, magenta, yellow, black
        light = 1 - (pixels if pixels.dtype.kind == "f" else pixels / np.iinfo(pixels.dtype).max)
        return light[..., :3] * light[..., 3:4]
    return pixels


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Say what is wrong with a file that cannot be decoded."""
    try:
        path.stat()  # or a decoder's words are all there is
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; check the path") from None
    except (UnidentifiedImageError, tifffile.TiffFileError) as error:
        raise ValueError(f"{path} is no image that can be read ({error}); give PNG, JPEG or TIFF") from None
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the permissions") from None
    except MemoryError as error:
        raise ValueError(f"{path} needs more memory than there is ({first_line(error)}); cut it into parts") from None
    except Exception as error:  # noqa: BLE001  # on damaged bytes decoders raise whatever they stumble over
        if isinstance(error, OSError) and error.errno is not None:  # not a decoder's
            raise ValueError(f"{path} cannot be read ({error.strerror}); check the path") from None
        raise ValueError(f"{path} is damaged or truncated ({error}); copy or export it again") from None


def _largest(pixels: NDArray[Any], path: Path) -> float:
    """Return the number that stands for 1; ValueError where there is none, or pixels beyond it."""
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if pixels.dtype == bool:
        return 1
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2 and low >= 0:
        return np.iinfo(pixels.dtype).max
    if pixels.dtype.kind != "f":
        span = f" from {low} to {high}" if pixels.dtype.kind == "i" else ""
        raise ValueError(
            f"{path} holds {pixels.dtype} numbers{span}; 8 or 16 bits, none below 0, or float in [0, 1], are read:"
            " convert it"
        )
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{path} holds NaN or infinity; replace those pixels")
    if low < 0 or high > 1:
        raise ValueError(f"{path} holds values from {low:g} to {high:g}; scale floating point to [0, 1]")
    return 1
