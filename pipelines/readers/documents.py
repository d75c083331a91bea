"""From a task's files to batches of documents and of ledger rows: identity, content hash, bounded bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from pipelines.core.files import redact
from pipelines.core.identity import ID_BYTES, content_hash, record_id
from pipelines.readers import delimited, hf, html, jsonl, parquet, plain, warc, wikidump
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject
from pipelines.readers.discover import ReadTask
from pipelines.readers.occurrences import Occurrences
from schemas.document import DOCUMENT, ID
from schemas.ledger import LEDGER

STAGE = "ingest"
DETAIL_CHARS = 200
ROW_BYTES = 128  # id, hash, locator and offsets of a row, so that a batch of very short records is bounded too

Batches = tuple[pa.RecordBatch, pa.RecordBatch]

READERS: dict[str, Callable[[InputFile, ReadConfig], Iterator[Item]]] = {
    "jsonl": jsonl.read,
    "parquet": parquet.read,
    "delimited": delimited.read,
    "plain": plain.read,
    "arrow": hf.read,
    "html": html.read,
    "warc": warc.read,
    "wikidump": wikidump.read,
}


def read_task(task: ReadTask, source: str, config: ReadConfig) -> Iterator[Batches]:
    """Yield (documents, ledger) batches of a task's files, in order; each pair covers the same stretch of records.

    Every record is in one of the two. Documents have the schema DOCUMENT, dead letters the schema LEDGER; a pair holds
    about config.batch_bytes of text and metadata, and either side may be empty. Nothing depends on the task but the
    bounds of the batches. Raises ReadError and FileError, which stop the run.

    The locator of a record is its own id, else `path#content hash#n`, where n counts the records of the file with this
    content before it. A dead letter's is `path@position`.
    """
    batch = _Batch(source)
    for file in task.files:
        if file.start and config.id_field is None:
            raise ReadError(f"{file.relative}: a byte range needs an id_field, to know its records by")
        occurrences = Occurrences()
        for item in READERS[file.format](file, config):
            if type(item) is Document:
                batch.add(item)
            else:
                assert isinstance(item, Reject)
                batch.reject(file, item)
            if batch.bytes >= config.batch_bytes:
                batch.close_file(file, occurrences)
                yield batch.take()
        batch.close_file(file, occurrences)
    if batch.bytes:
        yield batch.take()


class _Batch:
    """The columns of the batch in progress."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._clear()

    def _clear(self) -> None:
        self.bytes = 0
        self._texts: list[bytes] = []
        self._hashes: list[bytes] = []
        self._metadata: list[bytes | None] = []
        self._keys: list[str | None] = []
        self._locators: list[str] = []
        self._paths: list[str] = []
        self._rejects: list[tuple[str, str, str, str]] = []

    def add(self, document: Document) -> None:
        text, key, metadata = document
        content = text.encode()
        self._texts.append(content)
        self._hashes.append(content_hash(content))
        self._metadata.append(metadata)
        self._keys.append(key)
        self.bytes += len(content) + (len(metadata) if metadata else 0) + ROW_BYTES

    def reject(self, file: InputFile, item: Reject) -> None:
        suffix = "" if item.raw_hash is None else f"; xxh3-128 {item.raw_hash.hex()}"
        detail = redact(item.detail)[: DETAIL_CHARS - len(suffix)] + suffix
        self._rejects.append((f"{file.relative}@{item.position}", item.action, item.reason, detail))
        self.bytes += ROW_BYTES + len(detail)

    def close_file(self, file: InputFile, occurrences: Occurrences) -> None:
        """Give the records since the last call, which are all of one file, their locators."""
        done = len(self._locators)
        keys, hashes = self._keys[done:], self._hashes[done:]
        self._paths += [file.relative] * len(hashes)
        unnamed = [digest for key, digest in zip(keys, hashes, strict=True) if key is None]
        counts = occurrences.count(b"".join(unnamed)).tolist() if unnamed else []
        numbers = iter(zip(unnamed, counts, strict=True))
        for key in keys:
            if key is None:
                digest, number = next(numbers)
                key = f"{file.relative}#{digest.hex()}#{number}"
            self._locators.append(key)

    def take(self) -> Batches:
        pair = self._documents(), self._ledger()
        self._clear()
        return pair

    def _documents(self) -> pa.RecordBatch:
        source = self._source
        return pa.RecordBatch.from_arrays(
            [
                pa.array([record_id(source, locator) for locator in self._locators], ID),
                pa.array([source] * len(self._texts), pa.string()),
                pa.array(self._locators, pa.string()),
                pa.array(self._paths, pa.string()),
                pa.array(self._texts, pa.string()),
                pa.array(self._hashes, pa.binary(ID_BYTES)),
                pa.array(self._metadata, pa.string()),
            ],
            schema=DOCUMENT.schema,
        )

    def _ledger(self) -> pa.RecordBatch:
        rows = [
            {
                "id": record_id(self._source, locator),
                "source": self._source,
                "stage": STAGE,
                "action": action,
                "reason": reason,
                "locator": locator,
                "detail": detail,
            }
            for locator, action, reason, detail in self._rejects
        ]
        return pa.RecordBatch.from_pylist(rows, schema=LEDGER.schema)
