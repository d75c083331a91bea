"""Dates in metadata, for the survivor policy."""

from __future__ import annotations

import datetime

import orjson
import pyarrow as pa


def epoch_seconds(metadata: pa.Array, field: str | None) -> pa.Array:
    """Read an ISO 8601 date from a field of JSON metadata: int64[n] seconds since 1970 UTC.

    Null where `field` is None, or where a record has no such field or no date in it. A date without a zone is UTC.
    """
    if field is None:
        return pa.nulls(len(metadata), pa.int64())
    return pa.array([_seconds(value.as_py(), field) for value in metadata], pa.int64())


def _seconds(raw: str | None, field: str) -> int | None:
    value = orjson.loads(raw).get(field) if raw else None
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp())
