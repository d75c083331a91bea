"""Survivors: whoever is removed names a kept twin that is measured to be similar enough, in the order of the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lsh.survivors import (
    Candidates,
    Verdicts,
    decide,
    dense_buckets,
    first_of_content,
    policy_order,
    spread,
)

K = 64


def candidates(sets: list[set[int]], fixed: list[int] | None = None) -> Candidates:
    """One component whose documents share a bucket wherever they share a shingle, so that every pair is compared."""
    shingles = sorted(set().union(*sets)) if sets else []
    hashes = np.zeros((max(1, len(shingles)), len(sets)), np.uint64)
    for row, members in enumerate(sets):
        for column, shingle in enumerate(shingles):
            hashes[column, row] = 1 if shingle in members else 1000 + row
    buckets, count = dense_buckets(hashes, np.array([not members for members in sets]))
    values = np.array([shingle for members in sets for shingle in sorted(members)], np.uint32)
    sizes = np.array([len(members) for members in sets])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    stay = np.isin(np.arange(len(sets)), fixed or [])
    return Candidates(buckets, count, values, offsets, sizes.astype(np.uint32), stay)


def decided(
    sets: list[set[int]], contents: list[int], threshold: float, fixed: int = 0, within: bool = True
) -> Verdicts:
    """The verdicts on documents of which some have the same content; the first `fixed` ones stay."""
    stay = np.arange(len(sets)) < fixed
    digests = pa.array([value.to_bytes(16, "big") for value in contents], pa.binary(16))
    first = first_of_content(np.zeros(len(sets), np.int64), digests)
    unique = np.flatnonzero(first == np.arange(len(sets)))
    made = candidates([sets[i] for i in unique], [n for n, i in enumerate(unique) if stay[i]])
    return spread(decide(made, threshold, K, 1000, within=within), unique, first, stay, within=within)


def similarity(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def greedy(sets: list[set[int]], threshold: float) -> list[tuple[int, float]]:
    """The definition: in order, remove a document for the most similar kept one, the earlier of two."""
    kept: list[int] = []
    result = []
    for i, members in enumerate(sets):
        best = max(((similarity(members, sets[j]), -j) for j in kept), default=(-1.0, 0))
        if best[0] >= threshold:
            result.append((-best[1], best[0]))
        else:
            kept.append(i)
            result.append((-1, 0.0))
    return result


documents = st.lists(st.sets(st.integers(0, 7), max_size=8), min_size=1, max_size=12)


@given(documents, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_decisions_equal_the_greedy_definition(sets: list[set[int]], threshold: float) -> None:
    verdicts = decide(candidates(sets), threshold, K, 1000)
    assert list(zip(verdicts.kept.tolist(), verdicts.similarity.tolist(), strict=True)) == greedy(sets, threshold)
    assert not verdicts.error.any() and not verdicts.exact.any() and verdicts.capped == 0


@given(documents, st.sampled_from([0.3, 0.5, 0.75]))
def test_a_cluster_joins_what_is_verified_to_be_similar_to_a_kept_record(
    sets: list[set[int]], threshold: float
) -> None:
    verdicts = decide(candidates(sets), threshold, K, 1000)
    kept = np.flatnonzero(verdicts.kept < 0)
    assert kept[0] == 0, "the first of a component is always kept"
    for i, twin in enumerate(verdicts.kept):
        if twin >= 0:
            assert verdicts.kept[twin] == -1 and verdicts.cluster[i] == verdicts.cluster[twin]
            for other in kept[kept < i]:
                if similarity(sets[i], sets[other]) >= threshold:
                    assert verdicts.cluster[other] == verdicts.cluster[i]
    assert (verdicts.cluster <= np.arange(len(sets))).all()
    assert (verdicts.cluster[verdicts.cluster] == verdicts.cluster).all()


def test_a_chain_is_not_swallowed_by_its_head() -> None:
    chain = [set(range(i, i + 10)) for i in range(0, 12, 2)]  # neighbours 8/12, next but one 6/14
    verdicts = decide(candidates(chain), 0.6, K, 1000)
    assert verdicts.kept.tolist() == [-1, 0, -1, 2, -1, 4]
    assert verdicts.cluster.tolist() == [0, 0, 2, 2, 4, 4]


def test_equal_content_is_exact_whatever_its_shingles_and_without_any() -> None:
    verdicts = decided([set(), {1, 2}, set(), set(), {1, 2}], [7, 8, 7, 9, 8], 0.5)
    assert verdicts.kept.tolist() == [-1, -1, 0, -1, 1]
    assert verdicts.exact.tolist() == [False, False, True, False, True]
    assert verdicts.similarity.tolist() == [0, 0, 1, 0, 1]
    assert verdicts.cluster.tolist() == [0, 1, 0, 3, 1]


def test_a_copy_of_a_removed_record_names_the_kept_one() -> None:
    near = set(range(10))
    verdicts = decided([near | {10}, near, near], [1, 2, 2], 0.8)
    assert verdicts.kept.tolist() == [-1, 0, 0] and not verdicts.exact.any()
    assert verdicts.similarity.tolist() == [0, 10 / 11, 10 / 11] and verdicts.cluster.tolist() == [0, 0, 0]


def test_a_fixed_document_stays_whatever_it_is_like() -> None:
    near = set(range(10))
    verdicts = decided([near, near, near | {10}, near, near | {11}], [1, 1, 2, 1, 3], 0.8, fixed=3)
    assert verdicts.kept.tolist() == [-1, -1, -1, 0, 0]
    assert verdicts.exact.tolist() == [False, False, False, True, False]
    assert verdicts.similarity.tolist() == [0, 0, 0, 1, 10 / 11]


def test_without_within_only_what_is_like_a_fixed_document_goes() -> None:
    near, other = set(range(10)), set(range(20, 30))
    sets = [near, near | {10}, near | {11}, other, other, other | {9}]
    verdicts = decided(sets, [1, 2, 3, 4, 4, 5], 0.8, fixed=1, within=False)
    assert verdicts.kept.tolist() == [-1, 0, 0, -1, -1, -1] and not verdicts.exact.any()
    assert verdicts.cluster.tolist() == [0, 0, 0, 3, 4, 5]
    assert decided(sets, [1, 2, 3, 4, 4, 5], 0.8, fixed=1).kept.tolist() == [-1, 0, 0, -1, 3, 3]


def test_the_first_of_a_content_is_looked_for_inside_its_component() -> None:
    content = pa.array([b"a" * 16, b"b" * 16, b"a" * 16, b"a" * 16, b"b" * 16], pa.binary(16))
    assert first_of_content(np.array([0, 0, 0, 1, 1]), content).tolist() == [0, 1, 0, 3, 4]
    assert first_of_content(np.zeros(5, np.int64), content).tolist() == [0, 1, 0, 0, 1]
    assert first_of_content(np.zeros(0, np.int64), content[:0]).tolist() == []


def test_the_cap_compares_with_the_first_kept_ones_and_reports_the_rest() -> None:
    sets = [{0, *range(10 * i, 10 * i + 9)} for i in range(1, 6)] + [{0, *range(50, 59)}]
    full, capped = decide(candidates(sets), 0.9, K, 1000), decide(candidates(sets), 0.9, K, 2)
    assert full.kept.tolist() == [-1, -1, -1, -1, -1, 4] and full.capped == 0
    # The copy still meets its twin in the buckets of their own shingles; bucket 0 is cut to its first two.
    assert capped.kept.tolist() == full.kept.tolist() and capped.capped == 1 + 2 + 3


def test_what_no_bucket_joins_is_not_compared() -> None:
    made = candidates([{1, 2, 3}, {1, 2, 3}])
    apart = made._replace(buckets=np.arange(made.buckets.size).reshape(made.buckets.shape), bucket_count=99)
    assert decide(apart, 0.1, K, 1000).kept.tolist() == [-1, -1]


def test_a_document_without_shingles_is_never_near_another() -> None:
    assert decide(candidates([set(), set(), {1}]), 0.1, K, 1000).kept.tolist() == [-1, -1, -1]


def test_dense_buckets_number_pairs_of_band_and_hash() -> None:
    hashes = np.array([[5, 5, 9], [5, 7, 7]], np.uint64)
    buckets, count = dense_buckets(hashes, np.array([False, False, True]))
    assert buckets.tolist() == [[0, 2], [0, 3], [-1, -1]] and count == 4
    none, count = dense_buckets(hashes[:0], np.zeros(3, bool))
    assert none.shape == (3, 0) and count == 0


# --- policy ---------------------------------------------------------------------------------------------------------


def columns(*rows: tuple[str, int, float, int]) -> dict[str, Any]:
    """(source, length, date, last byte of the id)."""
    return {
        "source": pa.array([row[0] for row in rows]),
        "length": np.array([row[1] for row in rows], np.uint32),
        "date": np.array([row[2] for row in rows]),
        "id": pa.array([bytes(15) + bytes([row[3]]) for row in rows], pa.binary(16)),
        "fixed": np.zeros(len(rows), np.bool_),
    }


NAN = float("nan")


@pytest.mark.parametrize(
    ("policy", "sources", "expected"),
    [
        ((), (), [3, 2, 1, 0]),  # by id
        (("length",), (), [1, 3, 2, 0]),  # longest first; equal lengths by id
        (("date",), (), [2, 0, 3, 1]),  # earliest first, unknown last, those by id
        (("source",), ("wiki",), [3, 1, 2, 0]),  # named sources in their order, others after them
        (("source", "length"), ("laws", "wiki"), [2, 0, 1, 3]),
    ],
)
def test_the_policy_orders_a_component(policy: tuple[str, ...], sources: tuple[str, ...], expected: list[int]) -> None:
    rows = columns(("laws", 1, 5.0, 9), ("wiki", 7, NAN, 8), ("laws", 5, -3.0, 7), ("wiki", 5, NAN, 6))
    assert policy_order(rows, policy, sources, np.zeros(4, np.int64)).tolist() == expected


def test_fixed_documents_come_first() -> None:
    rows = columns(*(("s", i, NAN, i) for i in range(4))) | {"fixed": np.array([False, True, False, True])}
    assert policy_order(rows, ("length",), (), np.array([0, 0, 0, 1])).tolist() == [1, 2, 0, 3]


def test_components_stay_together_and_in_order() -> None:
    rows = columns(*(("s", i, NAN, i) for i in range(6)))
    assert policy_order(rows, ("length",), (), np.array([1, 0, 1, 0, 2, 0])).tolist() == [5, 3, 1, 2, 0, 4]


def test_ids_are_compared_as_bytes_from_the_left() -> None:
    ids = [b"\xff" + bytes(15), b"\x01" + b"\xff" * 15, bytes(7) + b"\x01" + bytes(8), bytes(8) + b"\xff" * 8]
    rows = columns(*(("s", 1, NAN, 0) for _ in ids)) | {"id": pa.array(ids, pa.binary(16))}
    order = policy_order(rows, (), (), np.zeros(4, np.int64))
    assert [ids[i] for i in order] == sorted(ids)


@given(st.permutations(range(8)))
def test_the_order_does_not_depend_on_the_order_of_arrival(order: list[int]) -> None:
    base = [("ab"[i % 2], i % 3, float(i % 2), i) for i in range(8)]
    rows = columns(*(base[i] for i in order))
    found = policy_order(rows, ("source", "length", "date"), ("b",), np.zeros(8, np.int64))
    assert [order[i] for i in found] == policy_order(
        columns(*base), ("source", "length", "date"), ("b",), np.zeros(8, np.int64)
    ).tolist()


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="unknown survivor policy 'newest'; known: source, length, date"):
        policy_order(columns(("s", 1, NAN, 1)), ("newest",), (), np.zeros(1, np.int64))


def test_verdicts_have_their_documented_types() -> None:
    verdicts: Verdicts = decide(candidates([{1}, {1}]), 0.5, K, 10)
    assert (verdicts.kept.dtype, verdicts.exact.dtype, verdicts.cluster.dtype) == (np.int64, np.bool_, np.int64)
