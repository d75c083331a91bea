"""A user's list of bad words: what datatrove's expression finds, in languages with spaces and without."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.bad_words import holds, parse

WORDS = parse("Bad\n  very  wrong \n\nc++\n坏\nbad\n".encode())


def test_a_list_is_one_word_or_phrase_a_line_without_case_and_repeats() -> None:
    assert WORDS == ("bad", "c++", "very wrong", "坏")


@pytest.mark.parametrize("raw", [b"", b" \n\n", b"\xff\xfe"])
def test_a_list_that_holds_nothing_or_is_no_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="list of bad words"):
        parse(raw)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("This is BAD.", 1.0),
        ("bad", 1.0),
        ("badly abad sub_bad", 0.0),
        ("a “bad” one", 1.0),
        ("bádbad", 0.0),
        ("very wrong!", 1.0),
        ("very  wrong", 0.0),
        ("in c++, say", 1.0),
        ("这坏了", 1.0),
        ("这很好", 0.0),
        ("", 0.0),
    ],
)
def test_words_stand_alone_where_there_are_spaces_and_anywhere_in_chinese(text: str, found: float) -> None:
    assert holds(pa.array([text, None]), WORDS).tolist() == [found, 0.0]


@given(st.text(alphabet=st.sampled_from("badBAD _-.,é1坏好 "), max_size=30))
def test_finds_what_datatroves_expression_finds(text: str) -> None:
    expected = re.search(r"(?:\W|^)(bad|c\+\+|very wrong)(?:\W|$)", text.lower()) or "坏" in text
    assert holds(pa.array([text]), WORDS)[0] == bool(expected)
