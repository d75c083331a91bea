import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.repair import kinds, repair, suspects
from pipelines.text.unicode import utf8

MOJIBAKE = [chr(code) for code in np.flatnonzero(kinds())]
PLAIN = ["a", "Z", " ", ".", "1", "\n", "中", "，", "\u3000"]


def marked(texts: list[str]) -> np.ndarray:
    return suspects(*utf8(pa.array(texts, pa.string())))


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("l\u00e2\u20ac\u2122humanit\u00c3\u00a9", "l\u2019humanité"),
        ("voilÃ le travail", "voilà le travail"),
        ("ä¸\xadæ–‡", "中文"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("quote\x93s\x94", "quote“s”"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_mojibake_is_marked_and_repaired(broken: str, whole: str) -> None:
    assert marked([broken]).tolist() == [True]
    assert repair(broken) == whole


@pytest.mark.parametrize(
    "text", ["“卷曲”的引号，全角！ＡＢＣ　（一）", "ﬁne ﬂow", "&lt;b&gt; &amp;", "a\r\nb", "Ångström №5"]
)
def test_content_is_no_damage(text: str) -> None:
    assert repair(text) == text


@given(st.text(st.one_of(st.sampled_from(MOJIBAKE), st.sampled_from(PLAIN), st.characters(codec="utf-8")), max_size=8))
@settings(max_examples=2000)
def test_the_screen_misses_nothing_that_ftfy_would_change(text: str) -> None:
    if repair(text) != text or is_bad(text):
        assert marked([text])[0]


@given(st.text(max_size=20), st.sampled_from(["latin-1", "cp1252", "cp1251", "cp1253", "cp1257", "mac_roman", "cp437"]))
@settings(max_examples=500)
def test_the_screen_marks_every_misreading_that_ftfy_repairs(text: str, encoding: str) -> None:
    broken = text.encode().decode(encoding, "replace")
    if repair(broken) != broken:
        assert marked([broken])[0]


@pytest.mark.parametrize(("before", "after"), itertools.product(["", "a", " "], ["", "a", " "]))
def test_the_screen_marks_every_pair_of_neighbours_that_looks_broken(before: str, after: str) -> None:
    texts = [before + one + other + after for one in MOJIBAKE[::3] for other in MOJIBAKE]
    missed = [text for text, found in zip(texts, marked(texts), strict=True) if not found and is_bad(text)]
    assert not missed


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "laws_zh", "poetry_zh"])
def test_few_sound_texts_are_marked(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    assert marked(real_texts(corpus, 1_000_000)).mean() < 0.02
