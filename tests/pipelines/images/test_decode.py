"""Decoding: limits before memory, formats by a list, what every mode becomes, orientation that is never fatal."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipelines.images.config import ImageConfig, Refused
from pipelines.images.decode import Source, decode, examine, flatten, format_of, turn_upright

from .pictures import encoded

CONFIG = ImageConfig()
ALL = ImageConfig(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))
WHITE = (255, 255, 255)


def png(width: int, height: int, depth: int = 8, kind: int = 2, rows: bytes = b"") -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def flat(data: bytes, config: ImageConfig = ALL, background: tuple[int, int, int] = WHITE) -> Image.Image:
    source = examine(data, config)
    assert isinstance(source, Source), source
    image = decode(source, None, config)
    assert isinstance(image, Image.Image), image
    made = flatten(image, background)
    assert isinstance(made, Image.Image), made
    return turn_upright(made, source.orientation)


def reason(data: bytes, config: ImageConfig = CONFIG) -> str:
    refused = examine(data, config)
    assert isinstance(refused, Refused), refused
    assert len(refused.detail) <= 200
    return refused.reason


def test_a_header_of_billions_of_pixels_is_refused_before_memory_is_taken() -> None:
    tracemalloc.start()
    try:
        assert reason(png(50_000, 50_000)) == "too_many_pixels"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_our_own_limit_counts_and_not_a_warning_of_pillow() -> None:
    assert reason(png(10_001, 10_000)) == "too_many_pixels"
    assert isinstance(examine(png(10_000, 10_000), CONFIG), Source)
    assert isinstance(examine(png(13_000, 13_000), ImageConfig(max_pixels=170_000_000)), Source)


def test_a_line_of_100_million_pixels_is_refused_for_its_aspect() -> None:
    assert reason(png(100_000_000, 1)) == "aspect"
    assert reason(png(1, 100_000_000)) == "aspect"
    assert isinstance(examine(png(100, 1), CONFIG), Source)
    assert reason(png(101, 1)) == "aspect"


def test_a_side_that_is_too_long_is_refused() -> None:
    assert reason(png(70_000, 1_000)) == "too_long"


def test_an_image_of_no_pixels_is_damaged() -> None:
    assert reason(png(0, 5)) == "damaged"


def test_too_many_bytes_are_not_looked_at() -> None:
    assert reason(b"\xff\xd8\xff" + bytes(100), ImageConfig(max_bytes=100)) == "too_many_bytes"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html>not found</html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\0\1",
        b"SIMPLE  =                    T",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
    ],
    ids=["nothing", "HTML", "SVG", "EPS", "PSD", "FITS", "JPEG 2000", "BMP", "TIFF"],
)
def test_what_is_not_on_the_list_is_unsupported(data: bytes) -> None:
    assert reason(data) == "unsupported"


def test_the_detail_names_the_first_bytes() -> None:
    refused = examine(b"<html>", CONFIG)
    assert refused == ("unsupported", "not one of JPEG, PNG, WEBP, GIF: it begins with 3c68746d6c3e")


def test_formats_are_told_by_their_bytes() -> None:
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        assert format_of(encoded(Image.new("RGB", (3, 2)), name)) == name


def test_bmp_and_tiff_decode_where_they_are_asked_for() -> None:
    image = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    for name in ("BMP", "TIFF"):
        assert flat(encoded(image, name)).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("image", "options", "mode", "pixels"),
    [
        (Image.frombytes("1", (8, 1), b"\xa0"), {}, "L", [255, 0, 255, 0, 0, 0, 0, 0]),
        (Image.frombytes("L", (2, 1), b"\x07\x09"), {}, "L", [7, 9]),
        (Image.frombytes("L", (2, 1), b"\x07\x09"), {"transparency": 7}, "L", [255, 9]),
        # 65,535 values of grey: the high byte
        (Image.frombytes("I;16", (4, 1), struct.pack("<4H", 0, 255, 256, 65_535)), {}, "L", [0, 0, 1, 255]),
        (Image.frombytes("LA", (3, 1), bytes([10, 0, 10, 255, 100, 51])), {}, "L", [255, 10, 224]),
        (Image.frombytes("RGBA", (2, 1), bytes([9, 8, 7, 0, 9, 8, 7, 255])), {}, "RGB", [255, 255, 255, 9, 8, 7]),
        (Image.frombytes("RGB", (2, 1), bytes(range(6))), {"transparency": (0, 1, 2)}, "RGB", [255, 255, 255, 3, 4, 5]),
    ],
    ids=["1 bit", "grey", "grey with a transparent level", "16 bit", "LA", "RGBA", "RGB with a transparent colour"],
)
def test_what_the_modes_of_png_become(image: Image.Image, options: dict, mode: str, pixels: list[int]) -> None:
    made = flat(encoded(image, "PNG", **options))
    assert (made.mode, list(made.tobytes())) == (mode, pixels)


def test_a_transparent_level_of_16_bit_grey_is_not_one_of_the_same_high_byte() -> None:
    image = Image.frombytes("I;16", (2, 1), struct.pack("<2H", 0x1234, 0x1235))
    assert flat(encoded(image, "PNG", transparency=0x1234)).tobytes() == bytes([255, 0x12])


def test_16_bit_colours_keep_their_high_byte() -> None:
    rows = b"\0" + struct.pack(">6H", 0x01FF, 0x02FF, 0x0300, 0xFFFF, 0x00FF, 0x8000)
    assert list(flat(png(2, 1, 16, 2, rows)).tobytes()) == [1, 2, 3, 255, 0, 0x80]


def test_a_palette_becomes_rgb_and_its_transparent_entries_the_background() -> None:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([1, 2, 3, 40, 50, 60, 70, 80, 90])
    assert list(flat(encoded(image, "PNG")).tobytes()) == [1, 2, 3, 40, 50, 60, 70, 80, 90]
    made = flat(encoded(image, "PNG", transparency=bytes([255, 0, 51])))
    assert list(made.tobytes()) == [1, 2, 3, 255, 255, 255, 218, 220, 222]
    made = flat(encoded(image, "GIF", transparency=1), background=(5, 6, 7))
    assert list(made.tobytes()) == [1, 2, 3, 5, 6, 7, 70, 80, 90]


def test_grey_over_a_coloured_background_becomes_rgb() -> None:
    made = flat(encoded(Image.frombytes("LA", (1, 1), b"\x0a\0"), "PNG"), background=(1, 2, 3))
    assert (made.mode, list(made.tobytes())) == ("RGB", [1, 2, 3])


def test_hidden_colours_never_show() -> None:
    hidden = Image.effect_noise((32, 32), 90).convert("RGB")
    hidden.putalpha(0)
    for format in ("PNG", "WEBP"):
        options = {"exact": True, "lossless": True} if format == "WEBP" else {}
        assert set(flat(encoded(hidden, format, **options)).tobytes()) == {255}


def test_cmyk_jpegs_are_taken_as_adobe_writes_them() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    made = flat(encoded(ink, "JPEG", quality=100))
    assert made.mode == "RGB" and np.abs(np.asarray(made, int) - (255, 0, 0)).max() <= 2
    black = flat(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG", quality=100))
    assert np.asarray(black).max() <= 2


def test_ycck_jpegs_become_rgb() -> None:
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=100))
    at = data.index(b"Adobe")
    data[at + 11] = 2  # the colour transform: YCCK. What was paper, stored as 255, 255, 255, 255, is now a colour
    made = np.asarray(flat(bytes(data)), int)
    assert made.shape == (16, 16, 3)
    # Y = Cb = Cr = 255: R = 255 + 1.402·127 → 255, G = 255 - 0.344·127 - 0.714·127 = 120.6, B → 255; the inks are
    # 255 - R, G, B, and inverted 255, 120.6, 255; without black that is red 0, green 134.4, blue 0
    assert np.abs(made - (0, 134, 0)).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_samples_without_a_stated_white_are_unsupported(mode: str) -> None:
    source = examine(encoded(Image.new(mode, (4, 4)), "TIFF"), ALL)
    assert isinstance(source, Source)
    image = decode(source, None, ALL)
    assert isinstance(image, Image.Image)
    refused = flatten(image, WHITE)
    assert isinstance(refused, Refused) and refused.reason == "unsupported" and repr(mode) in refused.detail


@pytest.mark.parametrize(("name", "tag"), [("tiff_ccitt", 2), ("group3", 3), ("group4", 4)])
def test_fax_whose_damaged_rows_would_be_what_memory_held_is_unsupported(name: str, tag: int) -> None:
    data = encoded(Image.new("1", (16, 16)), "TIFF", compression=name)
    assert examine(data, ALL) == Refused("unsupported", f"a TIFF of fax compression (CCITT, {tag})")


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """The pixels as a camera stores them that turned: written out by hand, row and column for each case."""
    a = np.asarray(upright)
    cases = {2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.swapaxes(0, 1), 7: a[::-1, ::-1].swapaxes(0, 1)}
    cases |= {6: np.rot90(a, 1), 8: np.rot90(a, -1)}
    return Image.fromarray(np.ascontiguousarray(cases.get(orientation, a)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_all_orientations_give_the_same_pixels(orientation: int, format: str) -> None:
    upright = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(stored(upright, orientation), format, exif=exif, **options)
    made = flat(data)
    assert made.size == (24, 16) and made.tobytes() == upright.tobytes()
    source = examine(data, ALL)
    assert isinstance(source, Source) and source.upright == (24, 16)


@pytest.mark.parametrize(
    "exif",
    [
        b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x63\0\0\0\0\0\0",  # orientation 99
        b"garbage",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff\1\x12",
        b"",
    ],
)
def test_no_exif_costs_a_picture(exif: bytes) -> None:
    data = encoded(Image.new("RGB", (8, 4), "red"), "JPEG", exif=b"Exif\0\0" + exif)
    assert flat(data).size == (8, 4)


def test_broken_xmp_costs_no_picture() -> None:
    data = encoded(Image.new("RGB", (8, 4)), "JPEG", xmp=b"\xff\xfe\0 <x:xmpmeta \x80\x81 tiff:Orientation='6'>")
    assert flat(data).size == (8, 4)


def test_large_jpegs_are_decoded_smaller_as_far_as_the_least_size_allows() -> None:
    data = encoded(Image.new("RGB", (1001, 803)), "JPEG")
    source = examine(data, CONFIG)
    assert isinstance(source, Source)
    sizes = {}
    for least in ((100, 100), (101, 100), (250, 200), (251, 200), (500, 401), (501, 401), (1001, 803)):
        image = decode(source, least, CONFIG)
        assert isinstance(image, Image.Image)
        sizes[least] = (source.shrink(least), image.size)
    assert sizes == {
        (100, 100): (8, (126, 101)),
        (101, 100): (8, (126, 101)) if 1001 // 101 >= 8 else (4, (251, 201)),
        (250, 200): (4, (251, 201)),
        (251, 200): (2, (501, 402)),
        (500, 401): (2, (501, 402)),
        (501, 401): (1, (1001, 803)),
        (1001, 803): (1, (1001, 803)),
    }


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_jpeg_cut_in_its_data_is_truncated(share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, "JPEG")
    refused = examine(data[: int(len(data) * share)], CONFIG)
    assert isinstance(refused, Refused) and refused.reason == "truncated"


def test_a_png_whose_compressed_data_end_early_is_truncated() -> None:
    rows = np.random.default_rng(0).bytes(40 * 121)
    whole = png(40, 40, 8, 2, b"".join(b"\0" + rows[i * 120 : i * 120 + 120] for i in range(40)))
    at = whole.index(b"IDAT")
    body = whole[at + 4 : -16][:2000]
    part = b"IDAT" + body
    data = whole[: at - 4] + struct.pack(">I", 2000) + part + struct.pack(">I", zlib.crc32(part)) + whole[-12:]
    source = examine(data, CONFIG)
    assert isinstance(source, Source)
    refused = decode(source, None, CONFIG)
    assert isinstance(refused, Refused) and refused.reason == "truncated"


def test_simplejpeg_gives_the_pixels_of_pillow_at_every_scale() -> None:
    pytest.importorskip("simplejpeg", reason="no simplejpeg here (the extra fast-jpeg)")
    config = ImageConfig(decoder="simplejpeg")
    image = Image.effect_mandelbrot((1001, 803), (-2, -1, 1, 1), 50)
    coloured = Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_180), image))
    for one, options in ((image, {}), (coloured, {}), (coloured, {"progressive": True, "subsampling": "4:4:4"})):
        source = examine(encoded(one, "JPEG", **options), config)
        assert isinstance(source, Source)
        for least in (None, (400, 400), (250, 200), (100, 100)):
            fast, slow = (decode(source, least, made) for made in (config, CONFIG))
            assert isinstance(fast, Image.Image) and isinstance(slow, Image.Image)
            assert (fast.mode, fast.size, fast.tobytes()) == (slow.mode, slow.size, slow.tobytes())
    ink = encoded(coloured.convert("CMYK"), "JPEG")
    assert flat(ink, config).tobytes() == flat(ink).tobytes()


def test_simplejpeg_refuses_holes_and_data_that_end_early() -> None:
    pytest.importorskip("simplejpeg", reason="no simplejpeg here (the extra fast-jpeg)")
    config = ImageConfig(decoder="simplejpeg")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, "JPEG", quality=95)
    middle = len(data) // 2
    for damaged in (data[:middle] + bytes(512) + data[middle + 512 :], data[:middle] + b"\xff\xd9"):
        source = examine(damaged, config)
        assert isinstance(source, Source)
        refused = decode(source, None, config)
        assert isinstance(refused, Refused) and refused.reason == "damaged"


def test_what_others_set_in_pillow_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Image.new("RGB", (40, 30)), "JPEG")
    assert flat(data).size == (40, 30)
    assert reason(data[:-2]) == "truncated"


@pytest.mark.parametrize("options", [{}, {"keep_rgb": True}, {"subsampling": "4:2:0", "progressive": True}])
def test_jpegs_decode_to_the_pixels_of_image_open(options: dict) -> None:
    image = Image.effect_mandelbrot((61, 43), (-2, -1, 1, 1), 50)
    data = encoded(Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_180), image)), "JPEG", **options)
    assert flat(data).tobytes() == Image.open(io.BytesIO(data)).tobytes()
