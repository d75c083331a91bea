import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.masking import MaskConfig, static_masks
from schemas.packed import CLS_ID, IGNORE_INDEX, MASK_ID, PAD_ID, SEP_ID

LENGTH = 64


def rows(count: int, words: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two segments whose words have the given sizes, over and over; and their row ids."""
    ids, marks = np.zeros((count, LENGTH), np.uint16), np.zeros((count, LENGTH), np.bool_)
    for row in range(count):
        for start, end in ((0, 40), (40, 58)):
            ids[row, start], ids[row, end - 1] = CLS_ID, SEP_ID
            ids[row, start + 1 : end - 1] = 100 + np.arange(end - start - 2)
            at = start + 1
            for size in words * LENGTH:
                if at >= end - 1:
                    break
                marks[row, at] = True
                at += size
    return ids, marks, np.arange(count, dtype=np.uint64)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(0.05, 0.6), st.integers(0, 1 << 64))
def test_whole_words_are_chosen_and_specials_never(words: list[int], ratio: float, seed: int) -> None:
    ids, marks, row_ids = rows(3, words)
    masked, labels = static_masks(ids, marks, row_ids, 1000, MaskConfig(seed=seed, ratio=ratio))
    chosen = labels != IGNORE_INDEX
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(masked[~chosen], ids[~chosen])
    assert not chosen[ids < 5].any()
    assert not np.isin(masked[chosen], [PAD_ID, CLS_ID, SEP_ID]).any()
    for row in range(len(ids)):
        for at in range(1, LENGTH):
            if ids[row, at] >= 5 and not marks[row, at] and ids[row, at - 1] >= 5:
                assert chosen[row, at] == chosen[row, at - 1]
    wanted = np.round(ratio * (ids >= 5).sum(axis=1))
    assert (chosen.sum(axis=1) <= wanted).all()
    assert (chosen.sum(axis=1) > wanted - max(words)).all()


def test_shares_are_those_of_the_configuration() -> None:
    ids, marks, row_ids = rows(2000, [1])
    masked, labels = static_masks(ids, marks, row_ids, 30_000, MaskConfig(ratio=0.3, mask=0.7, random=0.2))
    chosen = labels != IGNORE_INDEX
    kept = (masked == ids)[chosen].mean()
    assert chosen.sum() == 2000 * round(0.3 * 54)
    assert abs((masked[chosen] == MASK_ID).mean() - 0.7) < 0.01
    assert abs(kept - 0.1) < 0.01
    drawn = masked[chosen & (masked != MASK_ID) & (masked != ids)]
    assert drawn.min() >= 5
    assert drawn.max() < 30_000
    assert abs(drawn.mean() - 15_000) < 500
    places = chosen[:, 1:39].mean(axis=0)
    assert places.min() > 0.24  # no position is preferred
    assert places.max() < 0.36


def test_masks_depend_on_seed_and_row_id_and_not_on_the_rows_beside() -> None:
    ids, marks, row_ids = rows(4, [2, 1])
    both = static_masks(ids, marks, row_ids, 1000, MaskConfig(seed=5))
    alone = static_masks(ids[2:3], marks[2:3], row_ids[2:3], 1000, MaskConfig(seed=5))
    assert np.array_equal(both[0][2], alone[0][0])
    assert np.array_equal(both[1][2], alone[1][0])
    assert not np.array_equal(both[1][0], both[1][1])
    assert not np.array_equal(both[1], static_masks(ids, marks, row_ids, 1000, MaskConfig(seed=6))[1])


def test_the_first_token_of_a_segment_begins_a_word_although_a_cut_took_its_mark() -> None:
    ids, marks, row_ids = rows(200, [40])
    marks[:] = False
    labels = static_masks(ids, marks, row_ids, 1000, MaskConfig(ratio=0.35))[1]
    assert {tuple(np.unique(row)) for row in (labels != IGNORE_INDEX)[:, 1:39]} == {(False,)}  # 38 > round(.35 × 54)
    assert (labels[:, 41:57] != IGNORE_INDEX).all()


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": 1.0}, {"mask": 0.9, "random": 0.2}, {"mask": -0.1}])
def test_shares_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="share"):
        MaskConfig(**wrong)
