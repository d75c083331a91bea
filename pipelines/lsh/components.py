"""Connected components in memory: union-find over streamed edges.

Memory: 4 bytes for each node (8 where there are 2^31 or more), whatever the number of edges, which are read in batches.
"""

from __future__ import annotations

from collections.abc import Iterable

import numba
import numpy as np
import pyarrow as pa


@numba.njit(nogil=True, cache=True)
def find(parent: np.ndarray, node: int) -> int:
    """Find the root of a node, in compiled code."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def union(parent: np.ndarray, left: int, right: int) -> None:
    """Join the sets of two nodes; the smaller root stays, so that labels do not depend on the order of edges."""
    left, right = find(parent, left), find(parent, right)
    if left < right:
        parent[right] = left
    elif right < left:
        parent[left] = right


@numba.njit(nogil=True, cache=True)
def flatten(parent: np.ndarray) -> np.ndarray:
    """Replace every node's parent by its root, in place: int[n]."""
    for node in range(len(parent)):
        parent[node] = find(parent, node)
    return parent


@numba.njit(nogil=True, cache=True)
def _join(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    for i in range(len(left)):
        union(parent, left[i], right[i])


def components(edges: Iterable[pa.RecordBatch], nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the connected components of an undirected graph.

    edges: batches of `pipelines.lsh.buckets.EDGE_SCHEMA`. nodes: their numbers are below it. Returns (nodes, labels):
    int64[n], the nodes that an edge joins to another and the smallest node of their component, by label, then node.
    """
    parent = np.arange(nodes, dtype=np.int32 if nodes < 1 << 31 else np.int64)
    for batch in edges:
        _join(parent, batch.column("left").to_numpy(), batch.column("right").to_numpy())
    flatten(parent)
    joined = parent != np.arange(nodes, dtype=parent.dtype)
    joined[parent[joined]] = True
    members = np.flatnonzero(joined)
    labels = parent[members].astype(np.int64)
    order = np.argsort(labels, kind="stable")
    return members[order], labels[order]
