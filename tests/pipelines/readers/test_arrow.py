"""Rows of any Arrow schema: no row is lost, no value depends on what else is installed, no bad buffer is trusted."""

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.readers import arrow
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject


def read(columns: dict[str, Any], position: int = 0, **config: Any) -> list[Item]:
    return list(arrow.items(pa.record_batch(columns), position, ReadConfig(**config)))


@pytest.mark.parametrize(
    "type_",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_text_of_every_string_type_is_read(type_: pa.DataType) -> None:
    values = ["汉字", "b", "汉字", None, ""]
    raw = [v.encode() if v is not None and "binary" in str(type_) else v for v in values]
    found = read({"text": pa.array(raw).cast(type_), "tag": pa.array(values).cast(type_)}, position=10)
    assert [item.text for item in found if isinstance(item, Document)] == ["汉字", "b", "汉字", ""]
    bad = found[3]
    assert isinstance(bad, Reject) and (bad.position, bad.reason) == (13, "missing_text")
    if "binary" not in str(type_):
        assert isinstance(found[0], Document) and found[0].metadata == '{"tag":"汉字"}'.encode()


def test_a_character_that_is_not_utf8_costs_its_row_alone() -> None:
    broken = pa.array([b"a", b"\xff", b"c", b"d"]).view(pa.string())
    tags = pa.array([b"a", b"b", b"\xff", b"d"]).view(pa.string())
    found = read({"text": broken, "tag": tags})
    assert [type(item) for item in found] == [Document, Reject, Reject, Document]
    assert [item.reason for item in found if isinstance(item, Reject)] == ["invalid_utf8"] * 2


def test_offsets_that_leave_the_buffer_are_an_error_and_no_crash() -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1_000_000, 11)))
    wild = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"hello world"))
    with pytest.raises(pa.ArrowInvalid):
        read({"text": wild})


def test_values_that_json_lacks_are_converted_as_documented() -> None:
    zone = timezone(timedelta(hours=8))
    columns = {
        "text": ["t"],
        "bytes": [b"\x00\xff"],
        "day": [date(2026, 1, 2)],
        "when": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6)], pa.timestamp("us")),
        "nanos": pa.array([1_767_323_045_000_000_789], pa.timestamp("ns")),
        "zoned": pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)], pa.timestamp("s", "Asia/Shanghai")),
        "clock": pa.array([time(3, 4, 5)], pa.time64("ns")),
        "span": pa.array([timedelta(seconds=1, microseconds=5)], pa.duration("us")),
        "price": pa.array([Decimal("1.10")], pa.decimal128(10, 2)),
        "nan": [float("nan")],
        "half": pa.array([1.5], pa.float16()),
        "big": pa.array([2**64 - 1], pa.uint64()),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "deep": pa.array([[{"at": datetime(2026, 1, 2), "n": None}]]),
        "none": pa.nulls(1),
    }
    (found,) = read(columns)
    assert isinstance(found, Document) and found.metadata is not None
    assert orjson.loads(found.metadata) == {
        "bytes": "AP8=",
        "day": "2026-01-02",
        "when": "2026-01-02T03:04:05.000006",
        "nanos": "2026-01-02T03:04:05",
        "zoned": "2026-01-01T19:04:05+00:00",
        "clock": "03:04:05",
        "span": 1_000_005,
        "price": "1.10",
        "nan": None,
        "half": 1.5,
        "big": 2**64 - 1,
        "map": [["k", 1]],
        "deep": [{"at": "2026-01-02T00:00:00", "n": None}],
        "none": None,
    }
    assert found.metadata == orjson.dumps(orjson.loads(found.metadata), option=orjson.OPT_SORT_KEYS)


def test_ids_are_text_or_whole_numbers_and_must_be_there() -> None:
    found = read({"text": ["a", "b", "c"], "id": ["x", "", None]}, id_field="id")
    assert found[0] == Document("a", "x", None)
    assert [item.reason for item in found[1:] if isinstance(item, Reject)] == ["missing_id"] * 2
    assert read({"text": ["a"], "id": [7]}, id_field="id") == [Document("a", "7", None)]
    assert read({"text": ["a"], "id": [0]}, id_field="id") == [Document("a", "0", None)]


def test_a_text_beyond_the_limit_is_rejected() -> None:
    found = read({"text": ["12345", "123456"]}, max_record_bytes=5)
    assert isinstance(found[0], Document) and isinstance(found[1], Reject) and found[1].reason == "text_too_long"


def test_rows_beyond_one_slice_keep_their_positions() -> None:
    texts: list[str | None] = [str(i) for i in range(arrow.ROWS * 2 + 5)]
    texts[arrow.ROWS + 1] = None
    found = read({"text": pa.array(texts)}, position=100)
    assert len(found) == len(texts)
    assert [item.position for item in found if isinstance(item, Reject)] == [100 + arrow.ROWS + 1]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"body": pa.string()}, "no column 'text' for the text; the file holds body"),
        ({"text": pa.int64(), "id": pa.string()}, "column 'text' for the text is int64"),
        ({"text": pa.string(), "id": pa.float64()}, "column 'id' for the id is double"),
        ({"text": pa.string()}, "no column 'id'"),
    ],
)
def test_a_schema_that_cannot_be_meant_stops_the_run(schema: dict[str, pa.DataType], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        arrow.check_columns(pa.schema(schema), InputFile("p", "r", 0, "arrow"), ReadConfig(id_field="id"))


def test_repeated_column_names_stop_the_run() -> None:
    schema = pa.schema([("text", pa.string()), ("a", pa.int8()), ("a", pa.int8())])
    with pytest.raises(ReadError, match="same name"):
        arrow.check_columns(schema, InputFile("p", "r", 0, "arrow"), ReadConfig())


def test_a_failed_read_is_raised_and_not_blamed_on_the_file(tmp_path: Path) -> None:
    class Failing:
        def read(self, size: int) -> bytes:
            raise OSError("connection reset")

    source = arrow.Source(Failing())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="connection reset"):
        source.read(8)
    with pytest.raises(OSError, match="connection reset"):
        source.blame(ValueError("anything"))
