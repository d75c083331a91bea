"""The order of rows: a pure function of (seed, position)."""

from __future__ import annotations

import hashlib

import numpy as np

FEISTEL_ROUNDS = 6


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    """Hash uint64 numbers under a key: the finaliser of splitmix64 (Steele et al. 2014), arithmetic modulo 2⁶⁴."""
    x = x + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shuffled(positions: np.ndarray, size: int, seed: int, epoch: int = 0) -> np.ndarray:
    """Permute numbers below `size`: where each position of this epoch's order leads, int64 [n].

    A Feistel network over the next even power of two, walked until it lands below `size` (Black and Rogaway 2002):
    any position costs the same, no permutation is kept in memory, and no library's generator decides the order.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
    keys = np.frombuffer(digest, "<u8").tolist()
    value = positions.astype(np.uint64)
    todo = np.arange(len(value))
    while len(todo):
        left, right = value[todo] >> np.uint64(half), value[todo] & low
        for key in keys:
            left, right = right, left ^ (_mix(right, key) & low)
        value[todo] = (left << np.uint64(half)) | right
        todo = todo[value[todo] >= size]
    return value.astype(np.int64)


class Schedule:
    """Which row stands at each position of an endless run; each epoch has an order of its own.

    A run needs no other data state than its position. Weighted rows are drawn systematically (Madow 1949): a row of
    weight w comes ⌊w⌋ or ⌈w⌉ times in an epoch, w times on average, but for the rounding of an epoch to whole rows.
    """

    def __init__(self, size: int, seed: int, *, block: int = 0, weights: np.ndarray | None = None) -> None:
        """Order `size` rows. weights: float64 [size]. block: see DataConfig; ValueError where no weight is above 0."""
        self.rows, self.seed, self.block = size, seed, block
        self.cumulated = None if weights is None else np.cumsum(weights)
        if self.cumulated is not None:
            if not self.cumulated[-1] > 0:
                raise ValueError("the weights leave no row to train on")
            size = max(1, round(float(self.cumulated[-1])))
        self.size = size

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Say for positions, int64 [n]: (row, draw), int64 [n] each; a row never has the same draw twice.

        The draw is the epoch, unless a weight above 1 brings a row several times in one.
        """
        epochs = positions // self.size
        rows = np.empty_like(positions)
        draws = epochs.copy()
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            rows[chosen] = self._order(positions[chosen] % self.size, epoch)
            if self.cumulated is not None:
                rows[chosen], draws[chosen] = self._pick(rows[chosen], epoch)
        return rows, draws

    def _order(self, inside: np.ndarray, epoch: int) -> np.ndarray:
        if not self.block:
            return shuffled(inside, self.size, self.seed, epoch)
        window = 16 * self.block  # rows of 16 blocks of the shuffled order are shuffled with each other
        first = inside // window * window
        out = np.empty_like(inside)
        for start in np.unique(first).tolist():
            chosen = first == start
            span = min(window, self.size - start)
            out[chosen] = start + shuffled(inside[chosen] - start, span, self.seed, epoch * 2**32 + start // window)
        block, whole = out // self.block, self.size // self.block
        inner = block < whole  # the last one may be shorter, and stays
        block[inner] = shuffled(block[inner], whole, self.seed, epoch)
        return block * self.block + out % self.block

    def _pick(self, slots: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.cumulated is not None
        step = float(self.cumulated[-1]) / self.size
        shift = int.from_bytes(hashlib.blake2b(f"shift {self.seed} {epoch}".encode(), digest_size=4).digest()) / 2**32
        rows = np.searchsorted(self.cumulated, (slots + shift) * step, side="right")
        rows = np.minimum(rows, self.rows - 1)
        before = np.where(rows > 0, self.cumulated[rows - 1], 0.0)
        copy = slots - np.ceil(before / step - shift).astype(np.int64)
        most = 1 + int(np.ceil(np.diff(self.cumulated, prepend=0.0).max() / step))
        return rows, epoch * most + np.maximum(copy, 0)
