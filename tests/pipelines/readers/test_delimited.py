"""CSV and TSV: quoted newlines stay in their field, and a bad row costs itself."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import delimited
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject


def read(path: Path, data: bytes, **config: Any) -> list[Item]:
    path.write_bytes(data)
    return list(delimited.read(InputFile(str(path), path.name, len(data), "delimited"), ReadConfig(**config)))


def test_rows_keep_quoted_newlines_quotes_and_commas(tmp_path: Path) -> None:
    data = 'id,text,tag\r\n1,"first\nline, ""quoted""",甲\r\n\r\n2,plain,\r\n'.encode()
    assert read(tmp_path / "x.csv", data, id_field="id") == [
        Document('first\nline, "quoted"', "1", '{"tag":"甲"}'.encode()),
        Document("plain", "2", b'{"tag":""}'),
    ]


@pytest.mark.parametrize("name", ["x.tsv", "X.TSV", "x.tab"])
def test_tsv_files_use_tabs(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, b"text\tn\na, b\t1\n") == [Document("a, b", None, b'{"n":"1"}')]


def test_compressed_marked_and_utf16_files_are_read(tmp_path: Path) -> None:
    text = "text,n\n文,1"
    expected = [Document("文", None, b'{"n":"1"}')]
    assert read(tmp_path / "x.csv.gz", gzip.compress(text.encode())) == expected
    assert read(tmp_path / "x.tsv.gz", gzip.compress(text.replace(",", "\t").encode())) == expected
    assert read(tmp_path / "x.csv", text.encode("utf-8-sig")) == expected
    assert read(tmp_path / "x.csv", text.encode("utf-16")) == expected
    assert read(tmp_path / "x.csv", b"") == []
    assert read(tmp_path / "x.csv", b"text\n") == []


def rejected(found: list[Item]) -> list[tuple[int, str]]:
    return [(item.position, item.reason) for item in found if isinstance(item, Reject)]


def kept(found: list[Item]) -> list[str]:
    return [item.text for item in found if isinstance(item, Document)]


def test_each_bad_row_is_one_reject(tmp_path: Path) -> None:
    data = b"text,n\nok,1\nshort\nlong,1,2\nbad \xff,1\n" + b'"a" b,1\n' + b"x" * 50 + b",1\nlast,1"
    found = read(tmp_path / "x.csv", data, max_record_bytes=40)
    assert rejected(found) == [
        (1, "ragged_row"),
        (2, "ragged_row"),
        (3, "invalid_utf8"),
        (4, "invalid_csv"),
        (5, "line_too_long"),
    ]
    assert kept(found) == ["ok", "last"]
    assert all("bad" not in item.detail for item in found if isinstance(item, Reject))


def test_a_quote_that_never_closes_is_a_reject_for_each_line_that_it_swallows(tmp_path: Path) -> None:
    found = read(tmp_path / "x.csv", b'text,n\nok,1\n"open,1\nswallowed,1\n')
    assert (kept(found), rejected(found)) == (["ok"], [(1, "invalid_csv"), (2, "invalid_csv")])


def test_a_quote_that_never_closes_ends_at_the_size_limit(tmp_path: Path) -> None:
    rows = b"row number,1\n" * 50
    found = read(tmp_path / "x.csv", b'text,n\nok,1\n"open,1\n' + rows + b"last,2", max_record_bytes=100)
    assert rejected(found)[0] == (1, "invalid_csv") and kept(found)[-1] == "last"


def test_invalid_bytes_in_a_quoted_newline_cost_one_row(tmp_path: Path) -> None:
    found = read(tmp_path / "x.csv", b'text,n\n"a\n\xff\nb",1\nok,1\n')
    assert (kept(found), rejected(found)) == (["ok"], [(0, "invalid_utf8")])


def test_a_cut_gzip_is_reported_after_its_rows(tmp_path: Path) -> None:
    data = gzip.compress(b"text,n\n" + b"".join(b"row %d %d,1\n" % (i, i * 7919 % 1009) for i in range(3000)))
    found = read(tmp_path / "x.csv.gz", data[: len(data) // 2])
    assert len(kept(found)) > 100 and rejected(found) == [(len(kept(found)), "truncated_file")]


@pytest.mark.parametrize(
    ("header", "message"),
    [(b"a,b", "no column 'text' for the text; the header holds 'a', 'b'"), (b"text,a,a", "twice")],
)
def test_a_header_that_cannot_be_meant_stops_the_run(tmp_path: Path, header: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path / "x.csv", header + b"\n1,2\n")


def test_an_empty_id_is_rejected(tmp_path: Path) -> None:
    assert rejected(read(tmp_path / "x.csv", b"text,id\na,\n", id_field="id")) == [(0, "missing_id")]


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@settings(max_examples=60)
@given(st.lists(st.tuples(FIELD, FIELD), max_size=6))
def test_what_the_csv_writer_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "other"])
    writer.writerows(rows)
    found = read(tmp_path_factory.mktemp("csv") / "x.csv", out.getvalue().encode())
    assert [
        (item.text, orjson.loads(item.metadata or b"{}")["other"]) for item in found if isinstance(item, Document)
    ] == [tuple(row) for row in rows]
