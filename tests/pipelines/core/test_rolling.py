"""Rolling shards: co-partitioned tables that roll together, and nothing left of a run that fails."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.core import rolling
from pipelines.core.rolling import RollingWriter
from pipelines.core.shards import read_table

DOCUMENTS = pa.schema([pa.field("id", pa.binary(16), False), pa.field("text", pa.string(), False)])
LEDGER = pa.schema([pa.field("id", pa.binary(16), False)])
TABLES = {"documents": DOCUMENTS, "ledger": LEDGER}


def pair(start: int, rows: int, dead: int, size: int = 10) -> dict[str, pa.RecordBatch]:
    ids = [(start + i).to_bytes(16, "big") for i in range(rows)]
    documents = pa.RecordBatch.from_pydict({"id": ids, "text": ["x" * size] * rows}, schema=DOCUMENTS)
    return {"documents": documents, "ledger": pa.RecordBatch.from_pydict({"id": [bytes(16)] * dead}, schema=LEDGER)}


def test_a_set_of_shards_ends_at_the_text_bytes_and_every_table_gets_each_key(tmp_path: Path) -> None:
    with RollingWriter(str(tmp_path), "s-00000", TABLES, 100) as writer:
        keys = []
        for i in range(5):
            writer.write(pair(i * 10, 6, i % 2))
            keys.append((writer.key, writer.rows))
    assert keys == [(f"s-00000-{part:03d}", rows) for part, rows in ((0, 6), (0, 12), (1, 6), (1, 12), (2, 6))]
    assert [key for key, _ in writer.done] == ["s-00000-000", "s-00000-001", "s-00000-002"]
    for key, shards in writer.done:
        assert [shard.path for shard in shards] == [f"documents/shard-{key}.arrow", f"ledger/shard-{key}.arrow"]
    assert [[shard.rows for shard in shards] for _, shards in writer.done] == [[12, 1], [12, 1], [6, 0]]
    assert [shards[0].text_bytes for _, shards in writer.done] == [120, 120, 60]
    assert all(shards[1].text_bytes == 0 for _, shards in writer.done)
    ids = [read_table(str(tmp_path / shards[0].path))["id"].to_pylist() for _, shards in writer.done]
    assert [int.from_bytes(one, "big") for part in ids for one in part] == [
        i * 10 + j for i in range(5) for j in range(6)
    ]


def test_images_roll_by_their_bytes(tmp_path: Path) -> None:
    rows = [
        {"id": i.to_bytes(16, "big"), "image": {"bytes": b"x" * 25, "path": "a name that does not count"}}
        for i in range(9)
    ]
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    images = pa.RecordBatch.from_pylist(rows, pa.schema([pa.field("id", pa.binary(16), False), ("image", kind)]))
    tables = {"images": images.schema}
    with RollingWriter(str(tmp_path), "s-00000", tables, 100, content_column="image") as writer:
        for start in (0, 3, 6):
            writer.write({"images": images.slice(start, 3)})  # a slice: its parent's bytes do not count
    assert [(shards[0].rows, shards[0].text_bytes) for _, shards in writer.done] == [(6, 150), (3, 75)]


def test_a_task_without_records_writes_one_empty_set(tmp_path: Path) -> None:
    with RollingWriter(str(tmp_path), "s-00000", TABLES, 100) as writer:
        pass
    assert [[shard.rows for shard in shards] for _, shards in writer.done] == [[0, 0]]


def test_dead_letters_alone_do_not_roll(tmp_path: Path) -> None:
    with RollingWriter(str(tmp_path), "s-00000", TABLES, 1) as writer:
        for _ in range(3):
            writer.write(pair(0, 0, 2))
    assert [[shard.rows for shard in shards] for _, shards in writer.done] == [[0, 6]]


def test_a_shard_also_ends_before_a_batch_of_it_outgrows_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "MAX_BATCH_BYTES", 500)
    with RollingWriter(str(tmp_path), "s-00000", TABLES, 1 << 40) as writer:
        for i in range(4):
            writer.write(pair(i, 1, 0, 600))
    assert len(writer.done) == 4


def test_an_error_leaves_no_unfinished_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RollingWriter(str(tmp_path), "s-00000", TABLES, 100) as writer:
        writer.write(pair(0, 20, 1))
        writer.write(pair(20, 1, 1))  # the first set is complete, the second has begun
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.rglob("*.arrow")) == ["shard-s-00000-000.arrow"] * 2
    assert [path for path in tmp_path.rglob(".*")] == []
