"""Tokens as spaCy's English tokenizer cuts them: the expected lists are its own output (spaCy 3.8.18, blank 'en')."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.tokens import (
    HAS_ALPHA,
    HAS_WORD,
    IS_PUNCTUATION,
    IS_TERMINAL,
    count_sentences,
    decode_text,
    describe_tokens,
    lexicon,
    tokenize,
)

LEXICON = tuple(lexicon())


def codes_of(text: str) -> np.ndarray:
    return np.array([ord(char) for char in text], np.int32)


def spans(text: str) -> list[tuple[int, int]]:
    codes = codes_of(text)
    starts, ends = np.empty(len(text) + 1, np.int32), np.empty(len(text) + 1, np.int32)
    count = tokenize(codes, 0, len(text), LEXICON, starts, ends)
    return list(zip(starts[:count].tolist(), ends[:count].tolist(), strict=True))


def tokens(text: str) -> list[str]:
    return [text[first:last] for first, last in spans(text)]


def flags_of(text: str) -> list[int]:
    found = spans(text)
    starts, ends = (np.array([span[i] for span in found] or [0], np.int32) for i in (0, 1))
    hashes, flags = np.empty(len(starts), np.uint64), np.empty(len(starts), np.uint8)
    describe_tokens(codes_of(text), starts, ends, len(found), LEXICON[0], hashes, flags)
    return flags[: len(found)].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("don't can't cannot it's they'll", ["do", "n't", "ca", "n't", "can", "not", "it", "'s", "they", "'ll"]),
        ("don’t John’s", ["do", "n’t", "John", "’s"]),
        ("well-known 1990-1995 3-year", ["well", "-", "known", "1990", "-", "1995", "3", "-", "year"]),
        ("Dr. Smith of the U.S. paid $5.50.", ["Dr.", "Smith", "of", "the", "U.S.", "paid", "$", "5.50", "."]),
        ("the end.Next one", ["the", "end", ".", "Next", "one"]),
        ("see http://example.com/a-b?c=d, now", ["see", "http://example.com/a-b?c=d", ",", "now"]),
        ("www.example.com and/or x/y", ["www.example.com", "and/or", "x", "/", "y"]),
        ("wait... what?!", ["wait", "...", "what", "?", "!"]),
        ("800m 5kg 20% 3G 3abc", ["800", "m", "5", "kg", "20", "%", "3", "G", "3abc"]),
        ("(see p. 5)", ["(", "see", "p.", "5", ")"]),
        ('"quoted" ‘text’', ['"', "quoted", '"', "‘", "text", "’"]),
        ("a,b 1,000 x=y", ["a", ",", "b", "1,000", "x", "=", "y"]),
        ("C++ :) +5 5+", ["C++", ":)", "+5", "5", "+"]),
        ("CBS.", ["CBS", "."]),
        ("J. R. R.", ["J.", "R.", "R."]),
        ("--dash— em", ["--dash", "—", "em"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_cuts_as_spacy_does(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我爱北京。", ["我", "爱", "北", "京", "。"]),
        ("GDP增长6%，很好", ["GDP", "增", "长", "6", "%", "，", "很", "好"]),
        ("ภาษาไทย", [*list("ภ"), "า", "ษ", "า", *list("ไทย")]),
        ("서울은 한국", ["서울은", "한국"]),
    ],
)
def test_letters_of_scripts_without_spaces_are_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_says_what_a_token_is() -> None:
    assert flags_of("word 42 ... ! ，") == [
        HAS_ALPHA | HAS_WORD,
        HAS_WORD,
        IS_PUNCTUATION,
        IS_TERMINAL | IS_PUNCTUATION,
        IS_PUNCTUATION,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", 3),
        ('He said "Stop." Then left.', 2),
        ("No end", 1),
        ("", 0),
        ("Mr. Smith met Dr. Jones.", 1),
        ("Hm... fine. (Really.) Yes.", 3),
    ],
)
def test_counts_sentences_as_spacys_sentencizer_does(text: str, expected: int) -> None:
    flags = np.array(flags_of(text) or [0], np.uint8)
    assert count_sentences(flags, len(spans(text))) == expected


@given(st.text(alphabet=st.sampled_from("ab1 .,-'’n t!?:/@…中あ한\n$%()km"), max_size=60))
def test_tokens_are_in_order_cover_all_but_whitespace_and_overlap_nowhere(text: str) -> None:
    found = spans(text)
    assert all(first < last for first, last in found)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(found))
    assert "".join(text[first:last] for first, last in found) == "".join(text.split())


@given(st.text(max_size=80))
def test_decodes_utf8_into_code_points(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    data = np.frombuffer(text.encode(), np.uint8)
    codes = np.empty(len(data) + 1, np.int32)
    assert codes[: decode_text(data, 0, len(data), codes)].tolist() == [ord(char) for char in text]
