"""Sign documents: the first pass, which reads the text and writes the index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import ledger, progress
from pipelines.core.dataset import Dataset, shard_path, surviving_batches
from pipelines.core.shards import ShardWriter
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.method import INDEX, Signer
from pipelines.text.dates import epoch_seconds
from pipelines.text.minhash import sign
from schemas.signature import signature_record


def sign_batch(batch: pa.RecordBatch, config: DedupeConfig) -> pa.RecordBatch:
    """Make the index rows of a batch of documents."""
    texts, schema = batch.column("text"), signature_record(config.minhash.num_perm).schema
    columns = {
        **{name: batch.column(name) for name in ("id", "source", "locator", "content_hash")},
        "length": pc.utf8_length(texts).cast(pa.uint32()),
        "date": epoch_seconds(batch.column("metadata"), config.date_field),
        **signature_columns(texts, config.shingle_size, config),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def signature_columns(texts: pa.Array, shingle_size: int, config: DedupeConfig) -> dict[str, pa.Array]:
    """Sign texts: shingle_count, signature and sketch, as `schemas.signature` has them."""
    schema, signed = signature_record(config.minhash.num_perm).schema, sign(texts, shingle_size, config.minhash)
    signature, sketch = schema.field("signature").type, schema.field("sketch").type
    offsets, values = pa.array(signed.offsets.astype(np.int32)), pa.array(signed.values)
    return {
        "shingle_count": pa.array(signed.counts),
        "signature": pa.FixedSizeListArray.from_arrays(pa.array(signed.signatures.reshape(-1)), type=signature),
        "sketch": pa.ListArray.from_arrays(offsets, values, type=sketch),
    }


class ShardSigner(Signer):
    """Write the index of one shard of documents; facts: 'dated', how many have a date."""

    def __init__(self, dataset: Dataset, key: str, table: str, root: str, config: DedupeConfig) -> None:
        super().__init__()
        self.dataset, self.key, self.table, self.root, self.config = dataset, key, table, root, config
        self.facts["dated"] = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        schema, path = signature_record(self.config.minhash.num_perm).schema, shard_path(INDEX, self.key)
        with ShardWriter(self.root, path, schema, compression=self.config.compression) as writer:
            for batch in surviving_batches(self.dataset, self.key, table=self.table):
                index = sign_batch(batch, self.config)
                writer.write(index)
                self.seen += ledger.by_source(batch)
                self.facts["dated"] += len(index) - index.column("date").null_count
                progress.advance(len(batch), batch.column("text").nbytes)
                yield index
        self.shard = writer.shard
