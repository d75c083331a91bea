"""One row of packed token ids: several documents side by side, with their boundaries and their ids."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import Record, field
from schemas.document import ID

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
IGNORE_INDEX = -100


def token_type(vocab_size: int) -> pa.DataType:
    """The narrowest token type: uint16 up to a vocabulary of 65,536, else uint32."""
    return pa.uint16() if vocab_size <= 65_536 else pa.uint32()


def _boundaries(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    length = table.schema.field("input_ids").type.list_size
    start = 0
    for batch in table.to_batches():
        lens = batch.column("seq_lens")
        counts = pc.list_value_length(lens).to_numpy(zero_copy_only=False)
        ends = np.cumsum(counts)
        running = np.append(0, np.cumsum(lens.flatten().to_numpy(zero_copy_only=False).astype(np.int64)))
        sums = running[ends] - running[ends - counts]
        for row in np.flatnonzero(counts == 0)[:1]:
            yield "seq_lens", start + int(row), "the row holds no document"
        for row in np.flatnonzero(sums > length)[:1]:
            yield "seq_lens", start + int(row), f"boundaries sum to {sums[row]}; the row has {length} slots"
        for name in ("doc_ids", "sources"):
            other = pc.list_value_length(batch.column(name)).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(other != counts)[:1]:
                yield name, start + int(row), f"{other[row]} entries for {counts[row]} documents in seq_lens"
        start += len(batch)


def packed_record(seq_len: int, vocab_size: int, *, static_masks: bool = False) -> Record:
    """Make the record type for rows of `seq_len` token ids.

    Special tokens have fixed ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4. Slots after sum(seq_lens) are [PAD].
    With `static_masks`, two columns more: `masked_input_ids` and `labels` (IGNORE_INDEX where not masked).
    """
    token = token_type(vocab_size)

    def fixed(type_: pa.DataType) -> pa.DataType:
        return pa.list_(pa.field("item", type_, nullable=False), seq_len)

    def each(type_: pa.DataType) -> pa.DataType:
        return pa.list_(pa.field("item", type_, nullable=False))

    fields = [
        field("row_id", pa.uint64(), "unique in its split: shard number << 32 | row in the shard"),
        field("input_ids", fixed(token), "token ids; each document segment is [CLS] … [SEP]; then [PAD]"),
        field("seq_lens", each(pa.uint16()), "length of each document segment, in order, specials included"),
        field("word_start", fixed(pa.bool_()), "true where a token begins a word, Chinese ones too; false on specials"),
        field("doc_ids", each(ID), "id of each segment's document"),
        field("sources", each(pa.string()), "source of each segment's document"),
        field("byte_lens", each(pa.uint32()), "UTF-8 bytes of text that each segment's tokens cover"),
    ]
    if static_masks:
        fields += [
            field("masked_input_ids", fixed(token), "input_ids with masks applied"),
            field("labels", fixed(pa.int32()), f"the original id where masked, else {IGNORE_INDEX}"),
        ]
    return Record("packed", (1, 0), tuple(fields), (_boundaries,))


def validate(table: pa.Table, seq_len: int, vocab_size: int, where: str = "table") -> None:
    """Raise SchemaError where `table` is not a valid table of packed rows."""
    static = "labels" in table.column_names
    packed_record(seq_len, vocab_size, static_masks=static).validate(table, where)
