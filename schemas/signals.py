"""Signals: measured properties of a document, one column each, computed once; rules compare them with thresholds."""

import pyarrow as pa

from schemas.base import Record, field
from schemas.document import ID


def signals_record(names: tuple[str, ...]) -> Record:
    """Make the record type of a signals shard with the float64 columns `names`, row for row beside the documents."""
    return Record(
        "signals",
        (1, 0),
        (
            field("id", ID, "id of the document"),
            *(field(name, pa.float64(), f"signal {name}; see pipelines.text.signals") for name in names),
        ),
    )
