"""Signals: measured properties of a record, one column each, computed once; rules compare them with thresholds."""

import pyarrow as pa

from schemas.base import Record, field
from schemas.document import ID

SIGNALS = "signals"  # the table


_STRINGS = ("language", "caption_language")


def signals_record(names: tuple[str, ...], where: str = "docs/cleaning.md") -> Record:
    """Make the record type of a signals shard with the columns `names`, row for row beside the records.

    All are float64 but languages, which are strings. where: what says more about them.
    """
    return Record(
        "signals",
        (1, 0),
        (
            field("id", ID, "id of the record"),
            *(
                field(name, pa.string() if name in _STRINGS else pa.float64(), f"signal {name}; see {where}")
                for name in names
            ),
        ),
    )
