"""Count the occurrences of hashes, exactly and in at most about 32 bytes a hash."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_MAX_LOAD = 0.85  # linear probing: about 4 probes for a known hash, 23 for a new one (Knuth 6.4, theorem K)
_GROWTH = 4 / 3
_FIRST_SLOTS = 4096


@numba.njit(cache=True, nogil=True)
def _insert(
    keys: NDArray[np.uint64], counts: NDArray[np.uint32], new: NDArray[np.uint64], add: NDArray[np.uint32],
    out: NDArray[np.uint32],
) -> int:  # fmt: skip
    """Add `add[i]` to the count of new[i]; out[i] is the count before. Returns how many were new to the table."""
    slots = keys.shape[0]
    fresh = 0
    for i in range(new.shape[0]):
        high, low = new[i, 0], new[i, 1]
        slot = np.int64(((high >> np.uint64(32)) * np.uint64(slots)) >> np.uint64(32))
        while counts[slot] != 0 and (keys[slot, 0] != high or keys[slot, 1] != low):
            slot = slot + np.int64(1) if slot + 1 < slots else np.int64(0)
        if counts[slot] == 0:
            keys[slot, 0] = high
            keys[slot, 1] = low
            fresh += 1
        out[i] = counts[slot]
        counts[slot] += add[i]
    return fresh


class Occurrences:
    """How often each 16-byte hash has been seen. A slot is 20 bytes; at most 85 % of them are in use."""

    def __init__(self) -> None:
        self._keys = np.zeros((_FIRST_SLOTS, 2), np.uint64)
        self._counts = np.zeros(_FIRST_SLOTS, np.uint32)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the table takes."""
        return self._keys.nbytes + self._counts.nbytes

    def count(self, hashes: bytes) -> NDArray[np.uint32]:
        """Number each of the hashes, 16 bytes after 16 bytes, by how often it has come before (0: never)."""
        new = np.frombuffer(hashes, ">u8").reshape(-1, 2).astype(np.uint64)
        self._make_room(len(new))
        out = np.empty(len(new), np.uint32)
        self._used += _insert(self._keys, self._counts, new, np.ones(len(new), np.uint32), out)
        return out

    def _make_room(self, more: int) -> None:
        slots = len(self._counts)
        if self._used + more <= slots * _MAX_LOAD:
            return
        keys, counts = self._keys, self._counts
        slots = max(int(slots * _GROWTH), int((self._used + more) / _MAX_LOAD) + 1)
        if slots >= 1 << 32:
            raise MemoryError("a file of more than 3.6 billion records needs an id_field, or to be cut")
        self._keys, self._counts = np.zeros((slots, 2), np.uint64), np.zeros(slots, np.uint32)
        used = counts != 0
        _insert(self._keys, self._counts, keys[used], counts[used], np.empty(self._used, np.uint32))
