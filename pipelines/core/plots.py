"""Small data files: for `dvc plots` and `dvc metrics`, and beside shards."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def csv_bytes(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Make a CSV file of rows, with a header; the same bytes on every system."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def json_bytes(value: object) -> bytes:
    """Make a JSON file for people and for diffs: keys in order, one to a line, Chinese as it is written."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
