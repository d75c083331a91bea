"""N-gram overlap against brute force over the tokens of plain Python, and by hand in English and Chinese."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.overlap import find, grams_of, merge
from pipelines.text.shingles import tokens

WORDS = st.lists(st.sampled_from(["the", "of", "a", "b", "C", ",x", "天", "地", "é́", "42"]), max_size=25).map(" ".join)


def brute(texts: list[str], items: list[str], n: int, shortest: int) -> set[tuple[int, int]]:
    """(text, item) of every pair that shares an n-gram."""
    found = set()
    for j, item in enumerate(items):
        words = tokens(item)
        length = min(n, len(words))
        if len(words) < min(shortest, n):
            continue
        grams = {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
        for i, text in enumerate(texts):
            seen = tokens(text)
            if any(tuple(seen[k : k + length]) in grams for k in range(len(seen) - length + 1)):
                found.add((i, j))
    return found


@given(st.lists(WORDS, max_size=5), st.lists(WORDS, max_size=5), st.integers(1, 6), st.integers(1, 6))
def test_finds_exactly_what_brute_force_finds(texts: list[str], items: list[str], n: int, shortest: int) -> None:
    grams = grams_of(pa.array(items, pa.string()), n, shortest)
    found = find(pa.array(texts, pa.string()), grams)
    pairs = {
        (row, item)
        for row, gram in zip(found.rows.tolist(), found.grams.tolist(), strict=True)
        for item in grams.items[grams.offsets[gram] : grams.offsets[gram + 1]].tolist()
    }
    assert pairs == brute(texts, items, n, shortest)


def test_spans_are_the_bytes_of_the_tokens_in_english_and_chinese() -> None:
    items = pa.array(["What is the capital of France?", "床前明月光，疑是地上霜"])
    grams = grams_of(items, 5, 3)
    texts = ["He asked: “what IS the Capital, of france” - twice.", "诗云：床前明月光疑是，等等", "nothing"]
    found = find(pa.array(texts), grams)
    spans = {}
    for row in (0, 1):
        here = found.rows == row
        ((start, end),) = merge(found.starts[here], found.ends[here])
        spans[row] = texts[row].encode()[start:end].decode()
    assert spans == {0: "what IS the Capital, of france", 1: "床前明月光疑是"}
    assert set(found.rows.tolist()) == {0, 1}


def test_items_too_short_have_no_ngrams_and_others_count_theirs() -> None:
    grams = grams_of(pa.array(["one two", "one two three", "a b c d e f", "a b c d e f", None]), 4, 3)
    assert grams.counts.tolist() == [0, 1, 3, 3, 0] and grams.lengths.tolist() == [3, 4]
    assert len(grams.hashes) == 4 and grams.offsets.tolist()[-1] == len(grams.items) == 7


def test_spans_that_overlap_or_touch_are_joined() -> None:
    assert merge(np.array([5, 0, 3, 20]), np.array([9, 3, 6, 22])) == [(0, 9), (20, 22)]


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        grams_of(pa.array(["x"]), 0, 1)
