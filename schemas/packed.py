"""One row of packed token ids: several documents side by side, with their boundaries and their ids."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import Record, field, list_of
from schemas.document import ID

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
IGNORE_INDEX = -100
# Codes of next_sentence, one for each segment. The first of two neighbours that make a pair says what its second is.
ALONE, RANDOM_NEXT, REAL_NEXT, SECOND = -1, 0, 1, 2


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
        for name in ("doc_ids", "sources", *(["next_sentence"] if "next_sentence" in table.column_names else [])):
            other = pc.list_value_length(batch.column(name)).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(other != counts)[:1]:
                yield name, start + int(row), f"{other[row]} entries for {counts[row]} documents in seq_lens"
        start += len(batch)


def _pairs(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    """Check next_sentence; the boundaries are known to be right."""
    length, start = table.schema.field("input_ids").type.list_size, 0
    for batch in table.to_batches():
        codes = batch.column("next_sentence").flatten().to_numpy()
        documents, lens = batch.column("doc_ids").flatten(), batch.column("seq_lens").flatten().to_numpy().astype(int)
        row = pc.list_parent_indices(batch.column("seq_lens")).to_numpy()
        before = np.cumsum(lens) - lens  # tokens before each segment, in the batch and then in its row
        _, first = np.unique(row, return_index=True)
        at = row * length + before - np.repeat(before[first], np.diff(np.append(first, len(row))))
        tokens = batch.column("input_ids").flatten().to_numpy()
        opens, follows = (codes == RANDOM_NEXT) | (codes == REAL_NEXT), np.append((row[1:] == row[:-1]), False)
        second = codes == SECOND
        paired = follows & np.append(second[1:], False)
        same = np.append(pc.equal(documents[:-1], documents[1:]).to_numpy(zero_copy_only=False), False)
        wrong = [
            ((codes < ALONE) | (codes > SECOND), "{} is no code; expected -1, 0, 1 or 2"),
            (opens & ~paired, "{} promises a second segment, and none follows in the row"),
            (second & ~np.append(False, (opens & follows)[:-1]), "{} is a second segment without a first before it"),
            (opens & (same != (codes == REAL_NEXT)), "{} does not fit the documents of the pair"),
            ((tokens[at] == CLS_ID) == second, "{}: the segment must begin with [CLS], unless it is a second one"),
            (tokens[at + lens - 1] != SEP_ID, "{}: the segment must end with [SEP]"),
        ]
        for mask, message in wrong:
            for i in np.flatnonzero(mask)[:1]:
                yield "next_sentence", start + int(row[i]), message.format(codes[i])
        start += len(batch)


def packed_record(seq_len: int, vocab_size: int, *, static_masks: bool = False, pairs: bool = False) -> Record:
    """Make the record type for rows of `seq_len` token ids.

    Special tokens have fixed ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4. Slots after sum(seq_lens) are [PAD].
    With `static_masks`, two columns more: `masked_input_ids` and `labels` (IGNORE_INDEX where not masked).
    With `pairs`, the column `next_sentence`: two neighbouring segments are a pair, [CLS] A [SEP] and B [SEP].
    """
    token = token_type(vocab_size)

    def fixed(type_: pa.DataType) -> pa.DataType:
        return list_of(type_, seq_len)

    fields = [
        field("row_id", pa.uint64(), "unique in its split: shard number << 32 | row in the shard"),
        field("input_ids", fixed(token), "token ids; each document segment is [CLS] … [SEP]; then [PAD]"),
        field("seq_lens", list_of(pa.uint16()), "length of each document segment, in order, specials included"),
        field("word_start", fixed(pa.bool_()), "true where a token begins a word, Chinese ones too; false on specials"),
        field("doc_ids", list_of(ID), "id of each segment's document"),
        field("sources", list_of(pa.string()), "source of each segment's document"),
        field("byte_lens", list_of(pa.uint32()), "UTF-8 bytes of text that each segment's tokens cover"),
    ]
    if static_masks:
        fields += [
            field("masked_input_ids", fixed(token), "input_ids with masks applied"),
            field("labels", fixed(pa.int32()), f"the original id where masked, else {IGNORE_INDEX}"),
        ]
    if pairs:
        codes = f"{REAL_NEXT} or {RANDOM_NEXT}: the next segment is its second, the text's true next piece or another's"
        doc = f"{codes}; {SECOND}: a second, '… [SEP]' without [CLS]; {ALONE}: no pair"
        fields.append(field("next_sentence", list_of(pa.int8()), doc))
    return Record("packed", (1, 0), tuple(fields), (_boundaries, *([_pairs] if pairs else [])))


def validate(table: pa.Table, seq_len: int, vocab_size: int, where: str = "table") -> None:
    """Raise SchemaError where `table` is not a valid table of packed rows."""
    static, pairs = "labels" in table.column_names, "next_sentence" in table.column_names
    packed_record(seq_len, vocab_size, static_masks=static, pairs=pairs).validate(table, where)
