"""Connected components in memory: union-find over arrays of edges.

Memory: 16 bytes an edge, and 24 bytes for each node that an edge touches.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def _find(parent: np.ndarray, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def union(parent: np.ndarray, left: int, right: int) -> None:
    """Join the sets of two nodes; the smaller root stays, so that labels do not depend on the order of edges."""
    left, right = _find(parent, left), _find(parent, right)
    if left < right:
        parent[right] = left
    elif right < left:
        parent[left] = right


@numba.njit(nogil=True, cache=True)
def flatten(parent: np.ndarray) -> np.ndarray:
    """Replace every node's parent by its root, in place: int64[n]."""
    for node in range(len(parent)):
        parent[node] = _find(parent, node)
    return parent


@numba.njit(nogil=True, cache=True)
def _labels(left: np.ndarray, right: np.ndarray, nodes: int) -> np.ndarray:
    parent = np.arange(nodes)
    for i in range(len(left)):
        union(parent, left[i], right[i])
    return flatten(parent)


def components(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the connected components of an undirected graph.

    left, right: int64[edges], node numbers of any size. Returns (nodes, labels): int64[n] ascending node numbers that
    an edge touches, and for each the smallest node number of its component.
    """
    nodes, inverse = np.unique(np.concatenate([left, right]), return_inverse=True)
    labels = _labels(inverse[: len(left)].astype(np.int64), inverse[len(left) :].astype(np.int64), len(nodes))
    return nodes, nodes[labels]
