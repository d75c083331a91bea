"""The row hash: blind to batching and to Arrow's layout, sensitive to every value."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.rowhash import RowHash

SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(4), False),
        pa.field("text", pa.string()),
        pa.field("n", pa.int32()),
        pa.field("flag", pa.bool_(), False),
        pa.field("list", pa.list_(pa.uint16())),
        pa.field("fixed", pa.list_(pa.field("item", pa.uint8(), False), 2)),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("when", pa.timestamp("us", "UTC")),
    ]
)
rows = st.fixed_dictionaries(
    {
        "id": st.binary(min_size=4, max_size=4),
        "text": st.none() | st.text(max_size=5),
        "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "flag": st.booleans(),
        "list": st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3),
        "fixed": st.none() | st.lists(st.integers(0, 255), min_size=2, max_size=2),
        "image": st.none()
        | st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=3), "path": st.none() | st.text(max_size=3)}),
        "when": st.none() | st.just(datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)),
    }
)


def digest(*parts: pa.RecordBatch, schema: pa.Schema = SCHEMA) -> str:
    hashed = RowHash(schema)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def batch(values: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(values, schema=SCHEMA)


@given(st.lists(rows, max_size=20), st.lists(st.integers(0, 20), max_size=4))
def test_the_hash_does_not_depend_on_batch_borders_or_slices(values: list[dict[str, Any]], cuts: list[int]) -> None:
    whole = batch(values)
    borders = sorted({0, len(values), *(c for c in cuts if c <= len(values))})
    parts = [whole.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    apart = [batch(values[a:b]) for a, b in itertools.pairwise(borders)]
    assert digest(whole) == digest(*parts) == digest(*apart) == digest(*parts, whole.slice(0, 0))


@given(st.lists(rows, min_size=1, max_size=8), st.lists(rows, min_size=1, max_size=8))
def test_other_rows_have_another_hash(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert (digest(batch(left)) == digest(batch(right))) == (left == right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["ab", "c"], ["a", "bc"]),  # lengths, not only bytes
        (["", None], [None, ""]),  # a null is no empty text
        (["a", "b"], ["b", "a"]),  # order
        (["a"], ["a", ""]),
    ],
)
def test_strings_that_join_to_the_same_bytes_differ(left: list[Any], right: list[Any]) -> None:
    schema = pa.schema([("t", pa.string())])
    made = [pa.RecordBatch.from_pydict({"t": values}, schema=schema) for values in (left, right)]
    assert digest(made[0], schema=schema) != digest(made[1], schema=schema)


def test_a_value_hidden_under_a_null_struct_does_not_count() -> None:
    child = pa.array([1, 2])
    schema = pa.schema([pa.field("s", pa.struct([("a", pa.int64())]))])
    hashes = set()
    for hidden in (child, pa.array([1, 99])):
        column = pa.StructArray.from_arrays([hidden], ["a"], mask=pa.array([False, True]))
        hashes.add(digest(pa.RecordBatch.from_arrays([column], schema=schema), schema=schema))
    assert len(hashes) == 1


def test_names_and_types_count() -> None:
    one = pa.RecordBatch.from_pydict({"a": pa.array([1], pa.int64())})
    other = pa.RecordBatch.from_pydict({"b": pa.array([1], pa.int64())})
    signed = pa.RecordBatch.from_pydict({"a": pa.array([1], pa.uint64())})
    assert len({digest(b, schema=b.schema) for b in (one, other, signed)}) == 3


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.time64("us"), pa.date32(), pa.date64(), pa.duration("s"), pa.float32(), pa.uint8()]
)
def test_primitive_columns_of_every_kind_hash_by_value(kind: pa.DataType) -> None:
    schema = pa.schema([pa.field("c", kind)])
    width = {8: pa.uint8(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width]

    def of(value: int | None) -> str:
        step = 86_400_000 if kind == pa.date64() else 1
        raw = pa.array([value and value * step, None], width).view(kind)
        return digest(pa.RecordBatch.from_arrays([raw], schema=schema), schema=schema)

    assert len({of(1), of(2), of(None)}) == 3 and of(1) == of(1)


@pytest.mark.parametrize(
    "column", [pa.array(["a"], pa.string_view()), pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))]
)
def test_a_column_without_a_stable_layout_is_refused_rather_than_hashed_by_address(column: pa.Array) -> None:
    one = pa.RecordBatch.from_arrays([column], names=["c"])
    with pytest.raises(TypeError, match="column 'c'"):
        digest(one, schema=one.schema)


def test_the_hash_is_the_one_that_is_documented() -> None:
    text = "中文 text"
    one = pa.RecordBatch.from_pydict({"id": pa.array([b"0123456789abcdef"], pa.binary(16)), "text": [text]})
    leaves = {
        "id": b"0123456789abcdef",
        "id?": b"\1",
        "text": text.encode(),
        "text#": len(text.encode()).to_bytes(8, "little"),
        "text?": b"\1",
    }
    total = b"id:fixed_size_binary[16];text:string;"
    total += b"".join(name.encode() + b"=" + xxhash.xxh3_128_digest(leaf) for name, leaf in leaves.items())
    assert digest(one, schema=one.schema) == xxhash.xxh3_128_hexdigest(total)
