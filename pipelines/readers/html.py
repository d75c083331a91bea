"""Trees of HTML files: one document a file."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.core.files import open_read
from pipelines.readers.base import CorruptFile, Document, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.decompress import open_stream
from pipelines.readers.warc import as_json
from pipelines.text.charset import decode
from pipelines.text.extract import looks_binary, page_text
from schemas.ledger import REMOVED


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the one document of an HTML file, compressed or not: the text that `page_text` finds in it.

    It has no key; metadata: title, language, charset. Rejected: 'empty_file', 'text_too_long' (read no further than
    the limit), 'invalid_charset', 'unreadable_markup' (the extraction fails), and what the decompression reports.
    Removed by rule: 'binary_content', 'no_text'.
    """
    content = bytearray()
    try:
        with open_read(file.path) as raw:
            for chunk in open_stream(raw, file.path, config):
                content += chunk
                if len(content) > config.max_record_bytes:
                    detail = f"more than {config.max_record_bytes} bytes; the hash covers the first {len(content)}"
                    yield reject(0, "text_too_long", detail, bytes(content))
                    return
    except CorruptFile as error:
        yield reject(0, error.reason, str(error), bytes(content))
        return
    yield _page(bytes(content), config)


def _page(raw: bytes, config: ReadConfig) -> Item:
    if not raw:
        return reject(0, "empty_file", "the file is a document, and it has no text", raw)
    if looks_binary(raw):
        return Reject(0, "binary_content", "a file named as HTML that is no text", action=REMOVED)
    decoded = decode(raw)
    if decoded is None:
        return reject(0, "invalid_charset", f"{len(raw)} bytes in no known encoding", raw)
    try:
        page = page_text(decoded.text, config.html_main_content)
    except Exception as error:  # whatever a page does to the extraction, the others are read
        return reject(0, "unreadable_markup", f"{type(error).__name__}: {error}"[:160], raw)
    if not page.text.strip():
        return Reject(0, "no_text", "a page without text", action=REMOVED)
    metadata = {"title": page.title, "language": page.language, "charset": decoded.charset}
    return Document(page.text, None, as_json(metadata))
