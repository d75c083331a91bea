"""Captions as a second reason why two images are duplicates: MinHash bands and Jaccard, as for texts.

Off by default: two pictures of one caption need not be copies. Where it is on, captions that are similar join the graph
of candidates, and an image that has no kept twin by its looks goes for one that has nearly its caption. As with looks,
pairs are compared where their bucket is, so that a sentence that thousands begin with does not connect them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lsh.components import find, union
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.gather import gather_heads, gather_signed, id_words
from pipelines.lsh.method import Linked
from pipelines.lsh.nodes import Nodes
from pipelines.lsh.sign import signature_columns
from pipelines.text.minhash import band_hashes, jaccard
from schemas.fingerprint import CAPTION


class Captions(NamedTuple):
    """What captions are compared by; the arrays of one image follow those of another.

    hashes: uint64[n, bands]. counts: uint32[n], distinct shingles, 0 where a caption takes no part. values, offsets:
    bottom-k sketches. threshold: least Jaccard similarity. size: k.
    """

    hashes: np.ndarray
    counts: np.ndarray
    values: np.ndarray
    offsets: np.ndarray
    threshold: float
    size: int


def joined(config: DedupeConfig) -> bool:
    """Whether captions take part."""
    return config.near and config.images.captions.join


def permutations(config: DedupeConfig) -> int:
    """The length of the signatures in the index; 0 where captions take no part."""
    return config.minhash.num_perm if joined(config) else 0


def signed_captions(captions: pa.Array, config: DedupeConfig) -> dict[str, pa.Array]:
    """Make the columns of the index for a column of captions, with nulls; none where captions take no part."""
    if not joined(config):
        return {}
    settings = config.images.captions
    columns = signature_columns(pc.fill_null(captions, ""), settings.shingle_size, config)
    counts = columns["shingle_count"]
    columns["shingle_count"] = pc.if_else(pc.less(counts, settings.least_shingles), pa.scalar(0, counts.type), counts)
    return {f"{CAPTION}{name}": column for name, column in columns.items()}


def caption_buckets(
    index: pa.RecordBatch, start: int, here: np.ndarray, bands: range, config: DedupeConfig
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the band of captions, from 0, and the hashes and nodes that index rows put into its buckets."""
    rows = np.flatnonzero(here & (index.column(f"{CAPTION}shingle_count").to_numpy() > 0))
    if not len(rows) or not len(bands):
        return
    signatures = index.column(f"{CAPTION}signature").flatten().to_numpy().reshape(len(index), -1)[rows]
    minhash = config.minhash
    hashes = band_hashes(signatures, minhash.bands, minhash.rows, bands.start, bands.stop)
    for band, of_band in zip(bands, hashes, strict=True):
        yield band, of_band, start + rows


def gather_captions(nodes: np.ndarray, numbering: Nodes, config: DedupeConfig) -> Captions:
    """Read what the captions of some images are compared by; nothing where captions take no part."""
    settings, minhash = config.images.captions, config.minhash
    if not joined(config):
        none = np.zeros(0, np.uint32)
        hashes, offsets = np.zeros((len(nodes), 0), np.uint64), np.zeros(len(nodes) + 1, np.int64)
        return Captions(hashes, np.zeros(len(nodes), np.uint32), none, offsets, settings.threshold, minhash.sketch_size)
    column = f"{CAPTION}shingle_count"
    counts = gather_heads(nodes, numbering, [column]).column(column).to_numpy()
    signed = gather_signed(nodes, numbering, minhash.num_perm, CAPTION)
    hashes = np.ascontiguousarray(band_hashes(signed.signatures, minhash.bands, minhash.rows, 0, minhash.all_bands).T)
    return Captions(hashes, counts, signed.values, signed.offsets, settings.threshold, minhash.sketch_size)


@numba.njit(nogil=True, cache=True)
def caption_similarity(captions: Any, a: int, b: int) -> tuple[float, float]:
    """Jaccard similarity of two captions that share a band, and its error; (0, 0) where they do not."""
    hashes, counts, values, offsets = captions.hashes, captions.counts, captions.values, captions.offsets
    if counts[a] == 0 or counts[b] == 0:
        return 0.0, 0.0
    for band in range(hashes.shape[1]):
        if hashes[a, band] == hashes[b, band]:
            one, other = values[offsets[a] : offsets[a + 1]], values[offsets[b] : offsets[b + 1]]
            return jaccard(one, counts[a], other, counts[b], captions.size)
    return 0.0, 0.0


def caption_edges(hashes: np.ndarray, nodes: np.ndarray, numbering: Nodes, config: DedupeConfig) -> Linked:
    """Compare the captions in the buckets of one range of a band; hashes: uint64[n], nodes: int64[n]."""
    order = np.lexsort([nodes, hashes])
    hashes, nodes = hashes[order], nodes[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    sizes, cap = np.diff(np.append(starts, len(nodes))), config.images.bucket_cap
    for bucket in np.flatnonzero(sizes > cap):  # who is compared with whom must not depend on the node numbers
        part = slice(starts[bucket], starts[bucket] + sizes[bucket])
        words = id_words(nodes[part], numbering)
        nodes[part] = nodes[part][np.lexsort([words[:, 1], words[:, 0]])]
    shared = sizes > 1
    members, own = np.unique(nodes, return_inverse=True)
    captions = gather_captions(members, numbering, config)
    settings = (cap, config.within)
    pairs, compared, capped = _similar(starts[shared], sizes[shared], own, numbering.fixed(members), captions, settings)
    facts = {"captions_compared": compared, "capped_comparisons": capped}
    left, right = (members[column] for column in pairs.T)
    return Linked(left, right, sizes[shared], nodes[starts[shared]], facts)


@numba.njit(nogil=True, cache=True)
def _similar(starts, sizes, own, fixed, captions, settings):  # type: ignore[no-untyped-def]
    """Pairs that connect all that are similar, int64[m, 2], how many were compared, and what the cap left out."""
    cap, within = settings
    parent = np.arange(len(fixed))
    pairs, count = np.empty((len(fixed), 2), np.int64), 0  # each joins two trees: there are fewer than images
    compared, capped = 0, np.int64(0)
    for k in range(len(starts)):
        for i in range(starts[k] + 1, starts[k] + sizes[k]):
            a, first = own[i], max(starts[k], i - cap)
            capped += first - starts[k]
            for j in range(first, i):
                b = own[j]
                if (fixed[a] and fixed[b]) or not (within or fixed[a] or fixed[b]):
                    continue
                if find(parent, a) == find(parent, b):
                    continue
                compared += 1
                if caption_similarity(captions, a, b)[0] >= captions.threshold:
                    union(parent, a, b)
                    pairs[count, 0], pairs[count, 1] = min(a, b), max(a, b)
                    count += 1
    return pairs[:count].copy(), compared, capped
