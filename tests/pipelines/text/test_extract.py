"""Pages: their main text, exactly, in both languages, whole and broken, and no nesting that costs time."""

from collections.abc import Callable

import pytest

from pipelines.text import extract
from pipelines.text.extract import MAX_CHARS, looks_binary, page_text

PARAGRAPHS = {
    "en": [
        "The first paragraph of the article says what it is about, in a sentence of some length.",
        "The second one goes on & gives the details: numbers, names and a <b>bold</b> claim.",
    ],
    "zh": [
        "第一段说明文章的主题，句子不长不短，用的是简体字。",
        "第二段讲的是细节，有数字、人名，还有一个<b>大胆</b>的说法。",
    ],
}
MENU = "".join(f'<li><a href="/{i}">Menu {i}</a></li>' for i in range(12))
TEMPLATES = {
    "semantic": '<header><nav><ul>{menu}</ul></nav></header><main><article><h1>{title}</h1>{body}</article></main>'
    "<aside>Related</aside><footer>Copyright 2024 Example</footer>",
    "classes": '<div id="cookie-banner" class="cookie-consent">We use cookies</div>'
    '<div class="sidebar"><ul>{menu}</ul></div>'
    '<div class="content"><h1>{title}</h1>{body}</div>'
    '<div id="comments" class="comments"><p>First comment</p></div>'
    '<div class="footer">Copyright 2024 Example</div>',
}  # fmt: skip


def markup(template: str, language: str) -> str:
    body = "".join(f"<p>{text}</p>" for text in PARAGRAPHS[language])
    inner = TEMPLATES[template].format(menu=MENU, title="The title", body=body)
    return (
        f'<!DOCTYPE html><html lang="{language}"><head><title> The\n title </title></head><body>{inner}</body></html>'
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_main_text_and_nothing_else(template: str, language: str) -> None:
    page = page_text(markup(template, language))
    paragraphs = [text.replace("<b>", "").replace("</b>", "") for text in PARAGRAPHS[language]]
    assert page == ("\n\n".join(["The title", *paragraphs]), "The title", language)


def test_all_visible_text_by_option() -> None:
    page = page_text(markup("classes", "en"), main_content=False)
    assert all(words in page.text for words in ("Menu 3", "We use cookies", "First comment", "The second one"))


def test_code_tables_and_lists_keep_their_lines() -> None:
    body = "<pre><code>def f(x):\n    return x</code></pre><table><tr><td>a</td><td>1</td></tr></table>"
    body += "<ul><li>one<li>two</ul>"
    text = page_text(f"<html><body><main><p>Words before it.</p>{body}</main></body></html>").text
    assert "def f(x):\n    return x" in text and "one\n" in text and "•" not in text
    assert [part.split() for part in text.splitlines() if part.startswith("a")] == [["a", "1"]]


def test_a_container_of_boilerplate_that_is_never_closed_does_not_hide_the_page() -> None:
    body = "".join(f"<p>{text}</p>" for text in PARAGRAPHS["en"])
    text = page_text(f'<html><body><div class="cookie-consent"><p>We use cookies</p><div>{body}</body></html>').text
    assert "The first paragraph" in text and "The second one" in text


def test_a_page_without_text_gives_none() -> None:
    for empty in (
        "",
        "<html></html>",
        "<script>var x = 'words';</script>",
        "<html><head><title>x</title></head></html>",
    ):
        assert page_text(empty).text == ""


@pytest.mark.parametrize("tag", ["div", "article", "b", "table><tr><td", "a href=x", "font"])
def test_deep_nesting_takes_linear_time_and_no_text(tag: str, linear_time: Callable[..., None]) -> None:
    def read(depth: int) -> None:
        deep = f"<p>Before it.</p>{f'<{tag}>' * depth}the deep text"
        assert "the deep text" in page_text(deep, main_content=False).text
        page_text(deep)

    linear_time(read, 100_000)


def test_a_page_beyond_the_limit_only_loses_its_tags() -> None:
    filler = "<p>words &amp; more</p>" * (MAX_CHARS // 20)
    page = page_text(f'<html lang="en"><head><title>x</title></head><script>no()</script>{filler}<b>end</b>')
    assert page.text.endswith("end") and page.text.startswith("words & more") and page.language == "en"


def test_no_number_however_long_ends_a_run_and_no_spelling_of_a_closer_hides_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extract, "MAX_CHARS", 1000)
    filler = "<p>words</p>" * 100
    page = page_text(f"<SCRIPT>no()</SCRIPT>first &#{'1' * 5000}; <style>x</STYLE>second{filler}")
    assert page.text.startswith("first \ufffd") and "second" in page.text[:40] and "no()" not in page.text


def test_blanks_take_linear_time(linear_time: Callable[..., None]) -> None:
    def read(size: int) -> None:
        assert page_text(f"<html><body><pre>a\n{' ' * size}x</pre><p>b</p>").text.startswith("a\n")

    linear_time(read, 100_000)


def test_what_is_no_text() -> None:
    for raw in (b"%PDF-1.4", b"\x89PNG\r\n", b"PK\x03\x04", bytes(range(256)), b"\0" * 10):
        assert looks_binary(raw)
    for raw in (
        b"",
        b"<html>",
        "字".encode(),
        "字".encode("gbk"),
        "x".encode("utf-16"),
        b"one \0 in a long line of text" * 2,
    ):
        assert not looks_binary(raw)
