"""Choose survivors: in a fixed order, a document is removed only for one already kept that is measured to be similar.

Inside a component of candidates, documents are taken in the order of the survivor policy. Each is compared with the
kept documents that share a band with it (or its content hash), and removed in favour of the most similar one if that is
similar enough; else it is kept. So nothing is removed along a chain: whoever is removed names a kept twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.core.components import flatten, union
from pipelines.core.identity import id_bytes
from pipelines.text.minhash import jaccard

POLICIES = ("source", "length", "date")


class Candidates(NamedTuple):
    """The candidate documents of whole components, in the order of (component, policy).

    component: int64[n], ascending. buckets: int64[n, bands + 1], a dense number for each (band, hash) that occurs; the
    last column is the content hash; -1 where a document has no shingle. sketch_values, sketch_offsets: bottom-k
    sketches. counts: uint32[n], distinct shingles.
    """

    component: np.ndarray
    buckets: np.ndarray
    bucket_count: int
    sketch_values: np.ndarray
    sketch_offsets: np.ndarray
    counts: np.ndarray


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

    columns: 'source' and 'id' as Arrow arrays, 'length' and 'date' as numeric arrays (date NaN where unknown).
    policy: names of 'source' (the order of `sources`, others after them), 'length' (longest first), 'date' (earliest
    first, unknown last). Ties break by id.
    """
    keys: list[np.ndarray] = [component]
    for name in policy:
        if name == "source":
            rank = {source: i for i, source in enumerate(sources)}
            keys.append(np.array([rank.get(source, len(rank)) for source in columns["source"].to_pylist()]))
        elif name == "length":
            keys.append(-columns["length"].astype(np.int64))
        elif name == "date":
            keys.append(np.nan_to_num(columns["date"], nan=np.inf))
        else:
            raise ValueError(f"unknown survivor policy {name!r}; known: {', '.join(POLICIES)}")
    words = np.ascontiguousarray(id_bytes(columns["id"])).view(">u8").reshape(-1, 2)
    keys += [words[:, 0], words[:, 1]]
    return np.lexsort(keys[::-1])


def dense_buckets(hashes: np.ndarray, content: pa.Array, empty: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the (band, hash) pairs that occur: int64[n, bands + 1] and how many there are.

    hashes: uint64[bands, n]. content: content hashes, fixed_size_binary[16]. empty: bool[n], documents without
    shingles.
    """
    bands, rows = hashes.shape
    buckets = np.full((rows, bands + 1), -1, np.int64)
    total = 0
    for band in range(bands):
        _, dense = np.unique(hashes[band], return_inverse=True)
        buckets[:, band] = np.where(empty, -1, dense + total)
        total += int(dense.max(initial=-1)) + 1
    _, dense = np.unique(id_bytes(content), axis=0, return_inverse=True)
    buckets[:, bands] = dense.reshape(-1) + total
    return buckets, total + int(dense.max(initial=-1)) + 1


def decide(candidates: Candidates, threshold: float, sketch_size: int, cap: int) -> Verdicts:
    """Decide on every candidate.

    threshold: least Jaccard similarity to a kept document for a removal. sketch_size: k of the sketches. cap: most kept
    documents of one bucket that a document is compared with (the first kept ones); the rest is counted as capped.
    """
    return Verdicts(*_decide(*candidates, threshold, sketch_size, cap))


@numba.njit(nogil=True, cache=True)
def _decide(component, buckets, bucket_count, values, offsets, counts, threshold, k, cap):  # type: ignore[no-untyped-def]
    rows, columns = buckets.shape
    kept, exact = np.full(rows, -1, np.int64), np.zeros(rows, np.bool_)
    similarity, error = np.zeros(rows), np.zeros(rows)
    cluster, seen = np.arange(rows), np.full(rows, -1, np.int64)
    # Per bucket a linked list of its kept documents, in the order in which they were kept.
    head, tail = np.full(bucket_count, -1, np.int64), np.full(bucket_count, -1, np.int64)
    following = np.full(rows * columns, -1, np.int64)
    size = np.zeros(bucket_count, np.int64)  # of its kept documents; only the first `cap` of them are in the list
    capped = 0
    for i in range(rows):
        twin = head[buckets[i, columns - 1]]
        if twin >= 0:
            kept[i], exact[i], similarity[i] = twin // columns, True, 1.0
            union(cluster, i, kept[i])
            continue
        best, best_similarity, best_error = -1, -1.0, 0.0
        for band in range(columns - 1):
            if buckets[i, band] < 0:
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
    return kept, exact, similarity, error, flatten(cluster), capped
