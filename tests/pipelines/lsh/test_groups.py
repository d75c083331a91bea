"""Candidates of one component are one task, whatever the size of a task."""

from __future__ import annotations

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
