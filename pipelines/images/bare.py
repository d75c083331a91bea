"""Keep compressed data as they are only where they hold pixels and nothing else.

The walks of `streams` have left behind what stands between and in segments and chunks. Here is looked for what hides
behind the compressed data themselves, which no decoder reads and every copy would carry on:
- JPEG: the codes of each scan are followed to their end, and what stands before the next marker is cut off
  (`huffman.trim_jpeg`). What cannot be followed, arithmetic coding among it, is to be encoded anew.
- PNG: the one zlib stream must end with the last IDAT chunk, and inflate to no more and no less than the pixels.
- WebP: its decoder refuses data that end early, so a picture that can do without its last bytes, or without those of
  its first partition, holds more than it needs. Of more than one partition of coefficients this cannot be said.
- Whatever has another layout than the few chunks of a still picture without alpha.
What is left to hide in are values that say nothing, not bytes: bits that fill up a byte, codes and tables of which no
use is made, the scale of a VP8 header, up to three bytes that a WebP encoder may add itself.
"""

from __future__ import annotations

import io
import struct
import zlib

from PIL import WebPImagePlugin as WebpImagePlugin

from pipelines.images.huffman import trim_jpeg

_PIECE = 1 << 14  # bytes that are inflated at once: at most 1032 times as many
_SLACK = 4  # bytes: what is one more than libwebp's encoder writes beyond what its decoder reads
_CHANNELS = {0: 1, 2: 3}  # of PNG's colour types grey and RGB
# Adam7 (PNG, 8.2): first column and row of each pass, and the steps to the next
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def bare(format: str, data: bytes) -> bytes | None:
    """Return compressed data that hold the pixels and nothing else, or None where the image is to be encoded anew.

    data: a JPEG, PNG or WebP without alpha as the walks of `streams` leave it, which was decoded without a complaint.
    """
    if format == "JPEG":
        return trim_jpeg(data)
    return data if {"PNG": _png_is_bare, "WEBP": _webp_is_bare}[format](data) else None


def _png_is_bare(data: bytes) -> bool:
    width, height, depth, colours, compression, filters, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if colours not in _CHANNELS or compression or filters or interlaced > 1:
        return False
    bits = depth * _CHANNELS[colours]
    expected = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    inflater, at, inflated = zlib.decompressobj(), 33, 0  # behind IHDR
    try:
        while data[at + 4 : at + 8] == b"IDAT":
            end = at + 8 + int.from_bytes(data[at : at + 4], "big")
            if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                return False
            for start in range(at + 8, end, _PIECE):
                if inflater.eof:
                    return False
                inflated += len(inflater.decompress(data[start : min(start + _PIECE, end)]))
            at = end + 4
    except zlib.error:
        return False
    whole = inflater.eof and not inflater.unused_data and inflated == expected
    return whole and len(data) == at + 12 and data[at + 4 : at + 8] == b"IEND"


def _webp_is_bare(data: bytes) -> bool:
    kind, length = data[12:16], int.from_bytes(data[16:20], "little")
    body = data[20 : 20 + length]
    if kind not in (b"VP8 ", b"VP8L") or len(data) != 20 + length + (length & 1):
        return False
    if _decodes(kind, body[:-_SLACK]):
        return False
    if kind == b"VP8L":
        return True
    # The frame's tag: its lowest bit is 0 in a key frame, bits 5 to 23 are the length of the first partition, which
    # follows 10 bytes of header (RFC 6386, 9.1).
    tag = int.from_bytes(body[:3], "little")
    first = tag >> 5
    shorter = (tag & 31 | (first - _SLACK) << 5).to_bytes(3, "little") if first > _SLACK else b""
    return not shorter or not _decodes(kind, shorter + body[3 : 10 + first - _SLACK] + body[10 + first :])


def _decodes(kind: bytes, body: bytes) -> bool:
    content = b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    try:
        WebpImagePlugin.WebPImageFile(io.BytesIO(b"RIFF" + struct.pack("<I", len(content)) + content)).load()
    except MemoryError:
        raise
    except Exception:  # what it raises at data that end early
        return False
    return True
