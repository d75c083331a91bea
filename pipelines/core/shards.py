"""Write and read shards: sealed streams with a constant number of rows per batch, on any Beam filesystem."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pipelines.core import files
from pipelines.core.rowhash import RowHash
from pipelines.core.sealed import SealedStream
from schemas.base import SchemaError
from schemas.manifest import Shard

BATCH_BYTES = 2 << 20
MAX_BATCH_BYTES = 64 << 20
_READ_BYTES = 8 << 20


class AtomicFile:
    """A file that appears under its name only when it is complete.

    Local: a temporary file in the same directory, fsync, rename, fsync of the directory. Elsewhere the object's own
    key: an object store shows an object only when its upload is closed, and a retry writes the same bytes. durable:
    False for scratch files, which nobody misses after a crash: no fsync.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        self.path, self._local, self._durable = path, files.is_local(path), durable
        self._file: BinaryIO | Any
        if self._local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._temporary = Path(path).with_name(f".{Path(path).name}.{uuid.uuid4().hex}.part")
            self._file = self._temporary.open("wb")
        else:
            self._file = files.create(path)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def commit(self) -> None:
        """Make the file durable and visible."""
        if not self._local:
            self._file.close()
            return
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        if self._durable:
            fsync_directory(Path(self.path).parent)

    def abort(self) -> None:
        """Drop what was written; no object appears."""
        if self._local:
            with contextlib.suppress(OSError):  # closing writes what is buffered: on a full disk it fails again
                self._file.close()
            self._temporary.unlink(missing_ok=True)
        else:
            _abandon(self._file)


def _abandon(upload: Any) -> None:
    """Make an upload that failed end without an object.

    Closing it, which the garbage collector does too, would publish what was sent so far under the final key: perhaps
    over the whole object that another attempt at the same task has written. (S3 keeps the parts until the bucket's rule
    for incomplete uploads removes them.)
    """
    with contextlib.suppress(Exception):
        if hasattr(upload, "terminate"):  # Google Cloud Storage's BlobWriter
            upload.terminate()
            return
        uploader = getattr(getattr(upload, "raw", None), "_uploader", None)  # Beam's own, for S3 and Azure
        if uploader is not None:
            uploader.put, uploader.finish = (lambda data: None), (lambda: None)
            upload.close()


def fsync_directory(path: Path) -> None:
    """Make the names in a local directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str, data: bytes) -> None:
    """Write a small file atomically."""
    sink = AtomicFile(path)
    try:
        sink.write(data)
        sink.commit()
    except BaseException:
        sink.abort()
        raise


class ShardWriter:
    """Write one shard, in memory bounded by one batch.

    Every batch but the last has the same number of rows, so that row → (batch, offset) is a divmod: `rows_per_batch`,
    or as many rows as first fill `batch_bytes`. durable: see AtomicFile. Use it as a
    context manager; `shard` is its manifest line afterwards.
    """

    def __init__(
        self,
        root: str,
        path: str,
        schema: pa.Schema,
        *,
        rows_per_batch: int | None = None,
        batch_bytes: int = BATCH_BYTES,
        compression: str | None = None,
        text_column: str | None = None,
        durable: bool = True,
    ) -> None:
        self.path, self.schema = path, schema
        self.rows = self.text_bytes = self.pending_bytes = self._pending_rows = 0
        self.shard: Shard | None = None
        self._rows_per_batch, self._batch_bytes = rows_per_batch, batch_bytes
        self._pending: list[pa.RecordBatch] = []
        self._text_column, self._first_id = text_column, None
        self._sha256, self._row_hash = hashlib.sha256(), RowHash(schema)
        self._file = AtomicFile(files.join(root, path), durable=durable)
        try:
            self._stream = SealedStream(self._append, schema, compression)
        except BaseException:
            self._file.abort()  # `with` has not begun: nobody else would
            raise

    def _append(self, data: bytes) -> None:
        self._sha256.update(data)
        self._file.write(data)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; they are cut into the shard's own batches."""
        if not len(batch):
            return
        if not batch.schema.equals(self.schema):
            raise SchemaError(f"{self.path}: a batch of {batch.schema} does not fit the shard's schema {self.schema}")
        for field, column in zip(self.schema, batch.columns, strict=True):
            if column.null_count and not field.nullable:
                raise SchemaError(f"{self.path}: field {field.name!r} is null in some row; it is required")
        if self.rows == 0 and "id" in batch.schema.names:
            self._first_id = batch.column("id")[0].as_py().hex()
        self.rows += len(batch)
        if self._text_column:
            self.text_bytes += _content_bytes(batch.column(self._text_column))
        self._pending.append(batch)
        self._pending_rows += len(batch)
        self.pending_bytes += batch.nbytes
        if self._rows_per_batch is None and self.pending_bytes >= self._batch_bytes:
            self._rows_per_batch = max(1, int(self._pending_rows * self._batch_bytes / self.pending_bytes))
        self._flush(final=False)

    def _flush(self, *, final: bool) -> None:
        size = self._rows_per_batch or max(1, self._pending_rows)
        if (
            not self._pending_rows
            or (self._pending_rows < size and not final)
            or (self._rows_per_batch is None and not final)
        ):
            return
        rows = pa.concat_batches(self._pending) if len(self._pending) > 1 else self._pending[0]
        start = 0
        while len(rows) - start >= size or (final and start < len(rows)):
            batch = rows.slice(start, size)
            self._row_hash.update(batch)
            self._stream.write(batch)
            start += len(batch)
        rest = rows.slice(start)
        self._pending = [rest] if len(rest) else []
        self._pending_rows, self.pending_bytes = len(rest), rest.nbytes if len(rest) else 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.abort()
            return
        try:
            self._flush(final=True)
            if not self.rows:  # some readers cannot open a stream without a batch
                self._stream.write(
                    pa.RecordBatch.from_arrays([pa.array([], f.type) for f in self.schema], schema=self.schema)
                )
            size = self._stream.close()
            self._file.commit()
        except BaseException:
            self._file.abort()
            raise
        self.shard = Shard(
            path=self.path,
            table=self.path.rsplit("/", 1)[0],
            rows=self.rows,
            bytes=size,
            sha256=self._sha256.hexdigest(),
            row_hash=self._row_hash.hexdigest(),
            first_id=self._first_id,
            text_bytes=self.text_bytes,
        )


def _content_bytes(column: pa.Array) -> int:
    """Count the bytes of a text column, or of the images in a struct column: those of its child `bytes`."""
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        offsets = np.frombuffer(column.buffers()[1], np.int32)
        return int(offsets[column.offset + len(column)] - offsets[column.offset]) if len(column) else 0
    return column.nbytes


def write_shard(root: str, path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], **options: Any) -> Shard:
    """Write batches as one shard under `root`; returns its manifest line. Options are those of ShardWriter."""
    with ShardWriter(root, path, schema, **options) as writer:
        for batch in batches:
            writer.write(batch)
    assert writer.shard is not None
    return writer.shard


class _LocalCopies:
    """Local copies of remote shards, for as long as the process lives: every reader can then map memory.

    Bounded: the least recently opened copies go when they hold more than `limit` bytes.
    """

    def __init__(self, limit: int = 16 << 30) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._directory: str | None = None
        self._copies: dict[tuple[str, str], tuple[str, int]] = {}

    def get(self, path: str, version: str) -> str:
        with self._lock:
            if self._directory is None:
                self._directory = tempfile.mkdtemp(prefix="gristmill-")
                atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
            known = self._copies.pop((path, version), None)
            if known is None:
                target = Path(self._directory) / uuid.uuid4().hex
                with files.open_read(path) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _READ_BYTES)
                known = (str(target), target.stat().st_size)
            self._copies[path, version] = known
            while sum(size for _, size in self._copies.values()) > self._limit and len(self._copies) > 1:
                # Maps that are still open keep their pages: unlinking only drops the name.
                Path(self._copies.pop(next(iter(self._copies)))[0]).unlink(missing_ok=True)
            return known[0]


_local_copies = _LocalCopies()


def open_shard(path: str, version: str = "") -> pa.ipc.RecordBatchFileReader:
    """Open a shard by its footer, memory-mapped (a remote shard through a local copy).

    version: the shard's sha256 where it is known (else the object's own checksum is asked for), so that a local copy is
    never mistaken for a newer object.
    """
    local = path if files.is_local(path) else _local_copies.get(path, version or files.version(path))
    try:
        return pa.ipc.open_file(pa.memory_map(local))
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{files.redact(path)} is not a complete shard: {error}") from error


_verified: set[tuple[str, str, int, int]] = set()


def open_verified(path: str, shard: Shard) -> pa.ipc.RecordBatchFileReader:
    """Open a shard that a manifest names; SchemaError where its bytes or its rows are not those of the manifest.

    The bytes are hashed once in a process, and again when the file's size or time has changed.
    """
    local = path if files.is_local(path) else _local_copies.get(path, shard.sha256)
    try:
        found = Path(local).stat()
    except FileNotFoundError as error:
        raise SchemaError(f"{files.redact(path)} is missing; write the dataset again") from error
    known = (local, shard.sha256, found.st_size, found.st_mtime_ns)
    reader = open_shard(path, shard.sha256)
    if known not in _verified:
        with pa.memory_map(local) as source:  # the pages that the reader maps anyway
            digest = hashlib.sha256(source.read_buffer()).hexdigest()
        rows = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        if (digest, rows) != (shard.sha256, shard.rows):
            raise SchemaError(
                f"{files.redact(path)} is not the shard that the manifest names: it has {rows} rows and the sha256 "
                f"{digest}, the manifest says {shard.rows} rows and {shard.sha256}; write the dataset again"
            )
        _verified.add(known)
    return reader


def open_sized(path: str, shard: Shard) -> pa.ipc.RecordBatchFileReader:
    """Open a shard that a manifest names; SchemaError where it has another size than there."""
    local = path if files.is_local(path) else _local_copies.get(path, shard.sha256)
    size = Path(local).stat().st_size if Path(local).exists() else None
    if size != shard.bytes:
        found = "is missing" if size is None else f"has {size} bytes, the manifest says {shard.bytes}"
        raise SchemaError(f"{files.redact(path)} {found}; write the dataset again")
    return open_shard(path, shard.sha256)


def _sha256(source: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def copy_shard(shard: Shard, source: str, target: str) -> Shard:
    """Give a shard of the directory `source` to the directory `target`, as a link where the disk can; returns its line.

    Both are local.
    """
    old, new = Path(files.join(source, shard.path)).resolve(), Path(files.join(target, shard.path))
    new.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(old, new)
    return shard


def read_batches(path: str, columns: list[str] | None = None, version: str = "") -> Iterator[pa.RecordBatch]:
    """Yield the batches of a shard without copying; only `columns` where given."""
    reader = open_shard(path, version)
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        yield batch.select(columns) if columns is not None else batch


def read_table(path: str, columns: list[str] | None = None, version: str = "") -> pa.Table:
    """Read a whole shard as a table (without copying where it is not compressed)."""
    reader = open_shard(path, version)
    table = reader.read_all()
    return table.select(columns) if columns is not None else table


def take_rows(reader: pa.ipc.RecordBatchFileReader, rows: np.ndarray, columns: list[str]) -> pa.RecordBatch:
    """Gather rows of a shard by number (in any order, repeats allowed), reading only the batches that hold them."""
    if not len(rows):
        return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in reader.schema], schema=reader.schema).select(
            columns
        )
    order = np.argsort(rows, kind="stable")
    parts = [batch.select(columns).take(pa.array(places)) for batch, _, places in batches_with(reader, rows[order])]
    return pa.concat_batches(parts).take(pa.array(np.argsort(order, kind="stable")))


def batches_with(
    reader: pa.ipc.RecordBatchFileReader, rows: np.ndarray
) -> Iterator[tuple[pa.RecordBatch, slice, np.ndarray]]:
    """Split ascending rows of a shard by batch: (batch, which of the rows it holds, their places in it)."""
    size = reader.get_batch(0).num_rows
    for number in np.unique(rows // size).tolist():
        inside = slice(*np.searchsorted(rows, [number * size, (number + 1) * size]).tolist())
        yield reader.get_batch(number), inside, rows[inside] - number * size


def verify_shard(root: str, shard: Shard) -> None:
    """Raise SchemaError where a shard's bytes are not those that the manifest names."""
    path = files.join(root, shard.path)
    with files.open_read(path) as source:
        digest = _sha256(source)
    if digest != shard.sha256:
        raise SchemaError(
            f"{files.redact(path)} is damaged: its sha256 is {digest}, the manifest names "
            f"{shard.sha256}; write the dataset again"
        )
    rows = sum(batch.num_rows for batch in read_batches(path))
    if rows != shard.rows:
        raise SchemaError(f"{files.redact(path)} holds {rows} rows; the manifest names {shard.rows}")
