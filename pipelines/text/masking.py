"""Static masks for trainers that do not mask by themselves: whole words, chosen by a hash of (seed, row, position).

Devlin et al., "BERT", NAACL 2019: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay. Whole words:
Cui et al., "Pre-Training with Whole Word Masking for Chinese BERT", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from schemas.packed import IGNORE_INDEX, MASK_ID, SPECIAL_TOKENS

_FIRST_ORDINARY = len(SPECIAL_TOKENS)
_WORDS, _ACTIONS, _RANDOM = range(3)  # what a hash is for


@dataclass(frozen=True)
class MaskConfig:
    """How masks are drawn.

    ratio: share of the tokens that are chosen. mask, random: shares of those that become [MASK], or a random token.
    """

    seed: int = 0
    ratio: float = 0.15
    mask: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio is {self.ratio}; expected a share between 0 and 1")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1:
            raise ValueError(f"mask {self.mask} and random {self.random} are shares that add up to 1 at most")


def static_masks(
    input_ids: np.ndarray, word_start: np.ndarray, row_ids: np.ndarray, vocab_size: int, config: MaskConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Mask whole words: (masked ids of the same type, labels int32), both [rows, length].

    Per row, words are taken in the order of their hash as long as they fit into round(ratio × tokens), specials not
    counted. A token that begins a segment begins a word. labels: the original id where chosen, else IGNORE_INDEX.
    """
    masked, labels = input_ids.copy(), np.full(input_ids.shape, IGNORE_INDEX, np.int32)
    seed = np.uint64(config.seed % (1 << 64))
    _mask(masked, labels, word_start, row_ids, vocab_size, seed, config.ratio, config.mask, config.random)
    return masked, labels


@numba.njit(nogil=True, cache=True, inline="always")
def _hash(seed: Any, row: int, position: int, purpose: int) -> np.uint64:
    """Mix (seed, row, position, purpose) into 64 bits: three rounds of SplitMix64 (Steele et al., OOPSLA 2014)."""
    z = np.uint64(seed)
    for part in (np.uint64(row), np.uint64(position), np.uint64(purpose)):
        z = (z ^ part) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    return z


@numba.njit(nogil=True, cache=True)
def _mask(
    masked: np.ndarray,
    labels: np.ndarray,
    word_start: np.ndarray,
    row_ids: np.ndarray,
    vocab_size: int,
    seed: Any,
    ratio: float,
    mask: float,
    random: float,
) -> None:
    length = masked.shape[1]
    begins, keys = np.empty(length + 1, np.int64), np.empty(length, np.uint64)
    for row in range(len(masked)):
        words = tokens = 0
        for at in range(length):
            if masked[row, at] >= _FIRST_ORDINARY:
                tokens += 1
                if word_start[row, at] or at == 0 or masked[row, at - 1] < _FIRST_ORDINARY:
                    begins[words] = at
                    keys[words] = _hash(seed, row_ids[row], at, _WORDS)
                    words += 1
        left = round(ratio * tokens)
        for word in np.argsort(keys[:words], kind="mergesort"):
            stop = begins[word] + 1
            while stop < length and masked[row, stop] >= _FIRST_ORDINARY and not word_start[row, stop]:
                stop += 1
            if stop - begins[word] <= left:
                left -= stop - begins[word]
                for at in range(begins[word], stop):
                    labels[row, at] = masked[row, at]
        for at in range(length):
            if labels[row, at] >= 0:
                share = np.float64(_hash(seed, row_ids[row], at, _ACTIONS) >> np.uint64(11)) / 2.0**53
                if share < mask:
                    masked[row, at] = MASK_ID
                elif share < mask + random:
                    ordinary = np.uint64(vocab_size - _FIRST_ORDINARY)
                    drawn = _hash(seed, row_ids[row], at, _RANDOM) % ordinary
                    masked[row, at] = _FIRST_ORDINARY + np.int64(drawn)
