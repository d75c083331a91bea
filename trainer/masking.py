"""Masks for masked-language modelling: a pure function of (seed, epoch, row id).

No state, no order: a row has the same mask in whatever batch, process or resumed run it stands. The numbers come from
Philox4x32-10 (Salmon et al. 2011) under the key `seed`, with the counter (block, row id, epoch).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.packed import IGNORE_INDEX, MASK_ID, SPECIAL_TOKENS

ORDINARY = len(SPECIAL_TOKENS)  # the first id that may be masked or drawn
LONGEST_SPAN = 10  # words; as SpanBERT cuts its spans


@dataclass(frozen=True)
class MaskConfig:
    """What is hidden from the model.

    ratio: share of the maskable tokens of a row. unit: 'token', 'word' (all tokens of a word or none; words by the
    shards' word_start, so Chinese words too) or 'span' (runs of whole words). span: chance that a span ends after a
    word; of spans up to 10 words long (SpanBERT, Joshi et al. 2020: 0.2). mask: share of the chosen tokens that
    becomes [MASK] (Devlin et al. 2019: 0.8). random: share that becomes a random ordinary token (0.1); the rest stay.
    """

    ratio: float = 0.3
    unit: str = "token"
    span: float = 0.2
    mask: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or self.mask < 0 or self.random < 0 or self.mask + self.random > 1:
            raise ValueError(f"mask: ratio must lie between 0 and 1, mask + random at most 1; got {self}")
        if self.unit not in ("token", "word", "span") or not 0 < self.span <= 1:
            raise ValueError(f"mask: unit must be 'token', 'word' or 'span', span above 0 and at most 1; got {self}")


@dataclass(frozen=True)
class Masked:
    """Rows with their masks.

    input_ids: int64 [rows, length], what the model sees. slots: int64 [rows, most], chosen slots as indices into the
    flattened batch. labels: int64 [rows, most], the original ids; IGNORE_INDEX where a row has fewer than `most`
    tokens to choose, so that shapes depend on (rows, length, ratio) alone.
    """

    input_ids: np.ndarray
    slots: np.ndarray
    labels: np.ndarray


def philox(counter: list[np.ndarray], key: int) -> list[np.ndarray]:
    """Philox4x32-10: four words from a counter of four 32-bit words, in uint64 arrays that broadcast; key below 2⁶⁴."""
    word = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = counter
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (b >> np.uint64(32)) ^ c1 ^ np.uint64(k0), b & word
        c2, c3 = (a >> np.uint64(32)) ^ c3 ^ np.uint64(k1), a & word
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def draws(
    row_ids: np.ndarray, epochs: np.ndarray, length: int, seed: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two random 32-bit words for each slot of each row: uint64 [rows, length] twice. first: block of the counter."""
    block = np.arange(first, first + (length + 1) // 2, dtype=np.uint64)[None]
    ids: np.ndarray = row_ids.astype(np.uint64)[:, None]
    counter = [block, ids & np.uint64(0xFFFFFFFF), ids >> np.uint64(32), epochs.astype(np.uint64)[:, None]]
    w0, w1, w2, w3 = philox(counter, seed % 2**64)
    one, two = (np.stack(pair, axis=-1).reshape(len(ids), -1)[:, :length] for pair in ((w0, w2), (w1, w3)))
    return one, two


def words(maskable: np.ndarray, word_start: np.ndarray) -> np.ndarray:
    """Number the words of each row: int64 [rows, length]. Special tokens end a word, and get numbers of their own."""
    after_special = np.ones_like(maskable)
    after_special[:, 1:] = ~maskable[:, :-1]
    return np.cumsum(word_start | after_special | ~maskable, axis=1) - 1


def spans(word: np.ndarray, maskable: np.ndarray, score: np.ndarray, chance: float) -> np.ndarray:
    """Join the numbered words of each row into spans: int64 [rows, length], numbers from 0.

    After each word a span ends if its first slot's `score` (32-bit words) falls below `chance`, or after LONGEST_SPAN
    words, or before a special token; special tokens have numbers of their own.
    """
    starts = np.ones(word.shape, bool)
    starts[:, 1:] = word[:, 1:] != word[:, :-1]
    new = starts & (score < np.uint64(round(chance * 2**32)))
    new |= ~maskable
    new[:, 1:] |= ~maskable[:, :-1]
    new[:, 0] = True
    first = np.maximum.accumulate(np.where(new, word, 0), axis=1)  # the span's first word
    return np.cumsum(new | (starts & ((word - first) % LONGEST_SPAN == 0)), axis=1) - 1


def choose(score: np.ndarray, maskable: np.ndarray, quota: np.ndarray, word: np.ndarray | None = None) -> np.ndarray:
    """Choose `quota` [rows] maskable slots of each row by lowest score, ties by slot: bool [rows, length].

    With `word`, whole words in the order of their first slot's score, each taken if it fits into what is left of the
    quota: exact where one-token words remain, else short by less than a word.
    """
    rows, length = score.shape
    slot = np.broadcast_to(np.arange(length), score.shape)
    tie = slot if word is None else word
    if word is not None:  # every slot of a word gets the score of the word's first
        starts = np.ones(score.shape, bool)
        starts[:, 1:] = word[:, 1:] != word[:, :-1]
        first = np.maximum.accumulate(np.where(starts, slot, 0), axis=1)
        score = np.take_along_axis(score, first, axis=1)
    # keys in the order (not maskable, score, tie); equal keys are one word's slots, which a stable sort leaves in order
    key = (~maskable).astype(np.uint64) << np.uint64(63) | score << np.uint64(24) | tie.astype(np.uint64)
    order = np.argsort(key, axis=1, kind="stable")
    if word is None:
        taken = slot < quota[:, None]
    else:
        index = word + np.arange(rows)[:, None] * length
        size = np.bincount(index.ravel(), maskable.ravel(), minlength=rows * length).astype(np.int64)[index]
        after = size - 1 - (slot - first)  # slots of the same word still to come
        size, after, usable = (np.take_along_axis(each, order, axis=1) for each in (size, after, maskable))
        taken = _fitting(size, after, usable, quota)
    chosen = np.zeros((rows, length), bool)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen & maskable


def _fitting(size: np.ndarray, after: np.ndarray, maskable: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Go through words in order and take each that fits into what is left: bool [rows, length].

    Slots stand in the words' order; size and after: slots of the slot's word, and those of them still to come.
    """
    taken = np.zeros(size.shape, bool)
    left = quota.copy()
    while True:  # take up to the first word that does not fit beside the others; go on with those that can still fit
        fits = maskable & ~taken & (size <= left[:, None])
        grows = fits & (np.cumsum(fits, axis=1) + after <= left[:, None])
        if not grows.any():
            return taken
        taken |= grows
        left -= grows.sum(axis=1)


def mask_rows(
    input_ids: np.ndarray,
    word_start: np.ndarray,
    row_ids: np.ndarray,
    epochs: np.ndarray,
    config: MaskConfig,
    vocab_size: int,
    seed: int,
) -> Masked:
    """Mask packed rows: int64 [rows, length], bool [rows, length], uint64 [rows], int [rows].

    Each row gets round(ratio · its maskable tokens) masks, at least one; special tokens and padding get none. Of whole
    words it may get a few less: longer ones are left out where the quota has no room, and so are hidden a little less
    often. Where not even one word fits, its tokens are chosen singly.
    """
    rows, length = input_ids.shape
    maskable = input_ids >= ORDINARY
    total = maskable.sum(axis=1)
    quota = np.where(total > 0, np.maximum(1, np.rint(config.ratio * total)), 0).astype(np.int64)
    most = max(1, round(config.ratio * length))
    score, action = draws(row_ids, epochs, length, seed)
    unit = None if config.unit == "token" else words(maskable, word_start)
    if unit is not None and config.unit == "span":
        ends, _ = draws(row_ids, epochs, length, seed, first=1 << 31)  # blocks that no row is long enough to reach
        unit = spans(unit, maskable, ends, config.span)
    chosen = choose(score, maskable, quota, unit)
    if (empty := (quota > 0) & ~chosen.any(axis=1)).any():  # no word is as short as the quota
        chosen[empty] = choose(score[empty], maskable[empty], quota[empty])

    # one number decides both: which interval it falls into, and where in the interval which random id
    mask, swap = (np.uint64(round(share * 2**32)) for share in (config.mask, config.random))
    drawn = (action - mask) * np.uint64(vocab_size - ORDINARY) // max(swap, np.uint64(1)) + np.uint64(ORDINARY)
    kept = np.where(action < mask + swap, drawn.astype(np.int64), input_ids)
    changed = np.where(action < mask, MASK_ID, kept)

    slots = np.argsort(~chosen, axis=1, kind="stable")[:, :most]  # the chosen slots first, from left to right
    valid = np.take_along_axis(chosen, slots, axis=1)
    labels = np.where(valid, np.take_along_axis(input_ids, slots, axis=1), IGNORE_INDEX)
    flat = np.where(valid, slots, 0) + np.arange(rows)[:, None] * length
    return Masked(np.where(chosen, changed, input_ids), flat, labels)
