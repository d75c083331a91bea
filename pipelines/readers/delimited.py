"""CSV and TSV with a header line; quoted fields may hold newlines."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import orjson

from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject, reject
from pipelines.readers.decompress import suffix_codec
from pipelines.readers.lines import read_lines


class _Unreadable(Exception):
    """A line that could not be read, on its way through the csv parser."""

    def __init__(self, why: Reject) -> None:
        super().__init__(why.reason)
        self.why = why


class _TextLines:
    """Lines as the csv parser wants them, with their ends. (A generator would be spent after its first exception.)"""

    def __init__(self, lines: Iterator[tuple[int, bytes | Reject]]) -> None:
        self._lines = lines

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        if isinstance(line, Reject):
            raise _Unreadable(line)
        # Bytes that are not UTF-8 travel as lone surrogates, so that the row they stand in ends where it should.
        return line.decode("utf-8", "surrogateescape") + "\n"


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the rows of a CSV or TSV file, compressed or not, without its header; positions count rows from 0.

    Empty lines are not rows. Fields other than text and id are kept as strings. Rejected: 'ragged_row' (more or fewer
    fields than the header), 'invalid_csv' (a quote that never closes: each line that it swallowed is a reject),
    'invalid_utf8', 'line_too_long', 'missing_id' (empty), and what the decompression reports. Raises ReadError where
    the header repeats a name or lacks the text's or the id's column.
    """
    csv.field_size_limit(config.max_record_bytes)
    rows = csv.reader(
        _TextLines(read_lines(file, config)),
        delimiter="\t" if is_tsv(file.path) else config.delimiter,
        quotechar=config.quotechar,
        strict=True,
    )
    columns: _Columns | None = None
    position = 0
    while True:
        line = rows.line_num
        try:
            row = next(rows)
        except StopIteration:
            return
        except _Unreadable as error:
            yield error.why._replace(position=position)
            position += 1
            continue
        except csv.Error as error:
            # Each line that was swallowed counts: it may have been a record, and too many of them must fail the run.
            for lost in range(line, max(rows.line_num, line + 1)):
                yield Reject(position, "invalid_csv", f"line {lost + 1}, in a row from line {line + 1} on: {error}")
                position += 1
            continue
        if not row:
            continue
        if columns is None:
            columns = _Columns(_header(row, file, config), config)
            continue
        yield columns.item(position, row)
        position += 1


def is_tsv(path: str) -> bool:
    name = path.lower()
    if suffix_codec(name):
        name = name[: name.rfind(".")]
    return name.endswith((".tsv", ".tab"))


def _header(row: list[str], file: InputFile, config: ReadConfig) -> list[str]:
    shown = ", ".join(repr(name) for name in row[:20])[:400].encode("utf-8", "replace").decode()
    if len(set(row)) < len(row):
        raise ReadError(f"{file.relative}: the header names a column twice; it holds {shown}")
    for what, column in (("text", config.text_field), ("id", config.id_field)):
        if column is not None and column not in row:
            raise ReadError(f"{file.relative}: no column {column!r} for the {what}; the header holds {shown}")
    return row


class _Columns:
    """Where the header puts text, id and the rest."""

    def __init__(self, header: list[str], config: ReadConfig) -> None:
        self.count = len(header)
        self.text = header.index(config.text_field)
        self.id = None if config.id_field is None else header.index(config.id_field)
        self.rest = [(i, name) for i, name in enumerate(header) if i not in (self.text, self.id)]

    def item(self, position: int, row: list[str]) -> Item:
        if len(row) != self.count:
            return reject(position, "ragged_row", f"{len(row)} fields, the header has {self.count}", _raw(row))
        try:
            "".join(row).encode()
        except UnicodeEncodeError:
            return reject(position, "invalid_utf8", "bytes that are not UTF-8", _raw(row))
        key = None if self.id is None else row[self.id]
        if key == "":
            return reject(position, "missing_id", "the id's column is empty", _raw(row))
        other = {column: row[i] for i, column in self.rest}
        return Document(row[self.text], key, orjson.dumps(other, option=orjson.OPT_SORT_KEYS) if other else None)


def _raw(row: list[str]) -> bytes:
    return "\0".join(row).encode("utf-8", "surrogateescape")
