"""Lists of images: CSV, TSV and JSON Lines whose rows name files below the list's folder (ImageFolder's metadata)."""

from __future__ import annotations

import csv
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import orjson

from pipelines.core import files
from pipelines.readers import delimited, jsonl
from pipelines.readers.base import Document, Image, InputFile, Item, Listed, ReadConfig, ReadError, Reject
from pipelines.readers.decompress import suffix_codec
from pipelines.readers.image_fields import Fields, Unusable, from_record
from pipelines.readers.lines import read_lines

FILE_FIELDS = ("file_name", "path", "image", "filename", "file_path", "image_path", "file")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|data:|[A-Za-z]:\\")
_REASONS = {"missing_text": "missing_path", "text_not_a_string": "invalid_path"}


class Row(NamedTuple):
    """A row of a list. name: the path below the list's folder."""

    position: int
    name: str
    fields: Fields


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the rows of a list that name no image, as Rejects; the images themselves are files of their own.

    Rejected: 'path_outside' (absolute, a URL, or above the list's folder), 'missing_path', 'invalid_path', what
    `from_record` refuses, and what the readers of JSON Lines and CSV report.
    """
    for item in rows(file, config):
        if isinstance(item, Reject):
            yield item


def rows(file: InputFile, config: ReadConfig) -> Iterator[Row | Reject]:
    """Yield the rows of a list; positions count rows from 0.

    Raises ReadError where it has no field of paths, or a CSV not the fields that the configuration names.
    """
    csv_like = _is_csv(file.path)
    names = _header(file, config) if csv_like else _first_keys(file, config)
    if not names:
        return  # an empty list
    field = _file_field(file, names, config)
    if csv_like:
        for what, name in (
            ("path", field),
            ("label", config.images.label_field),
            ("caption", config.images.caption_field),
            ("id", config.id_field),
        ):
            if name and name not in names:
                raise ReadError(f"{file.relative}: no column {name!r} for the {what}; the header holds {_shown(names)}")
    inner = replace(config, kind="text", text_field=field, id_field=None)
    reader = delimited.read if csv_like else jsonl.read
    for number, item in enumerate(reader(file, inner)):
        assert not isinstance(item, Image)
        yield _row(number, item, config)


def _row(number: int, item: Document | Reject, config: ReadConfig) -> Row | Reject:
    if isinstance(item, Reject):
        return item._replace(position=number, reason=_REASONS.get(item.reason, item.reason))
    name = item.text
    clean = posixpath.normpath(name)
    if not name or name.endswith("/") or clean == ".":
        return Reject(number, "missing_path", "the path is empty, or that of a folder")
    if name.startswith(("/", "\\")) or clean == ".." or clean.startswith("../") or _URL.match(name) or "\0" in name:
        detail = "the path is absolute, a URL (nothing is downloaded), or leads out of the list's folder"
        return Reject(number, "path_outside", detail)
    try:
        fields = from_record(orjson.loads(item.metadata or b"{}"), config)
    except Unusable as error:
        return Reject(number, error.reason, str(error))
    return Row(number, clean, fields)


def expand(found: Sequence[InputFile], root: str, config: ReadConfig) -> list[InputFile]:
    """Give the images that lists name what the lists say of them; a list stays, for the rows that name none.

    found: the files of one input. An image that a list names is one record for each row that does, and none besides.
    One that is not among `found` is looked for below `root`; `images.read_image` rejects what is not there.
    """
    lists = [file for file in found if file.format == "list"]
    if not lists:
        return list(found)
    images = {file.relative: file for file in found if file.format == "image"}
    sizes: Mapping[str, int] | None = None
    listed: list[InputFile] = []
    times: Counter[str] = Counter()
    for one in sorted(lists, key=lambda file: file.relative):
        folder = one.relative.rpartition("/")[0]
        place = one.path[: len(one.path) - len(one.path.replace("\\", "/").rpartition("/")[2])] or "."
        for row in rows(one, config):
            if isinstance(row, Reject):
                continue
            relative = posixpath.join(folder, row.name)
            known = images.get(relative)
            if known is None and sizes is None:
                sizes = {files.relative(path, root): size for path, size in files.list_untrusted(root).files}
            size = known.size if known is not None else (sizes or {}).get(relative, 0)
            path = known.path if known is not None else files.join(root, *relative.split("/"))
            said = Listed(f"{one.relative}@{row.position}", place, times[relative], *row.fields)
            times[relative] += 1
            listed.append(InputFile(path, relative, size, "image", listed=said))
    return [file for file in found if file.relative not in times or file.format not in ("image", "link")] + listed


def _is_csv(path: str) -> bool:
    name = path.lower()
    if suffix_codec(name):
        name = name[: name.rfind(".")]
    return name.endswith((".csv", ".tsv", ".tab"))


def _first_keys(file: InputFile, config: ReadConfig) -> list[str]:
    for _, line in read_lines(file, config):
        if isinstance(line, bytes):
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if type(record) is dict:
                return list(record)
    return list(FILE_FIELDS[:1])  # no line is an object: each is to be rejected


def _header(file: InputFile, config: ReadConfig) -> list[str]:
    for _, line in read_lines(file, config):
        if isinstance(line, bytes) and line.strip():
            text = line.decode("utf-8", "surrogateescape")
            tabs = delimited.is_tsv(file.path)
            return next(csv.reader([text], delimiter="\t" if tabs else config.delimiter, quotechar=config.quotechar))
    return []


def _file_field(file: InputFile, names: list[str], config: ReadConfig) -> str:
    wanted = config.images.file_field
    if wanted is not None:
        return wanted
    field = next((name for name in FILE_FIELDS if name in names), None)
    if field is None:
        raise ReadError(
            f"{file.relative}: no field has a usual name for paths of files ({', '.join(FILE_FIELDS)}); name it by "
            "read.images.file_field, or leave the file out (URLs are not downloaded: fetch them first, for instance "
            f"with img2dataset, and read its output); it holds {_shown(names)}"
        )
    return field


def _shown(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:20])[:300].encode("utf-8", "replace").decode()
