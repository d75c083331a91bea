"""The encoding of a web page's bytes: what is declared is believed where it holds, and found out where it does not."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding

MAX_REPLACED = 1000  # one undecodable character in so many is replaced; more of them are another encoding, or no text
_PRESCAN = 4096  # the HTML standard prescans 1,024 bytes; pages with long comments have their declaration behind them
_SAMPLE = 128 << 10
_HANGUL, _NOT_ASCII = re.compile("[\uac00-\ud7a3]"), re.compile("[^\0-\x7f]")
_HEADER_CHARS = 1024  # of a Content-Type header that are searched
# Blanks are bounded, and those before and behind a quote cannot be told apart in two ways: no text takes long.
_LABEL = r"\s{0,16}=\s{0,16}(?:[\"']\s{0,16})?([A-Za-z0-9_:.+-]{2,40})"
_META = re.compile(rb"<meta\b[^>]{0,500}?charset" + _LABEL.encode(), re.IGNORECASE)
_XML = re.compile(rb"\s{0,1024}<\?xml\b[^>]{0,200}?encoding" + _LABEL.encode())
_HEADER = re.compile(r"charset" + _LABEL, re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The Encoding Standard (WHATWG) reads these labels as supersets, as browsers do and pages expect.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "ks_c_5601-1987": "cp949",
}
_LABELS = {
    "ks_c_5601": "cp949",
    "unicode": "utf-16",
    "unicode-1-1-utf-8": "utf-8",
    "utf8mb4": "utf-8",
    "windows-31j": "cp932",
    "windows-874": "cp874",
    "windows-949": "cp949",
    "x-euc-jp": "euc_jp",
    "x-gbk": "gb18030",
    "x-sjis": "cp932",
    "x-x-big5": "big5hkscs",
}
# Of Python's codecs those that the web has used; others (punycode, unicode_escape, …) are no charsets of pages.
_TEXT_CODECS = re.compile(r"utf-(?:8|16|32)|gb18030|hz|big5hkscs|cp\d|euc|iso2022|iso8859-|koi8-|mac-|johab|shift_jis")
_WIDE = ("utf-16", "utf-32")
_FEW_ZEROS = 32  # stray zeros are fewer than one byte in so many, and those of a text in Latin letters are more
_SINGLE_BYTE = re.compile(r"cp125\d|cp874|cp866|iso8859-|koi8|mac-|latin")


class Decoded(NamedTuple):
    """A text and the name of the encoding that it was in."""

    text: str
    charset: str


def declared_charset(content_type: str) -> str | None:
    """Read the charset of a Content-Type header, as Python names it; None where it has none that is known."""
    found = _HEADER.search(content_type[:_HEADER_CHARS])
    return _codec(found[1]) if found else None


def decode(raw: bytes, declared: str | None = None, markup: bool = True) -> Decoded | None:
    """Decode the bytes of a text or, with `markup`, of a page; None where no encoding makes text of them.

    A byte order mark decides; else what was declared (the transport's word before the page's own `meta` or XML
    declaration), if the bytes hold to it; else UTF-8, if they do; else what they look like. Of what was declared, one
    character in a thousand may be wrong: it becomes U+FFFD. A single-byte declaration, which any bytes hold to, is not
    believed against bytes that are UTF-8 beyond ASCII; nor is UTF-16, which most bytes hold to, against bytes that are
    UTF-8, or against a page without the zeros that tags have in UTF-16.
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return _mostly(raw, name)
    if declared is not None and declared.startswith(_WIDE):
        declared = _wide(raw, declared, markup)
    names = [name for name in (declared, _own(raw) if markup else None) if name]
    plain = _strictly(raw, "utf-8")
    if plain is not None and (not names or names[0].startswith(_WIDE) or _SINGLE_BYTE.match(names[0]) or raw.isascii()):
        return _unless_wide(raw, plain)
    for name in names:
        if (found := _strictly(raw, name)) is not None:
            return found
    if plain is not None:
        return plain
    for name in names:
        if (found := _mostly(raw, name)) is not None:
            return found
    guess = _guess(raw)
    return _mostly(raw, guess) if guess else None


def strict_utf8(raw: bytes) -> Decoded | None:
    """Decode UTF-8, with or without a mark; None where the bytes are anything else."""
    return _strictly(raw.removeprefix(codecs.BOM_UTF8), "utf-8")


def _codec(label: str) -> str | None:
    label = label.strip().lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label)).name
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(name, name)
    return name if _TEXT_CODECS.match(name) else None


def _own(raw: bytes) -> str | None:
    head = raw[:_PRESCAN]
    found = _XML.match(head) or _META.search(head)
    name = _codec(found[1].decode()) if found else None
    # The declaration was read as ASCII, so the page is no UTF-16; the HTML standard takes UTF-8 then.
    return "utf-8" if name and name.startswith(_WIDE) else name


def _strictly(raw: bytes, name: str) -> Decoded | None:
    try:
        return Decoded(raw.decode(name), name)
    except (UnicodeDecodeError, UnicodeError):
        return None


def _mostly(raw: bytes, name: str) -> Decoded | None:
    if (found := _strictly(raw, name)) is not None:
        return found
    text = raw.decode(name, "replace")
    return Decoded(text, name) if text.count("\ufffd") <= 1 + len(text) // MAX_REPLACED else None


def _wide(raw: bytes, declared: str, markup: bool) -> str:
    """Name the form of UTF-16 or UTF-32 that bytes declared as such are in, or UTF-8 where they look like neither."""
    zeros = raw.count(0)
    if (markup and not zeros) or (zeros * _FEW_ZEROS < len(raw) and _mostly(raw, "utf-8")):
        return "utf-8"
    if declared != "utf-16":
        return declared
    # No mark says which half of a unit comes first. Python takes the machine's order; the Encoding Standard takes the
    # low one, and so does this, unless it is the first ones that are zero.
    return "utf-16-be" if raw[0::2].count(0) * 2 > zeros else "utf-16-le"


def _unless_wide(raw: bytes, plain: Decoded) -> Decoded:
    """UTF-16 without a mark is valid UTF-8 too, as far as it is ASCII: every second byte is 0 then."""
    head = raw[:_PRESCAN]
    zeros = head.count(0)
    if len(head) >= 4 and zeros * 5 >= len(head) * 2:
        odd = head[1::2].count(0)
        name = "utf-16-le" if odd * 2 > zeros else "utf-16-be"
        return _strictly(raw, name) or plain
    return plain


def _guess(raw: bytes) -> str | None:
    """Name the encoding that bytes which are not UTF-8 look like (uchardet's models, as Resiliparse has them)."""
    found = detect_encoding(raw, max_len=_SAMPLE)
    name = _codec(found) if found else None
    if name is not None and not name.startswith("utf"):
        return name
    korean = _strictly(raw, "cp949")  # which it takes for UTF-8, as it does short texts of western Europe
    if korean is not None and len(_HANGUL.findall(korean.text)) * 2 > len(_NOT_ASCII.findall(korean.text)):
        return "cp949"
    return "cp1252"
