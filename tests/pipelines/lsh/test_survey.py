"""What is measured of clusters: ids are compared whole, and the core is what nearly all members hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.lsh.survey import Boilerplate, core_share, find, id_keys, key_bytes, measure, survey

IDS = [b"\0" * 16, b"a" + b"\0" * 15, b"a" * 15 + b"\0", b"a" * 16, b"\xff" * 16]


def test_ids_that_end_in_zeros_are_found_and_come_back_whole() -> None:
    keys = id_keys(pa.array(IDS, pa.binary(16)))
    assert [key_bytes(key) for key in keys] == IDS
    assert find(keys[[0, 2, 4]], keys).tolist() == [0, -1, 1, -1, 2]
    assert find(keys[:0], keys).tolist() == [-1] * 5
    assert id_keys(pa.array(IDS, pa.binary(16)).slice(3, 1)).tolist() == [b"a" * 16]


def sketches(*sets: list[int]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.array([0, *itertools.accumulate(map(len, sets))])
    return np.array([value for one in sets for value in one], np.uint32), offsets


def test_the_core_is_what_nine_of_ten_hold() -> None:
    sets = [[1, 2, 3, 10 + i] for i in range(10)]
    assert core_share(*sketches(*sets), np.full(10, 4)) == 0.75
    sets[0] = [1, 2, 10]  # 3 is held by nine of ten: still in the core, of which the first set has two of three
    assert core_share(*sketches(*sets), np.array([3, *[4] * 9])) == 0.75
    sets[1] = [1, 2, 11]  # by eight: no more
    assert core_share(*sketches(*sets), np.array([3, 3, *[4] * 8])) == 0.5


def test_sketches_are_compared_as_far_as_all_of_them_reach() -> None:
    # The first set has 10 values and shows 3: what others hold above 9 it may hold too. Up to 9: {1,2,9} and {1,2,3}.
    assert core_share(*sketches([1, 2, 9], [1, 2, 3, 20]), np.array([10, 4])) == pytest.approx(2 / 3)


def test_sets_without_shingles_have_no_core() -> None:
    assert core_share(*sketches([], []), np.zeros(2, int)) == 0.0
    assert core_share(*sketches([], [1], [1]), np.array([0, 1, 1])) == 0.0  # 1 is held by two of three


@pytest.mark.parametrize(
    ("size", "shingles", "core", "own", "kind"),
    [
        (8, 99, 0.0, 0.0, "short"),
        (8, 100, 0.7, 0.5, "template"),
        (8, 100, 0.69, 1.0, ""),
        (8, 100, 1.0, 0.49, ""),
        (7, 1, 1.0, 1.0, ""),
    ],
)
def test_boilerplate_is_what_the_rule_says(size: int, shingles: float, core: float, own: float, kind: str) -> None:
    assert Boilerplate().kind(size, shingles, core, own) == kind


def test_every_large_cluster_is_measured_and_the_largest_come_first(
    tmp_path: Path, decided: Callable[..., Path]
) -> None:
    """300 clusters: more than are gathered at once; each has a size and a core of its own."""
    groups = [[f"{n}-{i}" for i in range(2 + n % 4)] for n in range(300)]
    documents = [
        (f"s-{i % 3}", "s", name, " ".join([f"g{n}w{j}" for j in range(14 + n % 7)] + [f"own{i}x"]))
        for n, group in enumerate(groups)
        for i, name in enumerate(group)
    ]
    removed = [(name, group[0], 0.9) for group in groups for name in group[1:]]
    dataset = Dataset.open(str(decided(tmp_path, documents, removed, groups)))
    found = survey(dataset, top=5, least=4)
    facts = measure(dataset, found, Boilerplate(members=4, shingles=15))
    sizes = [int(found.size[one.cluster]) for one in facts]
    assert sizes == [5] * 75 + [4] * 75
    by_id = {min(record_id("s", name) for name in group): n for n, group in enumerate(groups)}
    for one in facts:
        n = by_id[key_bytes(found.cluster_id[one.cluster])]
        shingles = 14 + n % 7 + 1 - 4  # tokens less 4; all but the last shingle are in every member
        assert (one.shingles, one.core, one.own) == (shingles, (shingles - 1) / shingles, 1.0)
        assert [key_bytes(key) for key in found.members.id[one.members]] == sorted(
            record_id("s", name) for name in groups[n]
        )
        assert one.kept.sum() == 1 and one.similarity == (0.9, 0.9)
        assert one.kind == ("short" if shingles < 15 else "template")
