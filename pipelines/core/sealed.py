"""The sealed stream: an Arrow IPC stream that is also readable as an IPC file.

The bytes are a valid IPC stream (schema, record batches, end-of-stream marker) followed by an IPC-file footer whose
blocks point into the stream. Stream readers stop at the end-of-stream marker; file readers look only at the tail.
It is append-only, so it can be written to object stores. Dictionary-encoded columns are not possible: the footer would
need dictionary blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pyarrow as pa

EOS = b"\xff\xff\xff\xff\0\0\0\0"
MAGIC = b"ARROW1"
_RECORD_BATCHES_SLOT = 3  # Footer.recordBatches in Arrow's File.fbs


def _table_field(buffer: bytes | bytearray, table: int, slot: int) -> int:
    """Find the position of a flatbuffer table's field."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    return table + struct.unpack_from("<H", buffer, vtable + 4 + 2 * slot)[0]


def footer(schema: pa.Schema, blocks: list[tuple[int, int, int]]) -> bytes:
    """Make the Footer flatbuffer of an IPC file with these (offset, metadata length, body length) blocks.

    Arrow itself writes a file of as many empty batches; its footer is taken and its blocks are replaced.
    """
    sink = pa.BufferOutputStream()
    empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
    with pa.ipc.new_file(sink, schema) as writer:
        for _ in blocks:
            writer.write_batch(empty)
    raw = sink.getvalue().to_pybytes()
    length = struct.unpack("<i", raw[-10:-6])[0]
    result = bytearray(raw[-10 - length : -10])
    if blocks:
        root = struct.unpack_from("<I", result, 0)[0]
        vector = _table_field(result, root, _RECORD_BATCHES_SLOT)
        vector += struct.unpack_from("<I", result, vector)[0]
        if struct.unpack_from("<I", result, vector)[0] != len(blocks):
            raise RuntimeError("this pyarrow lays out the IPC footer in a way that the sealed stream does not know")
        for i, (offset, metadata, body) in enumerate(blocks):
            struct.pack_into("<qi4xq", result, vector + 4 + 24 * i, offset, metadata, body)
    return bytes(result)


def check_schema(schema: pa.Schema) -> None:
    """Raise TypeError for column types, at any depth, that a sealed stream or one of its readers cannot hold."""
    for field in schema:
        if _is_refused(field.type):
            raise TypeError(f"column {field.name!r}: {field.type} columns cannot be written to a shard")


def _is_refused(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind) or types.is_float16(kind):
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return True
    return any(_is_refused(kind.field(i).type) for i in range(kind.num_fields))


def canonical(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Make a batch of equal values that always has equal bytes; what is not null is referred to, not copied.

    Arrow pads a slice with what stands behind it in its parent's buffers, and leaves whatever it likes in the slots of
    nulls. Both would make the bytes depend on how rows were batched before, and carry values of other rows along.
    """
    return pa.RecordBatch.from_arrays([_canonical(column) for column in batch.columns], schema=batch.schema)


def _canonical(column: pa.Array) -> pa.Array:
    referred = _referred(column) if len(column) and not column.null_count else None
    return column.take(pa.array(np.arange(len(column)))) if referred is None else referred


def _referred(column: pa.Array) -> pa.Array | None:
    """The values of a column without nulls, in buffers that hold nothing else; None for types that are to be copied."""
    kind, rows, types = column.type, len(column), pa.types
    if types.is_fixed_size_binary(kind) or (types.is_primitive(kind) and not types.is_boolean(kind)):
        width = kind.bit_width // 8
        values = column.buffers()[1].slice(column.offset * width, rows * width)
        return pa.Array.from_buffers(kind, rows, [None, values])
    if types.is_string(kind) or types.is_binary(kind):
        offsets, first, last = _offsets(column)
        data = column.buffers()[2] or pa.py_buffer(b"")
        return pa.Array.from_buffers(kind, rows, [None, offsets, data.slice(first, last - first)])
    if types.is_list(kind):
        offsets, first, last = _offsets(column)
        values = _canonical(column.values.slice(first, last - first))
        return pa.Array.from_buffers(kind, rows, [None, offsets], children=[values])
    if types.is_fixed_size_list(kind) and kind.list_size:
        return pa.FixedSizeListArray.from_arrays(_canonical(column.flatten()), type=kind)
    if types.is_struct(kind) and kind.num_fields:
        return pa.StructArray.from_arrays([_canonical(one) for one in column.flatten()], fields=list(kind))
    return None


def _offsets(column: pa.Array) -> tuple[pa.Buffer, int, int]:
    """The offsets of a column's own rows, from 0 on, and where its values begin and end in the parent's."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    first = offsets[0]
    return pa.py_buffer(offsets - first if first else offsets), int(first), int(offsets[-1])


class SealedStream:
    """Append record batches to a sink as a sealed stream.

    sink: called with every piece of bytes, in order. compression: None, or 'zstd' or 'lz4' for the buffers of
    intermediate shards (a compressed shard cannot be read without copying).
    """

    def __init__(self, sink: Callable[[bytes], object], schema: pa.Schema, compression: str | None = None) -> None:
        check_schema(schema)
        self._sink, self._schema, self._position = sink, schema, 0
        self._blocks: list[tuple[int, int, int]] = []
        self._options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        self._put(schema.serialize())

    def _put(self, data: pa.Buffer | bytes) -> None:
        self._sink(data if isinstance(data, bytes) else memoryview(data))  # type: ignore[arg-type]
        self._position += len(data)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one batch of exactly the stream's schema; its bytes depend on its values alone."""
        batch = canonical(batch)
        message = batch.serialize() if self._options.compression is None else self._compressed(batch)
        metadata = 8 + struct.unpack_from("<Ii", message)[1]
        self._blocks.append((self._position, metadata, len(message) - metadata))
        self._put(message)

    def _compressed(self, batch: pa.RecordBatch) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema, options=self._options) as writer:
            writer.write_batch(batch)
        raw = sink.getvalue()
        return raw.slice(self._schema.serialize().size, raw.size - self._schema.serialize().size - len(EOS))

    def close(self) -> int:
        """Append the end-of-stream marker and the footer; returns the number of bytes written."""
        self._put(EOS)
        tail = footer(self._schema, self._blocks)
        self._put(tail + struct.pack("<i", len(tail)) + MAGIC)
        return self._position
