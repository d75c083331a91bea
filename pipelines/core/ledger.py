"""Build ledger rows, and count them into books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.ledger import LEDGER, REJECTED, REMOVED
from schemas.manifest import Books

MAX_DETAIL = 200


def rows(columns: Mapping[str, Any], length: int) -> pa.RecordBatch:
    """Make a ledger batch of `length` rows from columns: arrays, sequences, or one value for all rows.

    Columns that are not named are null.
    """
    arrays = []
    for field in LEDGER.fields:
        value = columns.get(field.name)
        if value is None:
            arrays.append(pa.nulls(length, field.type))
        elif isinstance(value, (str, bytes, float, int)):
            arrays.append(pa.repeat(pa.scalar(value, field.type), length))
        elif isinstance(value, (pa.Array, pa.ChunkedArray)):
            array = value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
            arrays.append(array.cast(field.type))
        else:
            arrays.append(pa.array(value, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=LEDGER.schema)


def count(
    records_in: Mapping[str, int],
    ledger: Iterable[pa.RecordBatch],
    repeated: Mapping[str, int] | None = None,
) -> dict[str, Books]:
    """Count the books of one shard: per source, records in, and removed and rejected by reason from the ledger.

    What was kept is what is left: the caller checks it against the rows that it wrote.
    """
    tallies: dict[str, dict[str, Counter[str]]] = {}
    for batch in ledger:
        if not len(batch):
            continue
        groups = pa.Table.from_batches([batch]).group_by(["source", "action", "reason"]).aggregate([([], "count_all")])
        for row in groups.to_pylist():
            by_action = tallies.setdefault(row["source"], {REMOVED: Counter(), REJECTED: Counter()})
            by_action[row["action"]][row["reason"]] += row["count_all"]
    books = {}
    for source in sorted({*records_in, *tallies}):
        tally = tallies.get(source, {REMOVED: Counter(), REJECTED: Counter()})
        gone = sum(tally[REMOVED].values()) + sum(tally[REJECTED].values())
        books[source] = Books(
            records_in=records_in.get(source, 0),
            kept=records_in.get(source, 0) - gone,
            removed=dict(sorted(tally[REMOVED].items())),
            rejected=dict(sorted(tally[REJECTED].items())),
            repeated=(repeated or {}).get(source, 0),
        )
    return books


def by_source(batch: pa.RecordBatch) -> Counter[str]:
    """Count the rows of a batch by source."""
    return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(batch.column("source")).to_pylist()})


def add(books: Iterable[Mapping[str, Books]]) -> dict[str, Books]:
    """Add the books of shards, source by source."""
    total: dict[str, Books] = {}
    for one in books:
        for source, more in one.items():
            have = total.get(source, Books(0, 0))
            total[source] = Books(
                records_in=have.records_in + more.records_in,
                kept=have.kept + more.kept,
                removed=dict(sorted((Counter(have.removed) + Counter(more.removed)).items())),
                rejected=dict(sorted((Counter(have.rejected) + Counter(more.rejected)).items())),
                repeated=have.repeated + more.repeated,
            )
    return dict(sorted(total.items()))
