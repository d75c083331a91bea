"""Count 64-bit hashes over a corpus: entries of each shard, added by range of the hash, in rounds that fit memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.dataset import shard_path
from pipelines.core.grouping import SHUFFLE, Keyed, batch_element, range_numbers
from pipelines.core.shards import read_batches, write_shard
from pipelines.core.stage import Report

UNITS = "units"  # the table under scratch
COUNT_SCHEMA = pa.schema(
    [pa.field("hash", pa.uint64(), False), pa.field("count", pa.int64(), False), pa.field("place", pa.int64(), False)]
)
ENTRY_BYTES = 24
_RANGE_BYTES = 64 << 20  # of the entries in one group of the shuffle


def count_units(hashes: np.ndarray, places: np.ndarray, counts: np.ndarray) -> pa.RecordBatch:
    """Add up entries of equal hash: COUNT_SCHEMA, by ascending hash, with the smallest place of each."""
    order = np.lexsort([places, hashes])
    hashes, places, counts = hashes[order], places[order], counts[order]
    first = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1]))) if len(hashes) else order
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return pa.RecordBatch.from_arrays(
        [pa.array(hashes[first]), pa.array(totals), pa.array(places[first])], schema=COUNT_SCHEMA
    )


class Round(NamedTuple):
    """Ranges [first, last) out of `ranges` equal ones of the 64-bit hash."""

    first: int
    last: int
    ranges: int


def plan_rounds(entries: int, memory: int) -> list[Round]:
    """Cut the hashes into rounds whose shuffle takes at most `memory` bytes (0: no limit), or one range each."""
    held = max(1, entries * ENTRY_BYTES)
    ranges = max(1, -(-held // _RANGE_BYTES), -(-int(held * SHUFFLE) // memory) if memory else 1)
    size = max(1, int(memory / (held * SHUFFLE / ranges))) if memory else ranges
    return [Round(first, min(first + size, ranges), ranges) for first in range(0, ranges, size)]


def unit_elements(start: tuple[str, int], this: Round, scratch: str) -> Iterator[Keyed]:
    """Yield what one shard, whose units are numbered from `start[1]` on in the corpus, puts into a round."""
    key, first = start
    for batch in read_batches(files.join(scratch, shard_path(UNITS, key))):
        number = range_numbers(batch.column("hash").to_numpy(), this.ranges)  # ascending, as the hashes are
        borders = np.searchsorted(number, np.arange(this.first, this.last + 1, dtype=np.uint64))
        places = pa.array(batch.column("place").to_numpy() + first)
        batch = batch.set_column(2, COUNT_SCHEMA.field("place"), places)
        for i in np.flatnonzero(np.diff(borders)).tolist():
            part = batch.slice(borders[i], borders[i + 1] - borders[i])
            yield batch_element(f"units/{this.first + i:08d}", part)


def count_range(key: str, batches: Sequence[pa.RecordBatch], scratch: str, most: int, frequent: int) -> Report:
    """Write the hashes of one range that occur more than `most` times; report the `frequent` most frequent ones."""
    columns = (np.concatenate([batch.column(i).to_numpy() for batch in batches]) for i in range(3))
    hashes, counts, places = columns
    entries = count_units(hashes, places, counts)
    repeated = entries.filter(pc.greater(entries.column("count"), most))
    path = f"repeated/{key.replace('/', '-')}.arrow"
    if len(repeated):
        write_shard(scratch, path, COUNT_SCHEMA, [repeated], durable=False)
    facts = {"path": path if len(repeated) else None, "repeated": len(repeated)}
    return Report(key, facts={**facts, "frequent": _most_frequent(repeated, frequent)})


def _most_frequent(repeated: pa.RecordBatch, number: int) -> list[list[int]]:
    count, place = (repeated.column(name).to_numpy() for name in ("count", "place"))
    order = np.lexsort([place, -count])[:number]
    return [[int(count[i]), int(place[i]), int(repeated.column("hash")[i].as_py())] for i in order]
