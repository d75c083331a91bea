"""LSH buckets: no pair of equal hashes is lost between the cut and the edges, in whatever order batches arrive."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lsh.buckets import BUCKET_SCHEMA, cut_by_range, edge_batch, star_edges
from pipelines.lsh.components import components

hashes = st.lists(st.sampled_from([0, 1, 2**32, 2**63, 2**63 + 1, 2**64 - 1]) | st.integers(0, 2**64 - 1), max_size=30)


@given(hashes, st.integers(1, 7))
def test_cutting_loses_no_pair_and_keeps_equal_hashes_together(values: list[int], ranges: int) -> None:
    nodes = np.arange(len(values))
    parts = list(cut_by_range(np.array(values, np.uint64), nodes, ranges))
    pairs = [
        (h, n) for _, part in parts for h, n in zip(part["hash"].to_pylist(), part["node"].to_pylist(), strict=True)
    ]
    assert sorted(pairs) == sorted(zip(values, range(len(values)), strict=True))
    where: dict[int, set[int]] = {}
    for number, part in parts:
        assert len(part) and 0 <= number < ranges and part.schema.equals(BUCKET_SCHEMA)
        for value in part["hash"].to_pylist():
            where.setdefault(value, set()).add(number)
            assert number == (value >> 32) * ranges >> 32
    assert all(len(numbers) == 1 for numbers in where.values())


def test_ranges_are_of_equal_width() -> None:
    values = np.array([0, 2**62 - 1, 2**62, 2**63, 3 * 2**62, 2**64 - 1], np.uint64)
    parts = dict(cut_by_range(values, np.arange(6), 4))
    assert {number: part["node"].to_pylist() for number, part in parts.items()} == {
        0: [0, 1],
        1: [2],
        2: [3],
        3: [4, 5],
    }


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=30, unique=True), st.data())
def test_edges_connect_exactly_the_buckets_whatever_the_order(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(pairs))

    def edges(some: list[tuple[int, int]]) -> tuple[np.ndarray, ...]:
        return star_edges(np.array([h for h, _ in some], np.uint64), np.array([n for _, n in some], np.int64))

    left, right, sizes, smallest = edges(list(pairs))
    again = edges(shuffled)
    joined = edge_batch(left, right)
    assert sorted(zip(left, right, strict=True)) == sorted(zip(again[0], again[1], strict=True))
    by_hash: dict[int, list[int]] = {}
    for value, node in pairs:
        by_hash.setdefault(value, []).append(node)
    shared = sorted((len(nodes), min(nodes)) for nodes in by_hash.values() if len(nodes) > 1)
    assert sorted(zip(sizes.tolist(), smallest.tolist(), strict=True)) == shared
    assert len(joined) == sum(len(nodes) - 1 for nodes in by_hash.values())
    every = [pair for nodes in by_hash.values() for pair in combinations(sorted(nodes), 2)]
    one, other = (np.array([pair[i] for pair in every], np.int64) for i in (0, 1))
    found, expected = components([joined], 41), components([edge_batch(one, other)], 41)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
