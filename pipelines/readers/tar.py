"""Walk a tar archive that nobody has vouched for: bounded memory, nothing unpacked, no loss unnoticed.

Python's tarfile takes a damaged header, or an archive cut between two members, for its end, and follows links. Its
parser of single headers is used here.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipelines.readers.base import MIB, CorruptFile, Reject

BLOCK = 512
_END_BLOCKS = 2  # of zeros, at least: an archive's end mark
_EXTENSION_BYTES = MIB  # of a header that extends the next one: a name, or pax records
_PAX = re.compile(rb"(\d{1,9}) ([^=]+)=")
_REFUSED = {
    tarfile.LNKTYPE: ("link", "a hard link"),
    tarfile.SYMTYPE: ("link", "a symbolic link"),
    tarfile.CHRTYPE: ("special_file", "a character device"),
    tarfile.BLKTYPE: ("special_file", "a block device"),
    tarfile.FIFOTYPE: ("special_file", "a named pipe"),
}
_GLOBAL = b"g"
_LONG_LINK = b"K"
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PASSED_OVER = (b"V", b"D")  # GNU tar's name of the volume, and its lists of folders


class Member(NamedTuple):
    """A regular file of an archive. position: of its header. data: None where nobody wanted it."""

    position: int
    name: str
    data: bytes | None


class _Source:
    """The bytes of the archive, in order. short: the last read or skip met the end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.at = 0
        self.short = False

    def read(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        for _ in self._pieces(size):
            pass

    def _pieces(self, size: int) -> Iterator[memoryview]:
        self.short = False
        while size:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    self.short = True
                    return
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            self.at += len(piece)
            size -= len(piece)
            yield piece


def walk(chunks: Iterator[bytes], limit: int, wanted: Callable[[str], bool]) -> Iterator[Member | Reject]:
    """Yield the regular files of an archive; the data of those whose name is `wanted`, of at most `limit` bytes.

    Names are relative paths with '/'; NUL and bytes that are not UTF-8 become \\xNN. Rejects: 'unsafe_path' (absolute,
    or with '..'), 'link', 'special_file', 'unsupported_member' (sparse files and other kinds), 'too_large' (longer
    than `limit`; nothing of it is held), 'corrupt_header' (once for a stretch: the next header is searched; also for an
    extension that cannot be read and its member, whose name nobody knows), 'truncated_file' (the archive stops
    inside a member, or without its end mark: two blocks of zeros, POSIX.1-2017, pax, 'ustar Interchange Format'),
    'archive_gap' (blocks of zeros, and behind them the archive goes on: others were joined to it, or a hole covers
    members; it is read on), and what the decompression reports.
    """
    source = _Source(chunks)
    try:
        yield from _walk(source, limit, wanted)
    except CorruptFile as error:
        yield Reject(source.at, error.reason, str(error))


def _walk(source: _Source, limit: int, wanted: Callable[[str], bool]) -> Iterator[Member | Reject]:
    long_name: str | None = None
    pax: dict[str, str] = {}
    unknown = lost = False  # unknown: the extension of the next header could not be read
    zeros = 0
    while True:
        position = source.at
        block = source.read(BLOCK)
        if source.short:
            if block or zeros < _END_BLOCKS:
                yield Reject(position, "truncated_file", "the archive stops without its end mark: members may be lost")
            return
        if not block.strip(b"\0"):
            zeros += 1
            continue
        header = _parse(block, lost)
        if header is None:
            if not lost:
                yield Reject(position, "corrupt_header", "no tar header stands here; the next one is searched")
            lost = True
            long_name, pax, unknown = None, {}, False
            continue
        if zeros and not lost:
            detail = f"{zeros} blocks of zeros end here, and the archive goes on: it was joined, or members are lost"
            yield Reject(position - BLOCK, "archive_gap", detail)
            long_name, pax, unknown = None, {}, False
        zeros, lost = 0, False
        if header.type in (tarfile.GNUTYPE_LONGNAME, _LONG_LINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, _GLOBAL):
            data = _data(source, header.size, _EXTENSION_BYTES)
            try:
                if data is None:
                    raise ValueError(f"a header of {header.size} bytes")
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = _text(data.partition(b"\0")[0])
                elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                    pax = _pax(data)
            except ValueError as error:
                unknown = unknown or header.type not in (_LONG_LINK, _GLOBAL)
                what = "the extension of a header cannot be read, so its member is not taken"
                yield Reject(position, "corrupt_header", f"{what}: {error}")
            continue
        if unknown:
            yield from _pass_over(source, header, position)
            if source.short:
                return
            long_name, pax, unknown = None, {}, False
            continue
        name = pax.get("path") or long_name or header.name
        yield from _member(source, header, position, name, pax, limit, wanted)
        if source.short:
            return
        long_name, pax = None, {}


def _pass_over(source: _Source, header: tarfile.TarInfo, position: int) -> Iterator[Reject]:
    """Skip a member that is accounted for already."""
    for item in _member(source, header, position, header.name, {}, 0, lambda _: False):
        if isinstance(item, Reject) and item.reason == "truncated_file":
            yield item


def _member(
    source: _Source,
    header: tarfile.TarInfo,
    position: int,
    name: str,
    pax: dict[str, str],
    limit: int,
    wanted: Callable[[str], bool],
) -> Iterator[Member | Reject]:
    if header.type in _REFUSED:
        reason, what = _REFUSED[header.type]
        yield Reject(position, reason, f"{_shown(name)} is {what}")
        return
    if header.type == tarfile.DIRTYPE:
        return
    size = int(pax.get("size", header.size))
    refused: Reject | None = None
    clean = _relative(name)
    take = bool(clean) and wanted(clean or "")
    if header.type in _PASSED_OVER:
        clean, take = "", False
    elif header.type not in _REGULAR or any(key.startswith("GNU.sparse") for key in pax):
        refused = Reject(position, "unsupported_member", f"{_shown(name)} is no ordinary file: type {header.type!r}")
    elif clean is None:
        refused = Reject(position, "unsafe_path", f"{_shown(name)} leaves the archive")
    elif take and size > limit:
        refused = Reject(position, "too_large", f"{_shown(name)}: {size} bytes, the limit is {limit}")
    data = _data(source, size, size if take and not refused else -1)
    if source.short:
        detail = f"the archive stops inside {_shown(name)}, which is to have {size} bytes"
        yield Reject(position, "truncated_file", detail)
    elif refused is not None:
        yield refused
    elif clean:
        yield Member(position, clean, data)


def _data(source: _Source, size: int, limit: int) -> bytes | None:
    """Read the data of a member and its padding; None, holding nothing, where it is longer than `limit`."""
    padding = -size % BLOCK
    if size > limit:
        source.skip(size + padding)
        return None
    data = source.read(size)
    if not source.short:
        source.skip(padding)
    return data


def _parse(block: bytes, lost: bool) -> tarfile.TarInfo | None:
    """Read a header; after damage only one with the mark of POSIX or GNU tar: a checksum alone may fit by chance."""
    if lost and block[257:262] != b"ustar":
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return header if header.size >= 0 else None


def _pax(data: bytes) -> dict[str, str]:
    """Read pax records, `LENGTH KEY=VALUE` (POSIX.1-2017, pax, 'Extended Header')."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        record = _PAX.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or end > len(data) or end <= record.end() or data[end - 1 : end] != b"\n":
            raise ValueError(f"byte {at} begins no pax record")
        found[_text(record[2])] = _text(data[record.end() : end - 1])
        at = end
    if "size" in found and not re.fullmatch(r"\d{1,18}", found["size"], re.ASCII):
        raise ValueError("the size is no number")
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _relative(name: str) -> str | None:
    """The name without './', or None where it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        name.startswith(("/", "\\"))
        or not parts
        or ".." in re.split(r"[/\\]", name)
        or re.match(r"[A-Za-z]:[/\\]", name)
    ):
        return None
    return "/".join(parts).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:40] + "…" + name[-39:])
