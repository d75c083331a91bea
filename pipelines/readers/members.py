"""Decompress member by member, and go on behind damage: for formats whose records can be found again (WARC, dumps).

`decompress.open_stream` ends a file at its first damage, which is right where a record's bytes do not show where the
next one begins. Here a damaged member costs itself: the next one is looked for in the compressed bytes by its magic
number, and taken where what it holds begins as the format's records do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from pipelines.readers.base import MIB, CorruptFile, ReadConfig
from pipelines.readers.decompress import (
    ERRORS,
    IN_BYTES,
    OUT_BYTES,
    PADDED,
    Decoder,
    new_decoder,
    sniff,
    suffix_codec,
    zstd,
)

# A member that was cut is noticed only behind it: its decoder runs on into the next. A bzip2 block is at most 900 kB
# and a zstd block 128 KiB; deflate has no bound, but bytes that are none end it within some tens of kB.
LOOK_BACK = 4 * MIB
PREFIX = 256  # bytes of a member that must show that records begin there
# Compressed bytes in which PREFIX bytes come out, or the first block does: a decoder gives nothing of a zstd block
# (128 KiB and its headers, RFC 8878) or a bzip2 block (900 kB, which may grow by 1 %) before its end. Of gzip, a
# dynamic block's codes and 256 literals of 15 bits; the name and the comment before them have no bound.
_FIRST_BLOCK = {"gzip": 4 << 10, "zstd": 132 << 10, "bzip2": 1 << 20}
_SEARCH = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&SY"),
}
_MAGIC_BYTES = 16
# Given to a decoder at one time, twice as much with every piece: what it leaves is copied, and what it was given is
# what a damaged member has cost.
_FIRST_TAKE, _TAKE = 1 << 10, 64 << 10
# zstd-compressed WARC files of the IIPC's specification begin with a skippable frame of this number: a dictionary.
_ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


BOMB = "decompression_bomb"


class Start(NamedTuple):
    """A member begins with the next piece."""


class Damage(NamedTuple):
    """Bytes are missing here; `final`: nothing follows.

    reason: of CorruptFile; 'damaged_member' where more follows.
    """

    reason: str
    detail: str
    final: bool


Event = bytes | Start | Damage


class _Input:
    """The compressed bytes, which can be stepped back in as far as they are kept."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._kept = bytearray()
        self._base = 0
        self.at = 0  # offset in the file of what `take` gives next
        self.read = 0

    def _more(self) -> bool:
        data = self._raw.read(IN_BYTES)
        self._kept += data
        self.read += len(data)
        return bool(data)

    def peek(self, size: int) -> bytes:
        while len(self._kept) - (self.at - self._base) < size and self._more():
            pass
        start = self.at - self._base
        return bytes(self._kept[start : start + size])

    def take(self, size: int = _TAKE) -> bytes:
        piece = self.peek(1) and self.peek(min(size, max(1, self.read - self.at)))
        self.at += len(piece)
        return piece

    def keep_from(self, offset: int) -> None:
        """Forget what lies before `offset`."""
        if offset > self._base:
            del self._kept[: offset - self._base]
            self._base = offset

    def back_to(self, offset: int) -> None:
        self.at = max(offset, self._base)

    def find(self, pattern: re.Pattern[bytes]) -> bool:
        """Step forward to the next match; False at the end of the file."""
        while True:
            found = pattern.search(self._kept, self.at - self._base)
            if found is not None:
                self.at = self._base + found.start()
                return True
            self.at = max(self.at, self._base + len(self._kept) - _MAGIC_BYTES)
            self.keep_from(self.at)
            if not self._more():
                return False


def read_members(raw: BinaryIO, name: str, config: ReadConfig, credible: Callable[[bytes], bool]) -> Iterator[Event]:
    """Yield what a file decompresses to, with a Start before each member and a Damage where bytes are lost.

    credible: whether the first bytes of a member, up to PREFIX of them, are such as records begin with; asked only
    of members that are found behind damage. A file that is not compressed is one member. Memory is bounded, and so is
    the work of searching: bytes read again are at most eight times the file's.
    """
    source = _Input(raw)
    codec = sniff(source.peek(_MAGIC_BYTES)) or suffix_codec(name)
    if codec is None:
        yield Start()
        while piece := source.take():
            source.keep_from(source.at)
            yield piece
        return
    yield from _Members(source, codec, config, credible).events()


class _Members:
    def __init__(self, source: _Input, codec: str, config: ReadConfig, credible: Callable[[bytes], bool]) -> None:
        self._source = source
        self._codec = codec
        self._config = config
        self._credible = credible
        self._new = new_decoder(codec, config)
        self._searched = 0

    def events(self) -> Iterator[Event]:
        source = self._source
        dictionary = source.peek(4) == _ZSTD_DICTIONARY
        while True:
            if self._codec in PADDED and not source.peek(1).strip(b"\0"):
                self._skip_padding()
            start = source.at
            if not source.peek(1):
                return
            try:
                if dictionary:
                    self._load_dictionary()
                    dictionary = False
                    continue
                yield Start()
                yield from self._member(start)
            except CorruptFile as error:
                dictionary = False
                found = self._resume(start + 1)
                lasting = not found or error.reason == BOMB
                yield Damage(error.reason if lasting else "damaged_member", str(error), not found)
                if not found:
                    return

    def _skip_padding(self) -> None:
        while (piece := self._source.take()) and not piece.strip(b"\0"):
            self._source.keep_from(self._source.at)
        self._source.back_to(self._source.at - len(piece.lstrip(b"\0")))

    def _member(self, start: int) -> Iterator[bytes]:
        """Yield one member; the source stands behind it then. Raises CorruptFile as `open_stream` does."""
        source, config = self._source, self._config
        if sniff(source.peek(_MAGIC_BYTES)) != self._codec:
            raise CorruptFile("unreadable_file", f"no {self._codec} member begins at byte {start}")
        decoder: Decoder = self._new()
        size, out_bytes = _FIRST_TAKE, 0
        data = source.take(size)
        while True:
            try:
                out = decoder.decompress(data, OUT_BYTES)
            except ERRORS as error:
                raise CorruptFile("unreadable_file", f"damaged {self._codec} member at byte {start}: {error}") from None
            out_bytes += len(out)
            if out_bytes > config.bomb_bytes and out_bytes > config.bomb_ratio * (source.at - start):
                raise CorruptFile(BOMB, f"{out_bytes} bytes out of {source.at - start}, at byte {start}")
            if out:
                yield out
            if decoder.eof:
                source.back_to(source.at - len(decoder.unused_data))
                source.keep_from(source.at)
                return
            data = b""
            if decoder.needs_input:
                source.keep_from(source.at - LOOK_BACK)
                size = min(2 * size, _TAKE)
                data = source.take(size)
                if not data:
                    raise CorruptFile("truncated_file", f"the {self._codec} member at byte {start} has no end")

    def _resume(self, offset: int) -> bool:
        """Step to the next member at or after `offset`, as far as it is kept, which holds what records begin with."""
        source, pattern = self._source, _SEARCH.get(self._codec)
        ahead = source.at
        source.back_to(offset)
        self._searched += max(0, ahead - source.at)
        while pattern is not None and source.find(pattern):
            at = source.at
            if self._searched > 64 * MIB + 8 * source.read:
                return False
            credible = self._credible(self._prefix())
            self._searched += source.at - at
            source.back_to(at)
            if credible:
                return True
            self._searched += 8 * PREFIX  # about what a decoder costs
            source.back_to(at + 1)
            source.keep_from(at + 1)
        return False

    def _prefix(self) -> bytes:
        """Read the first bytes of the member that begins here; the source stands behind what the decoder was given."""
        source, decoder, prefix = self._source, self._new(), b""
        size, last = PREFIX, source.at + _FIRST_BLOCK[self._codec]
        data = source.take(size)
        try:
            while len(prefix) < PREFIX and not decoder.eof and (data or not decoder.needs_input):
                prefix += decoder.decompress(data, PREFIX - len(prefix))
                data = b""
                if decoder.needs_input and len(prefix) < PREFIX and not decoder.eof:
                    data = source.take(min(size, last - source.at))
                    size = min(2 * size, _TAKE)
        except ERRORS:
            pass
        return prefix

    def _load_dictionary(self) -> None:
        source = self._source
        source.take(4)
        size = int.from_bytes(source.take(4), "little")
        if size > self._config.max_record_bytes:
            raise CorruptFile("unreadable_file", f"a zstd dictionary of {size} bytes")
        raw = source.peek(size)
        source.back_to(source.at + len(raw))
        options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: self._config.zstd_window_log}
        try:
            if raw.startswith(_ZSTD_MAGIC):
                raw = zstd.ZstdDecompressor(options=options).decompress(raw, self._config.max_record_bytes)
            dictionary = zstd.ZstdDict(raw)
        except ERRORS as error:
            raise CorruptFile("unreadable_file", f"damaged zstd dictionary: {error}") from None
        self._new = lambda: zstd.ZstdDecompressor(dictionary, options)
