"""LSH buckets as arrays: cut by hash range for the shuffle, and turned into edges on the other side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.core.grouping import range_numbers

BUCKET_SCHEMA = pa.schema([pa.field("hash", pa.uint64(), False), pa.field("node", pa.int64(), False)])
EDGE_SCHEMA = pa.schema([pa.field("left", pa.int64(), False), pa.field("right", pa.int64(), False)])
CONTENT = -1  # the band of content hashes, since an exact copy is one more way to be a candidate
BUCKET_BYTES = 16  # of one (hash, node) pair


def edge_batch(left: np.ndarray, right: np.ndarray) -> pa.RecordBatch:
    """Make a batch of edges from two int64 arrays of node numbers."""
    return pa.RecordBatch.from_arrays([pa.array(left), pa.array(right)], schema=EDGE_SCHEMA)


def cut_by_range(hashes: np.ndarray, nodes: np.ndarray, ranges: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut one band's (hash, node) pairs into batches by equal ranges of the hash; empty ranges are left out."""
    if ranges > 1:
        number = range_numbers(hashes, ranges)
        order = np.argsort(number, kind="stable")
        hashes, nodes = hashes[order], nodes[order]
        borders = np.searchsorted(number[order], np.arange(ranges + 1, dtype=np.uint64))
    else:
        borders = np.array([0, len(hashes)])
    for i in range(ranges):
        part = slice(borders[i], borders[i + 1])
        if part.start < part.stop:
            columns = [pa.array(hashes[part]), pa.array(nodes[part])]
            yield i, pa.RecordBatch.from_arrays(columns, schema=BUCKET_SCHEMA)


def star_edges(hashes: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Turn the buckets of one (band, range) into star edges: smallest node of a bucket → each other one.

    hashes: uint64[n]; nodes: int64[n]. Returns left and right of the edges, the sizes of the buckets of two or more
    documents, and the smallest node of each: int64 arrays. The order of arrival does not matter, but for the order of
    the edges.
    """
    order = np.argsort(hashes)
    hashes = hashes[order]
    same = hashes[1:] == hashes[:-1]
    shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])  # has a neighbour of its own hash
    hashes, nodes = hashes[shared], nodes[order[shared]]
    if not len(nodes):
        return nodes, nodes, nodes, nodes
    first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    sizes, smallest = np.diff(np.append(first, len(hashes))), np.minimum.reduceat(nodes, first)
    left = np.repeat(smallest, sizes)
    joined = left != nodes
    return left[joined], nodes[joined], sizes, smallest
