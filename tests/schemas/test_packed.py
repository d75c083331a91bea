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


A, B = bytes(16), bytes([1]) * 16
PAIR = {
    "input_ids": [2, 7, 3, 8, 3, 2, 9, 3],
    "seq_lens": [3, 2, 3],
    "doc_ids": [A, A, B],
    "next_sentence": [1, 2, -1],
}


def pairs(*changes: dict) -> pa.Table:
    """A row of a pair and a single segment for each change."""
    rows = [
        {"row_id": i, "word_start": [False] * LENGTH, "sources": ["wiki"] * 3, "byte_lens": [1] * 3} | PAIR | change
        for i, change in enumerate(changes)
    ]
    return pa.Table.from_pylist(rows, schema=packed_record(LENGTH, VOCAB, pairs=True).schema)


def test_pairs_are_one_more_column_and_the_others_stay_as_they_are() -> None:
    plain, more = packed_record(LENGTH, VOCAB).schema, packed_record(LENGTH, VOCAB, pairs=True).schema
    assert more.names == [*plain.names, "next_sentence"]
    assert more.remove(len(plain)).equals(plain, check_metadata=True)
    random = {"doc_ids": [A, B, B], "next_sentence": [0, 2, -1]}
    table = pairs({}, random, {})
    validate(table, LENGTH, VOCAB)
    for start in range(3):
        validate(table.slice(start, 1), LENGTH, VOCAB)
    validate(table.slice(0, 0), LENGTH, VOCAB)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_sentence": [1, 2]}, "2 entries for 3 documents"),
        ({"next_sentence": [1, 2, 3]}, "3 is no code"),
        ({"next_sentence": [1, 2, 1]}, "1 promises a second segment, and none follows"),
        ({"next_sentence": [1, -1, -1]}, "1 promises a second segment, and none follows"),
        ({"next_sentence": [-1, 2, -1]}, "2 is a second segment without a first"),
        ({"next_sentence": [2, -1, -1]}, "2 is a second segment without a first"),
        ({"next_sentence": [1, 2, 2]}, "2 is a second segment without a first"),
        ({"next_sentence": [0, 2, -1]}, "0 does not fit the documents"),
        ({"doc_ids": [A, B, B]}, "1 does not fit the documents"),
        ({"input_ids": [2, 7, 3, 2, 3, 2, 9, 3]}, r"2: the segment must begin with \[CLS\], unless"),
        ({"input_ids": [2, 7, 3, 8, 3, 5, 9, 3]}, r"-1: the segment must begin with \[CLS\], unless"),
        ({"input_ids": [2, 7, 3, 8, 8, 2, 9, 3]}, r"2: the segment must end with \[SEP\]"),
    ],
)
def test_codes_that_do_not_fit_their_row_are_named(change: dict, message: str) -> None:
    with pytest.raises(SchemaError, match=f"field 'next_sentence', row 1: {message}"):
        validate(pairs({}, change, {}), LENGTH, VOCAB)


def test_a_pair_does_not_reach_into_the_next_row() -> None:
    last = {"seq_lens": [3, 2, 3], "next_sentence": [-1, -1, 1], "input_ids": [2, 7, 3, 2, 3, 2, 9, 3]}
    with pytest.raises(SchemaError, match="row 0: 1 promises a second segment"):
        validate(pairs(last, {}), LENGTH, VOCAB)
