"""Number the records of a run: one whole number for each, whichever index it stands in."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.core import files
from pipelines.core.dataset import DOCUMENTS, Dataset, shard_path
from pipelines.core.shards import open_shard
from pipelines.lsh.method import INDEX


@dataclass(frozen=True)
class IndexShard:
    """An index shard of this run, or of an earlier one.

    root: the directory that holds index/; earlier: the committed dataset where it is one of an earlier run, whose
    ledger says which rows take no part. rows: at least as many as the shard has. fixed: its documents are never
    removed.
    """

    root: str
    key: str
    rows: int
    fixed: bool = False
    earlier: Dataset | None = None

    def open(self) -> pa.ipc.RecordBatchFileReader:
        """Open the shard by its footer, memory-mapped.

        Of an earlier run's the size is checked and not the sha256: that would take longer than all else that one per
        cent more documents cost.
        """
        if self.earlier is not None:
            return self.earlier.open_sized(INDEX, self.key)
        return open_shard(files.join(self.root, shard_path(INDEX, self.key)))

    def removed_ids(self) -> pa.Array:
        """Ids of its rows that an earlier run removed: fixed_size_binary[16]."""
        return self.earlier.removed_ids(self.key) if self.earlier is not None else pa.array([], pa.binary(16))


_MOST_OPEN = 64  # shards that a task keeps open; a system may allow a process 256 files


class _KeptOpen(IndexShard):
    @functools.cached_property
    def _reader(self) -> pa.ipc.RecordBatchFileReader:
        return super().open()

    def open(self) -> pa.ipc.RecordBatchFileReader:
        return self._reader


@dataclass(frozen=True)
class Nodes:
    """The index shards of a run in a fixed order; a record's node number is its shard's start plus its row.

    table: of the records, which says how they are signed, linked and verified (`pipelines.lsh.methods`).
    """

    shards: tuple[IndexShard, ...]
    table: str = DOCUMENTS

    def kept_open(self) -> Nodes:
        """The same for one task, which opens each shard once however often it asks, where they are not too many."""
        if len(self.shards) > _MOST_OPEN or any(isinstance(shard, _KeptOpen) for shard in self.shards):
            return self
        shards = tuple(_KeptOpen(s.root, s.key, s.rows, s.fixed, s.earlier) for s in self.shards)
        return Nodes(shards, self.table)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Number of each shard's first document, and the total: int64[shards + 1]."""
        return np.concatenate([[0], np.cumsum([shard.rows for shard in self.shards])]).astype(np.int64)

    @property
    def total(self) -> int:
        """An upper bound of the node numbers."""
        return int(self.starts[-1])

    def fixed(self, nodes: np.ndarray) -> np.ndarray:
        """Whether the records of these numbers are never removed: bool[n]."""
        of = np.searchsorted(self.starts, nodes, side="right") - 1
        return np.array([shard.fixed for shard in self.shards], np.bool_)[of]

    def by_shard(self, nodes: np.ndarray) -> Iterator[tuple[IndexShard, np.ndarray, np.ndarray]]:
        """Split node numbers by shard: (shard, positions among `nodes`, rows of the shard), rows ascending."""
        order = np.argsort(nodes, kind="stable")
        borders = np.searchsorted(nodes[order], self.starts)
        for shard, start, first, last in zip(self.shards, self.starts, borders, borders[1:], strict=False):
            if first < last:
                positions = order[first:last]
                yield shard, positions, nodes[positions] - start


def shards_to_sign(root: str, dataset: Dataset, table: str, *, fixed: bool) -> list[IndexShard]:
    """The index shards, to be written under `root`, of a table of documents."""
    return [
        IndexShard(root, key, shard.rows, fixed)
        for key, shard in zip(dataset.keys(table), dataset.of(table), strict=True)
    ]


def stored_shards(dataset: Dataset) -> list[IndexShard]:
    """The index shards of an earlier run."""
    return [
        IndexShard("", key, shard.rows, True, dataset)
        for key, shard in zip(dataset.keys(INDEX), dataset.of(INDEX), strict=True)
    ]
