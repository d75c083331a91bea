"""Record batches in motion: equal bytes for equal batches, and no parent along, through Beam and through pickle."""

from __future__ import annotations

import pickle

import apache_beam as beam
import pyarrow as pa
from apache_beam import coders as beam_coders
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import coders
from pipelines.core.coders import RecordBatchCoder, decode_batch, encode_batch
from pipelines.core.runners import RunOptions, run


def parent(rows: int = 100_000) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"text": ["x" * 100] * rows, "flag": [True] * rows})


@given(st.lists(st.tuples(st.none() | st.text(max_size=4), st.booleans()), max_size=20), st.data())
def test_a_batch_survives_and_its_bytes_depend_on_its_values_alone(
    rows: list[tuple[str | None, bool]], data: st.DataObject
) -> None:
    schema = pa.schema([pa.field("t", pa.string()), pa.field("b", pa.bool_(), False)], {"key": "value"})
    whole = pa.RecordBatch.from_pylist([{"t": t, "b": b} for t, b in rows], schema=schema)
    start = data.draw(st.integers(0, len(rows)))
    part = whole.slice(start, data.draw(st.integers(0, len(rows) - start)))
    fresh = pa.RecordBatch.from_pylist(part.to_pylist(), schema=schema)
    assert encode_batch(part) == encode_batch(fresh)
    decoded = decode_batch(encode_batch(part))
    assert decoded == part and decoded.schema.equals(schema, check_metadata=True)
    assert pickle.loads(pickle.dumps(part)) == part


def test_a_small_slice_of_a_large_batch_is_small_by_both_ways() -> None:
    part = parent().slice(500, 10)
    assert len(encode_batch(part)) < 4_000
    assert len(pickle.dumps(part)) < 4_000
    assert len(pickle.dumps({"nested": [part]})) < 4_000


def test_beam_uses_our_coder_for_the_type() -> None:
    coders.register()
    coder = beam_coders.registry.get_coder(pa.RecordBatch)
    assert isinstance(coder, RecordBatchCoder) and coder.is_deterministic()
    inner = beam_coders.registry.get_coder(tuple[str, tuple[str, pa.RecordBatch]])
    assert len(inner.encode(("key", ("", parent().slice(0, 10))))) < 4_000


def test_beams_size_samples_do_not_encode() -> None:
    part = parent().slice(0, 10)
    assert RecordBatchCoder().estimate_size(part) == part.nbytes
    assert RecordBatchCoder().to_type_hint() is pa.RecordBatch


def test_a_shuffle_keeps_batches_whole() -> None:
    def lengths(group: tuple[int, list[pa.RecordBatch]]) -> list[int]:
        return sorted(len(batch) for batch in group[1])

    def build(pipeline: beam.Pipeline) -> None:
        parts = [(0, parent(50).slice(i, 2 + i)) for i in range(3)]
        typed = beam.Create(parts).with_output_types(tuple[int, pa.RecordBatch])
        assert_that(pipeline | typed | beam.GroupByKey() | beam.Map(lengths), equal_to([[2, 3, 4]]))

    run(build, RunOptions(workers=1))
