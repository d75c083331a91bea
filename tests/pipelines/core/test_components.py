"""Connected components equal a breadth-first search, whatever the order of edges and the size of node numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.components import components

edges = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40)


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


@given(edges, st.sampled_from([1, 1 << 40, (1 << 57) + 3]))
def test_labels_are_the_smallest_node_of_each_component(pairs: list[tuple[int, int]], scale: int) -> None:
    left, right = (np.array([pair[i] * scale for pair in pairs], np.int64) for i in (0, 1))
    nodes, labels = components(left, right)
    expected = search(pairs)
    assert nodes.tolist() == [node * scale for node in sorted(expected)]
    assert labels.tolist() == [expected[node] * scale for node in sorted(expected)]


@given(edges, st.randoms(use_true_random=False))
def test_the_order_and_direction_of_edges_do_not_matter(pairs: list[tuple[int, int]], rng: object) -> None:
    shuffled = list(pairs)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    results = []
    for a, b in ((0, 1), (1, 0)):
        for some in (pairs, shuffled):
            arrays = (np.array([pair[i] for pair in some], np.int64) for i in (a, b))
            results.append([array.tolist() for array in components(*arrays)])
    assert all(result == results[0] for result in results)


def test_a_long_chain_against_its_direction_is_one_component() -> None:
    chain = np.arange(100_000, 0, -1)
    nodes, labels = components(chain, chain - 1)
    assert len(nodes) == 100_001 and not labels.any()


def test_no_edges_have_no_nodes() -> None:
    nodes, labels = components(np.empty(0, np.int64), np.empty(0, np.int64))
    assert len(nodes) == len(labels) == 0
