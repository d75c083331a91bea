"""Candidates of one component stand together, whatever the size of a span; workers end together."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.shards import read_table
from pipelines.lsh import groups
from pipelines.lsh.groups import deal, write_groups


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[0, 1, 2, 3], [10, 11], [20, 21, 22], [30, 31]]),
        (3, [[0, 1, 2, 3], [10, 11, 20, 21, 22], [30, 31]]),
        (4, [[0, 1, 2, 3], [10, 11, 20, 21, 22], [30, 31]]),
        (99, [[0, 1, 2, 3, 10, 11, 20, 21, 22, 30, 31]]),
    ],
)
def test_candidates_of_one_component_are_in_one_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, expected: list[list[int]]
) -> None:
    monkeypatch.setattr(groups, "SPAN_NODES", size)
    nodes, labels = np.array([[0, 1, 2, 3, 10, 11, 20, 21, 22, 30, 31], [0, 0, 0, 0, 10, 10, 20, 20, 20, 30, 30]])
    spans = write_groups(nodes, labels, str(tmp_path), "groups.arrow")
    table = read_table(str(tmp_path / "groups.arrow"))
    assert [table["node"].to_pylist()[first:last] for _, first, last, _ in spans] == expected
    assert table["component"].to_pylist() == labels.tolist()


def test_no_candidates_have_no_file(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    assert write_groups(none, none, str(tmp_path), "groups.arrow") == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("pairs", "tasks"), [(100, 1), (5_000, 8), (20_000, 16), (100_000, 40)])
def test_there_are_spans_enough_that_no_worker_waits_for_another(tmp_path: Path, pairs: int, tasks: int) -> None:
    nodes = np.arange(2 * pairs)
    spans = write_groups(nodes, nodes // 2 * 2, str(tmp_path), "groups.arrow")
    assert len(spans) == tasks
    assert spans[0][1] == 0 and spans[-1][2] == 2 * pairs
    assert all(before[2] == after[1] for before, after in itertools.pairwise(spans))


def test_a_large_component_costs_what_its_pairs_do(tmp_path: Path) -> None:
    labels = np.concatenate([np.zeros(1_500, np.int64), np.arange(1_500, 2_900) // 2])
    spans = write_groups(np.arange(2_900), labels, str(tmp_path), "groups.arrow")
    assert spans == [
        ("groups.arrow", 0, 1_500, 1_500 + 1_500 * 1_499 // 2 // 150),
        ("groups.arrow", 1_500, 2_750, 1_250 + 625 // 150),
        ("groups.arrow", 2_750, 2_900, 150 + 75 // 150),
    ]


def test_a_worker_with_a_large_component_gets_little_else() -> None:
    spans = [("g", 10 * at, 10 * at + 10, cost) for at, cost in enumerate([3, 3, 90, 30, 30, 28, 4])]
    tasks = deal(spans, 2)
    assert sorted(span for task in tasks for span in task) == spans
    assert [sum(span[3] for span in task) for task in tasks] == [93, 95]
    assert deal(spans, 9) == [(span,) for span in sorted(spans, key=lambda one: (-one[3], one))]
    assert deal([], 2) == []
