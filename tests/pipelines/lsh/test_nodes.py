"""Shards of the index: a task keeps them open, but no more than a system may allow."""

from __future__ import annotations

from pipelines.lsh.nodes import IndexShard, Nodes


def _nodes(count: int) -> Nodes:
    return Nodes(tuple(IndexShard("root", str(number), 10) for number in range(count)))


def test_a_task_keeps_few_shards_open_and_many_not() -> None:
    few, many = _nodes(64), _nodes(65)
    assert many.kept_open() is many
    kept = few.kept_open()
    assert kept is not few and kept.kept_open() is kept and kept.total == few.total
