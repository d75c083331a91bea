"""Encodings: what is declared is believed where it holds, and bytes that are no text are told apart."""

import random
from collections.abc import Callable

import pytest

from pipelines.text.charset import declared_charset, decode, strict_utf8


def found(raw: bytes, declared: str | None = None, markup: bool = True) -> tuple[str, str] | None:
    result = decode(raw, declared, markup)
    return (result.text, result.charset) if result else None


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("text/html; charset=UTF-8", "utf-8"),
        ('text/html;charset="gb2312"', "gb18030"),
        ("text/html; CHARSET='Shift_JIS'; x=y", "cp932"),
        ("text/html; charset=iso-8859-1", "cp1252"),
        ("text/html; charset=x-sjis", "cp932"),
        ("text/html; charset=made-up", None),
        ("text/html; charset=unicode_escape", None),
        ("text/html; charset=utf-7", None),
        ("text/html; charset=rot13", None),
        ("text/html; charset=base64", None),
        ("text/html", None),
        ("", None),
    ],
)
def test_labels_are_read_as_browsers_read_them(header: str, name: str | None) -> None:
    assert declared_charset(header) == name


def test_the_order_of_precedence() -> None:
    text = "<meta charset=big5>這是網頁的內容"
    assert found(text.encode("big5"), None) == (text, "big5hkscs")
    assert found(text.encode("gb18030"), "gb18030") == (text, "gb18030")  # the header before the page
    assert found(text.encode("utf-8-sig"), "gb18030") == (text, "utf-8-sig")  # the mark before both
    assert found(text.encode(), "cp1252") == (text, "utf-8")  # which any bytes are
    assert found(text.encode(), None) == (text, "utf-8")  # not valid Big5
    page = "<?xml version='1.0' encoding='euc-jp'?><p>日本語の文章です</p>"
    assert found(page.encode("euc-jp")) == (page, "euc_jp")
    assert found('<meta charset="utf-16"><p>é</p>'.encode()) == ('<meta charset="utf-16"><p>é</p>', "utf-8")
    assert found("<meta charset=big5>é".encode(), None, markup=False) == ("<meta charset=big5>é", "utf-8")


def test_bytes_that_are_gbk_and_utf_8_at_once_are_what_is_declared() -> None:
    raw = b"\xc2\xb6\xc3\xbb" * 3  # as the well-known accident of a word saved by an editor
    assert found(raw, "gb18030") == (raw.decode("gb18030"), "gb18030")
    assert found(raw) == (raw.decode("utf-8"), "utf-8")


def test_a_few_wrong_characters_are_replaced_and_many_are_not() -> None:
    page = "字" * 5000
    raw = page.encode()
    assert found(raw[:-1], "utf-8") == ("字" * 4999 + "\ufffd", "utf-8")
    broken = raw[:300] + b"\xff" + raw[300:6000] + b"\xfe" + raw[6000:]
    result = found(broken, "utf-8")
    assert result is not None and result[0].count("\ufffd") == 2
    rng = random.Random(3)
    noise = bytes(rng.randrange(128, 256) for _ in range(4000))
    assert found(noise, "utf-8") is None


def test_utf_16_without_a_mark_is_known_by_its_zeros() -> None:
    text = "<html><p>plain words</p></html>"
    assert found(text.encode("utf-16-le")) == (text, "utf-16-le")
    assert found(text.encode("utf-16-be")) == (text, "utf-16-be")


@pytest.mark.parametrize("markup", [True, False])
def test_utf_16_of_the_header_is_not_believed_against_the_bytes(markup: bool) -> None:
    for text in ("<p>你好世界，这是一个页面。</p>", "<p>Les élèves étaient déjà là</p>!", "<p>plain</p>"):
        for declared in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            assert found(text.encode(), declared, markup) == (text, "utf-8")
        for name in ("utf-16-le", "utf-16-be"):
            assert found(text.encode(name), name, markup) == (text, name)
            assert found(text.encode(name), "utf-16", markup) == (text, name)
    page = "<p>" + "文字" * 2000 + "</p>"
    damaged = page.encode()[:3000] + b"\xff\0" + page.encode()[3000:]
    result = found(damaged, "utf-16", markup)
    assert result is not None and result[1] == "utf-8" and result[0].count("文字") >= 1999
    assert found("这是没有标点的中文".encode("utf-16-le"), "utf-16", False) == (
        "这是没有标点的中文",
        "utf-16-le",
    )  # no zero
    chinese = "<meta charset=gbk>这是网页的内容"
    assert found(chinese.encode("gbk"), "utf-16") == (chinese, "gb18030")


def test_blanks_in_a_declaration_take_linear_time(linear_time: Callable[..., None]) -> None:
    def read(size: int) -> None:
        for page in (
            b"<meta " * (size // 250) + b"charset=" + b" " * (size // 6),
            b"<?xml " + b"encoding " * (size // 1000) + b" " * (size // 5),
            b" " * (size // 5),
            b"<meta charset" * (size // 50),
        ):
            assert found(page) == (page.decode(), "utf-8")
        assert declared_charset("charset=" + " " * size + "!") is None

    linear_time(read, 20_000)
    assert declared_charset("text/html; charset = ' gbk '") == "gb18030"


def test_no_result_holds_a_lone_surrogate() -> None:
    for raw in (b"\xed\xa0\x80 text", b"\xff\xfe\x00\xd8a\x00", b"\x00\xd8" * 9):
        result = decode(raw)
        assert result is None or result.text.encode() is not None


def test_strict_utf_8() -> None:
    assert strict_utf8("\ufeffé".encode()) == ("é", "utf-8") and strict_utf8(b"\xe9") is None
