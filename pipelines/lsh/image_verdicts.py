"""Decide on images: as `survivors` does on texts, by other measures.

Inside a component, images are taken in the order of the survivor policy. Each is compared with the kept ones that are
candidates, and removed in favour of the most similar one if that is similar enough: by its looks, or where none is, by
its caption. Images of the same bytes or the same pixels look alike: where one of them is kept the others go for it, and
where one has a twin by its looks the others have the same. Captions are each image's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa

from pipelines.core.identity import id_bytes
from pipelines.images.compare import COVERED, NOT_SIMILAR, compare
from pipelines.images.hashing import bit_count, share_band
from pipelines.images.views import wholes
from pipelines.lsh.captions import caption_similarity, gather_captions
from pipelines.lsh.components import flatten, union
from pipelines.lsh.config import DedupeConfig, ImageDedupeConfig
from pipelines.lsh.gather import gather_heads
from pipelines.lsh.image_pairs import Gathered, limits_of
from pipelines.lsh.method import HEAD, Decided, refuse_both
from pipelines.lsh.nodes import Nodes
from pipelines.lsh.survivors import first_of_content, policy_order

SAME_CAPTION, SAME_PIXELS = 3, 4  # how one was found, besides what `compare` says
_HEADS = (*HEAD, "pixel_hash", "width", "height", "bytes", "deviation", "hashes")


def decide(
    nodes: np.ndarray,
    component: np.ndarray,
    numbering: Nodes,
    config: DedupeConfig,
    views: np.ndarray,
    reasons: Sequence[str],
) -> Decided:
    """Decide on the candidates of whole components; reasons: of equal bytes, near, equal pixels, near but covered, and
    near by the caption.
    """
    heads = gather_heads(nodes, numbering, _HEADS)
    refuse_both(heads)
    columns = {
        "id": heads.column("id"),
        "source": heads.column("source"),
        "pixels": heads.column("width").to_numpy().astype(np.int64) * heads.column("height").to_numpy(),
        "bytes": heads.column("bytes").to_numpy(),
        "fixed": heads.column("fixed").to_numpy(zero_copy_only=False),
    }
    order = policy_order(columns, config.images.survivor, config.sources, component)
    heads, nodes, fixed = heads.take(pa.array(order)), nodes[order], columns["fixed"][order]
    first = _first_of_pixels(component[order], heads)
    kept, found, similarity, error, cluster, capped = _decide(
        component[order], fixed, *_looks(heads, nodes, first, numbering, config, views),
        gather_captions(nodes, numbering, config), views, limits_of(config),
        (wholes(views), config.images.candidate_distance, config.images.bucket_cap, config.within),
    )  # fmt: skip
    content = id_bytes(heads.column("content_hash"))
    bytes_equal = (content == content[np.maximum(kept, 0)]).all(axis=1)
    same = np.where(bytes_equal, 0, 2)
    reason = np.select([found == COVERED, found == SAME_CAPTION, found == SAME_PIXELS], [3, 4, same], 1)
    assert len(reasons) == 5
    return Decided(nodes, heads, kept, reason.astype(np.uint8), similarity, error, cluster, capped)


def featureless(index: pa.RecordBatch, config: ImageDedupeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which images are flat, and which are small: bool[n] each; they have exact copies only."""
    sides = np.minimum(index.column("width").to_numpy(), index.column("height").to_numpy())
    return index.column("deviation").to_numpy() < config.flat, sides < config.min_side


def _first_of_pixels(component: np.ndarray, heads: pa.RecordBatch) -> np.ndarray:
    """The first image of the same bytes, or of the same pixels as that one (decoders of other versions may differ)."""
    same_bytes = first_of_content(component, heads.column("content_hash"))
    return first_of_content(component, heads.column("pixel_hash").take(pa.array(same_bytes)))


def _looks(
    heads: pa.RecordBatch,
    nodes: np.ndarray,
    first: np.ndarray,
    numbering: Nodes,
    config: DedupeConfig,
    views: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """What images of different pixels look like.

    Returns the number of each image's looks, int64[n], then by that number the hashes of views, whether they take part,
    and what `compare` reads; with near=False nothing takes part, and nothing is read.
    """
    unique = np.flatnonzero(first == np.arange(len(first)))
    flat, small = featureless(heads, config.images)
    taking = ~(flat | small)[unique] & config.near
    hashes = heads.column("hashes").take(pa.array(unique)).flatten().to_numpy().reshape(len(unique), -1)
    read = nodes[unique] if config.near else nodes[:0]
    return np.searchsorted(unique, first), hashes, taking, Gathered(numbering, views).take(read)


@numba.njit(nogil=True, cache=True)
def are_candidates(a: np.ndarray, b: np.ndarray, whole: np.ndarray, distance: int) -> bool:
    """Whether the whole of one image shares a band with a view of the other, and these two hashes are close.

    a, b: uint64[views], hashes of their views. whole: bool[views], see `pipelines.images.views.wholes`.
    """
    for w in range(len(a)):
        if not whole[w]:
            continue
        for v in range(len(a)):
            for one, other in ((a[w], b[v]), (b[w], a[v])):
                if bit_count(one ^ other) <= distance and share_band(one, other):
                    return True
    return False


@numba.njit(nogil=True, cache=True)
def _decide(component, fixed, looks, hashes, taking, data, captions, views, limits, settings):  # type: ignore[no-untyped-def]
    whole, distance, cap, within = settings
    rows = len(component)
    kept, found = np.full(rows, -1, np.int64), np.zeros(rows, np.int64)
    similarity, error, cluster = np.zeros(rows), np.zeros(rows), np.arange(rows)
    stays, count, capped = np.empty(rows, np.int64), 0, np.int64(0)  # the kept images of this component
    same = np.full(len(hashes), -1, np.int64)  # by looks: one that is kept, or that was removed by its looks
    for i in range(rows):
        if i > 0 and component[i] != component[i - 1]:
            count = 0
        look, other = looks[i], same[looks[i]]
        if other >= 0 and (fixed[i] or kept[other] >= 0 or fixed[other] or within):
            union(cluster, i, other)
            if fixed[i]:
                continue
            if kept[other] >= 0:
                kept[i], found[i], similarity[i] = kept[other], found[other], similarity[other]
            else:
                kept[i], found[i], similarity[i] = other, SAME_PIXELS, 1.0
            continue
        met = 0
        for k in range(0 if fixed[i] else count):
            other = stays[k]
            by = looks[other]
            if taking[look] and taking[by] and are_candidates(hashes[look], hashes[by], whole, distance):
                met += 1
                if met <= cap:
                    how, value = compare(look, by, data, views, limits)
                    if how != NOT_SIMILAR:
                        union(cluster, i, other)
                        if found[i] in (NOT_SIMILAR, SAME_CAPTION) or value > similarity[i]:
                            kept[i], similarity[i], error[i], found[i] = other, value, 0.0, how
            value, uncertain = caption_similarity(captions, i, other)
            if value >= captions.threshold:
                union(cluster, i, other)
                if found[i] == NOT_SIMILAR or (found[i] == SAME_CAPTION and value > similarity[i]):
                    kept[i], similarity[i], error[i], found[i] = other, value, uncertain, SAME_CAPTION
        capped += max(0, met - cap)
        if found[i] != SAME_CAPTION:
            same[look] = i
        if kept[i] < 0 and (fixed[i] or within):
            stays[count] = i
            count += 1
    return kept, found, similarity, error, flatten(cluster), capped
