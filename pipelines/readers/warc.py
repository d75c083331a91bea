"""WARC, ARC and WET files: web pages as crawlers and archives keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import orjson
import xxhash

from pipelines.core.files import open_read
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject
from pipelines.readers.decompress import suffix_codec
from pipelines.readers.feed import Feed
from pipelines.readers.http import HttpError, decode_body, parse_response
from pipelines.readers.members import read_members
from pipelines.readers.records import Record, read_records, starts_records
from pipelines.text.charset import declared_charset, decode, strict_utf8
from pipelines.text.extract import looks_binary, page_text
from schemas.ledger import REMOVED

_NO_DOCUMENTS = frozenset(("warcinfo", "request", "metadata"))
_HTML = frozenset(("text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"))
_PLAIN = frozenset(("text/plain", "text/markdown"))
_SNIFFED_HTML = re.compile(
    rb"\s*(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the documents of a WARC, ARC or WET file; positions are offsets in the decompressed file (see Feed).

    Responses and resources of HTML give the text that `page_text` finds in them; those of plain text, and conversions
    (WET), are documents as they are. A document's key is its WARC-Record-ID, which its writer made unique; without one
    (ARC has none) the date and the URL. Metadata: url, date, title, language (Content-Language, else that of the page,
    else what the archive identified), status, mime, charset, truncated (WARC-Truncated).

    warcinfo, request and metadata records are no documents and not counted. Removed by rule: 'revisit' (the content
    is elsewhere), 'http_status' (other than 200, unless config.http_any_status), 'unsupported_type', 'binary_content'
    (of a record that says it is text), 'no_text'. Rejected, besides what `read_records` reports: 'invalid_http',
    'unsupported_encoding', 'payload_too_long', 'decompression_bomb', 'invalid_charset', 'segmented_record',
    'unreadable_markup'.
    """
    name = file.path.lower()
    bare = name[: name.rfind(".")] if suffix_codec(name) else name
    with open_read(file.path) as raw:
        feed = Feed(read_members(raw, file.path, config, starts_records))
        records = read_records(feed, config.max_record_bytes, bare.endswith(".arc"), config.warc_digests)
        for record in records:
            item = record if isinstance(record, Reject) else _item(record, config)
            if item is not None:
                yield item


class _Refused(Exception):
    def __init__(self, reason: str, detail: str, action: str = REMOVED) -> None:
        super().__init__(detail)
        self.reason = reason
        self.action = action


def _item(record: Record, config: ReadConfig) -> Item | None:
    kind = record.fields.get("warc-type", "").lower()
    if kind in _NO_DOCUMENTS:
        return None
    try:
        return _document(record, kind, config)
    except HttpError as error:
        return _rejected(record, error.reason, str(error))
    except _Refused as refused:
        if refused.action == REMOVED:
            return Reject(record.position, refused.reason, str(refused), action=REMOVED)
        return _rejected(record, refused.reason, str(refused))


def _rejected(record: Record, reason: str, detail: str) -> Reject:
    return Reject(record.position, reason, detail, xxhash.xxh3_128_digest(record.block))


def _document(record: Record, kind: str, config: ReadConfig) -> Document:
    fields = record.fields
    if kind == "revisit":
        raise _Refused("revisit", "the record points to an earlier one with the same content")
    if kind == "continuation" or "warc-segment-number" in fields:
        raise _Refused("segmented_record", "one of several parts of a record", "rejected")
    if kind not in ("response", "resource", "conversion"):
        raise _Refused("unsupported_type", f"a record of type {kind[:40]!r}")
    content_type, body, status, language = fields.get("content-type", ""), record.block, None, None
    if kind == "response" and (content_type.lower().startswith("application/http") or body.startswith(b"HTTP/")):
        response = parse_response(body)
        status = response.status
        if status != 200 and not config.http_any_status:
            raise _Refused("http_status", f"HTTP status {status}")
        content_type = response.headers.get("content-type", fields.get("arc-type", ""))
        language = response.headers.get("content-language")
        body = decode_body(response, config, "warc-truncated" in fields)
    return _text_document(record, content_type, body, status, language, config)


def _text_document(
    record: Record, content_type: str, body: bytes, status: int | None, language: str | None, config: ReadConfig
) -> Document:
    fields = record.fields
    mime = content_type.partition(";")[0].strip().lower()
    if not mime or mime in ("application/octet-stream", "no-type", "unknown"):
        identified = fields.get("warc-identified-payload-type", "").lower()
        mime = identified or ("text/html" if _SNIFFED_HTML.match(body) else mime)
    if mime not in _HTML and mime not in _PLAIN:
        raise _Refused("unsupported_type", f"content of type {mime[:80]!r}")
    if looks_binary(body):
        raise _Refused("binary_content", f"content of type {mime!r} that is no text")
    if fields.get("warc-type", "").lower() == "conversion":
        decoded = strict_utf8(body)  # what the extractor of the archive's makers wrote
    else:
        decoded = decode(body, declared_charset(content_type), markup=mime in _HTML)
    if decoded is None:
        raise _Refused("invalid_charset", f"{len(body)} bytes in no known encoding", "rejected")
    text, title = decoded.text, None
    if mime in _HTML:
        try:
            page = page_text(text, config.html_main_content)
        except Exception as error:  # whatever a page does to the extraction costs this record alone
            raise _Refused("unreadable_markup", f"{type(error).__name__}: {error}"[:160], "rejected") from error
        text, title, language = page.text, page.title, language or page.language
    if not text.strip():
        raise _Refused("no_text", f"content of type {mime!r} without text")
    url = fields.get("warc-target-uri", "").strip("<>") or None
    date = fields.get("warc-date") or None
    metadata = {
        "url": url,
        "date": date,
        "title": title,
        "language": language or fields.get("warc-identified-content-language"),
        "status": status,
        "mime": mime,
        "charset": decoded.charset,
        "truncated": fields.get("warc-truncated"),
    }
    key = fields.get("warc-record-id", "").strip("<> ") or (f"{date or ''}/{url}" if url else None)
    return Document(text, key, as_json(metadata))


def as_json(metadata: Mapping[str, str | int | None]) -> bytes:
    """Write the fields that are there as canonical JSON."""
    return orjson.dumps({name: value for name, value in metadata.items() if value}, option=orjson.OPT_SORT_KEYS)
