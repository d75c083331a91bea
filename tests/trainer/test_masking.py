from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.packed import CLS_ID, IGNORE_INDEX, MASK_ID, PAD_ID, SEP_ID
from trainer.data import PackedDataset
from trainer.masking import (
    LONGEST_SPAN,
    ORDINARY,
    MaskConfig,
    Masked,
    choose,
    draws,
    mask_rows,
    philox,
    spans,
    words,
)

LENGTH, VOCAB = 64, 1000
DEFAULT = MaskConfig()


def rows_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, word starts and row ids: each row [CLS] … [SEP] [CLS] … [SEP] and some padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCAB, (count, LENGTH))
    starts = rng.random(ids.shape) < 0.6
    for row in ids:
        end = int(rng.integers(40, LENGTH + 1))
        row[end:] = PAD_ID
        row[[0, 20]], row[[19, end - 1]] = CLS_ID, SEP_ID
    return ids, starts & (ids >= 5), np.arange(count, dtype=np.uint64) + (3 << 32)


def mask(rows: tuple[np.ndarray, ...], config: MaskConfig = DEFAULT, epoch: int = 0, seed: int = 0) -> Masked:
    return mask_rows(*rows, np.full(len(rows[0]), epoch), config, VOCAB, seed)


def chosen(masked: Masked, shape: tuple[int, int]) -> np.ndarray:
    flags = np.zeros(shape[0] * shape[1], bool)
    flags[masked.slots[masked.labels != IGNORE_INDEX]] = True
    return flags.reshape(shape)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of Random123, kat_vectors, philox4x32 10
        ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter: tuple[int, ...], key: int, expected: str) -> None:
    words = philox([np.array([word], np.uint64) for word in counter], key)
    assert " ".join(f"{int(word[0]):08x}" for word in words) == expected


@pytest.mark.parametrize("unit", ["token", "word"])
def test_a_row_has_the_same_mask_in_any_batch(unit: str) -> None:
    rows, config = rows_of(20), MaskConfig(unit=unit)
    whole = mask(rows, config)
    order = np.array([7, 3, 19])
    part = mask(tuple(column[order] for column in rows), config)
    assert (part.input_ids == whole.input_ids[order]).all()
    assert (part.labels == whole.labels[order]).all()
    assert (part.slots % LENGTH == whole.slots[order] % LENGTH).all()


def test_masks_differ_between_epochs_seeds_and_rows() -> None:
    ids, starts, row_ids = rows_of(1)
    same = np.repeat(ids, 2, axis=0), np.repeat(starts, 2, axis=0), np.array([1, 2], np.uint64)
    twins = chosen(mask(same), (2, LENGTH))
    assert (twins[0] != twins[1]).any()
    base = mask((ids, starts, row_ids)).slots
    assert (mask((ids, starts, row_ids), epoch=1).slots != base).any()
    assert (mask((ids, starts, row_ids), seed=1).slots != base).any()


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
def test_every_row_gets_exactly_its_share_and_no_special_token(ratio: float) -> None:
    ids, *_ = rows = rows_of(200)
    masked = mask(rows, MaskConfig(ratio=ratio))
    flags = chosen(masked, ids.shape)
    assert flags.sum(axis=1).tolist() == [round(ratio * n) for n in (ids >= 5).sum(axis=1).tolist()]
    assert (ids[flags] >= 5).all()
    assert (masked.input_ids[~flags] == ids[~flags]).all()
    assert masked.slots.shape == masked.labels.shape == (200, round(ratio * LENGTH))
    valid = masked.labels != IGNORE_INDEX
    assert (masked.labels[valid] == ids.ravel()[masked.slots[valid]]).all()


def test_a_row_without_ordinary_tokens_gets_no_mask() -> None:
    ids = np.array([[CLS_ID, SEP_ID] + [PAD_ID] * 6])
    masked = mask_rows(ids, ids < 0, np.zeros(1, np.uint64), np.zeros(1), MaskConfig(), VOCAB, 0)
    assert (masked.labels == IGNORE_INDEX).all()
    assert (masked.input_ids == ids).all()


def test_chosen_tokens_are_masked_swapped_and_kept_in_the_shares_of_bert() -> None:
    ids, *_ = rows = rows_of(3000)
    masked = mask(rows)
    flags = chosen(masked, ids.shape)
    new, old = masked.input_ids[flags], ids[flags]
    swapped = new[(new != MASK_ID) & (new != old)]
    assert np.mean(new == MASK_ID) == pytest.approx(0.8, abs=0.01)
    assert np.mean(new == old) == pytest.approx(0.1, abs=0.01)
    assert swapped.min() == 5 and swapped.max() == VOCAB - 1
    counts = np.histogram(swapped, bins=10, range=(5, VOCAB))[0]
    assert np.abs(counts / counts.mean() - 1).max() < 0.2  # about 420 each: four standard errors


def test_all_slots_are_chosen_equally_often() -> None:
    ids = np.full((4000, LENGTH), 7)
    masked = mask((ids, ids > 0, np.arange(4000, dtype=np.uint64)))
    assert np.abs(chosen(masked, ids.shape).mean(axis=0) - 19 / 64).max() < 0.035  # 4.8 standard errors


def test_words_end_at_specials_and_begin_at_marks() -> None:
    #        [CLS] a  ##a  b  [SEP] [CLS] ##c d [PAD]
    ok = np.array([[0, 1, 1, 1, 0, 0, 1, 1, 0]], bool)
    start = np.array([[0, 1, 0, 1, 0, 0, 0, 1, 0]], bool)
    assert words(ok, start).tolist() == [[0, 1, 1, 2, 3, 4, 5, 6, 7]]


def test_whole_word_masking_takes_all_of_a_word_or_none() -> None:
    ids, starts, _ = rows = rows_of(300)
    flags = chosen(mask(rows, MaskConfig(unit="word")), ids.shape)
    number = words(ids >= 5, starts)
    for row in range(300):
        for word in np.unique(number[row][ids[row] >= 5]):
            assert len(set(flags[row][number[row] == word].tolist())) == 1
    quota = np.rint(0.3 * (ids >= 5).sum(axis=1))
    assert (flags.sum(axis=1) <= quota).all()
    assert (flags.sum(axis=1) == quota).mean() > 0.95


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 12), st.floats(0.1, 1.0))
def test_choosing_equals_the_plain_loop(seed: int, quota: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    maskable, starts = rng.random(16) < 0.8, rng.random(16) < density
    score = rng.integers(0, 6, 16).astype(np.uint64)  # few values, so that ties occur
    word = words(maskable[None], starts[None])[0]
    tokens = sorted(np.flatnonzero(maskable), key=lambda i: (score[i], i))[:quota]
    got = choose(score[None], maskable[None], np.array([quota]))
    assert np.flatnonzero(got[0]).tolist() == sorted(tokens)

    groups = [np.flatnonzero(maskable & (word == w)) for w in np.unique(word[maskable])]
    left, taken = quota, []
    for group in sorted(groups, key=lambda g: (score[g[0]], word[g[0]])):
        if len(group) <= left:
            taken, left = [*taken, *group.tolist()], left - len(group)
    got = choose(score[None], maskable[None], np.array([quota]), word[None])
    assert np.flatnonzero(got[0]).tolist() == sorted(taken)


@pytest.mark.parametrize(
    "bad", [{"ratio": 0.0}, {"ratio": 1.0}, {"unit": "sentence"}, {"span": 0.0}, {"mask": 0.9, "random": 0.2}]
)
def test_impossible_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mask"):
        MaskConfig(**bad)  # type: ignore[arg-type]


def test_spans_are_runs_of_whole_words_that_end_at_special_tokens(packed: Path) -> None:
    rows = PackedDataset(packed, "train").rows(np.arange(40))
    maskable = rows.input_ids >= ORDINARY
    word = words(maskable, rows.word_start)
    score, _ = draws(rows.row_ids, np.zeros(40, np.int64), 64, 3, first=1 << 31)
    span = spans(word, maskable, score, 0.2)
    lengths = []
    for row in range(40):
        expected, count = [], 0
        for slot in range(64):  # the rule, slot by slot
            first = slot == 0 or not maskable[row, slot] or not maskable[row, slot - 1]
            begins = slot == 0 or word[row, slot] != word[row, slot - 1]
            new = first or (begins and score[row, slot] < round(0.2 * 2**32))
            count = 0 if new else count + begins
            expected.append((expected[-1] if expected else -1) + (new or (begins and count % LONGEST_SPAN == 0)))
        assert span[row].tolist() == expected
        lengths += [len(set(word[row][span[row] == n].tolist())) for n in set(span[row][maskable[row]].tolist())]
    assert max(lengths) <= LONGEST_SPAN and 2 < np.mean(lengths) < 5  # documents of 3 to 24 tokens cut them short


def test_spans_hide_longer_runs_than_tokens_at_the_same_ratio(packed: Path) -> None:
    rows = PackedDataset(packed, "train").rows(np.arange(40))
    runs = {}
    for unit in ("token", "word", "span"):
        masked = mask_rows(
            rows.input_ids, rows.word_start, rows.row_ids, np.zeros(40, np.int64), MaskConfig(unit=unit), 128, 0
        )
        slots = np.sort(masked.slots[masked.labels >= 0])
        runs[unit] = len(slots) / (1 + (np.diff(slots) > 1).sum())
    assert runs["token"] < runs["word"] < runs["span"]


@pytest.mark.parametrize("unit", ["word", "span"])
def test_a_row_of_words_longer_than_its_share_still_gets_its_masks(unit: str) -> None:
    ids = np.arange(5, 5 + LENGTH)[None].repeat(3, axis=0)
    starts = np.zeros(ids.shape, bool)
    starts[0, 0] = True  # one word of 64 tokens; a share of a tenth has room for 6
    starts[1, ::8] = True
    starts[2] = True
    config = MaskConfig(ratio=0.1, unit=unit, span=1.0)
    rows = (ids, starts, np.arange(3, dtype=np.uint64))
    assert chosen(mask(rows, config), ids.shape).sum(axis=1).tolist() == [6, 6, 6]
    alone = mask((ids[:1], starts[:1], np.zeros(1, np.uint64)), config)
    assert np.array_equal(alone.input_ids, mask(rows, config).input_ids[:1])
