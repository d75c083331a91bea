"""What the readers share: their configuration, the file they read, the items they yield."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from schemas.ledger import REJECTED

MIB = 1 << 20
TEXT, IMAGES = "text", "images"  # the kinds of corpora


class ReadError(ValueError):
    """The inputs or the configuration cannot be right: the run must stop. The message names the file."""


class CorruptFile(Exception):
    """The bytes of a file cannot be read any further; `reason` is the ledger's code.

    The message says what is wrong and holds neither content nor a path.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ImageReadConfig:
    """How images are found and read, and where their labels and captions come from. None tries the usual names.

    image_field: the column that holds the images; of tar archives the one extension that is taken, such as `jpg`.
    label_field, caption_field, file_field: of tables, lists and the JSON of archives: the fields that hold the name or
    number of the class, the caption, and (of lists) the path of the image; '' is no field.
    label_from: where nothing else gives a label: 'parent', the folder that the image lies in; 'top', the first folder
    below the input or in the archive; 'none'. Images that lie in no folder have none.
    class_names: names of the classes by number, from 0, for labels that are numbers.
    follow_links: read what links in folders lead to also where that lies outside the input; for folders you trust.
    """

    image_field: str | None = None
    label_field: str | None = None
    caption_field: str | None = None
    file_field: str | None = None
    label_from: str = "parent"
    class_names: tuple[str, ...] = ()
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.label_from not in ("parent", "top", "none"):
            raise ReadError(f"read.images.label_from is {self.label_from!r}; it must be 'parent', 'top' or 'none'")
        if self.image_field == "" or self.file_field == "":
            raise ReadError(
                "read.images.image_field and read.images.file_field cannot be empty; null tries the usual names"
            )
        named = [name for name in (self.image_field, self.label_field, self.caption_field, self.file_field) if name]
        if len(set(named)) < len(named):
            raise ReadError(f"one field of images is named twice: {', '.join(named)}")


@dataclass(frozen=True)
class ReadConfig:
    """How records are found and read.

    kind: 'text' or 'images'. text_field: the field or column that holds the text. id_field: the one that holds the
    record's own id or URL; without it a record is known by its file, its content and the occurrence of that content.
    max_record_bytes: a longer line, row or file is rejected. batch_bytes: about the bytes of a batch that is yielded.
    task_bytes: small files are read together up to this size; with id_field, larger plain JSON Lines are cut to it.
    delimiter: of CSV files (TSV files always use a tab). on_unknown: 'error' or 'skip' for suffixes no reader knows.
    zstd_window_log: the largest zstd window accepted, 27 = 128 MiB as in the zstd tool; 31 reads `--long=31` files.
    bomb_bytes, bomb_ratio: a compressed file (of WARC and dumps: a member of one) that passes both, bytes out and bytes
    out per byte in, is given up.
    html_main_content: of HTML pages the main text; else all that is visible, menus and footers too.
    http_any_status: responses of web archives are documents whatever their status, not only with 200.
    warc_digests: reject records whose block is not what their WARC-Block-Digest says.
    wiki_redirects: pages of a Wikipedia dump that only lead to another page are documents too.
    """

    kind: str = TEXT
    text_field: str = "text"
    id_field: str | None = None
    max_record_bytes: int = 64 * MIB
    batch_bytes: int = 2 * MIB
    task_bytes: int = 64 * MIB
    delimiter: str = ","
    quotechar: str = '"'
    on_unknown: str = "error"
    zstd_window_log: int = 27
    bomb_bytes: int = 8 << 30
    bomb_ratio: int = 1000
    html_main_content: bool = True
    http_any_status: bool = False
    warc_digests: bool = True
    wiki_redirects: bool = False
    images: ImageReadConfig = field(default_factory=ImageReadConfig)

    def __post_init__(self) -> None:
        if self.kind not in (TEXT, IMAGES):
            raise ReadError(f"kind is {self.kind!r}; it must be {TEXT!r} or {IMAGES!r}")
        if not self.text_field:
            raise ReadError("text_field is empty; it names the field that holds the text")
        if self.id_field == self.text_field:
            raise ReadError(f"id_field and text_field are both {self.text_field!r}")
        # A batch holds at most batch_bytes and one record more, and Arrow's string offsets end at 2 GiB.
        for name in ("max_record_bytes", "batch_bytes"):
            if not 0 < getattr(self, name) <= 512 * MIB:
                raise ReadError(f"{name} is {getattr(self, name)}; it must lie between 1 and {512 * MIB}")
        if self.task_bytes < 1:
            raise ReadError(f"task_bytes is {self.task_bytes}; it must be at least 1")
        for name in ("delimiter", "quotechar"):
            if len(getattr(self, name)) != 1:
                raise ReadError(f"{name} is {getattr(self, name)!r}; it must be one character")
        if self.on_unknown not in ("error", "skip"):
            raise ReadError(f"read.on_unknown is {self.on_unknown!r}; it must be 'error' or 'skip'")
        if not 10 <= self.zstd_window_log <= 31:
            raise ReadError(f"zstd_window_log is {self.zstd_window_log}; it must lie between 10 and 31")


class Listed(NamedTuple):
    """What a list of images says of one of them.

    where: list and row, for a person. folder: the list's, which the image must lie in. number: how often lists have
    named this image before. key: its own id, where id_field names one. metadata: as of an Image.
    """

    where: str
    folder: str
    number: int
    key: str | None
    label: str | None
    caption: str | None
    metadata: bytes | None


@dataclass(frozen=True)
class InputFile:
    """One file, or a byte range of one: the lines that begin at or after `start` and before `end` (None: to the end).

    relative: the path below the source's root, with '/', which is all that records know of it.
    size: bytes on disk. format: 'jsonl', 'parquet', 'delimited', 'plain', 'arrow', 'html', 'warc' or 'wikidump'; of
    images 'image', 'tar', 'parquet', 'arrow', 'list' or 'idx'. listed: of an image that a list names.
    beside: the paths of the files that say something of an image. refused: of a link that is not followed (format
    'link') the ledger's reason.
    """

    path: str
    relative: str
    size: int
    format: str
    start: int = 0
    end: int | None = None
    listed: Listed | None = None
    beside: tuple[str, ...] = ()
    refused: str | None = None


class Document(NamedTuple):
    """One record. metadata: canonical JSON of its other fields.

    key: its own id, where the configuration names one, or where the format gives every record one (WARC, dumps).
    """

    text: str
    key: str | None
    metadata: bytes | None


class Image(NamedTuple):
    """One image. data: the encoded bytes as they are, which nobody has looked at. name: its own file name.

    key: as of a Document, and where the file holds many images under names or numbers of their own (archives, IDX).
    """

    data: bytes
    name: str
    key: str | None
    label: str | None
    caption: str | None
    metadata: bytes | None


class Reject(NamedTuple):
    """One record, or the rest of a file, that could not be read.

    position: byte offset of the line or record (of the decompressed file) or number of the row, from 0.
    detail: for a person, never content. raw_hash: xxh3-128 of the record's bytes, where they were at hand.
    action: REJECTED, or REMOVED for a sound record that by rule is no document, such as an image in a web archive.
    """

    position: int
    reason: str
    detail: str
    raw_hash: bytes | None = None
    action: str = REJECTED


Item = Document | Image | Reject


def reject(position: int, reason: str, detail: str, raw: bytes) -> Reject:
    """Make a Reject of a record whose bytes are at hand."""
    return Reject(position, reason, detail, xxhash.xxh3_128_digest(raw))
