from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from ae.images import read_image, read_mask, read_pages, resize, scaled, to_bytes, write_png, write_tiff

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
COLOUR8 = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(path, pixels):
    if path.suffix == ".tiff":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize(("pixels", "top"), [(GREY8, 255), (GREY16, 65535)])
def test_grey_of_8_and_16_bits_is_exact(tmp_path, pixels, top, suffix):
    image = read_image(saved(tmp_path / f"a{suffix}", pixels))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0], (pixels / top).astype(np.float32))
    assert (read_image(tmp_path / f"a{suffix}", channels=3) == image).all()


def test_colour_becomes_luma_or_stays(tmp_path):
    path = saved(tmp_path / "a.png", COLOUR8)
    np.testing.assert_allclose(read_image(path)[0], COLOUR8 / 255 @ [0.299, 0.587, 0.114], atol=1e-6)
    np.testing.assert_array_equal(to_bytes(read_image(path, channels=3)), COLOUR8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_are_read(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(GREY8).convert("RGB").convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (1, 20, 30)
    if mode in {"RGBA", "LA"}:
        np.testing.assert_allclose(image[0], GREY8 / 255, atol=1e-6)


def test_jpeg_planar_and_compressed_tiff(tmp_path):
    Image.fromarray(COLOUR8).save(tmp_path / "a.jpeg")
    assert read_image(tmp_path / "a.jpeg", 3).shape == (3, 20, 30)
    tifffile.imwrite(tmp_path / "p.tif", COLOUR8.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(to_bytes(read_image(tmp_path / "p.tif", 3)), COLOUR8)
    tifffile.imwrite(tmp_path / "z.tif", GREY16, compression="lzw")
    np.testing.assert_allclose(read_image(tmp_path / "z.tif")[0], GREY16 / 65535, atol=1e-7)
    write_tiff(tmp_path / "f.tif", (GREY8 / 255).astype(np.float32))
    np.testing.assert_allclose(read_image(tmp_path / "f.tif")[0], GREY8 / 255, atol=1e-7)


def test_pages_are_images_of_their_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for pixels in (GREY16, COLOUR8, GREY8[:10]):
            file.write(pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
        file.write(GREY8[::2, ::2], subfiletype=1, photometric="minisblack")  # a smaller version
    pages = read_pages(tmp_path / "m.tif")
    assert [page.shape for page in pages] == [(1, 20, 30), (1, 20, 30), (1, 10, 30)]
    np.testing.assert_array_equal(pages[0][0], (GREY16 / 65535).astype(np.float32))
    np.testing.assert_array_equal(pages[2][0], (GREY8[:10] / 255).astype(np.float32))
    path = saved(tmp_path / "a.png", GREY8)
    np.testing.assert_array_equal(read_pages(path)[0], read_image(path))
    (tmp_path / "bad.tif").write_bytes((tmp_path / "m.tif").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"bad\.tif is"):
        read_pages(tmp_path / "bad.tif")


def test_tiff_is_known_by_its_bytes_whatever_the_file_is_called(tmp_path):
    pixels = np.arange(2 * 6 * 5, dtype=np.uint8).reshape(2, 6, 5)
    for name, options in (("a.png", {}), ("b.jpg", {"bigtiff": True}), ("c.PNG", {"byteorder": ">"})):
        tifffile.imwrite(tmp_path / name, pixels, photometric="minisblack", **options)
        np.testing.assert_array_equal(read_pages(tmp_path / name)[1][0], (pixels[1] / 255).astype(np.float32))
        with pytest.raises(ValueError, match="pages"):
            read_image(tmp_path / name)


def test_a_page_that_stands_for_many_images_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((5, 20, 30), np.uint8), truncate=True, photometric="minisblack")
    for read in (read_image, read_pages):
        with pytest.raises(ValueError, match=r"m\.tif is no image .*its one page stands for 5 images; save each"):
            read(tmp_path / "m.tif")


def test_a_file_of_several_pages_is_no_colour_image(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.stack([GREY8] * 3), photometric="minisblack")
    with pytest.raises(ValueError, match=r"m\.tif holds 3 pages, where one image is wanted"):
        read_image(tmp_path / "m.tif", 3)
    assert len(read_pages(tmp_path / "m.tif")) == 3


@pytest.mark.parametrize("pixels", [GREY8, GREY16, GREY8 > 100, (GREY8 / 255).astype(np.float32)])
def test_tiff_whose_zero_is_white(tmp_path, pixels):
    for kind in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / f"{kind}.tif", pixels, photometric=kind)
    black, white = (read_image(tmp_path / f"{kind}.tif") for kind in ("minisblack", "miniswhite"))
    np.testing.assert_allclose(white, 1 - black, atol=1e-7)


def test_tiff_of_palette_and_print_colours_is_as_pillow_shows_it(tmp_path):
    image = Image.fromarray(COLOUR8)
    for name, other in {"palette": image.quantize(16), "print": image.convert("CMYK")}.items():
        other.save(tmp_path / f"{name}.tif")
        shown = np.asarray(other.convert("RGB")) / 255
        np.testing.assert_allclose(read_image(tmp_path / f"{name}.tif", 3).transpose(1, 2, 0), shown, atol=0.5 / 255)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_print_colours_of_any_depth_are_those_of_8_bits(tmp_path, kind):
    inks = np.concatenate([COLOUR8, COLOUR8[..., :1]], axis=2)
    deep = inks.astype(np.uint16) * 257 if kind is np.uint16 else (inks / 255).astype(kind)
    for name, pixels in {"deep": deep, "8": inks}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="separated", extrasamples=())
    found, expected = (read_image(tmp_path / f"{name}.tif", 3) for name in ("deep", "8"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_transparency_of_a_page_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOUR8, photometric="rgb")
        file.write(GREY8 > 100, photometric="mask", subfiletype=4)
    np.testing.assert_array_equal(to_bytes(read_image(tmp_path / "a.tif", 3)), COLOUR8)
    tifffile.imwrite(tmp_path / "b.tif", GREY8 > 100, subfiletype=4)  # alone it is the image
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif")[0], GREY8 > 100)


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_tiff_of_other_bits_is_as_bright(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (16, 24))
    packed = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)).tobytes()
    tags = [
        (256, 4, 24), (257, 4, 16), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 16),
        (279, 4, len(packed)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    (tmp_path / "a.tif").write_bytes(head + packed + struct.pack("<H", len(tags)) + table + bytes(4))
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0], values / (2**bits - 1), atol=1e-7)


@pytest.mark.parametrize(("mode", "colours"), [("YCbCr", "YCBCR"), ("LAB", "CIELAB")])
def test_tiff_of_colours_that_are_no_rgb_is_refused(tmp_path, mode, colours):
    Image.frombytes(mode, (30, 20), COLOUR8.tobytes()).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=rf"a\.tif is no image that can be read \(its colours are {colours}"):
        read_image(tmp_path / "a.tif")


def test_a_camera_held_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    Image.fromarray(GREY8).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(to_bytes(read_image(tmp_path / "a.png")), np.rot90(GREY8, -1))


def test_images_may_be_of_any_size(tmp_path, monkeypatch, recwarn):
    path = saved(tmp_path / "a.png", GREY8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(path).shape == (1, 20, 30)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"compression": "deflate"}, {"compression": "jpeg"}])
def test_a_tiff_file_that_was_cut_or_hurt_is_named(tmp_path, options):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, COLOUR8, photometric="rgb", **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 4, 6, 8, 12, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        for read in (read_image, read_pages):
            with pytest.raises(ValueError, match=r"cut\.tif is"):
                read(path)
    for _ in range(40):
        hurt = bytearray(whole)
        hurt[rng.integers(4, min(len(hurt), 300))] = rng.integers(256)
        path.write_bytes(hurt)
        try:
            read_pages(path)
        except ValueError as error:
            assert "cut.tif" in str(error)  # noqa: PT017  # some bytes do not matter


def test_bad_files_are_named(tmp_path):
    whole = saved(tmp_path / "a.png", COLOUR8).read_bytes()
    cases = {
        "missing.png": (None, "does not exist"),
        "text.png": (b"hello", "is no image"),
        "cut.png": (whole[: len(whole) // 2], "damaged or truncated"),
        "empty.tif": (b"", "is no image"),
    }
    for name, (content, words) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*{words}"):
            read_image(tmp_path / name)


def test_bad_pixels_are_refused(tmp_path):
    nan = np.full((20, 20), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "nan.tif", nan)
    tifffile.imwrite(tmp_path / "big.tif", np.full((20, 20), 7, np.float32))
    tifffile.imwrite(
        tmp_path / "five.tif", np.zeros((20, 20, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    tifffile.imwrite(tmp_path / "complex.tif", np.zeros((20, 20), np.complex64))
    for name, words in [("nan", "NaN"), ("big", "scale floating point"), ("five", "shape"), ("complex", "complex64")]:
        with pytest.raises(ValueError, match=rf"{name}\.tif.*{words}"):
            read_image(tmp_path / f"{name}.tif")
    with pytest.raises(ValueError, match="channels is 2"):
        read_image(tmp_path / "nan.tif", channels=2)


def test_a_mask_must_fit_its_image(tmp_path):
    write_png(tmp_path / "m.png", (GREY8 > 100).astype(np.uint8) * 255)
    assert (read_mask(tmp_path / "m.png", (20, 30)) == (GREY8 > 100)).all()
    with pytest.raises(ValueError, match=r"m\.png is 20 x 30 pixels, its image 20 x 31"):
        read_mask(tmp_path / "m.png", (20, 31))


def test_scaling_averages_areas():
    image = (GREY8 / 255).astype(np.float32)[None]
    half = scaled(image, 0.5)
    np.testing.assert_allclose(half[0], image[0].reshape(10, 2, 15, 2).mean((1, 3)), atol=1e-6)
    assert resize(half, (20, 30)).shape == image.shape
    assert scaled(image, 1.0) is image


def test_a_mask_of_zeros_and_ones_is_not_taken_for_an_empty_one(tmp_path):
    write_png(tmp_path / "m.png", (GREY8 > 100).astype(np.uint8))
    with pytest.raises(ValueError, match=r"m\.png marks nothing.* 0\.0039 of 1; save 0 and 255"):
        read_mask(tmp_path / "m.png", (20, 30))
    write_png(tmp_path / "m.png", np.zeros_like(GREY8))
    assert not read_mask(tmp_path / "m.png", (20, 30)).any()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_keeps_them_all(tmp_path, channels):
    pixels = RNG.integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    colour = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    expected = (colour / 65535).astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3), expected)


@pytest.mark.parametrize("kind", ["grey", "colour of 16 bits", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(GREY8)
    shown = tmp_path / "shown.png"
    image.save(shown, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(shown)))
    path = shown
    if kind == "tiff":
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, GREY8, extratags=[(274, 3, 1, orientation, True)])
    elif kind != "grey":
        path = tmp_path / "a.png"
        wide = imagecodecs.png_encode(np.repeat(GREY8[..., None] * np.uint16(257), 3, axis=2))
        whole = shown.read_bytes()
        start = whole.index(b"eXIf") - 4
        length = 12 + int.from_bytes(whole[start : start + 4], "big")
        end = wide.index(b"IDAT") - 4
        path.write_bytes(wide[:end] + whole[start : start + length] + wide[end:])
    np.testing.assert_array_equal(to_bytes(read_image(path)), expected)


def test_signed_tiff_is_as_bright_as_its_numbers_allow(tmp_path):
    for dtype in (np.int8, np.int16):
        top = np.iinfo(dtype).max
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, top // 2, top]], dtype))
        np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0], [[0, top // 2 / top, 1]], atol=1e-7)
    for pixels, words in [(np.int32([[0, 255]]), "int32 numbers from 0 to 255"), (np.int16([[-3, 9]]), "from -3 to 9")]:
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        with pytest.raises(ValueError, match=rf"a\.tif holds .*{words}; 8 or 16 bits"):
            read_image(tmp_path / "a.tif")


def test_threads_leave_pillows_limit_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    paths = [saved(tmp_path / f"{number}.png", np.tile(COLOUR8, (10, 10, 1))) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(read_image, paths * 10))) == 40
    assert Image.MAX_IMAGE_PIXELS == 1_000_000


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    def nothing_left(*_, **__):
        raise MemoryError("Unable to allocate 40 GiB")

    path = saved(tmp_path / "a.tiff", GREY8)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", nothing_left)
    with pytest.raises(ValueError, match=r"a\.tiff needs more memory than there is \(Unable to allocate 40 GiB\)"):
        read_image(path)
    with pytest.raises(ValueError, match=r"cannot be read .*too long"):
        read_image(tmp_path / f"{'x' * 300}.png")
