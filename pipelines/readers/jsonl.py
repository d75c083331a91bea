"""JSON Lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from pipelines.readers.base import Document, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.lines import read_lines

_TYPE_NAMES = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}


def read(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the records of a JSON Lines file, compressed or not; empty lines are not records.

    What orjson refuses is rejected: 'invalid_json' (NaN, lone surrogates, numbers that no double holds, nesting beyond
    1024), 'invalid_utf8'; then 'not_an_object', 'missing_text' (absent or null), 'text_not_a_string', 'missing_id',
    'invalid_id' (neither text nor an integer of 64 bits). Of repeated keys the last counts. Other fields are kept as
    canonical JSON; integers beyond 64 bits become doubles there, and nesting beyond 254 levels is 'invalid_json'.
    """
    text_field, id_field = config.text_field, config.id_field
    loads, dumps, sort_keys = orjson.loads, orjson.dumps, orjson.OPT_SORT_KEYS
    for position, line in read_lines(file, config):
        if type(line) is Reject:
            yield line
            continue
        assert isinstance(line, bytes)
        try:
            record = loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip():
                yield _refused(position, line, error)
            continue
        if type(record) is not dict:
            yield reject(position, "not_an_object", f"the line is {_kind(record)}", line)
            continue
        text = record.pop(text_field, None)
        if type(text) is not str:
            yield _without_text(position, line, text_field, text)
            continue
        key = None
        if id_field is not None:
            key = record.pop(id_field, None)
            if type(key) is not str or not key:
                if type(key) is not int:
                    yield _without_id(position, line, id_field, key)
                    continue
                key = str(key)
        try:
            metadata = dumps(record, option=sort_keys) if record else None
        except orjson.JSONEncodeError as error:
            yield reject(position, "invalid_json", f"its other fields cannot be written again: {error}", line)
            continue
        yield Document(text, key, metadata)


def _kind(value: Any) -> str:
    return "null" if value is None else _TYPE_NAMES[type(value)]


def _refused(position: int, line: bytes, error: Exception) -> Reject:
    try:
        line.decode()
    except UnicodeDecodeError as flaw:
        return reject(position, "invalid_utf8", f"{flaw.reason} at byte {flaw.start} of the line", line)
    return reject(position, "invalid_json", str(error), line)


def _without_text(position: int, line: bytes, name: str, text: Any) -> Reject:
    if text is None:
        return reject(position, "missing_text", f"field {name!r} is absent or null", line)
    return reject(position, "text_not_a_string", f"field {name!r} is {_kind(text)}", line)


def _without_id(position: int, line: bytes, name: str, key: Any) -> Reject:
    if key is None or key == "":
        return reject(position, "missing_id", f"field {name!r} is absent, null or empty", line)
    return reject(position, "invalid_id", f"field {name!r} is {_kind(key)}, not text or an integer of 64 bits", line)
