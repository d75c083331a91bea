"""Signals: measured properties of a document, one column each, computed once; rules compare them with thresholds."""

import pyarrow as pa

from schemas.base import Record, field
from schemas.document import ID

SIGNALS = "signals"  # the table


def signals_record(names: tuple[str, ...]) -> Record:
    """Make the record type of a signals shard with the columns `names`, row for row beside the documents.

    All are float64 but 'language', a string.
    """
    return Record(
        "signals",
        (1, 0),
        (
            field("id", ID, "id of the document"),
            *(
                field(name, pa.string() if name == "language" else pa.float64(), f"signal {name}; see docs/cleaning.md")
                for name in names
            ),
        ),
    )
