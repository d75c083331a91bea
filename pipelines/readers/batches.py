"""What documents and images share on the way to batches: locators, dead letters, bounded bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import pyarrow as pa

from pipelines.core.files import redact
from pipelines.core.identity import record_id
from pipelines.readers.base import InputFile, Item, ReadConfig, Reject
from pipelines.readers.discover import ReadTask
from pipelines.readers.occurrences import Occurrences
from schemas.ledger import LEDGER

STAGE = "ingest"
DETAIL_CHARS = 200
ROW_BYTES = 128  # id, hash, locator and offsets of a row, so that a batch of very short records is bounded too

Batches = tuple[pa.RecordBatch, pa.RecordBatch]
Readers = dict[str, Callable[[InputFile, ReadConfig], Iterator[Item]]]


class Batch(ABC):
    """The batch in progress: what any record has, and the dead letters. `bytes` is about what it holds."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.clear()

    def clear(self) -> None:
        """Begin the next batch."""
        self.bytes = 0
        self.hashes: list[bytes] = []
        self.metadata: list[bytes | None] = []
        self.locators: list[str] = []
        self.paths: list[str] = []
        self._keys: list[str | None] = []
        self._rejects: list[tuple[str, str, str, str]] = []

    @abstractmethod
    def add(self, item: Item) -> None:
        """Add a record, by `add_record` and to columns of its own."""

    @abstractmethod
    def records(self) -> pa.RecordBatch:
        """Make the batch of records."""

    def add_record(self, key: str | None, digest: bytes, metadata: bytes | None, size: int) -> None:
        """Add what any record has; size: bytes of its content and of all other columns of its own."""
        self._keys.append(key)
        self.hashes.append(digest)
        self.metadata.append(metadata)
        self.bytes += size + (len(metadata) if metadata else 0) + ROW_BYTES

    def reject(self, file: InputFile, item: Reject) -> None:
        """Add a dead letter."""
        suffix = "" if item.raw_hash is None else f"; xxh3-128 {item.raw_hash.hex()}"
        detail = redact(item.detail)[: DETAIL_CHARS - len(suffix)] + suffix
        self._rejects.append((f"{file.relative}@{item.position}", item.action, item.reason, detail))
        self.bytes += ROW_BYTES + len(detail)

    def close_file(self, file: InputFile, occurrences: Occurrences) -> None:
        """Give the records since the last call, which are all of one file, their locators."""
        done = len(self.locators)
        keys, hashes = self._keys[done:], self.hashes[done:]
        self.paths += [file.relative] * len(hashes)
        unnamed = [digest for key, digest in zip(keys, hashes, strict=True) if key is None]
        counts = occurrences.count(b"".join(unnamed)).tolist() if unnamed else []
        numbers = iter(zip(unnamed, counts, strict=True))
        for key in keys:
            if key is None:
                digest, number = next(numbers)
                key = f"{file.relative}#{digest.hex()}#{number}"
            self.locators.append(key)

    def take(self) -> Batches:
        """Give the records and the dead letters, and begin the next batch."""
        pair = self.records(), self._ledger()
        self.clear()
        return pair

    def _ledger(self) -> pa.RecordBatch:
        rows = [
            {
                "id": record_id(self.source, locator),
                "source": self.source,
                "stage": STAGE,
                "action": action,
                "reason": reason,
                "locator": locator,
                "detail": detail,
            }
            for locator, action, reason, detail in self._rejects
        ]
        return pa.RecordBatch.from_pylist(rows, schema=LEDGER.schema)


def batches(task: ReadTask, batch: Batch, readers: Readers, config: ReadConfig) -> Iterator[Batches]:
    """Yield (records, ledger) batches of a task's files, in order; each pair covers the same stretch of records."""
    for file in task.files:
        occurrences = Occurrences()
        for item in readers[file.format](file, config):
            if isinstance(item, Reject):
                batch.reject(file, item)
            else:
                batch.add(item)
            if batch.bytes >= config.batch_bytes:
                batch.close_file(file, occurrences)
                yield batch.take()
        batch.close_file(file, occurrences)
    if batch.bytes:
        yield batch.take()
