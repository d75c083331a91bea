"""Know which hashes new documents have, in a few bits each: what old documents need not shuffle."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numba
import numpy as np

from pipelines.core import files
from pipelines.core.shards import write_bytes

_BITS = 32  # for each hash: one in 32 others is taken for one that is held
_LARGEST = 33  # log2 of the most bits: 1 GiB


def _offset(band: int) -> np.uint64:
    return np.uint64(0x9E3779B97F4A7C15 * (band + 2) & (1 << 64) - 1)  # Knuth 6.4: each band has its own


# The lower bits of a hash are free: ranges are cut by the upper ones.


@numba.njit(nogil=True, cache=True)
def _may_hold(bits: np.ndarray, hashes: np.ndarray, offset: np.uint64, mask: np.uint64) -> np.ndarray:
    found = np.empty(len(hashes), np.bool_)
    for i in range(len(hashes)):
        place = (hashes[i] + offset) & mask
        found[i] = (bits[place >> np.uint64(3)] >> np.uint8(place & np.uint64(7))) & np.uint8(1)
    return found


@numba.njit(nogil=True, cache=True)
def _put(bits: np.ndarray, hashes: np.ndarray, offset: np.uint64, mask: np.uint64) -> None:
    for i in range(len(hashes)):
        place = (hashes[i] + offset) & mask
        bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


@dataclass(frozen=True)
class Probe:
    """A Bloom filter of one function over (band, hash), in a file that every worker reads."""

    path: str
    log2_bits: int

    def may_hold(self, band: int, hashes: np.ndarray) -> np.ndarray:
        """Whether each hash may be one of those put in: bool[n]; never False for one that was."""
        return _may_hold(_bits(self.path), hashes, _offset(band), np.uint64((1 << self.log2_bits) - 1))


@functools.lru_cache(maxsize=1)
def _bits(path: str) -> np.ndarray:
    if files.is_local(path):
        return np.asarray(np.memmap(path, np.uint8, "r"))
    with files.open_read(path) as source:
        return np.frombuffer(source.read(), np.uint8)


class ProbeWriter:
    """Collect hashes for a Probe; memory: 4 bytes for each expected hash, at most 1 GiB."""

    def __init__(self, expected: int) -> None:
        self._log2_bits = min(_LARGEST, max(10, (max(1, expected) * _BITS - 1).bit_length()))
        self._bits = np.zeros(1 << (self._log2_bits - 3), np.uint8)

    def add(self, band: int, hashes: np.ndarray) -> None:
        """Put in the hashes of one band: uint64[n]."""
        _put(self._bits, hashes, _offset(band), np.uint64((1 << self._log2_bits) - 1))

    def write(self, folder: str) -> Probe:
        """Write the filter into a folder, under a name of its content (workers keep it by name)."""
        path = files.join(folder, f"probe-{hashlib.sha256(self._bits.data).hexdigest()}.bin")
        write_bytes(path, self._bits.tobytes())
        return Probe(path, self._log2_bits)
