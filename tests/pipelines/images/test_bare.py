"""Compressed data that are kept: nothing behind them or between them, and the same bytes where there was nothing."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.images import huffman
from pipelines.images.bare import bare
from pipelines.images.config import ImageConfig, Processed
from pipelines.images.huffman import trim_jpeg
from pipelines.images.process import process
from pipelines.images.streams import Stream, walk_jpeg

from .pictures import encoded

SECRET = b"GPS 48.8584N 2.2945E secret"


def picture(width: int = 90, height: int = 61, noise: int = 3) -> Image.Image:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray((np.asarray(rough) // 2 + rng.integers(0, noise, (height, width, 3))).astype(np.uint8))


def done(data: bytes) -> Processed:
    result = process(data, ImageConfig())
    assert isinstance(result, Processed), result
    return result


def stripped(data: bytes) -> bytes:
    stream = walk_jpeg(data, ImageConfig())
    assert isinstance(stream, Stream)
    return stream.data


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_what_stands_behind_a_scan_is_cut_off_and_no_bit_more(mode: str, progressive: bool) -> None:
    kinds = itertools.product(("4:4:4", "4:2:2", "4:2:0"), (50, 97), (0, 3), (8, 80), ((33, 17), (90, 61)))
    for subsampling, quality, restart, noise, size in kinds:
        options = {"quality": quality, "restart_marker_blocks": restart, "progressive": progressive}
        plain = stripped(encoded(picture(*size, noise).convert(mode), "JPEG", subsampling=subsampling, **options))
        assert trim_jpeg(plain) == plain
        assert trim_jpeg(stripped(plain[:-2] + b"\0" + SECRET + b"\xff\0\0\xff\xd3\xff\xd9")) == plain
        second = plain.find(b"\xff\xda", plain.index(b"\xff\xda") + 2)
        if second > 0:  # the tables of the second scan may stand in between
            stop = stripped(plain).rfind(b"\xff\xc4", 0, second)
            assert trim_jpeg(plain[:stop] + SECRET + plain[stop:]) == plain


@given(st.lists(st.integers(0, 3), min_size=16, max_size=16), st.integers(0, 99))
def test_codes_are_found_as_annex_c_assigns_them(counts: list[int], seed: int) -> None:
    rng = random.Random(seed)
    symbols = bytes(rng.randrange(256) for _ in range(sum(counts)))
    codes, code, valid = {}, 0, True
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            valid = valid and code < 1 << length
            codes[f"{code:0{length}b}"] = length << 8 | symbols[len(codes)]
            code += 1
        code <<= 1
    row = np.empty(huffman._ROW, np.int32)
    table = np.frombuffer(bytes(counts), np.uint8), np.frombuffer(symbols, np.uint8)
    assert huffman._fill_table(row, *table) == valid
    if valid:
        for bits in (
            0,
            0xFFFF,
            *(rng.randrange(1 << 16) for _ in range(50)),
            *(int(c.ljust(16, "0"), 2) for c in codes),
        ):
            found = [entry for c, entry in codes.items() if f"{bits:016b}".startswith(c)]
            assert huffman._code(row, bits) == (found[0] if found else 0)
        huffman._look_ahead(row)
        passed = row[huffman._PASSED :]
        assert passed.tolist() == [whole_coefficients(codes, f"{bits:011b}") for bits in range(1 << 11)]


def whole_coefficients(codes: dict[str, int], bits: str) -> int:
    """Places << 8 | bits of the coefficients that begin `bits` and end in it; codes beyond nine bits are not known."""
    places, at = 0, 0
    while True:
        found = [entry for c, entry in codes.items() if len(c) <= 9 and bits.startswith(c, at)]
        zeros, size = (found[0] >> 4 & 15, found[0] & 15) if found else (0, 0)
        if ((size, zeros) != (0, 15) and size == 0) or at + (found[0] >> 8) + size > len(bits):
            return places << 8 | at
        places, at = places + zeros + 1, at + (found[0] >> 8) + size


def test_what_cannot_be_followed_is_encoded_anew() -> None:
    plain = encoded(picture(), "JPEG", restart_marker_blocks=4)
    at = plain.index(b"\xff\xd2")
    hidden = plain[:at] + SECRET + plain[at:]  # within a scan
    assert trim_jpeg(hidden) is None
    assert SECRET not in done(hidden).data
    assert trim_jpeg(plain[: len(plain) // 2] + b"\xff\xd9") is None


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("depth_and_colours", [(1, 0), (4, 0), (8, 0), (8, 2)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_inflates_to_its_pixels_and_no_more(depth_and_colours: tuple[int, int], interlaced: int) -> None:
    depth, colours = depth_and_colours
    width, height, bits = 11, 5, depth * (3 if colours else 1)
    # Adam7's passes of 11 × 5 pixels, counted by hand in its grid
    passes = [(2, 1), (1, 1), (3, 1), (3, 2), (6, 1), (5, 3), (11, 2)] if interlaced else [(11, 5)]
    rows = b"".join((b"\0" + bytes((columns * bits + 7) // 8)) * count for columns, count in passes)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))

    def png(*idat: bytes) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(b"IDAT", one) for one in idat) + chunk(b"IEND", b"")

    body = zlib.compress(rows)
    for whole in (png(body), png(body[:7], body[7:])):
        assert bare("PNG", whole) == whole and Image.open(io.BytesIO(whole)).tobytes()
    for hidden in (png(body + SECRET), png(body, SECRET), png(zlib.compress(rows + SECRET, 0))):
        assert bare("PNG", hidden) is None
        assert SECRET not in done(hidden).data and done(hidden).pixel_hash == done(png(body)).pixel_hash


def webp(kind: bytes, body: bytes) -> bytes:
    content = b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("options", [{"quality": 1}, {"quality": 90, "method": 0}, {"quality": 80}, {"lossless": True}])
def test_nothing_stands_behind_the_partitions_of_a_webp(options: dict) -> None:
    for size in ((1, 1), (33, 17), (90, 61)):
        data = encoded(picture(*size), "WEBP", **options)
        assert bare("WEBP", data) == data and done(data).data == data
        kind, body = data[12:16], data[20 : 20 + int.from_bytes(data[16:20], "little")]
        hidden = [webp(kind, body + SECRET)]
        if kind == b"VP8 ":
            tag = int.from_bytes(body[:3], "little")
            end = 10 + (tag >> 5)
            longer = (tag + (len(SECRET) << 5)).to_bytes(3, "little")
            hidden.append(webp(kind, longer + body[3:end] + SECRET + body[end:]))
        for one in hidden:
            assert bare("WEBP", one) is None
            assert SECRET not in done(one).data and done(one).pixel_hash == done(data).pixel_hash
