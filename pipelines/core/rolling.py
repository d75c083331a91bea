"""Write a stream of batches as several shards of bounded size."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import pyarrow as pa

from pipelines.core.dataset import shard_path
from pipelines.core.shards import MAX_BATCH_BYTES, ShardWriter
from schemas.manifest import Shard


class RollingWriter:
    """Write co-partitioned tables; a new set of shards begins when the first table holds `shard_bytes` of content.

    Content is what `content_column` of the first table holds: the text of a document, the bytes of an image. Shards are
    named PREFIX-000, PREFIX-001, …; every table gets each of them, empty or not. A shard also ends when a batch of it
    would grow beyond MAX_BATCH_BYTES, so that memory stays bounded where records differ wildly in size.
    """

    def __init__(
        self,
        root: str,
        prefix: str,
        tables: dict[str, pa.Schema],
        shard_bytes: int,
        compression: str | None = None,
        content_column: str = "text",
    ) -> None:
        self._root, self._prefix, self._tables = root, prefix, tables
        self._shard_bytes, self._compression, self._content_column = shard_bytes, compression, content_column
        self._stack, self._writers = ExitStack(), dict[str, ShardWriter]()
        self.part = -1
        self.done: list[tuple[str, tuple[Shard, ...]]] = []

    def __enter__(self) -> RollingWriter:
        self._open()
        return self

    def _open(self) -> None:
        self.part += 1
        for i, (table, schema) in enumerate(self._tables.items()):
            path = shard_path(table, self.key)
            content = None if i else self._content_column
            writer = ShardWriter(self._root, path, schema, compression=self._compression, text_column=content)
            self._writers[table] = self._stack.enter_context(writer)

    @property
    def key(self) -> str:
        """Key of the shards that are being written."""
        return f"{self._prefix}-{self.part:03d}"

    @property
    def rows(self) -> int:
        """Rows that the first table's open shard holds."""
        return next(iter(self._writers.values())).rows

    def write(self, batches: dict[str, pa.RecordBatch]) -> None:
        """Append one batch per table, which all go into the same set of shards."""
        first = next(iter(self._writers.values()))
        if first.rows and (first.text_bytes >= self._shard_bytes or first.pending_bytes >= MAX_BATCH_BYTES):
            self._close()
            self._open()
        for table, batch in batches.items():
            self._writers[table].write(batch)

    def _close(self) -> None:
        key = self.key
        self._stack.close()
        self.done.append((key, tuple(w.shard for w in self._writers.values() if w.shard is not None)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
        else:
            self._close()
