"""Plain text and Markdown: one document a file."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from pipelines.core.files import open_read
from pipelines.readers.base import CorruptFile, Document, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.decompress import open_stream
from pipelines.readers.lines import BOM, as_utf8


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the one document of a file, compressed or not.

    The text is kept as it is, but for an encoding mark; it has no key and no metadata. Rejected: 'empty_file',
    'invalid_utf8', 'text_too_long' (read no further than the limit), and what the decompression reports.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        with open_read(file.path) as raw:
            for chunk in as_utf8(open_stream(raw, file.path, config)):
                pieces.append(chunk)
                size += len(chunk)
                if size > config.max_record_bytes:
                    detail = f"more than {config.max_record_bytes} bytes; the hash covers the first {size}"
                    yield Reject(0, "text_too_long", detail, _hash(pieces))
                    return
    except CorruptFile as error:
        yield Reject(0, error.reason, str(error), _hash(pieces))
        return
    content = b"".join(pieces)
    if not content:
        yield reject(0, "empty_file", "the file is a document, and it has no text", content)
        return
    try:
        yield Document(content.removeprefix(BOM).decode(), None, None)
    except UnicodeDecodeError as flaw:
        yield reject(0, "invalid_utf8", f"{flaw.reason} at byte {flaw.start}", content)


def _hash(pieces: list[bytes]) -> bytes:
    return xxhash.xxh3_128_digest(b"".join(pieces))
