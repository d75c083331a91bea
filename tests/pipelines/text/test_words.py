import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import rjieba
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import make_han
from pipelines.text.words import DATA_PATH, word_starts

ALPHABET = "aZé9 .,'’_-\n\t中國台湾的一Кя한アあーก็🙂\u0301\u200d\ufe0f𠀀々"
TEXTS = st.lists(st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8")), max_size=40), max_size=6)


def words(text: str) -> list[str]:
    raw = text.encode()
    edges = [*np.flatnonzero(word_starts(pa.array([text]))).tolist(), len(raw)]
    return [raw[a:b].decode() for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", ",", " world", "!"]),
        ("It's 3.14 or l’eau 1,000.", ["It's", " 3.14", " or", " l’eau", " 1,000", "."]),
        ("'quoted' a'", ["'", "quoted", "'", " a", "'"]),
        ("end.Next", ["end", ".", "Next"]),
        ("snake_case A1b2", ["snake", "_", "case", " A1b2"]),
        ("Привет world", ["Привет", " world"]),
        ("миру×мир", ["миру", "×", "мир"]),
        ("ЯABC", ["Я", "ABC"]),
        ("한국어 텍스트", ["한국어", " 텍스트"]),
        ("wait...--!", ["wait", "...", "--", "!"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("👩\u200d🚀x", ["👩\u200d", "🚀", "x"]),
        ("\tx\n\ny \n", ["\t", "x", "\n\n", "y", " ", "\n"]),
        # Of several spaces the last belongs to the word; the word is marked too, for tokens that take all spaces.
        ("a    b", ["a", "   ", " ", "b"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),  # no dictionary: token-level masks
        ("アメリカでは、コーヒーを", ["アメリカ", "では", "、", "コーヒー", "を"]),
        ("", []),
    ],
)
def test_words_of_spaced_and_unsegmented_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我来到北京清华大学", ["我", "来到", "北京", "清华大学"]),
        ("在台北abc中文", ["在", "台北", "abc", "中文"]),
        ("中文 分词。", ["中文", " ", "分词", "。"]),
        # As the Simplified words: without the map these come out as guesses (漁民講, 由 於, 臺 灣國立).
        ("漁民講客家話", ["漁民", "講", "客家話"]),
        ("由於他們出海捕魚", ["由於", "他們", "出海捕魚"]),
        ("在臺灣的大學", ["在", "臺灣", "的", "大學"]),
        ("葛\U000e0100城市", ["葛\U000e0100", "城市"]),  # a variation selector is part of its character
        ("𠀀城市", ["𠀀", "城市"]),
    ],
)
def test_words_of_chinese_simplified_and_traditional(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXTS)
def test_marks_stand_on_characters_and_depend_on_the_document_alone(texts: list[str]) -> None:
    together = word_starts(pa.array(texts, pa.string()))
    alone = [word_starts(pa.array([text])) for text in texts]
    assert together.tolist() == [mark for marks in alone for mark in marks.tolist()]
    for text, marks in zip(texts, alone, strict=True):
        raw = text.encode()
        assert not raw or marks[0]
        assert all(raw[i] & 0xC0 != 0x80 for i in np.flatnonzero(marks))


@given(TEXTS)
def test_a_sliced_array_gives_its_own_marks(texts: list[str]) -> None:
    whole = pa.array(["前面 x", *texts], pa.string())
    assert word_starts(whole[1:]).tolist() == word_starts(pa.array(texts, pa.string())).tolist()


def test_simplified_chinese_words_are_those_of_the_segmenter(real_texts: Callable[[str, int], list[str]]) -> None:
    for text in real_texts("laws_zh", 200_000):
        runs = "".join(c if "\u4e00" <= c <= "\u9fa5" else "\n" for c in text)
        if "裏" in runs or "乾" in runs:  # characters that the map would change
            continue
        marked, at = set(np.flatnonzero(word_starts(pa.array([text]))).tolist()), 0
        position = np.cumsum([0, *(len(c.encode()) for c in text)])
        for word in rjieba.cut(runs, True):
            if word.strip():
                inner = {int(position[at + k]) for k in range(1, len(word))}
                assert int(position[at]) in marked, word
                assert not inner & marked, word
            at += len(word)


def test_real_words_have_plausible_lengths(real_texts: Callable[[str, int], list[str]]) -> None:
    for corpus, low, high in (("wikipedia_en", 3.5, 6.5), ("wikipedia_zh", 1.3, 2.2), ("poetry_zh", 1.2, 2.0)):
        texts = real_texts(corpus, 200_000)
        per_word = sum(map(len, texts)) / word_starts(pa.array(texts)).sum()
        assert low < per_word < high, (corpus, per_word)


def test_table_of_han_keeps_utf8_lengths_and_is_what_its_script_writes(tmp_path: object) -> None:
    with np.load(DATA_PATH) as data:
        traditional, simplified = data["traditional"], data["simplified"]
    assert len(traditional) == len(simplified) == 2956
    assert traditional.min() >= 0x800
    assert simplified.min() >= 0x800
    lines = [f"{chr(a)}\t{chr(b)} {chr(a)}\n" for a, b in zip(traditional.tolist(), simplified.tolist(), strict=True)]
    parsed = make_han.parse([*lines, "一\t一\n", "𠁞\t𠀾\n"])
    assert parsed[0].tolist() == traditional.tolist()
    assert parsed[1].tolist() == simplified.tolist()
