"""Sealed streams: stream readers and file readers see the same rows, and equal rows have equal bytes."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.sealed import EOS, MAGIC, SealedStream, canonical, check_schema

LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint16(), st.integers(0, 2**16 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=6)),
    (pa.binary(), st.binary(max_size=6)),
    (pa.large_string(), st.text(max_size=6)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
]


def nested(leaf: tuple[pa.DataType, st.SearchStrategy[Any]]) -> list[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    kind, value = leaf
    maybe = st.none() | value
    return [
        leaf,
        (pa.list_(kind), st.lists(maybe, max_size=3)),
        (pa.list_(kind, 2), st.lists(maybe, min_size=2, max_size=2)),
        (pa.struct([("a", kind), ("b", pa.bool_())]), st.fixed_dictionaries({"a": maybe, "b": st.booleans()})),
    ]


@st.composite
def batches(draw: st.DrawFn) -> tuple[pa.RecordBatch, list[int]]:
    """A batch of random columns, and borders at which to cut it."""
    columns = draw(
        st.lists(st.sampled_from([kind for leaf in LEAVES for kind in nested(leaf)]), min_size=1, max_size=4)
    )
    rows = draw(st.integers(0, 40))
    arrays, fields = [], []
    for i, (kind, value) in enumerate(columns):
        nullable = draw(st.booleans())
        one = st.none() | value if nullable else value
        arrays.append(pa.array(draw(st.lists(one, min_size=rows, max_size=rows)), kind))
        fields.append(pa.field(f"c{i}", kind, nullable))
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, {"k": "v"})), [0, *cuts, rows]


def slices(batch: pa.RecordBatch, borders: list[int]) -> list[pa.RecordBatch]:
    return [batch.slice(a, b - a) for a, b in itertools.pairwise(borders)]


def sealed(schema: pa.Schema, parts: list[pa.RecordBatch], compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    stream = SealedStream(sink.write, schema, compression)
    for part in parts:
        stream.write(part)
    assert stream.close() == len(sink.getvalue())
    return sink.getvalue()


@given(batches(), st.sampled_from([None, "zstd", "lz4"]))
def test_stream_and_file_readers_agree_with_what_was_written(
    case: tuple[pa.RecordBatch, list[int]], compression: str | None
) -> None:
    batch, borders = case
    parts = slices(batch, borders)
    raw = sealed(batch.schema, parts, compression)
    stream, file = pa.ipc.open_stream(raw), pa.ipc.open_file(raw)
    assert file.schema.equals(batch.schema, check_metadata=True) and stream.schema.equals(batch.schema, True)
    assert list(stream) == parts
    assert [file.get_batch(i) for i in range(file.num_record_batches)] == parts
    for i in range(file.num_record_batches):
        file.get_batch(i).validate(full=True)


@given(batches())
def test_equal_rows_have_equal_bytes_wherever_they_were_cut_from(case: tuple[pa.RecordBatch, list[int]]) -> None:
    batch, borders = case
    for part in slices(batch, borders):
        fresh = pa.RecordBatch.from_pylist(part.to_pylist(), schema=batch.schema)
        assert canonical(part) == part
        assert sealed(batch.schema, [part]) == sealed(batch.schema, [fresh])


@given(batches())
def test_bytes_are_those_of_a_copy_of_every_row_as_earlier_versions_wrote(
    case: tuple[pa.RecordBatch, list[int]],
) -> None:
    batch, borders = case
    for part in slices(batch, borders):
        every = pa.array(np.arange(len(part)))
        copied = pa.RecordBatch.from_arrays([column.take(every) for column in part.columns], schema=part.schema)
        assert canonical(part).serialize() == copied.serialize()


def test_values_without_nulls_are_not_copied() -> None:
    column = pa.array(range(100), pa.int64())
    batch = pa.RecordBatch.from_arrays([column.slice(10, 20)], names=["n"])
    assert canonical(batch).column(0).buffers()[1].address == column.buffers()[1].address + 80


def test_a_slice_does_not_carry_its_neighbours_values_along() -> None:
    batch = pa.RecordBatch.from_pydict({"id": pa.array([b"A" * 16, b"SECRET__SECRET__"], pa.binary(16))})
    assert b"SECRET" not in sealed(batch.schema, [batch.slice(0, 1)])


def test_an_empty_stream_and_a_stream_of_empty_batches_open() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.list_(pa.int32(), 3))])
    raw = sealed(schema, [])
    assert pa.ipc.open_file(raw).num_record_batches == 0 and pa.ipc.open_stream(raw).read_all().num_rows == 0
    empty = schema.empty_table().combine_chunks()
    raw = sealed(schema, [pa.RecordBatch.from_arrays([c.combine_chunks() for c in empty.columns], schema=schema)] * 2)
    assert pa.ipc.open_file(raw).num_record_batches == 2 and pa.ipc.open_file(raw).read_all().num_rows == 0


def test_the_layout_is_a_stream_then_a_footer() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1, 2, 3]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(canonical(batch))
    raw, plain = sealed(batch.schema, [batch]), sink.getvalue()
    assert raw.startswith(plain) and plain.endswith(EOS) and raw.endswith(MAGIC)


def test_many_batches_have_their_own_blocks() -> None:
    schema = pa.schema([("a", pa.int64())])
    parts = [pa.RecordBatch.from_pydict({"a": [i]}, schema=schema) for i in range(1000)]
    file = pa.ipc.open_file(sealed(schema, parts))
    assert [file.get_batch(i)["a"][0].as_py() for i in (0, 1, 499, 999)] == [0, 1, 499, 999]


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_truncated_stream_does_not_open_as_a_file(cut: int) -> None:
    batch = pa.RecordBatch.from_pydict({"a": np.arange(100)})
    with pytest.raises(pa.ArrowInvalid):
        pa.ipc.open_file(sealed(batch.schema, [batch, batch])[:-cut]).read_all()


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int32(), pa.string()),
        pa.float16(),
        pa.list_view(pa.int32()),
        pa.large_list_view(pa.int32()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.struct([("a", pa.float16())]),
        pa.list_(pa.list_view(pa.int8()), 2),
    ],
)
def test_types_that_a_reader_cannot_hold_are_refused_at_any_depth(kind: pa.DataType) -> None:
    with pytest.raises(TypeError, match="column 'bad'"):
        check_schema(pa.schema([("good", pa.string()), ("bad", kind)]))
