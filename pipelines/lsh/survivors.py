"""Choose survivors: in a fixed order, a document is removed only for one already kept that is measured to be similar.

Inside a component of candidates, documents are taken in the order of the survivor policy. Each is compared with the
kept documents that share a band with it, and removed in favour of the most similar one if that is similar enough; else
it is kept. So nothing is removed along a chain: whoever is removed names a kept twin. Of documents of the same content
only the first is compared; what holds for it holds for its copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.core.identity import id_bytes
from pipelines.lsh.components import flatten, union
from pipelines.text.minhash import jaccard

POLICIES = ("source", "length", "date")
IMAGE_POLICIES = ("source", "pixels", "bytes")
_LARGEST_FIRST = ("length", "pixels", "bytes")


class Candidates(NamedTuple):
    """The candidate documents of whole components, of different contents, in the order of (component, policy).

    buckets: int64[n, bands], a dense number for each (band, hash) that occurs; -1 where a document has no shingle.
    bucket_count: how many numbers there are. sketch_values, sketch_offsets: bottom-k sketches. counts: uint32[n],
    distinct shingles. fixed: bool[n], documents that stay, whatever they are like.
    """

    buckets: np.ndarray
    bucket_count: int
    sketch_values: np.ndarray
    sketch_offsets: np.ndarray
    counts: np.ndarray
    fixed: np.ndarray


class Verdicts(NamedTuple):
    """kept: int64[n], position of the kept twin, or -1 for a kept document. exact: bool[n], the content is equal.

    similarity, error: float64[n] to that twin. cluster: int64[n], smallest position of the documents joined by verified
    similarity. capped: comparisons that the cap on a bucket left out.
    """

    kept: np.ndarray
    exact: np.ndarray
    similarity: np.ndarray
    error: np.ndarray
    cluster: np.ndarray
    capped: int


def policy_order(
    columns: dict[str, Any], policy: Sequence[str], sources: Sequence[str], component: np.ndarray
) -> np.ndarray:
    """Order documents by component, then by the survivor policy, then by id: the first of a component is always kept.

    columns: 'source' and 'id' as Arrow arrays, the others as numeric arrays (date NaN where unknown).
    policy: names of 'source' (the order of `sources`, others after them), 'length', 'pixels', 'bytes' (most first),
    'date' (earliest first, unknown last). Ties break by id. Documents that are fixed (column 'fixed', bool) come before
    all others.
    """
    keys: list[np.ndarray] = [component, ~columns["fixed"]]
    for name in policy:
        if name == "source":
            rank = {source: i for i, source in enumerate(sources)}
            coded = columns["source"].dictionary_encode()
            ranks = np.array([rank.get(source, len(rank)) for source in coded.dictionary.to_pylist()], np.int64)
            keys.append(ranks[coded.indices.to_numpy()])
        elif name in _LARGEST_FIRST:
            keys.append(-columns[name].astype(np.int64))
        elif name == "date":
            keys.append(np.nan_to_num(columns["date"], nan=np.inf))
        else:
            known = dict.fromkeys((*POLICIES, *IMAGE_POLICIES))
            raise ValueError(f"unknown survivor policy {name!r}; known: {', '.join(known)}")
    words = np.ascontiguousarray(id_bytes(columns["id"])).view(">u8").reshape(-1, 2)
    keys += [words[:, 0], words[:, 1]]
    return np.lexsort(keys[::-1])


def first_of_content(component: np.ndarray, content: pa.Array) -> np.ndarray:
    """Find the first document of the same content in the same component: int64[n], positions.

    component: int64[n]. content: content hashes, fixed_size_binary[16].
    """
    words = np.ascontiguousarray(id_bytes(content)).view("<u8").reshape(-1, 2)
    order = np.lexsort([words[:, 1], words[:, 0], component])  # stable: positions ascend within a content
    keys = np.column_stack([component[order].view(np.uint64), words[order]])
    new = np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]) if len(order) else np.zeros(0, bool)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


def dense_buckets(hashes: np.ndarray, empty: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the (band, hash) pairs that occur: int64[n, bands] and how many there are.

    hashes: uint64[bands, n]. empty: bool[n], documents without shingles.
    """
    bands, rows = hashes.shape
    buckets = np.full((rows, bands), -1, np.int64)
    total = 0
    for band in range(bands):
        _, dense = np.unique(hashes[band], return_inverse=True)
        buckets[:, band] = np.where(empty, -1, dense + total)
        total += int(dense.max(initial=-1)) + 1
    return buckets, total


def decide(candidates: Candidates, threshold: float, sketch_size: int, cap: int, *, within: bool = True) -> Verdicts:
    """Decide on every candidate: it goes where a kept one that shares a bucket is similar enough, the most similar one.

    threshold: least Jaccard similarity to a kept document for a removal. sketch_size: k of the sketches. cap: most kept
    documents of one bucket that a document is compared with (the first kept ones); the rest is counted as capped.
    within: compare with kept documents that are not fixed, too.
    """
    verdicts = _decide(*candidates, threshold, sketch_size, cap, within)
    return Verdicts(verdicts[0], np.zeros(len(verdicts[0]), np.bool_), *verdicts[1:])


def spread(verdicts: Verdicts, unique: np.ndarray, first: np.ndarray, fixed: np.ndarray, *, within: bool) -> Verdicts:
    """Extend the verdicts on the first document of each content to its copies.

    unique: int64[u], positions of the documents that were decided on. first: int64[n], see `first_of_content`. fixed:
    bool[n]. A copy goes in favour of the first one where that is kept, else of the one that the first went for. With
    within=False it goes only where that one is fixed.
    """
    rows = len(first)
    number = np.full(rows, -1, np.int64)
    number[unique] = np.arange(len(unique))
    of = number[first]
    kept = np.where(verdicts.kept >= 0, unique[verdicts.kept], -1)[of] if len(unique) else np.full(rows, -1)
    similarity, error = verdicts.similarity[of], verdicts.error[of]
    copy = (first != np.arange(rows)) & ~fixed
    exact = copy & (kept < 0) & (fixed[first] | within)
    kept[exact], similarity[exact], error[exact] = first[exact], 1.0, 0.0
    kept[fixed], similarity[fixed], error[fixed] = -1, 0.0, 0.0
    joined = exact | (kept >= 0) | fixed | within
    cluster = np.where(joined, unique[verdicts.cluster][of], np.arange(rows))
    return Verdicts(kept, exact, similarity, error, cluster, verdicts.capped)


@numba.njit(nogil=True, cache=True)
def _decide(buckets, bucket_count, values, offsets, counts, fixed, threshold, k, cap, within):  # type: ignore[no-untyped-def]
    rows, columns = buckets.shape
    kept = np.full(rows, -1, np.int64)
    similarity, error = np.zeros(rows), np.zeros(rows)
    cluster, seen = np.arange(rows), np.full(rows, -1, np.int64)
    # Per bucket a linked list of its kept documents, in the order in which they were kept.
    head, tail = np.full(bucket_count, -1, np.int64), np.full(bucket_count, -1, np.int64)
    following = np.full(rows * columns, -1, np.int64)
    size = np.zeros(bucket_count, np.int64)  # of its kept documents; only the first `cap` of them are in the list
    capped = 0
    for i in range(rows):
        best, best_similarity, best_error = -1, -1.0, 0.0
        for band in range(columns):
            if buckets[i, band] < 0 or fixed[i]:
                continue
            slot = head[buckets[i, band]]
            capped += max(0, size[buckets[i, band]] - cap)
            while slot >= 0:
                other = slot // columns
                slot = following[slot]
                if seen[other] == i:
                    continue
                seen[other] = i
                s, e = jaccard(
                    values[offsets[i] : offsets[i + 1]],
                    counts[i],
                    values[offsets[other] : offsets[other + 1]],
                    counts[other],
                    k,
                )
                if s >= threshold:
                    union(cluster, i, other)
                    if s > best_similarity or (s == best_similarity and other < best):
                        best, best_similarity, best_error = other, s, e
        if best >= 0:
            kept[i], similarity[i], error[i] = best, best_similarity, best_error
            continue
        if not (fixed[i] or within):
            continue
        for band in range(columns):
            bucket = buckets[i, band]
            if bucket < 0:
                continue
            size[bucket] += 1
            if size[bucket] > cap:
                continue
            if head[bucket] < 0:
                head[bucket] = i * columns + band
            else:
                following[tail[bucket]] = i * columns + band
            tail[bucket] = i * columns + band
    return kept, similarity, error, flatten(cluster), capped
