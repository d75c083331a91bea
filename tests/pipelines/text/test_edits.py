"""Line rules that rewrite a text: C4's lines, and RefinedWeb's, in English and Chinese."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.edits import c4_lines, edit, html_entities, refinedweb_lines
from pipelines.text.pages import page_signals


def c4(text: str) -> str:
    return str(c4_lines(pa.array([text]))[0])


def refined(text: str) -> tuple[str, float]:
    texts, shares = refinedweb_lines(pa.array([text]))
    return str(texts[0]), shares[0]


def test_c4_keeps_whole_sentences_and_takes_citations_out() -> None:
    text = "  It is so,[12] they say [edit].  \r\nMenu\nNo mark at the end\n\nIs it “so”? [citation needed]\n"
    text += "Enough... \nYes it is!"
    assert c4(text) == "It is so, they say .\nYes it is!"
    assert c4("Ça va très bien, 天地玄黄 😀 ok.") == "Ça va très bien, 天地玄黄 😀 ok."
    assert c4("首页\n天地玄黄，宇宙洪荒。\n他说：“好的。”\n联系我们\n好！") == "天地玄黄，宇宙洪荒。\n他说：“好的。”"


@given(st.text(alphabet=st.sampled_from("ab c.\n[1]{é天😀!"), max_size=80))
def test_c4_lines_are_those_that_the_signal_counts_and_a_second_time_changes_nothing(text: str) -> None:
    edited = c4(text)
    kept = page_signals(pa.array([text]), ("c4",))["c4_lines"][0]
    assert len(edited.split("\n")) * bool(edited) >= kept  # the signal counts as C4 does, for English
    if "[" not in edited:  # a citation that is put together by taking another one out goes the second time
        assert c4(edited) == edited


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("BREAKING NEWS FROM ALL OVER", None),
        ("1234 5678", None),
        ("3 likes", None),
        ("(1.2K views)", None),
        ("12条评论", None),
        ("326 个赞", None),
        ("Menu", None),
        ("字", None),
        ("Sign-in to see what your friends think", "to see what your friends think"),
        ("The story goes on here. Read more...", "The story goes on here."),
        ("登录后可以查看全文", "后可以查看全文"),
        ("2 items in cart", None),
        ("A plain line of text", "A plain line of text"),
        ("  kept with its spaces  ", "  kept with its spaces  "),
        ("天地玄黄，宇宙洪荒。", "天地玄黄，宇宙洪荒。"),
        ("서울은 한국의 수도이다", "서울은 한국의 수도이다"),
        ("3 likely stories were told", "3 likely stories were told"),
        ("", ""),
    ],
)
def test_refinedweb_rules_about_one_line(line: str, kept: str | None) -> None:
    before, after = "A first line that stays here.", "A last line that stays, too."
    expected = [before, after] if kept is None else [before, kept, after]
    assert refined("\n".join([before, line, after]))[0] == "\n".join(expected)


def test_refinedweb_says_what_share_of_the_words_went() -> None:
    assert refined("one two three four\nMENU ITEM\nfive six seven eight") == (
        "one two three four\nfive six seven eight",
        0.2,
    )
    assert refined("")[1] == 0.0


def test_good_text_is_left_as_it_is(real_texts: Callable[[str, int], list[str]]) -> None:
    for corpus in ("wikipedia_zh", "laws_zh"):
        texts = real_texts(corpus, 1_000_000)
        _, shares = refinedweb_lines(pa.array(texts))
        assert (shares <= 0.05).mean() > 0.9


def test_nulls_slices_and_large_strings_come_back_as_they_were_given() -> None:
    texts = pa.array(["x", "A line that stays.", None, ""])
    for one in (texts[1:], texts.cast(pa.large_string())[1:]):
        assert c4_lines(one).type == one.type and c4_lines(one).to_pylist() == ["A line that stays.", "", ""]
        assert refinedweb_lines(one)[0].to_pylist() == ["A line that stays.", "", ""]


def test_whole_character_references_become_what_they_stand_for_once() -> None:
    given = ["a &amp; b &lt;i&gt; &#20013;&#x6587;&nbsp;", "&amp;lt;", "?a=1&copy=2&lt;", None, "plain & simple"]
    expected = ["a & b <i> 中文\xa0", "&lt;", "?a=1&copy=2<", None, "plain & simple"]
    assert html_entities(pa.array(given)).to_pylist() == expected
    untouched = pa.array(["nothing here"])
    assert html_entities(untouched) is untouched


def test_edits_say_what_they_measure() -> None:
    texts, measured = edit(pa.array(["One and two words here.\nMENU ITEM\nno end mark"]), ("refinedweb_lines",))
    assert texts.to_pylist() == ["One and two words here.\nno end mark"] and measured[
        "removed_word_ratio"
    ].tolist() == [0.2]
    assert edit(texts, ())[0] is texts and edit(texts, ("c4_lines",))[0].to_pylist() == ["One and two words here."]
