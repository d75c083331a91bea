"""The logical hash of a shard's rows: the same for the same values, however they are batched or padded."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

_WORDS = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


class RowHash:
    """Hash rows as they pass; xxh3-128 per leaf of every column, then over all of them.

    Values, lengths and validity are hashed apart, so neither batch borders nor Arrow's padding, offsets or
    library version change the result; column names and types do.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._leaves: dict[str, xxhash.xxh3_128] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch. TypeError for a column type without a stable layout of its values."""
        if not len(batch):
            return
        for field, column in zip(self._schema, batch.columns, strict=True):
            self._feed(field.name, field, column)

    def _leaf(self, name: str, data: object) -> None:
        self._leaves.setdefault(name, xxhash.xxh3_128()).update(data)  # type: ignore[arg-type]

    def _feed(self, name: str, field: pa.Field, column: pa.Array) -> None:
        kind = column.type
        if field.nullable:
            self._leaf(f"{name}?", pc.is_valid(column).cast(pa.uint8()).to_numpy(zero_copy_only=False))
        if pa.types.is_struct(kind):
            for inner, values in zip(kind.fields, column.flatten(), strict=True):
                self._feed(f"{name}.{inner.name}", inner, values)
        elif pa.types.is_fixed_size_list(kind):
            self._feed(f"{name}[]", kind.value_field, column.flatten())
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._leaf(f"{name}#", _lengths(pc.list_value_length(column)))
            self._feed(f"{name}[]", kind.value_field, column.flatten())
        elif pa.types.is_fixed_size_binary(kind):
            filled = pc.fill_null(column, b"\0" * kind.byte_width) if column.null_count else column
            width, start = kind.byte_width, filled.offset
            self._leaf(name, memoryview(filled.buffers()[1])[start * width : (start + len(filled)) * width])
        elif pa.types.is_binary(kind) or pa.types.is_string(kind) or _is_large(kind):
            filled = pc.fill_null(column, "" if not _is_bytes(kind) else b"") if column.null_count else column
            self._leaf(f"{name}#", _lengths(pc.binary_length(filled)))
            self._leaf(name, _string_bytes(filled))
        elif pa.types.is_boolean(kind):
            filled = pc.fill_null(column, False) if column.null_count else column
            self._leaf(name, filled.cast(pa.uint8()).to_numpy(zero_copy_only=False))
        elif pa.types.is_primitive(kind):
            words = column.view(_WORDS[kind.bit_width])
            filled = pc.fill_null(words, 0) if words.null_count else words
            self._leaf(name, np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)))
        elif not pa.types.is_null(kind):  # of nulls the validity says everything
            raise TypeError(f"column {name!r}: {kind} columns have no row hash")

    def hexdigest(self) -> str:
        """The hash, in hex."""
        total = xxhash.xxh3_128()
        for field in self._schema:
            total.update(f"{field.name}:{field.type};".encode())
        for name in sorted(self._leaves):
            total.update(f"{name}=".encode() + self._leaves[name].digest())
        return total.hexdigest()


def _lengths(lengths: pa.Array) -> np.ndarray:
    return pc.fill_null(lengths, 0).cast(pa.int64()).to_numpy(zero_copy_only=False)


def _is_large(kind: pa.DataType) -> bool:
    return pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _string_bytes(column: pa.Array) -> memoryview | bytes:
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return b""
    wide = np.int64 if _is_large(column.type) else np.int32
    bounds = np.frombuffer(offsets, wide)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]
