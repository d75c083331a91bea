"""Know which hashes new documents have, in a few bits each: what old documents need not shuffle."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from pipelines.core import files
from pipelines.core.shards import write_bytes

_BITS = 32  # for each hash: one in 32 others is taken for one that is held
_LARGEST = 33  # log2 of the most bits: 1 GiB


def _places(band: int, hashes: np.ndarray, log2_bits: int) -> np.ndarray:
    # The lower half of a hash is free (ranges are cut by the upper one); a band has its own offset.
    mixed = hashes + np.uint64(0x9E3779B97F4A7C15 * (band + 2) & (1 << 64) - 1)  # Knuth 6.4
    return mixed & np.uint64((1 << log2_bits) - 1)


@dataclass(frozen=True)
class Probe:
    """A Bloom filter of one function over (band, hash), in a file that every worker reads."""

    path: str
    log2_bits: int

    def may_hold(self, band: int, hashes: np.ndarray) -> np.ndarray:
        """Whether each hash may be one of those put in: bool[n]; never False for one that was."""
        places = _places(band, hashes, self.log2_bits)
        return (_bits(self.path)[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)) & 1 == 1


@functools.lru_cache(maxsize=1)
def _bits(path: str) -> np.ndarray:
    if files.is_local(path):
        return np.memmap(path, np.uint8, "r")
    with files.open_read(path) as source:
        return np.frombuffer(source.read(), np.uint8)


class ProbeWriter:
    """Collect hashes for a Probe; memory: 4 bytes for each expected hash, at most 1 GiB."""

    def __init__(self, expected: int) -> None:
        self._log2_bits = min(_LARGEST, max(10, (max(1, expected) * _BITS - 1).bit_length()))
        self._bits = np.zeros(1 << (self._log2_bits - 3), np.uint8)

    def add(self, band: int, hashes: np.ndarray) -> None:
        """Put in the hashes of one band: uint64[n]."""
        places = _places(band, hashes, self._log2_bits)
        np.bitwise_or.at(self._bits, places >> np.uint64(3), np.uint8(1) << (places & np.uint64(7)).astype(np.uint8))

    def write(self, folder: str) -> Probe:
        """Write the filter into a folder, under a name of its content (workers keep it by name)."""
        path = files.join(folder, f"probe-{hashlib.sha256(self._bits.data).hexdigest()}.bin")
        write_bytes(path, self._bits.tobytes())
        return Probe(path, self._log2_bits)
