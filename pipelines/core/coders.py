"""Teach Beam (and pickle) to move record batches as Arrow IPC, without their parents' buffers.

Beam has no coder for `pa.RecordBatch`: it would pickle it, and pickling a ten-row slice writes every byte of the
table that it was cut from. Importing this module registers the coder and the pickle reducer.
"""

from __future__ import annotations

import copyreg
from typing import Any

import pyarrow as pa
from apache_beam import coders

from pipelines.core.sealed import canonical

_OPTIONS = pa.ipc.IpcWriteOptions(use_threads=False)


def encode_batch(batch: pa.RecordBatch) -> bytes:
    """Encode one record batch as a complete IPC stream (schema, batch, end); equal batches give equal bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(canonical(batch))
    return sink.getvalue().to_pybytes()


def decode_batch(encoded: bytes) -> pa.RecordBatch:
    """Decode what `encode_batch` wrote; the result refers to `encoded` without copying it."""
    with pa.ipc.open_stream(pa.py_buffer(encoded)) as reader:
        return reader.read_next_batch()


class RecordBatchCoder(coders.Coder):
    """Beam coder of `pa.RecordBatch`; equal batches have equal bytes."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Encode a batch."""
        return encode_batch(value)

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """Decode a batch."""
        return decode_batch(encoded)

    def is_deterministic(self) -> bool:
        """Say that equal batches have equal bytes."""
        return True

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Estimate without encoding: Beam samples sizes, and would else encode the first elements for it."""
        return value.nbytes

    def to_type_hint(self) -> Any:
        """Name the type that this coder serves."""
        return pa.RecordBatch


def _reduce(batch: pa.RecordBatch) -> tuple[Any, tuple[bytes]]:
    return decode_batch, (encode_batch(batch),)


def register() -> None:
    """Register coder and reducer; idempotent."""
    coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)
    copyreg.pickle(pa.RecordBatch, _reduce)


register()
