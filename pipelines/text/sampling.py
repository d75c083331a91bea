"""Choose a bounded sample of records by hash, whatever their shards: histograms that add up, quotas, limits. Pure.

A record is in the sample where its hash lies under the limit of its source. The limits come from histograms of bytes
over hashes, so they depend on the records alone, and nothing but small counts leaves a shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

_PER_OCTAVE = 256  # bins between a hash and its double: a quota is met within 1/256
ALL = 54 * _PER_OCTAVE  # above every bin


def bins(hashes: np.ndarray) -> np.ndarray:
    """Bin uint64 hashes on a logarithmic scale: int64, ascending with the hash, from 0 to ALL - 1.

    Logarithmic, because a sample of 10 MB from 10 TB needs fine bins near 0 only.
    """
    mantissa, exponent = np.frexp((hashes >> np.uint64(11)).astype(np.float64))
    within = ((mantissa - 0.5) * 2 * _PER_OCTAVE).astype(np.int64)  # before the sum, which would round up
    return np.where(mantissa > 0, exponent.astype(np.int64) * _PER_OCTAVE + within, 0)


def histogram(hashes: np.ndarray, sizes: np.ndarray) -> dict[int, int]:
    """Add up sizes by bin; empty bins are left out."""
    totals = np.bincount(bins(hashes), sizes, ALL).astype(np.int64)
    found = np.flatnonzero(totals)
    return dict(zip(found.tolist(), totals[found].tolist(), strict=True))


def add(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add histograms, bin by bin."""
    total: dict[int, int] = {}
    for one in histograms:
        for number, size in one.items():
            total[number] = total.get(number, 0) + size
    return dict(sorted(total.items()))


def quotas(
    available: Mapping[str, int], total: int, balance: float, weights: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Share `total` bytes among sources by weight × available ** balance; what a source cannot give goes to the others.

    balance: 1 keeps the proportions of the corpus, 0 gives every source the same. The exponent is that of multilingual
    sampling (Conneau et al., XLM-R, ACL 2020).
    """
    shares = {name: (weights or {}).get(name, 1.0) * size**balance for name, size in available.items() if size}
    result = dict.fromkeys(sorted(available), 0)
    left = total
    while shares:
        whole = sum(shares.values())
        full = [name for name in sorted(shares) if whole and left * shares[name] / whole >= available[name]]
        for name in full or sorted(shares):
            result[name] = available[name] if full else int(left * shares[name] / whole) if whole else 0
        if not full:
            break
        left -= sum(available[name] for name in full)
        shares = {name: share for name, share in shares.items() if name not in full}
    return result


def limit(counts: Mapping[int, int], quota: int) -> int:
    """The bin below which records are taken: as many bins as the quota holds, and one at least where it is not 0."""
    if quota <= 0:
        return 0
    numbers = sorted(counts)
    taken = max(1, int(np.searchsorted(np.cumsum([counts[number] for number in numbers]), quota, side="right")))
    return ALL if taken >= len(numbers) else numbers[taken]
