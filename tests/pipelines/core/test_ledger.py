"""Ledger rows and books: nothing is counted twice, nothing is lost, shard by shard."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import ledger
from schemas.ledger import LEDGER
from schemas.manifest import Books

decisions = st.lists(
    st.tuples(st.sampled_from(["wiki", "laws"]), st.sampled_from(["removed", "rejected"]), st.sampled_from(["a", "b"])),
    max_size=30,
)


def batch(rows: list[tuple[str, str, str]]) -> pa.RecordBatch:
    columns = {
        "id": [bytes([i]) * 16 for i in range(len(rows))],
        "source": [row[0] for row in rows],
        "stage": "clean",
        "action": [row[1] for row in rows],
        "reason": [row[2] for row in rows],
        "locator": "x",
    }
    return ledger.rows(columns, len(rows))


def test_rows_fill_columns_from_arrays_sequences_and_single_values() -> None:
    ids = pa.chunked_array([pa.array([b"1" * 16], pa.binary(16)), pa.array([b"2" * 16], pa.binary(16))])
    columns = {
        "id": ids,
        "source": pa.array(["wiki", "laws"]),
        "stage": "clean",
        "action": "removed",
        "reason": ["a", "b"],
        "score": np.array([0.5, 2.0]),
        "threshold": 3,
        "locator": pa.array(["x", "y"]),
    }
    made = ledger.rows(columns, 2)
    LEDGER.validate(pa.Table.from_batches([made]))
    assert made.column("threshold").to_pylist() == [3.0, 3.0] and made.column("score").to_pylist() == [0.5, 2.0]
    assert made.column("kept_id").null_count == 2


@given(decisions, st.integers(0, 30))
def test_books_are_the_same_however_the_ledger_is_batched(rows: list[tuple[str, str, str]], cut: int) -> None:
    records = Counter(row[0] for row in rows)
    records_in = {source: count + 5 for source, count in records.items()}
    whole = ledger.count(records_in, [batch(rows)])
    parts = ledger.count(records_in, [batch(rows[:cut]), batch([]), batch(rows[cut:])])
    assert whole == parts
    for source, books in whole.items():
        assert books.kept == 5 and books.balance() == 0
        for action, found in (("removed", books.removed), ("rejected", books.rejected)):
            assert found == Counter(row[2] for row in rows if row[:2] == (source, action))


@given(st.lists(decisions, max_size=4))
def test_adding_shards_gives_the_books_of_all_their_rows(shards: list[list[tuple[str, str, str]]]) -> None:
    every = [row for rows in shards for row in rows]
    total = ledger.add(ledger.count(Counter(row[0] for row in rows), [batch(rows)]) for rows in shards)
    assert total == ledger.count(Counter(row[0] for row in every), [batch(every)])
    assert list(total) == sorted(total)


def test_a_report_of_removals_alone_takes_them_from_what_another_report_kept() -> None:
    seen = {"wiki": Books(10, 10)}
    gone = ledger.count({}, [batch([("wiki", "removed", "near_duplicate")] * 3)])
    assert gone["wiki"] == Books(0, -3, {"near_duplicate": 3})
    assert ledger.add([seen, gone])["wiki"] == Books(10, 7, {"near_duplicate": 3})


def test_repeated_records_are_counted_apart() -> None:
    assert ledger.count({"wiki": 2}, [], {"wiki": 3})["wiki"] == Books(2, 2, repeated=3)
    assert ledger.add([{"a": Books(1, 1, repeated=1)}, {"a": Books(2, 2, repeated=4)}])["a"].repeated == 5


@pytest.mark.parametrize("rows", [[], ["a"], ["a", "b", "a"]])
def test_by_source_counts_rows(rows: list[str]) -> None:
    assert ledger.by_source(pa.RecordBatch.from_pydict({"source": pa.array(rows, pa.string())})) == Counter(rows)
