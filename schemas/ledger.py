"""The ledger: one row for every record that a stage removed or rejected, with the reason and the evidence."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import Record, field, first_row
from schemas.document import ID

REMOVED, REJECTED = "removed", "rejected"
ACTIONS = (REMOVED, REJECTED)
NEAR_CAPTION = "near_caption"  # the reason of images whose similarity is that of their captions


def _known_actions(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    row = first_row(pc.invert(pc.is_in(table["action"], pa.array(ACTIONS))))
    if row is not None:
        yield "action", row, f"{table['action'][row].as_py()!r} is none of {', '.join(ACTIONS)}"


LEDGER = Record(
    "ledger",
    (1, 0),
    (
        field("id", ID, "id of the record; of a dead letter: blake2b-128 of (source, path, position)"),
        field("source", pa.string(), "name of the corpus that the record came from"),
        field("stage", pa.string(), "stage that decided"),
        field("action", pa.string(), "'removed' (a rule decided) or 'rejected' (a dead letter: it could not be read)"),
        field("reason", pa.string(), "short code, for instance 'min_length', 'near_duplicate', 'invalid_json'"),
        field("score", pa.float64(), "the measured value that the rule compared", nullable=True),
        field("threshold", pa.float64(), "the limit that it was compared with", nullable=True),
        field("kept_id", ID, "of a duplicate: id of the record kept in its place", nullable=True),
        field("similarity", pa.float64(), "of a duplicate: measured similarity to kept_id", nullable=True),
        field("similarity_error", pa.float64(), "standard error of similarity; 0 where it is exact", nullable=True),
        field("locator", pa.string(), "where the record stands: its locator, or path and position of a dead letter"),
        field("detail", pa.string(), "at most 200 characters for a person; never the record's content", nullable=True),
    ),
    (_known_actions,),
)

validate = LEDGER.validate
