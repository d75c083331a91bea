"""What each document cost a model: one row for each document of a training step, or of an evaluation."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import Record, field, first_row
from schemas.document import ID


def _measured(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    row = first_row(pc.invert(pc.is_finite(table["loss"])))
    if row is not None:
        yield "loss", row, f"{table['loss'][row].as_py()} is no loss: the run that wrote it had diverged"
    row = first_row(pc.less(table["loss"], 0))
    if row is not None:
        yield "loss", row, f"{table['loss'][row].as_py()} is negative"
    row = first_row(pc.equal(table["tokens"], 0))
    if row is not None:
        yield "tokens", row, "no token was guessed: such a document has no loss"


LOSSES = Record(
    "losses",
    (1, 0),
    (
        field("id", ID, "id of the document"),
        field("source", pa.string(), "name of the corpus that the document came from"),
        field("step", pa.uint32(), "steps that the model had taken"),
        field("loss", pa.float32(), "mean over the guessed tokens of -ln p(token), in nats"),
        field("tokens", pa.uint32(), "how many tokens of the document were guessed"),
    ),
    (_measured,),
)

validate = LOSSES.validate
