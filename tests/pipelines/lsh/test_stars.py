"""Components on disk equal those in memory: random graphs, a chain, a star; in one shuffle or in slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.output import Output
from pipelines.core.runners import RunOptions
from pipelines.core.shards import read_table, write_shard
from pipelines.core.stage import Report, StageRun
from pipelines.lsh.buckets import EDGE_SCHEMA, edge_batch
from pipelines.lsh.components import components
from pipelines.lsh.stars import LARGE, SMALL, Stars, directed, distinct_pairs, star_pass

Pairs = list[tuple[int, int]]
graphs = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=50
)


def in_memory(left: np.ndarray, right: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in components([edge_batch(left, right)], int(max(left.max(), right.max())) + 1)]


def settle(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The passes, one after the other over the whole graph: (centres, members, passes)."""
    still, number = 0, 0
    while still < 2:
        kind = SMALL if number % 2 else LARGE
        left, right, changed = star_pass(kind, *distinct_pairs(*directed(kind, left, right)))
        still, number = (0 if changed else still + 1), number + 1
    return left, right, number


@given(graphs)
def test_passes_end_in_stars_around_the_smallest_node(pairs: Pairs) -> None:
    left, right = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    centres, members, _ = settle(left, right)
    found = sorted({*zip(centres.tolist(), members.tolist(), strict=True), *((c, c) for c in centres.tolist())})
    nodes, labels = in_memory(left, right)
    assert found == list(zip(labels, nodes, strict=True))


def test_a_chain_of_100_000_nodes_settles_in_few_passes() -> None:
    nodes = np.random.default_rng(5).permutation(100_000).astype(np.int64)
    centres, members, passes = settle(nodes[:-1], nodes[1:])
    assert set(centres.tolist()) == {0} and len(set(members.tolist())) == 99_999 and passes < 60


def test_a_star_of_100_000_nodes_settles_at_once() -> None:
    leaves = np.arange(100_000, dtype=np.int64)
    centres, members, passes = settle(np.full(99_999, 99_999), leaves[:-1])
    assert set(centres.tolist()) == {0} and len(set(members.tolist())) == 99_999 and passes <= 6


@pytest.fixture
def stage(tmp_path: Path) -> StageRun:
    return StageRun("test", Output(str(tmp_path / "out")), None, RunOptions(mode="inline"))


@pytest.mark.parametrize("memory", [0, 90_000])
def test_pipelines_write_the_groups_of_the_components_in_memory(stage: StageRun, memory: int) -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 3000, (2, 2200))
    left, right = left[left != right], right[left != right]
    scratch, paths = stage.scratch("stars"), []
    for number, part in enumerate(np.array_split(np.arange(len(left)), 3)):
        paths.append(f"edges/{number}.arrow")
        write_shard(scratch, paths[-1], EDGE_SCHEMA, [edge_batch(left[part], right[part])])
    spans = Stars(stage.pipeline, scratch, memory).groups(paths, len(left))
    rows = []
    for path, first, last, _ in spans:
        table = read_table(f"{scratch}/{path}").slice(first, last - first)
        rows += list(zip(table["component"].to_pylist(), table["node"].to_pylist(), strict=True))
    nodes, labels = in_memory(left, right)
    assert sorted(rows) == list(zip(labels, nodes, strict=True)) and len(rows) == len(set(rows))
    stage.output.abort()


def test_no_edges_run_no_pipeline() -> None:
    def never(label: str, build: object) -> list[Report]:
        raise AssertionError(label)

    assert Stars(never, "nowhere", 0).groups([], 0) == []
