import itertools
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.signals import BULLETS, DOCS, SIGNALS, TERMINALS, signals
from pipelines.text.unicode import SCRIPTS, Class, Flag, tables

ALPHABET = "aZé1٣ \t\n\n\u3000.#…-•，。！」’中コกัक한\u0301\u200b\ufffd😀$ß"
TEXTS = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8")), max_size=60)


def measure(text: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in signals(pa.array([text])).items()}


def by_definition(text: str) -> dict[str, float]:
    """The signals again, from their documentation, with regular expressions over one letter per character."""
    loaded = tables()
    letter_of = {
        Class.LETTER: "L",
        Class.DIGIT: "N",
        Class.MARK: "M",
        Class.CHARACTER: "C",
        Class.PUNCTUATION: "P",
        Class.SYMBOL: "S",
        Class.SPACE: " ",
    }
    kinds = "".join(letter_of.get(Class(loaded.classes[ord(char)]), "?") for char in text)
    # a space at each border of words: around characters, and where Chinese and Japanese punctuation stands
    borders = "".join(
        " C " if kind == "C" else " " if kind == "P" and ord(char) >= 0x3000 else kind
        for char, kind in zip(text, kinds, strict=True)
    )
    spaced = [run for run in borders.split(" ") if re.search("[LN]", run)]
    # marks before a word's first letter or digit are not part of it
    lengths = [len(re.findall("[LNM]", run[re.search("[LN]", run).start() :])) for run in spaced]  # type: ignore[union-attr]
    words = len(spaced) + kinds.count("C")
    letters = [ord(char) for char, kind in zip(text, kinds, strict=True) if kind in "LC"]
    visible = len(text) - kinds.count(" ")
    scripts = [SCRIPTS[loaded.scripts[code]] for code in letters]
    space = "".join(sorted({char for char, kind in zip(text, kinds, strict=True) if kind == " "}))
    lines = [line.strip(space) if space else line for line in text.split("\n")]
    lines = [line for line in lines if line]
    in_lines = sum(map(len, lines))
    repeated = sum(len(line) for i, line in enumerate(lines) if line in lines[:i])
    hashtags = sum(a == "#" and kinds[i + 1] in "LNC" for i, a in enumerate(text[:-1]))
    ellipses = len(re.findall("…+|[.]{3,}", text))

    def per(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    return {
        "chars": len(text),
        "bytes": len(text.encode()),
        "words": words,
        "mean_word_length": sum(lengths) / len(spaced) if spaced and 2 * len(spaced) >= words else np.nan,
        "spaced_word_ratio": per(len(spaced), words),
        "letter_ratio": per(len(letters) + kinds.count("M"), visible),
        "digit_ratio": per(kinds.count("N"), visible),
        "punct_ratio": per(kinds.count("P"), visible),
        "han_ratio": per(scripts.count("han"), len(letters)),
        "latin_ratio": per(scripts.count("latin"), len(letters)),
        "upper_ratio": per(sum(bool(loaded.flags[code] & Flag.UPPER) for code in letters), len(letters)),
        "whitespace_ratio": per(kinds.count(" "), len(text)),
        "replacement_ratio": per(text.count("\ufffd"), len(text)),
        "symbol_ratio": per(max(hashtags, ellipses), words),
        "longest_run": max(
            (len(list(run)) for char, run in itertools.groupby(text) if loaded.classes[ord(char)] != Class.SPACE),
            default=0,
        ),
        "lines": len(lines),
        "mean_line_chars": per(in_lines, len(lines)),
        "bullet_line_ratio": per(sum(line[0] in BULLETS for line in lines), len(lines)),
        "ellipsis_line_ratio": per(sum(line.endswith(("…", "...")) for line in lines), len(lines)),
        "terminal_punct_line_ratio": per(sum(line[-1] in TERMINALS for line in lines), len(lines)),
        "duplicate_line_ratio": per(repeated, in_lines),
    }


@given(TEXTS)
@settings(max_examples=1500)
def test_every_signal_is_what_its_documentation_says(text: str) -> None:
    assert measure(text) == pytest.approx(by_definition(text), nan_ok=True)


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "documentation_versions", "poetry_zh"])
def test_every_signal_on_real_text(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    texts = real_texts(corpus, 100_000)
    found = signals(pa.array(texts))
    for i, text in enumerate(texts):
        assert {name: values[i] for name, values in found.items()} == pytest.approx(by_definition(text), nan_ok=True)


def test_signals_come_in_their_documented_order_as_float64() -> None:
    found = signals(pa.array(["a", "b"]))
    assert tuple(found) == SIGNALS == tuple(DOCS)
    assert all(values.dtype == np.float64 and values.shape == (2,) for values in found.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick brown fox, don't co-operate.", 6),
        ("GDP增长6%", 4),
        ("我爱北京天安门。", 7),
        ("Python，C++和Rust", 4),
        ("http://example.org/a?b=c", 1),
        ("한국어 문장", 2),
        ("- ... !", 0),
    ],
)
def test_words_by_script(text: str, words: int) -> None:
    assert measure(text)["words"] == words


def test_a_chinese_page_by_hand() -> None:
    found = measure("标题\n“你好。”\n- 项目……\n“你好。”\n")
    assert found["lines"] == 4 and found["words"] == 8 and found["han_ratio"] == 1.0
    assert found["terminal_punct_line_ratio"] == 3 / 4
    assert found["ellipsis_line_ratio"] == found["bullet_line_ratio"] == 1 / 4
    assert found["duplicate_line_ratio"] == 5 / (2 + 5 + 6 + 5)
    assert found["symbol_ratio"] == 1 / 8, "…… is one ellipsis"
    assert np.isnan(found["mean_word_length"])


def test_headings_of_markdown_are_no_hashtags() -> None:
    assert measure("## A heading\n# Another")["symbol_ratio"] == 0
    assert measure("#one #two 中#文")["symbol_ratio"] == 3 / 4


def test_an_empty_text_divides_by_nothing() -> None:
    found = measure("")
    assert np.isnan(found.pop("mean_word_length"))
    assert set(found.values()) == {0.0}


def test_slices_nulls_and_large_strings() -> None:
    texts = pa.array(["x", "ab", None, "中文字"], pa.large_string()).slice(1)
    assert signals(texts)["chars"].tolist() == [2, 0, 3]
    assert signals(pa.array([], pa.string()))["chars"].shape == (0,)
