"""Parquet: row groups stream, and a damaged one costs only itself and is in the books."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers import parquet
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject


def read(path: Path, config: ReadConfig | None = None) -> list[Item]:
    return list(parquet.read(InputFile(str(path), path.name, path.stat().st_size, "parquet"), config or ReadConfig()))


def table(rows: int) -> pa.Table:
    return pa.table({"text": [f"text {i} 文" for i in range(rows)], "n": list(range(rows))})


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_all_rows_of_all_row_groups_come_in_order(tmp_path: Path, compression: str) -> None:
    pq.write_table(table(1000), tmp_path / "x.parquet", row_group_size=300, compression=compression)
    assert read(tmp_path / "x.parquet", ReadConfig(batch_bytes=1000)) == [
        Document(f"text {i} 文", None, f'{{"n":{i}}}'.encode()) for i in range(1000)
    ]


def test_a_damaged_row_group_is_a_reject_for_each_of_its_rows_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(900), path, row_group_size=300, write_page_checksum=True, compression="none")
    group = pq.ParquetFile(path).metadata.row_group(1)
    raw = bytearray(path.read_bytes())
    raw[group.column(0).dictionary_page_offset + group.column(0).total_compressed_size // 3] ^= 0xFF
    path.write_bytes(raw)
    found = read(path)
    bad = [item for item in found if isinstance(item, Reject)]
    assert [(item.position, item.reason) for item in bad] == [(i, "unreadable_rows") for i in range(300, 600)]
    assert bad[0].detail.startswith("row group 1: ")
    assert [item.text for item in found if isinstance(item, Document)] == [
        f"text {i} 文" for i in (*range(300), *range(600, 900))
    ]


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -9])
def test_a_cut_file_is_one_reject(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(100), path)
    path.write_bytes(path.read_bytes()[:keep])
    (bad,) = read(path)
    assert isinstance(bad, Reject) and bad.reason == "unreadable_file" and str(tmp_path) not in bad.detail


def test_a_file_without_rows_holds_no_records(tmp_path: Path) -> None:
    pq.write_table(table(0), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == []


def test_a_missing_text_column_stops_the_run_and_names_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ReadError, match=r"x\.parquet: no column 'text'.*body \(string\)"):
        read(tmp_path / "x.parquet")
