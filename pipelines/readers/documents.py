"""From a task's files to batches of documents and of ledger rows: identity, content hash, bounded bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipelines.core.identity import ID_BYTES, content_hash, record_id
from pipelines.readers import delimited, hf, html, jsonl, parquet, plain, warc, wikidump
from pipelines.readers.base import Document, Item, ReadConfig, ReadError
from pipelines.readers.batches import Batch, Batches, Readers, batches
from pipelines.readers.discover import ReadTask
from schemas.document import DOCUMENT, ID

READERS: Readers = {
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
    for file in task.files:
        if file.start and config.id_field is None:
            raise ReadError(f"{file.relative}: a byte range needs an id_field, to know its records by")
    yield from batches(task, _Documents(source), READERS, config)


class _Documents(Batch):
    """The columns of the batch in progress."""

    def clear(self) -> None:
        super().clear()
        self._texts: list[bytes] = []

    def add(self, item: Item) -> None:
        assert isinstance(item, Document)
        text, key, metadata = item
        content = text.encode()
        self._texts.append(content)
        self.add_record(key, content_hash(content), metadata, len(content))

    def records(self) -> pa.RecordBatch:
        source = self.source
        return pa.RecordBatch.from_arrays(
            [
                pa.array([record_id(source, locator) for locator in self.locators], ID),
                pa.array([source] * len(self._texts), pa.string()),
                pa.array(self.locators, pa.string()),
                pa.array(self.paths, pa.string()),
                pa.array(self._texts, pa.string()),
                pa.array(self.hashes, pa.binary(ID_BYTES)),
                pa.array(self.metadata, pa.string()),
            ],
            schema=DOCUMENT.schema,
        )
