"""Walks through encoded images: what is left behind, what is missed, and no bytes that make them fail."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.images.config import ImageConfig, Refused
from pipelines.images.decode import format_of
from pipelines.images.streams import Stream, walk_gif, walk_jpeg, walk_png, walk_webp

from .pictures import encoded, picture

CONFIG = ImageConfig()
WALKS = {"JPEG": walk_jpeg, "PNG": walk_png, "WEBP": walk_webp, "GIF": walk_gif}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def after_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def read(stream: Stream | Refused) -> np.ndarray:
    assert isinstance(stream, Stream)
    return np.asarray(Image.open(io.BytesIO(stream.data)).convert("RGB"))


@pytest.mark.parametrize("format", WALKS)
def test_what_is_left_has_the_same_pixels(format: str) -> None:
    data = encoded(picture(40, 30), format)
    assert np.array_equal(read(WALKS[format](data, CONFIG)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("format", WALKS)
def test_an_image_cut_anywhere_is_refused_as_truncated(format: str) -> None:
    data = encoded(picture(40, 30), format)
    end = len(data)
    for length in {*range(30, end, 7), *range(end - 12, end)}:
        refused = WALKS[format](data[:length], CONFIG)
        assert isinstance(refused, Refused) and refused.reason == "truncated", length


@pytest.mark.parametrize("format", WALKS)
def test_what_follows_the_end_is_left_behind(format: str) -> None:
    data = encoded(picture(40, 30), format)
    hidden = WALKS[format](data + b"PK\3\4 an archive", CONFIG)
    assert hidden == WALKS[format](data, CONFIG)


def test_every_kind_of_jpeg_metadata_is_left_behind_and_its_tables_stay() -> None:
    plain = encoded(picture(40, 30), "JPEG", progressive=True)
    exif = b"Exif\0\0" + b"MM\0*" + b"secret place"
    thumbnailed = b"JFIF\0\1\1\0\0\1\0\1" + bytes([1, 1]) + b"rgb"
    bodies = (
        segment(0xE0, thumbnailed),
        segment(0xE0, b"JFXX\0\x10secret"),
        segment(0xE1, exif),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0secret\xff\xfe"),
        segment(0xE2, b"ICC_PROFILE\0\1\1secret profile"),
        segment(0xED, b"Photoshop 3.0\0secret"),
        segment(0xFE, b"secret"),
    )
    stream = walk_jpeg(plain[:2] + b"".join(bodies) + plain[20:] + b"secret", CONFIG)
    assert isinstance(stream, Stream) and stream.exif == exif[6:] and stream.icc == b"secret profile"
    assert stream.data == plain  # Pillow writes the same JFIF segment, and nothing else that is left behind


def test_of_jfif_and_adobe_only_what_colours_mean_is_left() -> None:
    plain = encoded(picture(40, 30), "JPEG")
    jfif = [b"JFIF\0\1\2" + unit + b"\1\2\1\2\0\0" for unit in (b"\1", b"\2")]
    adobe = b"Adobe\0\x65\x11\x22\x33\x44\1"
    told = [segment(0xE0, one) for one in jfif] + [segment(0xEE, adobe + b"secret")] * 3 + [segment(0xEE, b"Adobe 2")]
    stream = walk_jpeg(plain[:2] + b"".join(told) + plain[20:], CONFIG)
    assert isinstance(stream, Stream)
    assert stream.data == plain[:20] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\1") + plain[20:]


@pytest.mark.parametrize("code", [0xDC, 0xDE, 0xDF, 0xF0, 0xFD, 0x02, 0xBF, 0xC8])
def test_no_segment_is_left_that_is_not_known_to_be_needed(code: int) -> None:
    plain = encoded(picture(40, 30), "JPEG")
    stream = walk_jpeg(plain[:20] + segment(code, b"secret") + plain[20:], CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain


def test_metadata_between_the_scans_of_a_progressive_jpeg_is_left_behind() -> None:
    plain = encoded(picture(40, 30), "JPEG", progressive=True)
    second = plain.index(b"\xff\xda", plain.index(b"\xff\xda") + 2)
    stream = walk_jpeg(plain[:second] + segment(0xFE, b"secret") + plain[second:], CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain


def test_the_header_of_a_jpeg_says_its_size() -> None:
    stream = walk_jpeg(encoded(picture(41, 23), "JPEG"), CONFIG)
    assert isinstance(stream, Stream) and stream.size == (41, 23)


def test_png_metadata_are_left_behind_and_transparency_stays() -> None:
    plain = encoded(picture(40, 30).convert("P"), "PNG", transparency=3)
    extra = (chunk(b"tEXt", b"Comment\0secret"), chunk(b"tIME", bytes(7)), chunk(b"eXIf", b"MM\0*secret"))
    stream = walk_png(after_header(plain, *extra), CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain and stream.exif == b"MM\0*secret"
    assert b"tRNS" in stream.data


def test_a_png_has_no_room_for_more_than_pixels() -> None:
    plain = encoded(picture(40, 30), "PNG")
    stuffed = after_header(plain[:-12], chunk(b"PLTE", b"secret")) + chunk(b"IEND", b"secret")
    stream = walk_png(stuffed, CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain
    refused = walk_png(plain[:8] + chunk(b"IHDR", plain[16:29] + b"secret") + plain[33:], CONFIG)
    assert refused == Refused("damaged", "the PNG's header has 19 bytes and not 13")


def test_a_png_chunk_with_a_wrong_checksum_is_refused_unless_not_strict() -> None:
    data = bytearray(encoded(picture(40, 30), "PNG"))
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 + length] ^= 1  # the first byte of the checksum itself: the pixels are whole
    refused = walk_png(bytes(data), CONFIG)
    assert isinstance(refused, Refused) and refused.reason == "damaged"
    assert isinstance(walk_png(bytes(data), ImageConfig(strict=False)), Stream)


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000))),
        chunk(b"iTXt", b"k\0\1\0en\0k\0" + zlib.compress(bytes(50_000_000))),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(50_000_000))),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_png_metadata_that_inflate_without_measure_are_a_bomb(bomb: bytes) -> None:
    refused = walk_png(after_header(encoded(picture(40, 30), "PNG"), bomb), CONFIG)
    assert isinstance(refused, Refused) and refused.reason == "metadata_bomb"


def test_an_ordinary_compressed_profile_is_no_bomb() -> None:
    profile = random.Random(0).randbytes(3000)
    data = encoded(picture(40, 30), "PNG", icc_profile=profile)
    stream = walk_png(data, ImageConfig(icc=True))
    assert isinstance(stream, Stream) and stream.icc == profile


def test_webp_metadata_are_left_behind_and_a_single_chunk_stays() -> None:
    plain = encoded(picture(40, 30), "WEBP")
    data = encoded(picture(40, 30), "WEBP", exif=b"Exif\0\0MM\0*secret", xmp=b"secret", icc_profile=b"secret profile")
    stream = walk_webp(data, CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain and stream.exif == b"MM\0*secret"


def test_webp_transparency_stays() -> None:
    image = picture(40, 30).convert("RGBA")
    image.putalpha(100)
    stream = walk_webp(encoded(image, "WEBP", xmp=b"secret"), CONFIG)
    assert isinstance(stream, Stream) and b"secret" not in stream.data
    assert Image.open(io.BytesIO(stream.data)).getpixel((0, 0))[3] == 100


@pytest.mark.parametrize("kind", [b"ANIM", b"VP8 ", b"VP8L", b"XMP ", b"ZZZZ"])
def test_a_still_webp_is_one_picture_and_nothing_else(kind: bytes) -> None:
    plain = encoded(picture(40, 30), "WEBP")
    content = plain[8:] + kind + struct.pack("<I", 28) + b"secret".ljust(28)
    stream = walk_webp(b"RIFF" + struct.pack("<I", len(content)) + content, CONFIG)
    assert isinstance(stream, Stream) and stream.data == plain


def test_a_webp_of_another_size_than_its_canvas_is_damaged() -> None:
    data = bytearray(encoded(picture(40, 30), "WEBP", xmp=b"x"))
    data[24] += 1  # the canvas
    refused = walk_webp(bytes(data), CONFIG)
    assert isinstance(refused, Refused) and refused.reason == "damaged"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_only_the_first_frame_is_left(format: str) -> None:
    frames = [picture(seed=seed) for seed in range(5)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=40)
    stream = WALKS[format](data, CONFIG)
    assert isinstance(stream, Stream) and stream.frames == 5 and len(stream.data) < len(data) / 3
    first = Image.open(io.BytesIO(data))
    assert np.array_equal(read(stream), np.asarray(first.convert("RGB")))
    assert getattr(Image.open(io.BytesIO(stream.data)), "n_frames", 1) == 1


def test_a_gif_frame_beyond_the_canvas_counts_for_its_size() -> None:
    data = bytearray(encoded(picture(40, 30), "GIF"))
    at = data.index(b"\x2c", 13 + (3 << (data[10] & 7) + 1))
    struct.pack_into("<H", data, at + 1, 60_000)
    stream = walk_gif(bytes(data), CONFIG)
    assert isinstance(stream, Stream) and stream.size == (60_040, 30)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WALKS)), st.data())
def test_no_bytes_make_a_walk_raise(format: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(picture(9, 7), format))
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(12, len(whole) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(whole[: data.draw(st.integers(12, len(whole)))])
    result = WALKS[format](changed, CONFIG)
    assert isinstance(result, Refused) or format_of(result.data) == format
