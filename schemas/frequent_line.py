"""One of the lines that a corpus repeats most."""

import pyarrow as pa

from schemas.base import Record, field
from schemas.document import ID

FREQUENT_LINE = Record(
    "frequent_line",
    (1, 0),
    (
        field("occurrences", pa.int64(), "units of the corpus with this normal form"),
        field("hash", pa.uint64(), "of the normal form; see pipelines.text.line_hashes"),
        field("id", ID, "document that holds the first one"),
        field("text", pa.string(), "the first one as it stands there, at most 200 characters"),
    ),
)
