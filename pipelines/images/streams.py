"""Walk through encoded images: find what is missing or damaged, and leave metadata and later frames behind.

Decoders get only what is left, so that no parser but these few lines ever sees EXIF, XMP, comments, profiles,
thumbnails inside of images, or what follows their end; and what is left is also a lossless copy without them.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from pipelines.images.config import ImageConfig, Refused

_MOST_INFLATED = 1 << 20  # bytes of a PNG's text or profile: PngImagePlugin.MAX_TEXT_CHUNK
_MOST_DEFLATE_RATIO = 1032  # of zlib, by its own documentation
_EXIF = b"Exif\0\0"

# A marker, but no stuffed zero, fill byte or restart marker: what ends compressed data (ITU-T T.81, B.1.1.2).
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # sequential and progressive, Huffman and arithmetic: what libjpeg decodes
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # DHT, DAC, DQT, DRI
# JFIF 1.1 without density, Adobe's marker of version 100 without flags: as libjpeg writes them. That they are there,
# and Adobe's transform, say what the components are; the rest is no matter of pixels, and would only tell copies apart.
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
_GIF_PICTURE, _GIF_EXTENSION, _GIF_CONTROL, _GIF_TRAILER = 0x2C, 0x21, 0xF9, 0x3B
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_HEADER, _PNG_PALETTE = 13, 3  # bytes of IHDR; the colour type that has one
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class Stream(NamedTuple):
    """An encoded image without metadata, and what was said about it.

    data: the first frame alone. size: width and height by the header, where decoders would allocate before they tell.
    frames: how many there were. exif: with its TIFF header first; empty without. icc: the colour profile; empty
    without. eight_bits: false where decoding loses precision.
    """

    data: bytes
    size: tuple[int, int] | None = None
    frames: int = 1
    exif: bytes = b""
    icc: bytes = b""
    eight_bits: bool = True


def _truncated(what: str) -> Refused:
    return Refused("truncated", what)


def walk_jpeg(data: bytes, config: ImageConfig) -> Stream | Refused:
    """Keep tables, the frame header and scans, no other segment (DNL neither); end at the first EOI.

    Of JFIF's and Adobe's segments the first one is kept, with nothing in it but Adobe's transform.
    """
    kept, exif, size, scans, at = [data[:2]], b"", None, 0, 2
    icc: list[bytes] = []
    jfif = adobe = False
    while True:
        marker = MARKER.search(data, at)
        if marker is None:
            if config.strict or not scans:
                return _truncated("no EOI marker at the end of the JPEG")
            return Stream(b"".join(kept), size, 1, exif, b"".join(icc))
        start, code = marker.start(), data[marker.end() - 1]
        at = marker.end()
        if code == _EOI:
            if not scans:
                return Refused("damaged", "a JPEG without a scan")
            kept.append(b"\xff\xd9")
            return Stream(b"".join(kept), size, 1, exif, b"".join(icc))
        if code == _SOI:
            return Refused("damaged", "a JPEG begins within the JPEG")
        if code == _TEM:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            return _truncated(f"segment ff{code:02x} of the JPEG is cut off")
        at, body = end, data[at + 2 : end]
        if code in _OTHER_FRAMES or (code in _FRAMES and body[:1] != b"\x08"):
            return Refused(
                "unsupported", f"a JPEG of frame type ff{code:02x} with {body[0] if body else 0}-bit samples"
            )
        if code in _FRAMES:
            if size or len(body) < 6:
                return Refused("damaged", "a JPEG with two frame headers, or a short one")
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        if code == _SOS:
            scans += 1
            if size is None:
                return Refused("damaged", "a JPEG with a scan before its frame header")
            if scans > config.max_scans:
                return Refused("too_many_scans", f"a JPEG of more than {config.max_scans} scans")
            scan_end = MARKER.search(data, end)
            at = scan_end.start() if scan_end else len(data)
            kept.append(data[start:at])
        elif code in _FRAMES or code in _TABLES:
            kept.append(data[start:end])
        elif code == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:  # libjpeg overlooks shorter ones too
            kept += [] if jfif else [_JFIF]
            jfif = True
        elif code == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            kept += [] if adobe else [_ADOBE + body[11:12]]
            adobe = True
        elif code == 0xE1 and body.startswith(_EXIF):
            exif = exif or body[len(_EXIF) :]
        elif code == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            icc.append(body[14:])


def _inflates_too_far(kind: bytes, body: bytes) -> bool:
    """Tell whether a PNG chunk holds compressed metadata of more than _MOST_INFLATED bytes."""
    if len(body) * _MOST_DEFLATE_RATIO <= _MOST_INFLATED or kind not in (b"zTXt", b"iCCP", b"iTXt"):
        return False
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return False
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        rest = rest[1:]
    try:
        return len(zlib.decompressobj().decompress(rest, _MOST_INFLATED + 1)) > _MOST_INFLATED
    except zlib.error:
        return False


def _inflate_profile(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], _MOST_INFLATED)
    except zlib.error:
        return b""


def walk_png(data: bytes, config: ImageConfig) -> Stream | Refused:
    """Keep the chunks that decoding needs, and check their sums; of an animation that is its default image.

    A palette is kept where pixels are its indices; a mere suggestion (PNG, 11.2.2) is not. IEND is empty, whatever it
    held.
    """
    kept, view, at = [data[:8]], memoryview(data), 8
    size, depth, colours, frames, exif, icc, pixels = (0, 0), 0, 0, 1, b"", b"", False
    while True:
        if at + 12 > len(data):
            if config.strict or not pixels:
                return _truncated("no IEND chunk at the end of the PNG")
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            if config.strict or kind != b"IDAT":
                return _truncated(f"chunk {kind.decode('latin-1')!r} of the PNG is cut off")
            kept.append(data[at:])
            break
        if kind in _PNG_KEPT:
            if config.strict and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                return Refused("damaged", f"chunk {kind.decode()} of the PNG has a wrong checksum")
            if kind != b"IEND" and (kind != b"PLTE" or colours == _PNG_PALETTE):
                kept.append(data[at:end])
            pixels = pixels or kind == b"IDAT"
        if kind == b"IHDR":
            if length != _PNG_HEADER:
                return Refused("damaged", f"the PNG's header has {length} bytes and not {_PNG_HEADER}")
            size, (depth, colours) = struct.unpack_from(">II", data, at + 8), data[at + 16 : at + 18]
        elif kind == b"acTL" and not pixels and length >= 4:
            frames = max(1, int.from_bytes(data[at + 8 : at + 12], "big"))
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind == b"IEND":
            kept.append(_PNG_END)
            break
        elif kind not in _PNG_KEPT and _inflates_too_far(kind, data[at + 8 : end - 4]):
            return Refused("metadata_bomb", f"chunk {kind.decode()} of the PNG inflates to more than a mebibyte")
        elif kind == b"iCCP" and config.icc:
            icc = _inflate_profile(data[at + 8 : end - 4])
        at = end
    return Stream(b"".join(kept), size, min(frames, 2**31 - 1), exif, icc, depth <= 8)


def walk_webp(data: bytes, config: ImageConfig) -> Stream | Refused:
    """Keep the picture's chunks, one of each kind; of an animation the first frame."""
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if riff_end > len(data):
        return _truncated(f"{riff_end - len(data)} bytes are missing at the end of the WebP")
    kept: dict[bytes, bytes] = {}
    header, size, frames, exif, icc, at = b"", None, 0, b"", b"", 12
    while at + 8 <= riff_end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if end > riff_end:
            return _truncated(f"chunk {kind.decode('latin-1')!r} of the WebP is cut off")
        body, chunk = data[at + 8 : end], data[at:end] + b"\0" * (length & 1)
        if kind == b"VP8X" and length >= 10:
            header = header or chunk
        elif kind in (b"VP8 ", b"VP8L"):
            if size is None:  # the second picture is none
                kept[kind], size = chunk, _vp8_size(kind, body)
        elif kind in (b"ALPH", b"ANIM", b"ANMF"):
            frames += kind == b"ANMF"
            kept.setdefault(kind, chunk)
        elif kind == b"EXIF":
            exif = exif or body.removeprefix(_EXIF)
        elif kind == b"ICCP":
            icc = icc or body
        at = end + (length & 1)
    canvas = header and (int.from_bytes(header[12:15], "little") + 1, int.from_bytes(header[15:18], "little") + 1)
    size = canvas if frames and canvas else size
    if size is None or (canvas and size != canvas):
        return Refused("damaged", "a WebP without a picture, or with one of another size than it says")
    if not frames:
        kept.pop(b"ANIM", None)
    needed = header and (frames or b"ALPH" in kept)
    first = header[:8] + bytes([header[8] & 0x12]) + header[9:] if needed else b""  # flags: only alpha and animation
    content = b"WEBP" + first + b"".join(kept.values())
    return Stream(b"RIFF" + struct.pack("<I", len(content)) + content, size, max(1, frames), exif, icc)


def _vp8_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """Width and height of a lossy (RFC 6386, 9.1) or lossless WebP bitstream."""
    if kind == b"VP8 " and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def walk_gif(data: bytes, config: ImageConfig) -> Stream | Refused:
    """Keep the first frame with its colours and its transparency; count the others."""
    if len(data) < 13:
        return _truncated("the GIF's header is cut off")
    at = 13 + _colours(data[10])
    kept, frames = [data[:at]], 0
    try:
        while data[at] != _GIF_TRAILER:
            start, block = at, data[at]
            if block == _GIF_PICTURE:
                at = _sub_blocks(data, at + 11 + _colours(data[at + 9]))
                frames += 1
            elif block == _GIF_EXTENSION:
                at = _sub_blocks(data, at + 2)
            else:
                return Refused("damaged", f"a GIF with an unknown block {block:02x}")
            if frames == (block == _GIF_PICTURE) and (block == _GIF_PICTURE or data[start + 1] == _GIF_CONTROL):
                kept.append(data[start:at])
    except IndexError:
        if config.strict or not frames:
            return _truncated("no trailer at the end of the GIF")
    if not frames:
        return Refused("damaged", "a GIF without a picture")
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, wide, high = struct.unpack_from("<4H", kept[-1], 1)
    return Stream(b"".join(kept) + b";", (max(width, left + wide), max(height, top + high)), frames)


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1
