"""Split a file into lines in bounded memory, whatever its encoding mark, its line ends and its longest line."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

import xxhash

from pipelines.core.files import open_read
from pipelines.readers.base import MIB, CorruptFile, InputFile, ReadConfig, Reject
from pipelines.readers.decompress import open_stream

BOM = codecs.BOM_UTF8
# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first. JSON texts without a mark show their
# encoding by the zeros around their first brace (RFC 4627, section 3).
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\0\0\0", "utf-32-le"),
    (b"\0\0\0{", "utf-32-be"),
    (b"{\0", "utf-16-le"),
    (b"\0{", "utf-16-be"),
)


def other_encoding(head: bytes) -> str | None:
    """Name the encoding that the first four bytes of a file show, where it is not UTF-8."""
    return next((name for mark, name in _ENCODINGS if head.startswith(mark)), None)


def as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file as UTF-8, decoding UTF-16 and UTF-32; a UTF-8 mark stays in place.

    Raises CorruptFile 'invalid_utf16' where a file that begins as UTF-16 or UTF-32 does not go on as such.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 4:
            break
    encoding = other_encoding(head)
    if encoding is None:
        if head:
            yield head
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    while True:
        try:
            text = decoder.decode(head, final=not head)
        except UnicodeDecodeError as error:
            raise CorruptFile("invalid_utf16", f"not valid {encoding}: {error.reason}") from None
        if text:
            yield text.encode()
        if not head:
            return
        head = next(chunks, b"")


class _Line:
    """The line in progress: its pieces, or, once it is too long, only its length and hash."""

    def __init__(self, start: int, limit: int) -> None:
        self.start = start
        self.limit = limit
        self.size = 0
        self.pieces: list[bytes] = []
        self.hash: xxhash.xxh3_128 | None = None

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.pieces.append(piece)
        if self.size > self.limit:
            self.hash = self.hash or xxhash.xxh3_128()
            for kept in self.pieces:
                self.hash.update(kept)
            self.pieces.clear()

    def end(self) -> bytes | Reject:
        if self.hash is None:
            line = b"".join(self.pieces) if len(self.pieces) != 1 else self.pieces[0]
            return line[len(BOM) :] if self.start == 0 and line.startswith(BOM) else line
        detail = f"{self.size} bytes, the limit is {self.limit}"
        return Reject(self.start, "line_too_long", detail, self.hash.digest())


def split_lines(chunks: Iterable[bytes], limit: int, start: int = 0) -> Iterator[tuple[int, bytes | Reject]]:
    """Yield (byte offset, line without its newline); the offset of the first byte is `start`.

    Only b"\\n" ends a line: a carriage return stays on its line, and U+2028 splits nothing. A last line without a
    newline is a line; nothing follows a last newline. A line of more than `limit` bytes comes as a Reject
    'line_too_long', at no more memory than the limit and one chunk. A CorruptFile from the chunks ends the lines with
    one Reject that stands where the unfinished line began. The UTF-8 mark of a file's first line is taken off.
    """
    line = _Line(start, limit)
    try:
        for chunk in chunks:
            pieces = chunk.split(b"\n")
            line.add(pieces[0])
            if len(pieces) == 1:
                continue
            yield line.start, line.end()
            offset = line.start + line.size + 1
            for i in range(1, len(pieces) - 1):
                piece = pieces[i]
                size = len(piece)
                if size > limit:
                    long = _Line(offset, limit)
                    long.add(piece)
                    yield offset, long.end()
                else:
                    yield offset, piece
                offset += size + 1
            line = _Line(offset, limit)
            line.add(pieces[-1])
    except CorruptFile as error:
        yield line.start, Reject(line.start, error.reason, str(error))
        return
    if line.size:
        yield line.start, line.end()


def read_lines(file: InputFile, config: ReadConfig) -> Iterator[tuple[int, bytes | Reject]]:
    """Yield (byte offset, line or Reject) of a file, decompressed and as UTF-8, or of its byte range.

    Offsets count the decompressed UTF-8 bytes. A range yields the lines that begin in it, so ranges that touch yield
    every line of the file once.
    """
    with open_read(file.path) as raw:
        if file.start == 0:
            chunks = as_utf8(open_stream(raw, file.path, config))
            lines = split_lines(chunks, config.max_record_bytes)
        else:
            # The line that covers the byte before the range is the range before's, newline included.
            raw.seek(file.start - 1)
            lines = split_lines(iter(lambda: raw.read(MIB), b""), config.max_record_bytes, file.start - 1)
            next(lines, None)
        for offset, line in lines:
            if file.end is not None and offset >= file.end:
                return
            yield offset, line
