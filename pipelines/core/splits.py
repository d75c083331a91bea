"""The documents that a stage after `shard` reads: a sharded dataset's splits, or the survivors of an earlier stage."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipelines.core.dataset import DOCUMENTS, Dataset, surviving_batches
from schemas.base import SchemaError


def splits(dataset: Dataset) -> list[str]:
    """Names of the tables that hold documents: the splits of `shard` in their order, or 'documents'."""
    named = [split for manifest in dataset.manifests for split in manifest.facts.get("splits", [])]
    found = list(dict.fromkeys(named)) or [DOCUMENTS]
    if not any(dataset.has(split) for split in found):
        raise SchemaError(f"the input holds no documents; it has: {', '.join(dataset.tables())}")
    return found


def split_batches(dataset: Dataset, split: str, key: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of one shard of a split: all its rows, or of 'documents' those that the ledger leaves."""
    if split == DOCUMENTS:
        yield from surviving_batches(dataset, key, columns)
    else:
        yield from dataset.batches(split, key, columns)
