"""Character references: as browsers read them in pages, and only whole ones in plain text."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.entities import unescape, unescape_whole


@given(st.text(alphabet=st.sampled_from("&#x;amplt1290 文"), max_size=40))
def test_unescape_is_pythons_where_that_can_read_the_number(text: str) -> None:
    assert unescape(text) == html.unescape(text)


@pytest.mark.parametrize("digits", ["1" * 5000, "x" + "f" * 5000, "0" * 5000])
def test_endless_numbers_are_the_replacement_character_and_no_crash(digits: str) -> None:
    assert unescape(f"a &#{digits}; b") == "a \ufffd b" and unescape(f"a &#{digits} b") == "a \ufffd b"
    assert unescape_whole(f"a &#{digits}; b") == f"a &#{digits}; b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a &amp; b &lt;i&gt; &#20013;&#x6587;&nbsp;", "a & b <i> 中文\xa0"),
        ("&amp;lt;", "&lt;"),
        ("x.org/?a=1&copy=2&lt;", "x.org/?a=1&copy=2<"),
        ("AT&T; no &zzz; here", "AT&T; no &zzz; here"),
    ],
)
def test_only_whole_references_are_replaced_in_text(text: str, expected: str) -> None:
    assert unescape_whole(text) == expected
