"""LSH buckets as arrays: cut by hash range for the shuffle, and turned into edges on the other side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

BUCKET_SCHEMA = pa.schema([pa.field("hash", pa.uint64(), False), pa.field("node", pa.int64(), False)])
EDGE_SCHEMA = pa.schema([pa.field("left", pa.int64(), False), pa.field("right", pa.int64(), False)])
_ROW_BITS = 40


def node_numbers(shard: int, rows: np.ndarray) -> np.ndarray:
    """Number documents across shards: int64[n] = shard << 40 | row."""
    return (np.int64(shard) << _ROW_BITS) | rows.astype(np.int64)


def node_shard(nodes: np.ndarray) -> np.ndarray:
    """The shard of each node number."""
    return nodes >> _ROW_BITS


def node_row(nodes: np.ndarray) -> np.ndarray:
    """The row in its shard of each node number."""
    return nodes & ((1 << _ROW_BITS) - 1)


def cut_by_range(hashes: np.ndarray, nodes: np.ndarray, ranges: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut one band's (hash, node) pairs into batches by equal ranges of the hash; empty ranges are left out."""
    order = np.argsort(hashes, kind="stable")
    hashes, nodes = hashes[order], nodes[order]
    # The upper 32 bits are enough to tell ranges apart, and keep the product inside 64 bits.
    number = (hashes >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)
    borders = np.searchsorted(number, np.arange(ranges + 1, dtype=np.uint64))
    for i in range(ranges):
        part = slice(borders[i], borders[i + 1])
        if part.start < part.stop:
            columns = [pa.array(hashes[part]), pa.array(nodes[part])]
            yield i, pa.RecordBatch.from_arrays(columns, schema=BUCKET_SCHEMA)


def star_edges(batches: Iterable[pa.RecordBatch]) -> tuple[pa.RecordBatch, int]:
    """Turn the buckets of one (band, range) into star edges: smallest node of a bucket → each other one.

    Returns edges and the size of the largest bucket. The order of arrival does not matter.
    """
    parts = list(batches)
    hashes = np.concatenate([part.column("hash").to_numpy() for part in parts])
    nodes = np.concatenate([part.column("node").to_numpy() for part in parts])
    order = np.lexsort([nodes, hashes])
    hashes, nodes = hashes[order], nodes[order]
    first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    sizes = np.diff(np.append(first, len(hashes)))
    left, right = np.repeat(nodes[first], sizes), nodes
    joined = left != right
    edges = pa.RecordBatch.from_arrays([pa.array(left[joined]), pa.array(right[joined])], schema=EDGE_SCHEMA)
    return edges, int(sizes.max())
