"""XML dumps of MediaWiki (pages-articles), single or multistream: a page at a time, and good pages behind damaged ones.

A dump writes `<` in texts as `&lt;`, so `<page>` and `</page>` are page borders wherever they stand. Each page is
parsed alone, by expat: an entity that a document type declares (the "billion laughs") can have no meaning in it, and
what is no XML in one page does not end the others.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import NamedTuple
from urllib.parse import quote
from xml.parsers import expat

from pipelines.core.files import open_read
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.feed import Feed
from pipelines.readers.lines import BOM
from pipelines.readers.members import read_members
from pipelines.readers.warc import as_json
from pipelines.text.wikitext import WikiContext, is_redirect, plain_text
from schemas.ledger import REMOVED

HEADER_BYTES = 4 << 20  # siteinfo is some kB
_LOOK = 64 << 10
_BEGIN = re.compile(rb"<page(?=[\s>])")
_BORDER = re.compile(rb"</page\s{0,16}>|<page(?=[\s>])")
_MEMBER = re.compile(rb"\s{0,64}(?:<page[\s>]|<mediawiki[\s>]|</mediawiki|<\?xml|<siteinfo)")
_NOT_SPACE = re.compile(rb"[^\s]")
# What may stand between pages: the end of a dump, and where dumps are joined the header of the next.
_BETWEEN = re.compile(rb"</mediawiki\s{0,16}>|<\?xml[^<>]{0,400}>|<mediawiki\b[^<>]{0,4000}>|<siteinfo>")
_SITE_END = b"</siteinfo>"
_ENDINGS = ("truncated_file", "damaged_member", "unreadable_file", "decompression_bomb")
_NAMESPACES = ("6", "14")  # File and Category: MediaWiki's constants NS_FILE, NS_CATEGORY
_WANTED = frozenset(("title", "ns", "id", "revision/id", "revision/timestamp", "revision/text"))
_SITE = frozenset(("siteinfo/dbname", "siteinfo/base"))
_DEEPEST = 3  # elements: the root, revision, text
_WIKITEXT = ("", "wikitext")


class _Site(NamedTuple):
    dbname: str
    base: str
    context: WikiContext
    is_whole: bool  # it begins as dumps do, so it must end as they do


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the articles (namespace 0) of a dump, as plain text; positions are offsets in the decompressed file.

    A document's key is `dbname:page id`, so an article has one id in every dump of its wiki. Metadata: title, page_id,
    revision_id, date (the revision's timestamp), url. Where a page has several revisions the last one counts. Pages of
    other namespaces, redirects (unless config.wiki_redirects) and pages whose content model is not wikitext are no
    documents and not counted. Removed by rule: 'no_text'. Rejected: 'invalid_xml', 'truncated_page' (it has no end),
    'record_too_long', 'missing_text', 'unreadable_markup' (the extraction fails), 'not_a_page' (bytes between pages),
    'not_a_dump', 'entity_declaration' (a dump has none; its header is not used), and of members 'damaged_member',
    'truncated_file', 'unreadable_file', 'decompression_bomb'.
    """
    with open_read(file.path) as raw:
        feed = Feed(read_members(raw, file.path, config, lambda head: _MEMBER.match(head) is not None))
        site = yield from _header(feed)
        if site is None:
            return
        yield from _pages(feed, site, config)


def _pages(feed: Feed, site: _Site, config: ReadConfig) -> Iterator[Item]:
    """Yield the pages from the first on. The window is at one, or at the end, where the file holds none."""
    feed.seek(_BEGIN, 0)
    open_ended = site.is_whole
    while True:
        feed.seek(_NOT_SPACE, 0)
        if not feed.data:
            if feed.damage is not None:
                open_ended = False
                yield _damage(feed)
                continue
            if open_ended:
                yield Reject(feed.position, "truncated_file", "the file ends before </mediawiki>")
            return
        feed.fill(_LOOK)
        if _BEGIN.match(feed.data):
            page = _frame(feed, config.max_record_bytes)
            item = page if isinstance(page, Reject) else _item(*page, site, config)
            open_ended = open_ended and not (isinstance(item, Reject) and item.reason in _ENDINGS)
            if item is not None:
                yield item
        elif (between := _between(feed.data)) is not None:
            open_ended = open_ended and not between.startswith(b"</")
            feed.drop(len(between))
        else:
            position = feed.position
            feed.seek(_BEGIN, 1)
            yield Reject(position, "not_a_page", f"{feed.position - position} bytes that are no page")


def _between(data: bytearray) -> bytes | None:
    found = _BETWEEN.match(data)
    if found is None or found[0] != b"<siteinfo>":
        return found and found[0]
    next_page = data.find(b"<page", 0, _LOOK)  # no header holds one; so no byte is searched for two headers
    end = data.find(_SITE_END, 0, next_page if next_page >= 0 else _LOOK)
    return None if end < 0 else bytes(data[: end + len(_SITE_END)])


def _damage(feed: Feed) -> Reject:
    assert feed.damage is not None
    position, (reason, detail, _) = feed.position, feed.damage
    feed.pass_damage()
    return Reject(position, reason, detail)


def _header(feed: Feed) -> Generator[Item, None, _Site | None]:
    """Read what stands before the first page; returns the site, or None where this is no dump."""
    found, size = None, _LOOK
    while found is None and size <= HEADER_BYTES:
        more = feed.fill(size)
        found = _BEGIN.search(feed.data)
        if not more:
            break
        size *= 4
    head = bytes(feed.data[: found.start() if found else HEADER_BYTES]).removeprefix(BOM)
    if b"<mediawiki" not in head and found is None and feed.damage is None:
        yield reject(0, "not_a_dump", "an XML file without <mediawiki> or <page>", head)
        return None
    try:
        values = _parse(head if head.rstrip().endswith(b"</mediawiki>") else head + b"</mediawiki>", _SITE)
    except _Declaration:
        yield reject(0, "entity_declaration", "the header declares a document type", head)
        values = {}
    except expat.ExpatError:
        values = {}  # a part of a dump, or a damaged one: its pages can be read all the same
    base = values.get("siteinfo/base", "")
    dropped = frozenset(name.strip().lower() for key in _NAMESPACES if (name := values.get(f"namespace {key}")))
    return _Site(values.get("siteinfo/dbname", ""), base, WikiContext(dropped=dropped), b"<mediawiki" in head)


def _frame(feed: Feed, limit: int) -> tuple[int, bytes] | Reject:
    """Take the page at the window's start; a Reject where it does not end, or is longer than `limit`."""
    position, at, size = feed.position, 1, _LOOK
    while True:
        more = feed.fill(size)
        border = _BORDER.search(feed.data, at)
        if border is not None:
            break
        if len(feed.data) > limit:
            feed.seek(_BEGIN, at)
            return Reject(position, "record_too_long", f"a page of more than {limit} bytes")
        if not more:
            if feed.damage is not None:
                return _damage(feed)._replace(position=position)
            feed.drop(len(feed.data))
            return Reject(position, "truncated_file", "the file ends inside a page")
        at = max(1, len(feed.data) - 32)
        size = len(feed.data) * 2
    closed = border[0].startswith(b"</")  # before the window moves under the match
    end = border.end() if closed else border.start()
    page = bytes(memoryview(feed.data)[:end])
    feed.drop(end)
    if not closed:
        return reject(position, "truncated_page", "another page begins inside it", page)
    if len(page) > limit:
        return reject(position, "record_too_long", f"a page of {len(page)} bytes, the limit is {limit}", page)
    return position, page


class _Declaration(Exception):
    """The document declares a type, and so perhaps entities."""


def _refuse(*_: object) -> None:
    raise _Declaration


def _parse(xml: bytes, wanted: frozenset[str]) -> dict[str, str]:
    """Read the text of the wanted elements, named by their path below the root; of repeated ones the last.

    Also 'namespace N', 'redirect' and 'model' where there are such. Raises ExpatError, _Declaration.
    """
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    path: list[str] = []
    values: dict[str, str] = {}
    pieces: list[str] = []
    state = {"key": ""}

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        place = "/".join(path[1:]) if len(path) <= _DEEPEST else ""  # nothing wanted is deeper
        if name == "redirect":
            values["redirect"] = attributes.get("title", "")
        elif name == "namespace":
            place = f"namespace {attributes.get('key', '')}"
        elif place in ("revision", "revision/text"):
            values.pop("revision/text", None)
        if place in wanted or name in ("namespace", "model"):
            state["key"] = "model" if name == "model" else place
            pieces.clear()

    def end(name: str) -> None:
        path.pop()
        if state["key"]:
            values[state["key"]] = "".join(pieces)
            state["key"] = ""

    def characters(data: str) -> None:
        if state["key"]:
            pieces.append(data)

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.Parse(xml, True)
    return values


def _item(position: int, page: bytes, site: _Site, config: ReadConfig) -> Item | None:
    try:
        values = _parse(page, _WANTED)
    except expat.ExpatError as error:
        detail = f"{expat.errors.messages[error.code]}: line {error.lineno}, column {error.offset} of the page"
        return reject(position, "invalid_xml", detail, page)
    except _Declaration:
        return reject(position, "invalid_xml", "a document type inside a page", page)
    if values.get("ns", "0").strip() != "0" or values.get("model", "").strip() not in _WIKITEXT:
        return None
    markup = values.get("revision/text")
    if markup is None:
        return reject(position, "missing_text", "a page without a revision's text", page)
    if ("redirect" in values or is_redirect(markup)) and not config.wiki_redirects:
        return None
    title = values.get("title", "").strip()
    try:
        text = plain_text(markup, site.context._replace(title=title))
    except Exception as error:  # whatever a page does to the extraction, the others are read
        return reject(position, "unreadable_markup", f"{type(error).__name__}: {error}"[:160], page)
    if not text:
        return Reject(position, "no_text", "a page of which no text is left", action=REMOVED)
    page_id = values.get("id", "").strip()
    metadata = {
        "title": title,
        "page_id": page_id,
        "revision_id": values.get("revision/id", "").strip(),
        "date": values.get("revision/timestamp", "").strip(),
        "url": _url(site.base, title),
    }
    return Document(text, f"{site.dbname}:{page_id}" if page_id else None, as_json(metadata))


def _url(base: str, title: str) -> str | None:
    """The address of a page, from that of the main page, as MediaWiki writes it (wfUrlencode)."""
    folder = base.strip().rpartition("/")[0]
    return f"{folder}/{quote(title.replace(' ', '_'), safe=';@$!*(),/~:')}" if folder and title else None
