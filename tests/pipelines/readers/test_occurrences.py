"""The table of hashes: its numbers equal a dictionary's, at the bytes a hash that it promises."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.occurrences import Occurrences


def by_dictionary(batches: list[list[bytes]]) -> list[list[int]]:
    seen: Counter[bytes] = Counter()
    out = []
    for batch in batches:
        numbers = []
        for key in batch:
            numbers.append(seen[key])
            seen[key] += 1
        out.append(numbers)
    return out


# Few values per byte: equal hashes, and hashes that share a slot or differ in one half, are common.
HASH = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda p: bytes([p[0]]) * 8 + bytes([p[1]]) * 8)


@given(st.lists(st.lists(HASH, max_size=20), max_size=5))
def test_numbers_equal_those_of_a_dictionary(batches: list[list[bytes]]) -> None:
    table = Occurrences()
    assert [table.count(b"".join(batch)).tolist() for batch in batches] == by_dictionary(batches)


def test_numbers_stay_right_through_growth_and_memory_stays_small() -> None:
    rng = np.random.default_rng(7)
    distinct = rng.bytes(16 * 100_000)
    keys = [distinct[i : i + 16] for i in range(0, len(distinct), 16)]
    order = rng.integers(0, len(keys), 150_000).tolist()
    stream = [keys[i] for i in (*range(len(keys)), *order)]
    batches = [stream[i : i + 7000] for i in range(0, len(stream), 7000)]
    table = Occurrences()
    assert [table.count(b"".join(batch)).tolist() for batch in batches] == by_dictionary(batches)
    assert table.nbytes <= 32 * len(keys)


def test_hashes_that_all_fall_into_the_last_slot_wrap_around() -> None:
    keys = [b"\xff" * 8 + i.to_bytes(8, "big") for i in range(500)]
    assert Occurrences().count(b"".join(keys * 2)).tolist() == [0] * 500 + [1] * 500
