"""The records of a WARC or ARC file, the good ones among damaged ones.

WARC/1.0 and 1.1 (ISO 28500:2017): a version line, fields, an empty line, Content-Length bytes, CR LF CR LF. ARC
(Internet Archive, 1996): one line of URL, address, date, type and length, the bytes, LF.

A length is believed where the record's end stands behind it. Where it does not, where a header is damaged, or where
other bytes stand between two records, the next record is searched by how its first lines look; so an archive inside
such a record (a damaged one, or one beyond the limit) may be taken for records of the file. In a good record it is
content.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.readers.base import Reject
from pipelines.readers.feed import Feed

HEADER_BYTES = 64 << 10
_LOOK = 8192  # bytes behind a record that show whether it ends there
_WARC_START = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]*\r?\n")
_WARC_SEARCH = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]*\r?\n(?=[A-Za-z][A-Za-z0-9-]{2,40}:)")
_ARC_LINE = (
    rb"(?P<url>[A-Za-z][A-Za-z0-9+.-]{1,20}:[^\s]{1,4000}) (?:[0-9A-Fa-f.:]{3,45}|-) (?P<date>\d{4,14}) "
    rb"(?P<type>[^\s]{1,200})(?: [^\r\n]{1,1000})? (?P<length>\d{1,18})\r?\n"
)
_ARC_START = re.compile(_ARC_LINE)
_ARC_SEARCH = re.compile(rb"(?<=\n)" + _ARC_LINE)
_BLANK = re.compile(rb"[\r\n\0 \t]*")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_FOLDED = re.compile(rb"\r?\n[ \t]+")
_LENGTH = re.compile(r"\d{1,18}")
_END = b"\r\n\r\n"
_CUT = "its header does not end"
_ALGORITHMS = ("sha1", "sha256", "sha512", "md5")


class Record(NamedTuple):
    """One record. position: as of Feed. fields: names in lower case; of ARC those that WARC would have."""

    position: int
    fields: dict[str, str]
    block: bytes


class _Head(NamedTuple):
    fields: dict[str, str]
    size: int
    length: int


def starts_records(head: bytes) -> bool:
    """Whether the first bytes of a gzip or zstd member are those of a record."""
    return _WARC_START.match(head) is not None or _ARC_START.match(head) is not None or head.startswith(b"WARC/")


def read_records(feed: Feed, limit: int, arc: bool, verify: bool) -> Iterator[Record | Reject]:
    """Yield the records of a file; what is none of them is a Reject, one for each stretch of bytes that was lost.

    arc: what the file's name says, heard where its first bytes say nothing. verify: compare block digests.
    Rejected: 'truncated_file' (it ends inside a record), 'wrong_length', 'invalid_header', 'not_a_record' (bytes
    between records), 'record_too_long' (more than `limit`), 'digest_mismatch'; 'damaged_member', 'unreadable_file',
    'decompression_bomb' where the decompression failed.
    """
    framing: _Framing | None = None
    while True:
        _skip_blank(feed)
        if not feed.fill(1):
            if feed.damage is None:
                return
            yield _pass_damage(feed, feed.position)
            continue
        feed.fill(_LOOK)
        framing = framing or _choose(feed, arc)
        yield framing.next(feed, limit, verify)


def _skip_blank(feed: Feed) -> None:
    while feed.fill(1):
        blank = _BLANK.match(feed.data)
        assert blank is not None
        feed.drop(blank.end())
        if feed.data:
            return


def _pass_damage(feed: Feed, position: int) -> Reject:
    assert feed.damage is not None
    reason, detail, _ = feed.damage
    feed.pass_damage()
    return Reject(position, reason, detail)


def _choose(feed: Feed, arc: bool) -> _Framing:
    if _WARC_START.match(feed.data):
        return _Warc()
    return _Arc() if arc or _ARC_START.match(feed.data) else _Warc()


class _Framing:
    """What WARC and ARC have in common: a start that can be recognised, a head, a length, an end."""

    start: re.Pattern[bytes]
    search: re.Pattern[bytes]

    def head(self, feed: Feed) -> _Head | str:
        """Parse what stands before the content, or say what is wrong with it; '' where no record begins here."""
        raise NotImplementedError

    def torn(self, feed: Feed) -> int:
        """Where the next record may begin, behind a head that is damaged."""
        return 1

    def ends(self, feed: Feed, begin: int, offset: int) -> int | None:
        """Where the record of the content data[begin:offset] is over; None where its end does not stand there."""
        raise NotImplementedError

    def next(self, feed: Feed, limit: int, verify: bool) -> Record | Reject:
        """Read the record at the window's start, or say what stands there instead; the window moves behind it."""
        position = feed.position
        head = self.head(feed)
        if isinstance(head, str):
            feed.seek(self.search, self.torn(feed) if head else 1)
            lost = feed.position - position
            if not feed.data and feed.damage is not None:
                return _pass_damage(feed, position)
            if not head:
                return Reject(position, "not_a_record", f"{lost} bytes that are no record")
            reason = "truncated_file" if head == _CUT and not feed.data else "invalid_header"
            return Reject(position, reason, f"{head}; {lost} bytes passed over")
        if head.length > limit:
            feed.seek(self.search, head.size)
            if not feed.data and feed.damage is not None:
                return _pass_damage(feed, position)
            passed = feed.position - position
            right = head.length <= passed - head.size <= head.length + len(_END)
            reason = "record_too_long" if right else "wrong_length"
            return Reject(position, reason, f"the header says {head.length} bytes, the limit is {limit}")
        return self._content(feed, head, verify)

    def _content(self, feed: Feed, head: _Head, verify: bool) -> Record | Reject:
        position, end = feed.position, head.size + head.length
        complete = feed.fill(end)
        feed.fill(end + _LOOK)  # the first lines of all members that begin before its end
        inner = next((at for at in feed.starts(1, end) if self.start.match(feed.data, at)), None)
        if inner is not None:
            feed.drop(inner)
            return Reject(position, "wrong_length", f"the header says {head.length} bytes, the next record is nearer")
        if not complete:
            return self._incomplete(feed, head)
        after = self.ends(feed, head.size, end)
        if after is None:
            feed.seek(self.search, head.size)
            return Reject(position, "wrong_length", f"the header says {head.length} bytes, no record ends there")
        if not feed.fill(after + 1) and feed.damage is not None and next(feed.starts(1, after + 1), None) is None:
            return _pass_damage(feed, position)  # its member fails only behind it, by its checksum
        block = bytes(memoryview(feed.data)[head.size : end])
        feed.drop(after)
        if verify and (name := _wrong_digest(block, head.fields.get("warc-block-digest", ""))):
            return Reject(position, "digest_mismatch", f"its {name} is not what the header says")
        return Record(position, head.fields, block)

    def _incomplete(self, feed: Feed, head: _Head) -> Reject:
        position = feed.position
        found = self.search.search(feed.data, head.size)
        if found is not None:
            feed.drop(found.start())
            return Reject(position, "wrong_length", f"the header says {head.length} bytes, the next record is nearer")
        if feed.damage is not None:
            return _pass_damage(feed, position)
        left = len(feed.data) - head.size
        feed.drop(len(feed.data))
        return Reject(position, "truncated_file", f"the header says {head.length} bytes, the file ends after {left}")

    def _begins(self, feed: Feed, offset: int) -> bool:
        feed.fill(offset + _LOOK)
        return self.start.match(feed.data, offset) is not None


class _Warc(_Framing):
    start, search = _WARC_START, _WARC_SEARCH

    def head(self, feed: Feed) -> _Head | str:
        version = self.start.match(feed.data)
        if version is None:
            return _CUT if len(feed.data) < 12 and b"WARC/1.".startswith(bytes(feed.data[:7])) else ""
        feed.fill(HEADER_BYTES)
        end = _HEADER_END.search(feed.data, version.end() - 2, HEADER_BYTES)
        if end is None:
            return _CUT
        fields: dict[str, str] = {}
        lines = _FOLDED.sub(b" ", bytes(feed.data[version.end() : end.start()])).splitlines()
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name.strip():
                return "a line of its header is no field"
            fields.setdefault(_text(name).strip().lower(), _text(value).strip())
        length = fields.get("content-length", "")
        if not _LENGTH.fullmatch(length):
            return "its header has no Content-Length that is a number"
        return _Head(fields, end.end(), int(length))

    def torn(self, feed: Feed) -> int:
        # Of the records that begin before the header's end, all but the last have lost the ends of their own: they
        # are one stretch with it. One by one each would be a row, and its header read to that same end again.
        end = _HEADER_END.search(feed.data, 0, HEADER_BYTES)
        starts = self.search.finditer(feed.data, 1, end.start() if end else HEADER_BYTES)
        return max((found.start() for found in starts), default=1)

    def ends(self, feed: Feed, begin: int, offset: int) -> int | None:
        feed.fill(offset + _LOOK)
        mark = next(feed.starts(offset, offset + len(_END)), None)
        rest = bytes(feed.data[offset : offset + _LOOK if mark is None else mark])
        if rest.startswith(_END):
            return offset + len(_END)
        if rest.startswith(b"\n\n") and (len(rest) == 2 or self.start.match(rest, 2)):
            return offset + 2
        # A file may be cut inside the end of its last record. But a content that closes a line has more probably
        # taken in the end itself.
        over = _END.startswith(rest) and (mark is not None or feed.at_end(offset + len(rest)))
        return offset + len(rest) if over and not feed.data[begin:offset].endswith(b"\n") else None


class _Arc(_Framing):
    start, search = _ARC_START, _ARC_SEARCH

    def head(self, feed: Feed) -> _Head | str:
        feed.fill(HEADER_BYTES)
        line = self.start.match(feed.data)
        if line is None:
            return ""
        url = _text(line["url"])
        fields = {
            "warc-type": "warcinfo" if url.startswith("filedesc:") else "response",
            "warc-target-uri": url,
            "warc-date": _iso(_text(line["date"])),
            "content-type": "application/http",
            "arc-type": _text(line["type"]),
        }
        return _Head(fields, line.end(), int(line["length"]))

    def ends(self, feed: Feed, begin: int, offset: int) -> int | None:
        while feed.fill(offset + 1) and feed.data[offset] in b"\r\n":
            offset += 1
        over = not feed.fill(offset + 1) or self._begins(feed, offset)
        return offset if over else None


def _text(raw: bytes | bytearray) -> str:
    return bytes(raw).decode("utf-8", "replace")


def _iso(date: str) -> str:
    """20080430204825 as 2008-04-30T20:48:25Z; what is no such date as it is."""
    if len(date) != 14:
        return date
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:]}Z"


def _wrong_digest(block: bytes, labelled: str) -> str | None:
    """Name the algorithm of a digest that is not the block's; None where it is, or where it is of another kind."""
    name, _, value = labelled.partition(":")
    name, value = name.strip().lower().replace("-", ""), value.strip().rstrip("=")
    if name not in _ALGORITHMS or not value:
        return None
    digest = hashlib.new(name, block, usedforsecurity=False).digest()
    forms = (
        base64.b32encode(digest).decode().rstrip("=").lower(),
        digest.hex(),
    )
    same = value.lower() in forms or value in (
        encode(digest).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)
    )
    return None if same else name
