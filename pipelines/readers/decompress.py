"""Decompress a file as it is read: gzip, zstd, bzip2, xz, all members, in bounded memory; a cut file raises."""

from __future__ import annotations

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from pipelines.readers.base import MIB, CorruptFile, ReadConfig

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}
IN_BYTES = 256 << 10
OUT_BYTES = MIB

# RFC 1952; RFC 8878 (3.1.1 frames, 3.1.2 skippable frames); bzip2's header and its block's or end's mark (pi, sqrt pi);
# the xz format 1.2 (2.1.1.1).
_MAGIC = (
    ("gzip", re.compile(rb"\x1f\x8b\x08")),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
    ("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
)
ERRORS = (zlib.error, zstd.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)
PADDED = ("gzip", "xz")


class Decoder(Protocol):
    """The decompressor interface of bz2, lzma and zstd."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """One gzip member behind the interface of the other decompressors."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # zlib may hold output back without unread input, but only where it has just filled the whole allowance.
        self.needs_input = len(out) < max_length
        return out


def suffix_codec(name: str) -> str | None:
    """Name the compression that a file's suffix promises, or None."""
    dot = name.rfind(".")
    return SUFFIXES.get(name[dot:].lower()) if dot >= 0 else None


def sniff(head: bytes) -> str | None:
    """Name the compression that the first bytes of a file show, or None."""
    return next((codec for codec, magic in _MAGIC if magic.match(head)), None)


def open_stream(raw: BinaryIO, name: str, config: ReadConfig) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file in pieces of 1 byte to 1 MiB; an empty file yields none.

    The first bytes decide how; a suffix that promises a compression which they do not show is an error.
    Raises CorruptFile: 'truncated_file' (ends inside a member), 'unreadable_file' (damaged, or followed by something
    else), 'decompression_bomb' (see ReadConfig). Every piece read before the damage has been yielded by then.
    """
    head = read_head(raw)
    codec = sniff(head)
    if codec is not None:
        yield from _decompress(raw, head, codec, config)
        return
    promised = suffix_codec(name)
    if head and promised is not None:
        raise CorruptFile("unreadable_file", f"the suffix says {promised}, the first bytes do not")
    while head:
        yield head
        head = raw.read(OUT_BYTES)


def read_head(raw: BinaryIO) -> bytes:
    """Read the first bytes of a file: at least 16 where it holds as many."""
    head = raw.read(IN_BYTES)
    while len(head) < 16 and (more := raw.read(16)):  # object stores may return less than was asked for
        head += more
    return head


def new_decoder(codec: str, config: ReadConfig) -> Callable[[], Decoder]:
    """Name what makes the decompressor of one member."""
    if codec == "gzip":
        return _Gzip
    if codec == "bzip2":
        return bz2.BZ2Decompressor
    if codec == "xz":
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)
    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: config.zstd_window_log}
    return lambda: zstd.ZstdDecompressor(options=options)


def _decompress(raw: BinaryIO, data: bytes, codec: str, config: ReadConfig) -> Iterator[bytes]:
    new = new_decoder(codec, config)
    decoder = new()
    bytes_in, bytes_out = len(data), 0
    while True:
        try:
            out = decoder.decompress(data, OUT_BYTES)
        except ERRORS as error:
            raise CorruptFile("unreadable_file", f"damaged {codec} data after {bytes_out} bytes: {error}") from error
        if out:
            bytes_out += len(out)
            if bytes_out > config.bomb_bytes and bytes_out > config.bomb_ratio * bytes_in:
                raise CorruptFile("decompression_bomb", f"{bytes_out} bytes out of the first {bytes_in}")
            yield out
        if decoder.eof:
            data = decoder.unused_data.lstrip(b"\0") if codec in PADDED else decoder.unused_data
            while not data and (more := raw.read(IN_BYTES)):
                bytes_in += len(more)
                data = more.lstrip(b"\0") if codec in PADDED else more
            if not data:
                return
            decoder = new()
        elif decoder.needs_input:
            data = raw.read(IN_BYTES)
            bytes_in += len(data)
            if not data:
                raise CorruptFile("truncated_file", f"the {codec} data end inside a member, after {bytes_out} bytes")
        else:
            data = b""
