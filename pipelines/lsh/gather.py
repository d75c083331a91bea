"""Gather index rows of candidates by node number, copying only what a decision needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.core.identity import id_bytes
from pipelines.core.shards import batches_with, take_rows
from pipelines.lsh.nodes import Nodes


class Signed(NamedTuple):
    """signatures: uint32[n, num_perm]. values uint32, offsets int64[n + 1]: the bottom-k sketches."""

    signatures: np.ndarray
    values: np.ndarray
    offsets: np.ndarray


def gather_heads(nodes: np.ndarray, numbering: Nodes, columns: Sequence[str]) -> pa.RecordBatch:
    """Read a few columns of some records, in their order, and whether they are `fixed`."""
    parts, positions = [], []
    for shard, where, rows in numbering.by_shard(nodes):
        part = take_rows(shard.open(), rows, list(columns))
        parts.append(part.append_column("fixed", pa.repeat(shard.fixed, len(part))))
        positions.append(where)
    return pa.concat_batches(parts).take(pa.array(np.argsort(np.concatenate(positions), kind="stable")))


def id_words(nodes: np.ndarray, numbering: Nodes) -> np.ndarray:
    """The ids of some records as two numbers each, in whose order they are sorted: uint64[n, 2]."""
    ids = gather_heads(nodes, numbering, ["id"]).column("id")
    return np.ascontiguousarray(id_bytes(ids)).view(">u8").reshape(-1, 2)


def gather_signed(nodes: np.ndarray, numbering: Nodes, num_perm: int, prefix: str = "") -> Signed:
    """Read the signatures and sketches of some documents, in their order; prefix: of the columns' names."""
    signed = np.empty((len(nodes), num_perm), np.uint32)
    lengths = np.zeros(len(nodes) + 1, np.int64)
    chunks = []
    for shard, where, rows in numbering.by_shard(nodes):
        for batch, inside, taken in batches_with(shard.open(), rows):
            signed[where[inside]] = batch.column(f"{prefix}signature").flatten().to_numpy().reshape(-1, num_perm)[taken]
            sketch = batch.column(f"{prefix}sketch")
            offsets, values = sketch.offsets.to_numpy(), sketch.values.to_numpy()
            lengths[1 + where[inside]] = offsets[taken + 1] - offsets[taken]
            chunks.append((values, offsets, taken, where[inside]))
    borders = np.cumsum(lengths)
    gathered = np.empty(borders[-1], np.uint32)
    for values, offsets, taken, where in chunks:
        _copy_lists(values, offsets, taken, gathered, borders, where)
    return Signed(signed, gathered, borders)


@numba.njit(nogil=True, cache=True)
def _copy_lists(values, offsets, rows, out, borders, where):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        first, to = offsets[rows[i]], borders[where[i]]
        for j in range(offsets[rows[i] + 1] - first):
            out[to + j] = values[first + j]
