"""From buckets of hashes to pairs of images that resemble each other, in memory that does not grow with the buckets.

The pairs of a bucket whose hashes are close are gathered a few thousand at a time, their thumbnails read from the
index, and looked at. Two images that are already connected inside the group are not looked at again: the components are
the same. In a bucket of more than the cap, hashes are sorted, and each is compared with those that stand next to it.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from pipelines.core.shards import batches_with
from pipelines.images.compare import Limits, coarse_views, resemble
from pipelines.images.hashing import BAND_BITS, WORDS, bit_count
from pipelines.images.views import read_only, wholes
from pipelines.lsh.components import find, union
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.gather import id_words
from pipelines.lsh.method import Linked
from pipelines.lsh.nodes import Nodes
from schemas.image import THUMBNAIL_SIDE

VIEW_BITS = 8  # of an entry of a bucket: node number × 256 + view
_PAIRS = 8192  # looked at together
_HELD = 2 * _PAIRS  # images that are in memory at once: 4 kB each, and as much again for their views


class Gathered:
    """What images are compared by, read from the index by node number."""

    def __init__(self, numbering: Nodes, views: np.ndarray) -> None:
        self._numbering, self._views = numbering.kept_open(), views

    def take(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Read thumbnails uint8[n, 4096] and fine hashes uint64[n, 4], and make both arrays of `coarse_views`."""
        thumbnails = np.empty((len(nodes), THUMBNAIL_SIDE**2), np.uint8)
        fine = np.empty((len(nodes), WORDS), np.uint64)
        for shard, where, rows in self._numbering.by_shard(nodes):
            for batch, inside, taken in batches_with(shard.open(), rows):
                thumbnails[where[inside]] = thumbnail_values(batch.column("thumbnail"))[taken]
                fine[where[inside]] = batch.column("fine_hash").flatten().to_numpy().reshape(-1, WORDS)[taken]
        return read_only(thumbnails), fine, *coarse_views(thumbnails, self._views)


def thumbnail_values(column: pa.Array) -> np.ndarray:
    """View a column of thumbnails as uint8[n, 4096], without copying."""
    size = THUMBNAIL_SIDE**2
    raw = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.empty(0, np.uint8)
    return raw[column.offset * size : (column.offset + len(column)) * size].reshape(-1, size)


def limits_of(config: DedupeConfig) -> Limits:
    """What a copy must reach, of a configuration."""
    images = config.images
    return Limits(images.correlation, images.local_change, images.hash_distance, images.uncovered)


def near_edges(
    keys: np.ndarray, entries: np.ndarray, numbering: Nodes, config: DedupeConfig, views: np.ndarray
) -> Linked:
    """Look at the pairs in the buckets of one range of a band.

    keys: uint64[n], hashes of views, turned so that the band is the upper 16 bits. entries: int64[n], node × 256 +
    view.
    """
    order = np.lexsort([entries, keys])
    keys, entries = keys[order], entries[order]
    starts = np.flatnonzero(np.concatenate([[True], _buckets(keys[1:]) != _buckets(keys[:-1])]))
    sizes, cap = np.diff(np.append(starts, len(keys))), config.images.bucket_cap
    for bucket in np.flatnonzero(sizes > cap):  # the place among equal hashes must not depend on the node numbers
        part = slice(starts[bucket], starts[bucket] + sizes[bucket])
        keys[part], entries[part] = _by_id(keys[part], entries[part], numbering)
    nodes, own = np.unique(entries >> VIEW_BITS, return_inverse=True)
    fixed, parent = numbering.fixed(nodes), np.arange(len(nodes))
    whole = wholes(views)[entries & ((1 << VIEW_BITS) - 1)]
    ends = np.repeat(np.append(starts, len(keys))[1:], sizes)
    begins = np.repeat(starts, sizes)
    gathered, limits = Gathered(numbering, views), limits_of(config)
    place = np.array([0, -1, 0], np.int64)  # where to go on: entry, the one compared with; comparisons left out
    pairs, edges, compared = np.empty((_PAIRS, 2), np.int64), [], 0
    settings = (config.images.candidate_distance, cap, config.within)
    every = gathered.take(nodes) if len(nodes) <= _HELD else None
    while count := _close_pairs(keys, own, whole, fixed, begins, ends, parent, settings, place, pairs):
        both = np.unique(
            pairs[:count, 0] * len(nodes) + pairs[:count, 1]
        )  # as one number: rows would take 5 times longer
        some = np.column_stack(np.divmod(both, len(nodes)))
        if every is not None:
            found, looked = _join(some, some, every, limits, parent)
        else:
            members, local = np.unique(some, return_inverse=True)
            found, looked = _join(some, local.reshape(-1, 2), gathered.take(nodes[members]), limits, parent)
        edges.append(some[found])
        compared += looked
    joined = nodes[np.concatenate(edges)] if edges else np.empty((0, 2), np.int64)
    shared = sizes > 1
    facts = {"pairs_compared": compared, "capped_comparisons": int(place[2])}
    return Linked(joined[:, 0].copy(), joined[:, 1].copy(), sizes[shared], entries[starts[shared]] >> VIEW_BITS, facts)


def _buckets(keys: np.ndarray) -> np.ndarray:
    return keys >> np.uint64(64 - BAND_BITS)


def _by_id(keys: np.ndarray, entries: np.ndarray, numbering: Nodes) -> tuple[np.ndarray, np.ndarray]:
    nodes, own = np.unique(entries >> VIEW_BITS, return_inverse=True)
    words = id_words(nodes, numbering)
    order = np.lexsort([entries & ((1 << VIEW_BITS) - 1), words[own, 1], words[own, 0], keys])
    return keys[order], entries[order]


@numba.njit(nogil=True, cache=True)
def _close_pairs(keys, own, whole, fixed, begins, ends, parent, settings, place, out):  # type: ignore[no-untyped-def]
    """Fill `out` with pairs to compare, smaller number first, and say how many; 0 once there are none left.

    A pair is a whole image and any view of another one in its bucket whose hashes are close. Goes on at `place`.
    """
    distance, cap, within = settings
    count = 0
    for i in range(place[0], len(keys)):
        if not whole[i]:
            continue
        first, last = max(begins[i], i - cap), min(ends[i], i + cap + 1)
        j = first
        if place[1] >= 0:
            j, place[1] = place[1], -1
        else:
            place[2] += ends[i] - begins[i] - (last - first)
        a, fixed_a = own[i], fixed[own[i]]
        while j < last:
            b = own[j]
            if (
                bit_count(keys[i] ^ keys[j]) <= distance
                and a != b
                and not (whole[j] and j < i)  # that one has met this one
                and not (fixed_a and fixed[b])
                and (within or fixed_a or fixed[b])
                and find(parent, a) != find(parent, b)
            ):
                if count == len(out):
                    place[0], place[1] = i, j
                    return count
                out[count, 0], out[count, 1] = min(a, b), max(a, b)
                count += 1
            j += 1
    place[0] = len(keys)
    return count


@numba.njit(nogil=True, cache=True)
def _join(pairs, rows, data, limits, parent):  # type: ignore[no-untyped-def]
    """Look at pairs that are not connected yet; connect those that resemble. Returns which, bool[n], and how many."""
    found, looked = np.zeros(len(pairs), np.bool_), 0
    for k in range(len(pairs)):
        if find(parent, pairs[k, 0]) != find(parent, pairs[k, 1]):
            looked += 1
            if resemble(rows[k, 0], rows[k, 1], data, limits):
                union(parent, pairs[k, 0], pairs[k, 1])
                found[k] = True
    return found, looked
