"""Line hashes: the compiled kernel equals the definition, and dropping lines leaves the others as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.line_hashes import (
    UnitConfig,
    drop_lines,
    find_lines,
    letters,
    letters_left,
    normalized_line,
    unit_hash,
    unit_text,
    widen,
)
from pipelines.text.unicode import Class, tables

ALPHABET = "aZéß1٣½ \t\n\n\r\u3000\x85.#|…-•，。中コ각กक\u0301\u200b\x00\x1c😀$`~"
TEXTS = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8")), max_size=60)


def visible_lines(text: str) -> list[str]:
    classes = tables().classes
    return [line for line in text.split("\n") if any(classes[ord(char)] != Class.SPACE for char in line)]


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("  Hello,   World! ", "hello world"),
        ("Posted on 12/05/2021 at 9:30 a.m.", "posted on 00000000 at 000 am"),
        ("self-made — “quoted”", "selfmade quoted"),
        ("版权所有，２０２１年 保留一切权利。", "版权所有0000年保留一切权利"),
        ("\u3000\u3000点击\u200b阅读", "点击阅读"),
        ("第 1 章　总　则 GDP 增长 6 %", "第0章总则gdp增长0"),
        ("STRASSE straße ÉTÉ", "strasse straße été"),
        ("a + b", "a + b"),
        ("-----", ""),
    ],
)
def test_normal_form(line: str, normal: str) -> None:
    assert normalized_line(line) == normal


def test_one_scale_of_letters_for_all_scripts() -> None:
    assert letters("Read more: 12 Ab") == 10
    assert letters("阅读更多：12") == 12
    assert letters("もっと読む") == 11  # four kana, one Han
    assert letters("더 보기") == 9
    assert letters("Читать 2") == 6


def test_the_hash_of_a_unit_does_not_change() -> None:
    """It is written to frequent/, where others may join on it."""
    assert [hex(unit_hash(["Hello, World!"])), hex(unit_hash(["版权所有", "b"]))] == [
        "0x9f1907bada24621a",
        "0x6b31a5d088a8b7bd",
    ]


@given(st.lists(TEXTS, max_size=4), st.integers(1, 3), st.integers(1, 9))
def test_the_kernel_equals_the_definition(texts: list[str], span: int, least: int) -> None:
    config = UnitConfig(span=span, min_letters=least)
    array = pa.array(texts, pa.string())
    found = find_lines(array, config)
    expected = [visible_lines(text) for text in texts]
    assert np.diff(found.offsets).tolist() == [len(lines) for lines in expected]
    at = 0
    for lines in expected:
        for i, line in enumerate(lines):
            unit = lines[i : i + span]
            counted = len(unit) == span and sum(map(letters, unit)) >= least
            assert bool(found.counted[at]) == counted and found.letters[at] == letters(line)
            assert unit_text(array, found, at, 1) == line
            if counted:
                assert int(found.hashes[at]) == unit_hash(unit)
            at += 1


@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_dropping_leaves_exactly_the_other_lines(texts: list[str], data: st.DataObject) -> None:
    array = pa.array(texts, pa.large_string())
    lines = find_lines(array, UnitConfig(min_letters=1))
    count = len(lines.hashes)
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)
    dropped = drop_lines(array, lines, gone).to_pylist()
    left = letters_left(lines, gone)
    for i, text in enumerate(texts):
        mine = slice(lines.offsets[i], lines.offsets[i + 1])
        kept = [line for line, out in zip(visible_lines(text), gone[mine], strict=True) if not out]
        assert visible_lines(dropped[i]) == kept
        assert left[i] == sum(map(letters, kept))
        if not gone[mine].any():
            assert dropped[i] == text
        elif not kept:
            assert dropped[i] == ""
        else:
            assert _blanks(dropped[i]) <= _blanks(text), "no gap is wider than one that stood in the text"


def _blanks(text: str) -> int:
    """The longest run of line feeds with nothing visible between them."""
    classes = tables().classes
    marks = "".join("\n" if c == "\n" else "" if classes[ord(c)] == Class.SPACE else "x" for c in text)
    return max(map(len, marks.split("x")))


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        ("a\n\nb\n\nc\n", "b", "a\n\nc\n"),
        ("a\nb\n\nc", "b", "a\n\nc"),
        ("a\n\nb\nc", "b", "a\n\nc"),
        ("a\nb\nc", "b", "a\nc"),
        ("\n\na\nb\n", "a", "b\n"),
        ("\n a \nb", "b", "\n a "),
        ("a\n\n\nb\n", "b", "a\n"),
        ("中\r\n文\r\n字", "文", "中\r\n字"),
        ("a", "a", ""),
    ],
)
def test_paragraphs_stay_apart(text: str, gone: str, left: str) -> None:
    array = pa.array([text])
    lines = find_lines(array, UnitConfig(min_letters=1))
    marked = np.array([line.strip() == gone for line in visible_lines(text)])
    assert drop_lines(array, lines, marked).to_pylist() == [left]


def test_sliced_arrays_and_nulls() -> None:
    array = pa.array(["zzz\nzzz", "one\ntwo", None, "three\nfour"])[1:]
    lines = find_lines(array, UnitConfig(min_letters=1))
    assert lines.offsets.tolist() == [0, 2, 2, 4]
    dropped = drop_lines(array, lines, np.array([False, True, True, False]))
    assert dropped.to_pylist() == ["one", None, "four"]


def test_a_span_ends_with_its_text_and_drops_all_its_lines() -> None:
    array = pa.array(["one\ntwo\nthree\nfour", "one\ntwo"])
    lines = find_lines(array, UnitConfig(span=3, min_letters=1))
    assert lines.counted.tolist() == [True, True, False, False, False, False]
    gone = widen(np.array([False, True, False, False, False, False]), lines, 3)
    assert gone.tolist() == [False, True, True, True, False, False]
    assert unit_text(array, lines, 1, 3) == "two\nthree\nfour"


CODE = "Some words here\n```python\nimport numpy as np\n\n~~~\n```\nMore words here\n"
CODE += "    indented = code\n\ttab = code\n   text"


def test_code_is_protected_only_on_request() -> None:
    array = pa.array([CODE])
    free = find_lines(array, UnitConfig(min_letters=1))
    bound = find_lines(array, UnitConfig(min_letters=1, protect_code=True))
    kept = [unit_text(array, bound, i, 1).strip() for i in np.flatnonzero(bound.counted)]
    assert kept == ["Some words here", "More words here", "text"]
    assert free.counted.sum() == len(visible_lines(CODE)) - 2  # the lines of ``` and ~~~ hold no letter


def test_tables_are_protected_only_on_request() -> None:
    rows = [
        "| name | size |",
        "name\tsize\tkind",
        "\t\tHome",
        "Home | About | Contact",
        "│ 名称 │",
        "　　中文段落的开头",
    ]
    array = pa.array(["\n".join(rows)])
    bound = find_lines(array, UnitConfig(min_letters=1, protect_tables=True))
    assert bound.counted.tolist() == [False, False, True, True, False, True]
    assert find_lines(array, UnitConfig(min_letters=1)).counted.all()


def test_a_chinese_paragraph_indent_is_no_code() -> None:
    array = pa.array(["\u3000\u3000\u3000\u3000天地玄黄宇宙洪荒"])
    assert find_lines(array, UnitConfig(protect_code=True)).counted.tolist() == [True]


def test_limits_are_checked() -> None:
    for bad in ({"span": 0}, {"min_letters": 0}):
        with pytest.raises(ValueError, match="is at least 1; got 0"):
            UnitConfig(**bad)


def test_a_long_line_and_many_short_ones_take_linear_time() -> None:
    array = pa.array(["a" * 20_000_000, "x\n" * 1_000_000], pa.large_string())
    lines = find_lines(array, UnitConfig())
    assert np.diff(lines.offsets).tolist() == [1, 1_000_000] and lines.letters[0] == 20_000_000


def test_real_lines_of_two_languages_equal_the_definition(real_records: Callable[..., list[dict[str, Any]]]) -> None:
    names = ("wikipedia_en.jsonl.zst", "wikipedia_zh.jsonl.zst", "documentation_versions.jsonl.zst")
    texts = [record["text"] for name in names for record in real_records(name, 12)]
    found = find_lines(pa.array(texts), UnitConfig())
    expected = [line for text in texts for line in visible_lines(text)]
    assert found.counted.tolist() == [letters(line) >= 12 for line in expected]
    assert found.hashes.tolist() == [unit_hash([line]) for line in expected]
