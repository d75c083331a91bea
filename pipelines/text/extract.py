"""From an HTML page to its main text, by Resiliparse; docs/reading.md has the measurements that chose it."""

from __future__ import annotations

import re
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from pipelines.text.entities import unescape
from pipelines.text.nesting import flattened

MAX_CHARS = 16 << 20  # Resiliparse takes 25 bytes of memory for one of markup; longer pages only lose their tags
LEAST_SHARE = 0.25  # of the visible text that the main text must be, to be believed: benchmarks/extraction.py
_CHROME = ("nav", "footer", "aside", "button")

_LANGUAGE = re.compile(
    r"<html\b[^<>]{0,1000}?\slang\s*=\s*[\"']?([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,3})", re.IGNORECASE
)
_BODY = re.compile(r"<body\b[^<>]{0,10000}>", re.IGNORECASE)
_UNSEEN_NAMES = ("script", "style", "noscript", "template", "svg", "head")
_UNSEEN = re.compile(rf"<({'|'.join(_UNSEEN_NAMES)})\b[^<>]{{0,10000}}>", re.IGNORECASE)
_SEEN = {name: re.compile(f"</{name}", re.IGNORECASE) for name in _UNSEEN_NAMES}
_TAG = re.compile(r"<(?:!--|/?[A-Za-z!?])[^<>]{0,10000}>")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAGIC = (
    b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b\x08", b"RIFF", b"BZh9", b"7z\xbc\xaf",
    b"Rar!\x1a", b"OggS", b"ID3", b"\0\0\x01\0", b"\x7fELF", b"MZ\x90\0", b"wOFF", b"\xd0\xcf\x11\xe0",
)  # fmt: skip
_CONTROLS = bytes(c for c in range(32) if c not in b"\t\n\r\f\x1b") + b"\x7f"
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")


class Page(NamedTuple):
    """What a page says. title, language: None where it names none."""

    text: str
    title: str | None
    language: str | None


def page_text(markup: str, main_content: bool = True) -> Page:
    """Extract the text of a page, a block on each line, blank lines between paragraphs.

    main_content: without menus, sidebars, banners, comments, footers; a page of which that leaves less than a quarter
    (a tag that is never closed hides the rest) gives all of its text but navigation. Else all visible text. Linear in
    the page's length, whatever its nesting.
    """
    language = _LANGUAGE.search(markup[:4096])
    if len(markup) > MAX_CHARS:
        return Page(_without_tags(markup), None, language[1] if language else None)
    tree = HTMLTree.parse(_deepened(flattened(markup)))
    text = _extract(tree, (), False)
    if main_content:
        everything = _extract(tree, _CHROME, False)
        text = _extract(tree, (), True)
        if len(text) < LEAST_SHARE * len(everything):
            text = everything
    title = " ".join((tree.title or "").split())
    return Page(_tidy(text), title or None, language[1] if language else None)


def _extract(tree: HTMLTree, skip: tuple[str, ...], main: bool) -> str:
    return extract_plain_text(
        tree, main_content=main, list_bullets=False, alt_texts=False, comments=not (main or skip), skip_elements=skip
    )


def _deepened(markup: str) -> str:
    """Put the body's content two elements deeper: Resiliparse takes all lists near the root for menus."""
    return _BODY.sub(r"\g<0><div><div>", markup, count=1)


def _without_tags(markup: str) -> str:
    pieces, at = [], 0
    unclosed: set[str] = set()
    for found in _UNSEEN.finditer(markup):
        name = found[1].lower()
        if found.start() < at or name in unclosed:
            continue
        end = _SEEN[name].search(markup, found.end())
        if end is None:
            unclosed.add(name)
            continue
        pieces.append(markup[at : found.start()])
        at = end.start()
    pieces.append(markup[at:])
    return _tidy(unescape(_TAG.sub("\n", "".join(pieces))))


def _tidy(text: str) -> str:
    if "\n" not in text:
        return text.strip()
    lines = text.split("\n")
    for i, line in enumerate(lines[:-1]):
        if line.endswith((" ", "\t")):
            lines[i] = line.rstrip(" \t") + "\n"
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def looks_binary(raw: bytes) -> bool:
    """Whether the first 4 KiB are those of an image, an archive or another format that is no text."""
    head = raw[:4096]
    if head.startswith(_MAGIC):
        return True
    if head.startswith(_WIDE):
        return False
    return len(head) - len(head.translate(None, _CONTROLS)) > len(head) // 20
