"""Dumps of MediaWiki: every article of a damaged dump but the damaged ones, and no entity does anything."""

import bz2
import gzip
import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import wikidump
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>zhwiki</dbname>
    <base>https://zh.wikipedia.org/wiki/Wikipedia:%E9%A6%96%E9%A1%B5</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Bild</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(number: int, text: str, title: str = "", ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    return f"""  <page>
    <title>{escape(title or f"Page {number}")}</title>
    <ns>{ns}</ns>
    <id>{number}</id>{extra}
    <revision>
      <id>{number + 9000}</id>
      <timestamp>2024-05-0{number % 9 + 1}T00:00:00Z</timestamp>
      <contributor><username>A</username><id>7</id></contributor>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="9" xml:space="preserve">{escape(text)}</text>
      <sha1>x</sha1>
    </revision>
  </page>
"""


PAGES = [page(i, f"'''Page {i}''' is [[about]] <ref>no</ref>something & 第{i}页。") for i in range(8)]
TEXTS = [f"Page {i} is about something & 第{i}页。" for i in range(8)]


def read(path: Path, data: bytes | str, **config: Any) -> list[Item]:
    raw = data.encode() if isinstance(data, str) else data
    path.write_bytes(raw)
    return list(wikidump.read(InputFile(str(path), path.name, len(raw), "wikidump"), ReadConfig(**config)))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def reasons(items: list[Item]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Reject)]


def multistream(*streams: str) -> bytes:
    return b"".join(bz2.compress(stream.encode()) for stream in streams)


def test_an_article_has_a_key_and_its_metadata(tmp_path: Path) -> None:
    (item,) = read(tmp_path / "x.xml", HEAD + page(12, "Text of the page.", "Ümlaut & 漢字 (x)") + TAIL)
    assert isinstance(item, Document) and item.metadata is not None
    assert (item.text, item.key) == ("Text of the page.", "zhwiki:12")
    assert json.loads(item.metadata) == {
        "date": "2024-05-04T00:00:00Z",
        "page_id": "12",
        "revision_id": "9012",
        "title": "Ümlaut & 漢字 (x)",
        "url": "https://zh.wikipedia.org/wiki/%C3%9Cmlaut_%26_%E6%BC%A2%E5%AD%97_(x)",
    }


@pytest.mark.parametrize("pack", [lambda s: s.encode(), lambda s: gzip.compress(s.encode()), multistream])
def test_every_packing_gives_the_same_articles(tmp_path: Path, pack: Any) -> None:
    items = read(tmp_path / "x.xml", pack(HEAD + "".join(PAGES) + TAIL))
    assert texts(items) == TEXTS and len(items) == len(TEXTS)


def test_multistream_dumps_and_parts_of_them(tmp_path: Path) -> None:
    streams = [HEAD, "".join(PAGES[:3]), "".join(PAGES[3:6]), "".join(PAGES[6:]), TAIL]
    assert texts(read(tmp_path / "x.xml.bz2", multistream(*streams))) == TEXTS
    items = read(tmp_path / "part.xml.bz2", multistream(*streams[1:3]))
    assert texts(items) == TEXTS[:6] and reasons(items) == []


def test_other_namespaces_redirects_and_code_are_no_documents(tmp_path: Path) -> None:
    redirect = page(3, "#REDIRECT [[Page 1]]", extra='\n    <redirect title="Page 1" />')
    unmarked = page(4, "#重定向 [[第一页]]")
    pages = [PAGES[0], page(2, "{{x}}", "Template:X", ns=10), redirect, unmarked, page(5, "{}", model="json"), PAGES[1]]
    data = HEAD + "".join(pages) + TAIL
    assert (texts(read(tmp_path / "x.xml", data)), len(read(tmp_path / "x.xml", data))) == (TEXTS[:2], 2)
    assert len(texts(read(tmp_path / "x.xml", data, wiki_redirects=True))) == 4


def test_a_page_without_text_is_removed_and_names_of_the_wiki_are_known(tmp_path: Path) -> None:
    pages = page(1, "[[Kategorie:Leer]][[Bild:x.jpg|thumb|Ein Bild]]") + PAGES[2]
    items = read(tmp_path / "x.xml", HEAD + pages + TAIL)
    assert texts(items) == [TEXTS[2]]
    assert [(i.reason, i.action) for i in items if isinstance(i, Reject)] == [("no_text", "removed")]


def test_of_several_revisions_the_last_counts(tmp_path: Path) -> None:
    two = PAGES[0].replace("    <revision>", "    <revision><id>1</id><text>old</text></revision>\n    <revision>")
    assert texts(read(tmp_path / "x.xml", HEAD + two + TAIL)) == TEXTS[:1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (PAGES[5].replace("第", "\x01"), "invalid_xml"),
        (PAGES[5].replace("第", "\0"), "invalid_xml"),
        (PAGES[5].replace("</title>", "</titel>"), "invalid_xml"),
        (PAGES[5].replace("第", "&undeclared;"), "invalid_xml"),
        (PAGES[5].replace("</page>", ""), "truncated_page"),
        (PAGES[5].replace("<text ", "<words ").replace("</text>", "</words>"), "missing_text"),
        ("some words between\n", "not_a_page"),
        (PAGES[5].replace("<page>", "<pge>"), "not_a_page"),
        (page(5, "x" * 200_000), "record_too_long"),
    ],
)
def test_a_bad_page_is_one_row_and_the_others_stay(tmp_path: Path, bad: str, reason: str) -> None:
    for pack in (lambda *s: "".join(s).encode(), multistream):
        raw = pack(HEAD, PAGES[0], bad, PAGES[1] + PAGES[2], TAIL)
        items = read(tmp_path / "x.xml", raw, max_record_bytes=100_000)
        assert texts(items) == TEXTS[:3]
        assert reasons(items) == [reason]


def test_an_endless_number_or_a_failure_of_the_extraction_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [PAGES[0], page(5, f"a &#{'1' * 5000}; b"), PAGES[1]]
    items = read(tmp_path / "x.xml", HEAD + "".join(pages) + TAIL)
    assert texts(items) == [TEXTS[0], "a \ufffd b", TEXTS[1]]
    whole = wikidump.plain_text

    def fail(markup: str, context: Any) -> str:
        if "&#1" in markup:
            raise ValueError("what a page can do")
        return whole(markup, context)

    monkeypatch.setattr(wikidump, "plain_text", fail)
    first, bad, last = read(tmp_path / "x.xml", HEAD + "".join(pages) + TAIL)
    assert isinstance(bad, Reject) and (bad.reason, bad.detail) == (
        "unreadable_markup",
        "ValueError: what a page can do",
    )
    assert texts([first, last]) == TEXTS[:2]


def test_nesting_and_headers_without_end_take_linear_time(tmp_path: Path, linear_time: Callable[..., None]) -> None:
    def check(size: int) -> None:
        deep = f"<page>{'<a>' * size}{'</a>' * size}</page>"
        assert texts(read(tmp_path / "x.xml", HEAD + deep + PAGES[0] + TAIL)) == TEXTS[:1]
        count = size // 10
        items = read(tmp_path / "x.xml", HEAD + "<page></page><siteinfo>" * count + PAGES[0] + TAIL)
        assert texts(items) == TEXTS[:1] and len(items) == 2 * count + 1

    linear_time(check, 50_000)


def test_lone_surrogates_in_a_page_are_one_row(tmp_path: Path) -> None:
    raw = (HEAD + PAGES[0] + "@@" + PAGES[1] + TAIL).encode().replace(b"@@", b"")
    bad = PAGES[4].encode().replace("第".encode(), b"\xed\xa0\x80")
    items = read(tmp_path / "x.xml", raw.replace(b"</mediawiki>", bad + b"</mediawiki>"))
    assert texts(items) == TEXTS[:2] and reasons(items) == ["invalid_xml"]


def test_declared_entities_have_no_meaning(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n'
    items = read(tmp_path / "x.xml", bomb + HEAD + PAGES[0] + PAGES[1].replace("第", "&b;") + TAIL)
    assert texts(items) == TEXTS[:1]
    assert reasons(items) == ["entity_declaration", "invalid_xml"]
    outside = '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/hostname">]>\n'
    assert reasons(read(tmp_path / "x.xml", outside + HEAD + PAGES[0].replace("第", "&x;") + TAIL)) == [
        "entity_declaration",
        "invalid_xml",
    ]


def test_damage_in_one_stream_of_a_multistream_dump_costs_that_stream(tmp_path: Path) -> None:
    parts = [bz2.compress(part.encode()) for part in (HEAD, *("".join(PAGES[i : i + 2]) for i in (0, 2, 4, 6)), TAIL)]
    flipped = bytearray(parts[2])
    flipped[len(flipped) // 2] ^= 8
    items = read(tmp_path / "x.xml.bz2", b"".join([*parts[:2], bytes(flipped), *parts[3:]]))
    assert texts(items) == [*TEXTS[:2], *TEXTS[4:]] and reasons(items) == ["damaged_member"]
    items = read(tmp_path / "x.xml.bz2", b"".join([*parts[:2], parts[2][:-20], *parts[3:]]))
    assert texts(items) == [*TEXTS[:2], *TEXTS[4:]] and reasons(items) == ["damaged_member"]


def test_a_dump_that_is_cut_says_so_once(tmp_path: Path) -> None:
    whole = (HEAD + "".join(PAGES) + TAIL).encode()
    for cut in (whole.index(b"</mediawiki>"), whole.index("第7页".encode())):
        items = read(tmp_path / "x.xml", whole[:cut])
        assert texts(items) == TEXTS[: 8 if cut > whole.index("第7页".encode()) else 7]
        assert reasons(items) == ["truncated_file"]
    packed = bz2.compress(HEAD.encode()) + bz2.compress("".join(PAGES[:4]).encode()) + bz2.compress(PAGES[4].encode())
    items = read(tmp_path / "x.xml.bz2", packed[:-60])
    assert texts(items) == TEXTS[:4] and reasons(items) == ["truncated_file"]


def test_another_xml_file_is_no_dump(tmp_path: Path) -> None:
    items = read(tmp_path / "x.xml", '<?xml version="1.0"?><urlset><url>http://a</url></urlset>')
    assert reasons(items) == ["not_a_dump"] and len(items) == 1


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 9000), st.integers(0, 60), st.booleans())
def test_no_damage_stops_a_dump_or_goes_unsaid(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, cut: int, packed: bool
) -> None:
    parts = [HEAD, *PAGES, TAIL]
    raw = multistream(*parts) if packed else "".join(parts).encode()
    at %= len(raw)
    damaged = raw[:at] + noise + raw[at + cut :]
    items = read(tmp_path_factory.mktemp("d") / ("x.xml.bz2" if packed else "x.xml"), damaged)
    assert len(items) >= len(TEXTS) - 2
    if len(items) < len(TEXTS):
        assert reasons(items) or at < len(HEAD)
