import itertools
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import spans
from pipelines.text.unicode import utf8

TEXTS = st.lists(st.text(st.sampled_from("ab \n\t中é🙂"), max_size=60), max_size=8)


def cut_texts(texts: list[str], edges: np.ndarray, first: np.ndarray) -> list[list[bytes]]:
    data, _ = utf8(pa.array(texts, pa.string()))
    parts = [bytes(data[a:b]) for a, b in itertools.pairwise(edges)]
    return [parts[a:b] for a, b in itertools.pairwise(first)]


def expected_words(text: str) -> list[bytes]:
    return [word.encode() for word in re.findall(r"\n+| +[^ \n]*|[^ \n]+", text)]


@given(TEXTS)
def test_words_are_cut_before_spaces_and_around_line_feeds_and_nowhere_else(texts: list[str]) -> None:
    data, offsets = utf8(pa.array(texts, pa.string()))
    assert cut_texts(texts, *spans.words(data, offsets, 1 << 16)) == [expected_words(text) for text in texts]


@given(TEXTS, st.integers(4, 20), st.integers(20, 40))
def test_segments_keep_every_byte_and_cut_only_where_words_are_cut(texts: list[str], limit: int, longest: int) -> None:
    data, offsets = utf8(pa.array(texts, pa.string()))
    for text, parts in zip(texts, cut_texts(texts, *spans.segments(data, offsets, limit, longest)), strict=True):
        assert b"".join(parts) == text.encode()
        assert all(parts) or not text
        ends = np.cumsum([len(word) for word in expected_words(text)]).tolist()
        at = 0
        for part in parts[:-1]:
            at += len(part)
            assert at in ends or len(part) > longest - 4
            part.decode()  # never within a character


def test_a_segment_goes_as_far_as_the_limit_allows() -> None:
    data, offsets = utf8(pa.array(["aa bb cc dd", "x", ""]))
    edges, first = spans.segments(data, offsets, 6, 100)
    assert cut_texts(["aa bb cc dd", "x", ""], edges, first) == [[b"aa bb", b" cc dd"], [b"x"], []]


def test_a_long_run_is_cut_between_characters() -> None:
    text = "中" * 20
    data, offsets = utf8(pa.array([text]))
    for cut in (spans.segments(data, offsets, 8, 10), spans.words(data, offsets, 10)):
        (parts,) = cut_texts([text], *cut)
        assert "".join(part.decode() for part in parts) == text
        assert max(map(len, parts)) <= 12


@given(TEXTS)
def test_unique_numbers_spans_by_first_appearance_and_gather_lays_them_out_again(texts: list[str]) -> None:
    data, offsets = utf8(pa.array(texts, pa.string()))
    edges, _ = spans.words(data, offsets, 1 << 16)
    words = [bytes(data[a:b]) for a, b in itertools.pairwise(edges)]
    distinct, numbers = spans.unique(data, edges)
    assert [words[j] for j in distinct] == list(dict.fromkeys(words))
    assert [words[distinct[n]] for n in numbers] == words
    again = spans.gather(data, edges[distinct], edges[distinct + 1], numbers, int(edges[-1] - edges[0]))
    assert bytes(again) == b"".join(words)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
def test_unique_holds_any_number_of_spans(count: int) -> None:
    texts = [f"w{i}" for i in range(count)] * 2
    data, offsets = utf8(pa.array(texts, pa.string()))
    distinct, numbers = spans.unique(data, offsets)
    assert len(distinct) == count
    assert numbers.tolist() == [*range(count)] * 2
