"""Connected components equal a breadth-first search, whatever the order of edges and the size of node numbers."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lsh.buckets import edge_batch
from pipelines.lsh.components import components

edges = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)).filter(lambda pair: pair[0] != pair[1]), max_size=40)


def search(pairs: list[tuple[int, int]]) -> dict[int, int]:
    neighbours: dict[int, set[int]] = {}
    for left, right in pairs:
        neighbours.setdefault(left, set()).add(right)
        neighbours.setdefault(right, set()).add(left)
    label: dict[int, int] = {}
    for node in sorted(neighbours):
        if node in label:
            continue
        queue = [node]
        while queue:
            one = queue.pop()
            if one not in label:
                label[one] = node
                queue += neighbours[one]
    return label


def found(pairs: list[tuple[int, int]], cut: int = 0) -> list[tuple[int, int]]:
    """(label, node), from two batches of edges."""
    arrays = [np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1)]
    batches = [edge_batch(*(array[part] for array in arrays)) for part in (slice(cut), slice(cut, None))]
    nodes, labels = components(batches, 26)
    return list(zip(labels.tolist(), nodes.tolist(), strict=True))


@given(edges, st.integers(0, 40))
def test_labels_are_the_smallest_node_of_each_component(pairs: list[tuple[int, int]], cut: int) -> None:
    assert found(pairs, cut) == sorted((label, node) for node, label in search(pairs).items())


@given(edges, st.randoms(use_true_random=False))
def test_the_order_and_direction_of_edges_do_not_matter(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    assert found(shuffled) == found(pairs) == found([(right, left) for left, right in shuffled])


def test_a_long_chain_against_its_direction_is_one_component() -> None:
    chain = np.arange(100_000, 0, -1)
    nodes, labels = components([edge_batch(chain, chain - 1)], 100_001)
    assert nodes.tolist() == list(range(100_001)) and not labels.any()


def test_no_edges_have_no_nodes() -> None:
    nodes, labels = components([], 5)
    assert len(nodes) == len(labels) == 0
