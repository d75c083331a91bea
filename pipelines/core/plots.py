"""Small data files: for `dvc plots` and `dvc metrics`, and beside shards."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

# What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_bytes(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Make a CSV file of rows, with a header; the same bytes on every system.

    A text that a spreadsheet would take for a formula gets an apostrophe before it; one that is a number does not.
    """
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return sink.getvalue().encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = value.replace("\r", " ")  # Python before 3.13 writes it without quotes, and spreadsheets end the row there
    if not value.startswith(_FORMULA):
        return shown
    try:
        float(value)
    except ValueError:
        return f"'{shown}"
    return shown


def json_bytes(value: object) -> bytes:
    """Make a JSON file for people and for diffs: keys in order, one to a line, Chinese as it is written."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
