"""One document of a text corpus."""

import pyarrow as pa

from schemas.base import Record, field

ID = pa.binary(16)

DOCUMENT = Record(
    "document",
    (1, 0),
    (
        field("id", ID, "blake2b-128 of (source, locator); unique, and stable across re-runs, shards and machines"),
        field("source", pa.string(), "name of the corpus that the record came from"),
        field("locator", pa.string(), "the record's own id or URL, else path, content hash and occurrence in the file"),
        field("path", pa.string(), "file that held the record, relative to the source's root, with '/'"),
        field("text", pa.string(), "the text, valid UTF-8"),
        field("content_hash", ID, "xxh3-128 (big-endian) of the text's UTF-8; equal content is an exact duplicate"),
        field("metadata", pa.string(), "all other fields of the record as one JSON object, keys sorted", nullable=True),
    ),
)

validate = DOCUMENT.validate
