"""Shards: constant rows per batch, one atomic file, nothing left behind, and damage that is found."""

from __future__ import annotations

import errno
import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import shards
from pipelines.core.shards import (
    AtomicFile,
    ShardWriter,
    open_shard,
    read_batches,
    read_table,
    take_rows,
    verify_shard,
    write_bytes,
    write_shard,
)
from schemas.base import SchemaError

SCHEMA = pa.schema(
    [pa.field("id", pa.binary(16), False), pa.field("text", pa.string(), False), pa.field("n", pa.int64())]
)


def rows(count: int, size: int = 3, start: int = 0) -> pa.RecordBatch:
    numbers = range(start, start + count)
    columns = [
        pa.array([i.to_bytes(16, "big") for i in numbers], pa.binary(16)),
        pa.array([f"{i:0{size}d}" for i in numbers], pa.string()),
        pa.array([i if i % 3 else None for i in numbers], pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def cut(batch: pa.RecordBatch, borders: list[int]) -> list[pa.RecordBatch]:
    edges = [0, *sorted(b for b in borders if b <= len(batch)), len(batch)]
    return [batch.slice(a, b - a) for a, b in itertools.pairwise(edges)]


def visible(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@given(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 20))
def test_a_shard_is_the_same_bytes_however_its_rows_arrive(
    tmp_path_factory: pytest.TempPathFactory, count: int, borders: list[int], size: int
) -> None:
    root, batch = tmp_path_factory.mktemp("s"), rows(count)
    made = write_shard(str(root), "t/shard-a.arrow", SCHEMA, cut(batch, borders), rows_per_batch=size)
    again = write_shard(str(root), "t/shard-b.arrow", SCHEMA, [batch], rows_per_batch=size)
    assert (made.sha256, made.row_hash, made.bytes) == (again.sha256, again.row_hash, again.bytes)
    lengths = [len(part) for part in read_batches(str(root / "t/shard-a.arrow"))]
    expected = [size] * (count // size) + [count % size] * (count % size > 0)
    assert lengths == (expected or [0])  # an empty shard holds one empty batch: datasets cannot open one without
    assert read_table(str(root / "t/shard-a.arrow")) == pa.Table.from_batches([batch], SCHEMA)


def test_the_manifest_line_says_what_the_file_is(tmp_path: Path) -> None:
    shard = write_shard(str(tmp_path), "documents/shard-x.arrow", SCHEMA, [rows(5, start=7)], text_column="text")
    raw = (tmp_path / "documents/shard-x.arrow").read_bytes()
    assert shard.sha256 == hashlib.sha256(raw).hexdigest() and shard.bytes == len(raw)
    assert (shard.path, shard.table, shard.rows) == ("documents/shard-x.arrow", "documents", 5)
    assert shard.first_id == (7).to_bytes(16, "big").hex() and shard.text_bytes == 15
    assert visible(tmp_path) == ["documents/shard-x.arrow"]


def test_batches_fill_the_bytes_asked_for_and_stay_constant(tmp_path: Path) -> None:
    parts = [rows(100, 50, i * 100) for i in range(20)]
    write_shard(str(tmp_path), "t/a.arrow", SCHEMA, parts, batch_bytes=20_000)
    lengths = [len(part) for part in read_batches(str(tmp_path / "t/a.arrow"))]
    assert len(set(lengths[:-1])) == 1 and lengths[-1] <= lengths[0]
    first = next(read_batches(str(tmp_path / "t/a.arrow")))
    assert 0.8 * 20_000 < first.nbytes <= 20_000 * 1.1


def test_a_row_larger_than_a_batch_is_a_batch(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(3, 1000)], batch_bytes=10)
    assert [len(part) for part in read_batches(str(tmp_path / "t/a.arrow"))] == [1, 1, 1]


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    shard = write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(0)], text_column="text")
    assert (shard.rows, shard.text_bytes, shard.first_id) == (0, 0, None)
    verify_shard(str(tmp_path), shard)
    assert read_table(str(tmp_path / "t/a.arrow")).schema.equals(SCHEMA)


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_take_rows_equals_taking_from_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("s")
    write_shard(str(root), "t/a.arrow", SCHEMA, [rows(count)], rows_per_batch=size)
    wanted = data.draw(st.lists(st.integers(0, count - 1), max_size=30))
    reader = open_shard(str(root / "t/a.arrow"))
    taken = take_rows(reader, np.array(wanted, np.int64), ["n", "id"])
    assert taken == rows(count).select(["n", "id"]).take(pa.array(wanted, pa.int64()))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_shard_holds_the_same_rows(tmp_path: Path, compression: str) -> None:
    plain = write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(5000)])
    small = write_shard(str(tmp_path), "t/b.arrow", SCHEMA, [rows(5000)], compression=compression)
    assert small.row_hash == plain.row_hash and small.bytes < plain.bytes
    assert read_table(str(tmp_path / "t/a.arrow")) == read_table(str(tmp_path / "t/b.arrow"))
    verify_shard(str(tmp_path), small)


# --- what must not be written ---------------------------------------------------------------------------------------


def test_a_null_in_a_required_field_is_refused_and_named(tmp_path: Path) -> None:
    broken = rows(2).set_column(1, SCHEMA.field("text"), pa.array(["a", None]))
    with pytest.raises(SchemaError, match=r"t/a\.arrow: field 'text' is null"):
        write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [broken])
    assert visible(tmp_path) == []


def test_a_batch_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="does not fit the shard's schema"):
        write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(2).drop_columns(["n"])])
    assert visible(tmp_path) == []


def test_a_schema_that_no_shard_can_hold_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        ShardWriter(str(tmp_path), "t/a.arrow", pa.schema([("a", pa.float16())]))
    assert visible(tmp_path) == []


# --- atomic ---------------------------------------------------------------------------------------------------------


def test_an_error_in_the_middle_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    old = write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(3)])
    with pytest.raises(KeyboardInterrupt), ShardWriter(str(tmp_path), "t/a.arrow", SCHEMA, batch_bytes=10) as writer:
        writer.write(rows(500))
        raise KeyboardInterrupt
    assert visible(tmp_path) == ["t/a.arrow"]
    verify_shard(str(tmp_path), old)


def test_the_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), "t/a.arrow", SCHEMA, rows_per_batch=10) as writer:
        writer.write(rows(100))
        assert not (tmp_path / "t/a.arrow").exists()
        assert all(Path(name).name.startswith(".") for name in visible(tmp_path))
    assert visible(tmp_path) == ["t/a.arrow"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace", "fsync_directory"])
def test_a_disk_that_fills_up_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target: dict[str, tuple[Any, str]] = {
        "write": (AtomicFile, "write"),
        "fsync": (shards.os, "fsync"),
        "replace": (Path, "replace"),
        "fsync_directory": (shards, "fsync_directory"),
    }
    monkeypatch.setattr(*target[step], full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(3)])
    with pytest.raises(OSError, match="No space left"):
        write_bytes(str(tmp_path / "t/b.json"), b"{}")
    assert [name for name in visible(tmp_path) if name.rpartition("/")[2].startswith(".")] == []
    assert visible(tmp_path) == [] or step == "fsync_directory"  # the name is there, only not yet durable


def test_a_file_that_cannot_be_closed_is_removed_and_the_first_error_is_told(tmp_path: Path) -> None:
    sink = AtomicFile(str(tmp_path / "a"))
    real = sink._file

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "first")

        def close(self) -> None:
            real.close()
            raise OSError(errno.ENOSPC, "second")

    sink._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="first"):
        try:
            sink.write(b"x")
        except OSError:
            sink.abort()
            raise
    assert visible(tmp_path) == []


# --- damage ---------------------------------------------------------------------------------------------------------


def test_verify_finds_every_flipped_bit_and_every_truncation(tmp_path: Path) -> None:
    shard = write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(20)])
    path = tmp_path / "t/a.arrow"
    raw = path.read_bytes()
    verify_shard(str(tmp_path), shard)
    for position in range(0, len(raw), 61):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        with pytest.raises(SchemaError, match=r"t/a\.arrow is damaged"):
            verify_shard(str(tmp_path), shard)
    for size in (0, 1, 8, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(SchemaError):
            verify_shard(str(tmp_path), shard)
        with pytest.raises(SchemaError, match="is not a complete shard"):
            open_shard(str(path))
    path.write_bytes(raw)
    verify_shard(str(tmp_path), shard)


def test_verify_finds_a_missing_shard(tmp_path: Path) -> None:
    shard = write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(1)])
    (tmp_path / "t/a.arrow").unlink()
    with pytest.raises(OSError, match=r"a\.arrow"):
        verify_shard(str(tmp_path), shard)


def test_reading_a_shard_copies_nothing(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(50_000, 100)])
    before = pa.total_allocated_bytes()
    held = [next(read_batches(str(tmp_path / "t/a.arrow"))), read_table(str(tmp_path / "t/a.arrow"), ["text"])]
    assert pa.total_allocated_bytes() - before < 100_000 and len(held) == 2


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "t/a.arrow", SCHEMA, [rows(4)])
    assert [b.schema.names for b in read_batches(str(tmp_path / "t/a.arrow"), ["n"])] == [["n"]]
    assert read_table(str(tmp_path / "t/a.arrow"), ["text", "id"]).column_names == ["text", "id"]
