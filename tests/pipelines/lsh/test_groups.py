"""Candidates of one component are one task, whatever the size of a task."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.shards import read_table
from pipelines.lsh import groups
from pipelines.lsh.groups import write_groups


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[0, 1, 2, 3], [10, 11], [20, 21, 22], [30, 31]]),
        (3, [[0, 1, 2, 3], [10, 11, 20, 21, 22], [30, 31]]),
        (4, [[0, 1, 2, 3], [10, 11, 20, 21, 22], [30, 31]]),
        (99, [[0, 1, 2, 3, 10, 11, 20, 21, 22, 30, 31]]),
    ],
)
def test_candidates_of_one_component_are_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, expected: list[list[int]]
) -> None:
    monkeypatch.setattr(groups, "TASK_NODES", size)
    nodes, labels = np.array([[0, 1, 2, 3, 10, 11, 20, 21, 22, 30, 31], [0, 0, 0, 0, 10, 10, 20, 20, 20, 30, 30]])
    spans = write_groups(nodes, labels, str(tmp_path), "groups.arrow")
    table = read_table(str(tmp_path / "groups.arrow"))
    assert [table["node"].to_pylist()[first:last] for _, first, last in spans] == expected
    assert table["component"].to_pylist() == labels.tolist()


def test_no_candidates_have_no_file(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    assert write_groups(none, none, str(tmp_path), "groups.arrow") == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("pairs", "tasks"), [(100, 1), (5_000, 8), (20_000, 16), (100_000, 40)])
def test_there_are_tasks_enough_that_no_worker_waits_for_another(tmp_path: Path, pairs: int, tasks: int) -> None:
    nodes = np.arange(2 * pairs)
    spans = write_groups(nodes, nodes // 2 * 2, str(tmp_path), "groups.arrow")
    assert len(spans) == tasks
    assert spans[0][1] == 0 and spans[-1][2] == 2 * pairs
    assert all(before[2] == after[1] for before, after in itertools.pairwise(spans))
