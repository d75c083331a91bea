"""Packed rows: boundaries that do not fit their row are found, wherever the row stands."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.base import SchemaError
from schemas.packed import packed_record, token_type, validate

LENGTH, VOCAB = 8, 100


def rows(*seq_lens: list[int], doc_ids: list[int] | None = None) -> pa.Table:
    record = packed_record(LENGTH, VOCAB)
    return pa.Table.from_pylist(
        [
            {
                "row_id": i,
                "input_ids": [0] * LENGTH,
                "seq_lens": lens,
                "word_start": [False] * LENGTH,
                "doc_ids": [bytes(16)] * (len(lens) if doc_ids is None else doc_ids[i]),
                "sources": ["wiki"] * len(lens),
                "byte_lens": [1] * len(lens),
            }
            for i, lens in enumerate(seq_lens)
        ],
        schema=record.schema,
    )


def test_rows_that_fill_their_slots_are_valid() -> None:
    validate(rows([8], [3, 5], [1], [2, 2, 2, 2]), LENGTH, VOCAB)
    validate(rows(), LENGTH, VOCAB)


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_boundaries_beyond_the_row_are_named_in_the_first_the_last_and_any_row(bad: int) -> None:
    lens = [[4, 4], [8], [1], [2, 2, 3]]
    lens[bad] = [4, 4, 1]
    with pytest.raises(SchemaError, match=f"field 'seq_lens', row {bad}: boundaries sum to 9; the row has 8 slots"):
        validate(rows(*lens), LENGTH, VOCAB)


def test_a_row_without_documents_is_named() -> None:
    with pytest.raises(SchemaError, match="field 'seq_lens', row 1: the row holds no document"):
        validate(rows([4], [], [3]), LENGTH, VOCAB)


def test_a_slice_is_judged_by_its_own_rows() -> None:
    table = rows([8], [3, 5], [8], [8])
    for start in range(4):
        for stop in range(start, 5):
            validate(table.slice(start, stop - start), LENGTH, VOCAB)


def test_ids_that_do_not_match_the_documents_are_named() -> None:
    with pytest.raises(SchemaError, match="field 'doc_ids', row 1: 3 entries for 2 documents"):
        validate(rows([4], [2, 2], doc_ids=[1, 3]), LENGTH, VOCAB)


def test_another_length_or_vocabulary_is_another_contract() -> None:
    with pytest.raises(SchemaError, match="field 'input_ids' is"):
        validate(rows([4]), LENGTH * 2, VOCAB)
    with pytest.raises(SchemaError, match="field 'input_ids' is"):
        validate(rows([4]), LENGTH, 70_000)


def test_tokens_take_two_bytes_while_every_id_fits() -> None:
    assert token_type(65_536) == pa.uint16() and token_type(65_537) == pa.uint32()
    assert np.iinfo(np.uint16).max == 65_535


def test_static_masks_are_two_more_columns() -> None:
    names = packed_record(LENGTH, VOCAB, static_masks=True).schema.names
    assert [n for n in names if n not in packed_record(LENGTH, VOCAB).schema.names] == ["masked_input_ids", "labels"]
