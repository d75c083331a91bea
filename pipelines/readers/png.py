"""Write grey pixels as PNG, always as the same bytes: nothing is compressed, so no version of zlib decides on them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STORED = 65_535  # bytes that a stored block of deflate holds at most (RFC 1951, 3.2.4)


def grey(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8[height, width] as an 8-bit grey PNG (PNG 3rd edition; the stream of RFC 1950 in stored blocks)."""
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a row begins with the number of its filter: 0, none
    rows[:, 1:] = pixels
    raw = rows.tobytes()
    blocks = [b"\x78\x01"]
    for start in range(0, len(raw), _STORED):
        block = raw[start : start + _STORED]
        last = start + _STORED >= len(raw)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    blocks.append(struct.pack(">I", zlib.adler32(raw)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(blocks)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
