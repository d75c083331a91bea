"""Signals of web pages against plain Python: the formulas of datatrove 0.10.1 over the same tokens, and by hand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import pages
from pipelines.text.pages import GROUPS, page_signals
from pipelines.text.punctuation import SYMBOLS, TERMINALS
from pipelines.text.tokens import lexicon, tokenize
from pipelines.text.web import CHINESE_STOP_WORDS, ENGLISH_STOP_WORDS

ALL = tuple(GROUPS)


def tokens(text: str) -> list[str]:
    codes = np.array([ord(char) for char in text], np.int32)
    starts, ends = np.empty(len(text) + 1, np.int32), np.empty(len(text) + 1, np.int32)
    count = tokenize(codes, 0, len(text), tuple(lexicon()), starts, ends)
    return [text[a:b] for a, b in zip(starts[:count].tolist(), ends[:count].tolist(), strict=True)]


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def gopher(text: str) -> dict[str, float]:
    words, lines = tokens(text), text.splitlines()
    real = [word for word in words if any(char not in SYMBOLS for char in word)]
    starts = [line.lstrip()[:1] for line in lines]
    return {
        "gopher_words": len(real),
        "gopher_mean_word_length": ratio(sum(map(len, real)), len(real)),
        "gopher_hash_ratio": ratio(text.count("#"), len(words)),
        "gopher_ellipsis_ratio": ratio(text.count("...") + text.count("…"), len(words)),
        "gopher_alpha_ratio": ratio(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "gopher_bullet_ratio": starts.count("•") / max(len(lines), 1) + starts.count("-") / max(len(lines), 1),
        "gopher_end_ellipsis_ratio": sum(l.rstrip().endswith(("...", "…")) for l in lines) / max(len(lines), 1),
        "gopher_stop_words": len(set(ENGLISH_STOP_WORDS) & set(words)),
        "chinese_stop_words": sum(bool(set(forms) & set(words)) for forms in CHINESE_STOP_WORDS),
    }


def repeats(parts: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    again = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
    return len(again), sum(map(len, again))


def repetition(text: str) -> dict[str, float]:
    words, size = tokens(text), max(len(text), 1)
    lines, paragraphs = re.split("\n+", text), re.split("\n{2,}", text.strip())
    found = {
        "dup_line_frac": repeats(lines)[0] / len(lines),
        "dup_para_frac": repeats(paragraphs)[0] / len(paragraphs),
        "dup_line_char_frac": repeats(lines)[1] / size,
        "dup_para_char_frac": repeats(paragraphs)[1] / size,
    }
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        gram, count = grams.most_common(1)[0] if grams else ("", 0)
        found[f"top_{n}_gram"] = len(gram) * count / size
    for n in range(5, 11):
        seen, chars, at = set(), 0, 0
        while at < len(words) - n + 1:
            gram = "".join(words[at : at + n])
            chars += len(gram) if gram in seen else 0
            at += n if gram in seen else 1
            seen.add(gram)
        found[f"dup_{n}_gram"] = chars / size
    return found


def fineweb(text: str) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    return {
        "line_punct_ratio": sum(line[-1] in TERMINALS for line in lines) / max(len(lines), 1),
        "short_line_ratio": sum(len(line) <= 30 for line in lines) / max(len(lines), 1),
        "line_char_dup_ratio": repeats(lines)[1] / max(len(text.replace("\n", "")), 1),
        "newline_ratio": ratio(text.count("\n"), len(tokens(text))),
    }


def check(text: str) -> None:
    measured = page_signals(pa.array([text]), ALL)
    for name, value in {**gopher(text), **repetition(text), **fineweb(text)}.items():
        assert measured[name][0] == pytest.approx(value, nan_ok=True, abs=1e-12), (name, text)


PIECES = st.sampled_from(
    [
        "the ",
        "of ",
        "a b ",
        "x1, ",
        "...",
        "…",
        "# ",
        "\n",
        "\n\n",
        "- ",
        "• ",
        "的",
        "天地",
        "。",
        "!",
        "\u2028",
        "\r\n",
        " ",
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_every_signal_is_that_of_the_plain_formula(text: str) -> None:
    check(text)


def test_every_signal_is_that_of_the_plain_formula_on_real_text(real_texts: Callable[[str, int], list[str]]) -> None:
    for corpus in ("wikipedia_en", "wikipedia_zh"):
        for text in real_texts(corpus, 300_000):
            check(text)


def c4(text: str) -> dict[str, float]:
    return {name: values[0] for name, values in page_signals(pa.array([text]), ("c4",)).items()}


def test_c4_keeps_lines_that_end_a_sentence_and_counts_their_sentences() -> None:
    text = (
        "A first line of it. And more!\nno end mark here\nToo short.\nWas it [citation needed] so?[12]\nIt goes on..."
    )
    assert c4(text) == {
        "c4_sentences": 3.0,
        "c4_lines": 2.0,
        "c4_lorem_ipsum": 0.0,
        "c4_curly_bracket": 0.0,
        "c4_third_longest_line": 16.0,
    }


@pytest.mark.parametrize(
    ("line", "lines", "lorem", "curly"),
    [
        ("Please enable JavaScript to see this.", 0, 0, 0),
        ("We use Cookies: read the Cookie Policy.", 0, 0, 0),
        ("It says Lorem Ipsum dolor sit.", 1, 1, 0),
        ("A curly { bracket stands here.", 1, 0, 1),
        ("JavaScript has { brackets } in it.", 0, 0, 0),
        ("w" * 1001 + " is a long word.", 0, 0, 0),
        ('He said so, "indeed"', 1, 0, 0),
        ("[1] [2] [3]", 0, 0, 0),
    ],
)
def test_c4_rules_about_one_line(line: str, lines: int, lorem: int, curly: int) -> None:
    found = c4(line)
    assert (found["c4_lines"], found["c4_lorem_ipsum"], found["c4_curly_bracket"]) == (lines, lorem, curly)


def test_groups_are_measured_alone_as_together_and_in_one_order() -> None:
    texts = pa.array(["One of them. And the other!\n\nOne of them.", "", None, "天地玄黄，宇宙洪荒。"])
    whole = page_signals(texts, ALL)
    assert list(whole) == [name for docs in GROUPS.values() for name in docs]
    for group in GROUPS:
        for name, values in page_signals(texts, (group,)).items():
            np.testing.assert_array_equal(values, whole[name])
    assert page_signals(texts, ()) == {}
    with pytest.raises(KeyError, match="nothing"):
        page_signals(texts, ("nothing",))


def test_slices_and_large_strings_are_measured_alike() -> None:
    texts = pa.array(["not this", "the cat and the dog sat with the bird.", "x"])
    for given_texts in (texts[1:2], texts.cast(pa.large_string())[1:2]):
        assert page_signals(given_texts, ("gopher",))["gopher_stop_words"].tolist() == [3.0]
    assert pages.page_signals(texts[:0], ALL)["gopher_words"].shape == (0,)
