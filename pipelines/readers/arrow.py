"""From Arrow batches of any schema to records; shared by the readers of Parquet and of Arrow IPC."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject, reject

ROWS = 1024  # rows that are Python objects at one time
AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


class Source:
    """A file for pyarrow, which remembers a failed read and a read that came back short.

    pyarrow gives a failed disk and a damaged file the same exception; only the second is the record's fault. And an
    Arrow stream without its end marker is told apart only by the reader's having run into the end of the file.
    """

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.failure: Exception | None = None
        self.short = False

    def read(self, size: int = -1) -> bytes:
        pieces: list[bytes] = []
        left = size
        try:
            while left and (piece := self._raw.read(left)):
                pieces.append(piece)
                left = left - len(piece) if size > 0 else left
        except Exception as error:
            self.failure = error
            raise
        self.short = self.short or left > 0
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def blame(self, error: Exception) -> str:
        """Say what is wrong with the file's bytes; raises the failure where reading them failed."""
        if self.failure is not None:
            raise self.failure
        return (str(error).splitlines() or [type(error).__name__])[0][:160]


Rows = Callable[[pa.RecordBatch, int], Iterator[Item]]
"""From a batch and the number of its first row in the file to the records of the batch."""

OpenRows = Callable[[pa.Schema, InputFile, ReadConfig], Rows]
"""From a file's schema to how its rows are read; raises ReadError where the configuration does not fit it."""


def documents(schema: pa.Schema, file: InputFile, config: ReadConfig) -> Rows:
    """Read rows as documents; see `items`. Raises ReadError; see `check_columns`."""
    check_columns(schema, file, config)
    return lambda batch, position: items(batch, position, config)


def check_columns(schema: pa.Schema, file: InputFile, config: ReadConfig) -> None:
    """Raise ReadError where the schema lacks a column that the configuration names, or holds another type there."""
    shown = ", ".join(f"{field.name} ({field.type})" for field in schema)[:400]
    for what, name in (("text", config.text_field), ("id", config.id_field)):
        if name is None:
            continue
        if schema.names.count(name) != 1:
            found = "no column" if name not in schema.names else "more than one column"
            raise ReadError(f"{file.relative}: {found} {name!r} for the {what}; the file holds {shown}")
        type_ = schema.field(name).type
        kind = type_.value_type if pa.types.is_dictionary(type_) else type_
        allowed = kind in AS_BYTES or kind in AS_BYTES.values() or pa.types.is_null(kind)
        if not allowed and not (what == "id" and pa.types.is_integer(kind)):
            raise ReadError(f"{file.relative}: column {name!r} for the {what} is {type_}, not text")
    if len(set(schema.names)) != len(schema.names):
        raise ReadError(f"{file.relative}: two columns have the same name; the file holds {shown}")


def each_item(batch: pa.RecordBatch, position: int, rows: Rows) -> Iterator[Item]:
    """Yield what `rows` yields; where it fails, find the rows that it fails on: they are Rejects 'unreadable_rows'."""
    try:
        found = list(rows(batch, position))
    except (pa.ArrowException, OverflowError, ValueError) as error:
        if batch.num_rows <= 1:
            yield Reject(position, "unreadable_rows", (str(error).splitlines() or [type(error).__name__])[0][:160])
            return
        half = batch.num_rows // 2
        yield from each_item(batch.slice(0, half), position, rows)
        yield from each_item(batch.slice(half), position + half, rows)
        return
    yield from found


def pieces(batch: pa.RecordBatch, config: ReadConfig) -> Iterator[pa.RecordBatch]:
    """Cut a batch, which may hold a whole file's rows, to about config.batch_bytes."""
    rows = max(1, batch.num_rows * config.batch_bytes // max(1, batch.get_total_buffer_size()))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def items(batch: pa.RecordBatch, position: int, config: ReadConfig) -> Iterator[Item]:
    """Yield the records of a batch whose first row is row `position` of its file. The batch is not trusted.

    Text may be string, large_string, string_view, a dictionary of them, or binary that holds UTF-8. Other columns
    become one JSON object: nulls stay null; bytes are base64; timestamps, dates and times ISO 8601 (in UTC where they
    have a zone, to the microsecond); durations a number of microseconds; decimals strings; NaN and infinities null;
    maps lists of pairs. Rejected: 'missing_text', 'invalid_utf8', 'text_too_long', 'missing_id', 'invalid_metadata'.
    Raises pa.ArrowInvalid where the batch's buffers contradict each other.
    """
    columns = {name: plain(unchecked(batch.column(i))) for i, name in enumerate(batch.schema.names)}
    for name in {config.text_field, config.id_field} & columns.keys():
        columns[name] = _as_bytes(columns[name])  # a dictionary's strings; others are bytes by now
    for start in range(0, batch.num_rows, ROWS):
        values = {name: column.slice(start, ROWS).to_pylist() for name, column in columns.items()}
        texts = values.pop(config.text_field)
        keys = values.pop(config.id_field) if config.id_field is not None else None
        strings = [name for name in values if batch.schema.field(name).type in AS_BYTES]
        for i, text in enumerate(texts):
            other = {name: column[i] for name, column in values.items()}
            yield _item(position + start + i, text, keys and (keys[i],), other, strings, config)


def _item(
    position: int, text: bytes | None, key: tuple[Any] | None, other: dict[str, Any], strings: list[str],
    config: ReadConfig,
) -> Item:  # fmt: skip
    if text is None:
        return Reject(position, "missing_text", f"column {config.text_field!r} is null")
    if len(text) > config.max_record_bytes:
        return reject(position, "text_too_long", f"{len(text)} bytes, the limit is {config.max_record_bytes}", text)
    name = config.text_field
    try:
        decoded = _decode(text)
        name = config.id_field or ""
        own = None if key is None else _key(key[0])
        for name in strings:
            if other[name] is not None:
                other[name] = _decode(other[name])
    except UnicodeDecodeError as flaw:
        return reject(position, "invalid_utf8", f"{flaw.reason} at byte {flaw.start} of column {name!r}", text)
    if key is not None and not own:
        return reject(position, "missing_id", f"column {config.id_field!r} is null or empty", text)
    try:
        metadata = orjson.dumps(other, default=to_json, option=orjson.OPT_SORT_KEYS) if other else None
    except orjson.JSONEncodeError as error:
        return reject(position, "invalid_metadata", f"its other columns cannot be written as JSON: {error}", text)
    return Document(decoded, own, metadata)


def _decode(value: bytes) -> str:
    return value.decode()


def _key(value: Any) -> str:
    if value is None:
        return ""
    return _decode(value) if isinstance(value, bytes) else str(value)


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def unchecked(column: pa.Array) -> pa.Array:
    """Fully validate a column; text as bytes, so that one bad character costs one row and not the batch."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    column = _as_bytes(column)
    column.validate(full=True)
    return column


def _as_bytes(column: pa.Array) -> pa.Array:
    return column.cast(AS_BYTES[column.type]) if column.type in AS_BYTES else column


def plain(column: pa.Array) -> pa.Array:
    """Cast what Python has no exact and always available value for, and dictionaries to their values."""
    target = _plain_type(column.type)
    return column if target.equals(column.type) else column.cast(target, safe=False)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(type_):
        return _plain_type(type_.value_type)
    if types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    if types.is_time64(type_):
        return pa.time64("us")
    if types.is_duration(type_):
        return pa.duration("us")
    if types.is_float16(type_):
        return pa.float32()
    if types.is_struct(type_):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in type_.fields])
    if types.is_map(type_):
        return pa.map_(_plain_type(type_.key_type), _plain_type(type_.item_type))
    if types.is_fixed_size_list(type_):
        return pa.list_(_plain_type(type_.value_type), type_.list_size)
    if types.is_large_list(type_):
        return pa.large_list(_plain_type(type_.value_type))
    if types.is_list(type_):
        return pa.list_(_plain_type(type_.value_type))
    return type_
