"""Losses by document and by group: equal to what a loop over the lines gives; ties and shares are exact."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.losses_groups import (
    EASY,
    HARD,
    Drop,
    Groups,
    choose,
    join,
    length_groups,
    partial,
    roll_up,
    size_groups,
    value_groups,
    weights,
)
from schemas.losses import LOSSES

Line = tuple[int, int, float, int]  # document, step, loss, tokens
LINES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0, 20, width=32), st.integers(1, 50)), min_size=1
)


def table(lines: list[Line]) -> pa.Table:
    rows = [
        {"id": bytes([0, document] * 8), "source": "s", "step": step, "loss": loss, "tokens": tokens}
        for document, step, loss, tokens in lines
    ]
    return pa.Table.from_pylist(rows, schema=LOSSES.schema)


@given(LINES, st.integers(0, 20), st.booleans())
def test_lines_of_a_document_are_joined_as_a_loop_joins_them(lines: list[Line], cut: int, last: bool) -> None:
    found = join([partial(table(lines[:cut]), last), partial(table(lines[cut:]), last)], last)
    by_document = defaultdict(list)
    for document, step, loss, tokens in lines:
        by_document[document].append((step, loss, tokens))
    assert found.id.to_pylist() == [bytes([0, document] * 8) for document in sorted(by_document)]
    for i, document in enumerate(sorted(by_document)):
        latest = max(step for step, _, _ in by_document[document])
        own = [(loss, tokens) for step, loss, tokens in by_document[document] if step == latest or not last]
        assert found.tokens[i] == sum(tokens for _, tokens in own)
        assert found.step[i] == latest
        assert found.loss[i] == pytest.approx(sum(loss * tokens for loss, tokens in own) / found.tokens[i])


def test_the_mean_is_over_tokens_and_not_over_lines() -> None:
    lines = [(1, 10, 2.0, 1), (1, 20, 4.0, 3), (2, 20, 1.0, 4)]
    found = join([partial(table(lines), False)], False)
    assert (found.loss.tolist(), found.tokens.tolist(), found.mean) == ([3.5, 1.0], [4, 4], 2.25)
    found = join([partial(table(lines), True)], True)
    assert (found.loss.tolist(), found.tokens.tolist(), found.step.tolist()) == ([4.0, 1.0], [3, 4], [20, 20])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10), st.integers(1, 9)), min_size=1))
def test_a_table_says_what_numpy_says_of_each_group(documents: list[tuple[int, float, int]]) -> None:
    code, loss, tokens = (np.array(column) for column in zip(*documents, strict=True))
    rows = roll_up(Groups("x", ["en", "诗", "c", "d"], code), loss, tokens)
    assert sum(row["documents"] for row in rows) == len(documents)
    assert [row["tokens"] for row in rows] == sorted((row["tokens"] for row in rows), reverse=True)
    for row in rows:
        own = code == ["en", "诗", "c", "d"].index(row["group"])
        assert (row["documents"], row["tokens"]) == (own.sum(), tokens[own].sum())
        assert row["loss"] == pytest.approx((loss * tokens)[own].sum() / tokens[own].sum(), abs=1e-6)
        expected = np.quantile(loss[own], [0.1, 0.5, 0.9])
        assert [row["p10"], row["p50"], row["p90"]] == pytest.approx(expected.tolist(), abs=1e-6)


def test_classes_by_hand() -> None:
    sizes = size_groups(np.array([1, 2, 3, 4, 5, 8, 9]))
    assert [sizes.names[i] for i in sizes.code] == ["1", "2", "3-4", "3-4", "5-8", "5-8", "9-16"]
    lengths = length_groups(np.array([0, 63, 64, 255, 256, 1048575, 1048576, 10**9]))
    names = ["0-63", "0-63", "64-255", "64-255", "256-1023", "262144-1048575", "1048576+", "1048576+"]
    assert [lengths.names[i] for i in lengths.code] == names
    words = value_groups("x", pa.array(["诗", None, "en", "诗"]))
    assert [words.names[i] for i in words.code] == ["诗", "(none)", "en", "诗"]
    numbers = value_groups("x", pa.array([1.0, 2, 3, 4, 5, math.nan]))
    assert [numbers.names[i] for i in numbers.code] == ["1 to 2", "2 to 3", "3 to 4", "4 to 5", "4 to 5", "(none)"]
    same = value_groups("x", pa.array([7, 7]))
    assert [same.names[i] for i in same.code] == ["7 to 7", "7 to 7"]
    assert value_groups("x", pa.array([True, False])).names == ["true", "false"]


LOSS = np.array([5.0, 1.0, 5.0, 2.0, 9.0, 3.0, 0.5, 4.0])
SOURCE = Groups("source", ["en", "诗"], np.array([0, 0, 0, 0, 1, 1, 1, 1]))
ALL = np.ones(8, bool)


def chosen(*orders: Drop, eligible: np.ndarray = ALL, each: bool = False) -> list[tuple[int, str, float]]:
    found = choose(orders, LOSS, SOURCE, eligible, each)
    return [(int(r), (HARD, EASY)[k], float(t)) for r, k, t in zip(*found, strict=True)]


def test_shares_limits_and_sources_by_hand() -> None:
    assert chosen() == []
    assert chosen(Drop("hardest", 0.25)) == [(0, HARD, 5.0), (4, HARD, 5.0)]  # 0 and 2 are equal: the first id goes
    assert chosen(Drop("hardest", 0.12)) == []  # 0.96 of a document
    assert chosen(Drop("easiest", 0.125)) == [(6, EASY, 0.5)]
    assert chosen(Drop("hardest", 0.25), each=True) == [(0, HARD, 5.0), (4, HARD, 9.0)]
    assert chosen(Drop("hardest", 0.5), each=True) == [(0, HARD, 5.0), (2, HARD, 5.0), (4, HARD, 4.0), (7, HARD, 4.0)]
    assert chosen(Drop("easiest", 0.5, "诗")) == [(5, EASY, 3.0), (6, EASY, 3.0)]
    assert chosen(Drop("above", 4.0)) == [(0, HARD, 4.0), (2, HARD, 4.0), (4, HARD, 4.0)]
    assert chosen(Drop("below", 1.0)) == [(6, EASY, 1.0)]
    assert chosen(Drop("below", 2.5, "en")) == [(1, EASY, 2.5), (3, EASY, 2.5)]


def test_the_first_order_decides_the_reason_and_only_the_eligible_count() -> None:
    assert chosen(Drop("above", 8.0), Drop("hardest", 0.125), Drop("below", 10.0, "诗"))[0] == (4, HARD, 8.0)
    assert len(chosen(Drop("above", 8.0), Drop("below", 10.0, "诗"))) == 4
    few = ALL.copy()
    few[[0, 4]] = False
    assert chosen(Drop("hardest", 0.34), eligible=few) == [(2, HARD, 4.0), (7, HARD, 4.0)]  # 2.04 of 6


def test_a_share_is_not_one_too_few_by_rounding() -> None:
    """0.29 × 100 is 28.999… in floating point."""
    source = Groups("source", ["s"], np.zeros(100, np.int64))
    assert len(choose([Drop("hardest", 0.29)], np.arange(100.0), source, np.ones(100, bool), False).row) == 29


def test_weights_by_hand() -> None:
    rows = [{"group": "诗", "loss": 4.0, "tokens": 100}, {"group": "en", "loss": 3.0, "tokens": 300}]
    assert weights(rows, 1.0) == {"en": round(math.exp(-0.25), 4), "诗": 2.0}  # exp(0.75) is 2.117
    assert weights(rows, 0.1) == {"en": round(math.exp(-0.025), 4), "诗": round(math.exp(0.075), 4)}
    assert weights(rows, 1e9) == {"en": 0.5, "诗": 2.0}
    assert weights(rows[:1], 1.0) == {"诗": 1.0}
