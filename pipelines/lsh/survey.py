"""What an output of dedupe says: removals beside the records kept for them, clusters, which of these are boilerplate.

Columnar: ids are compared as 16-byte strings (`id_keys`), source names as small numbers. Python's loops run over
batches and over large clusters, never over documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset
from pipelines.core.identity import ID_BYTES, id_bytes
from pipelines.core.shards import take_rows
from schemas.base import SchemaError
from schemas.ledger import REMOVED

INDEX, CLUSTERS = "index", "clusters"
_SAMPLE = 64  # members of a cluster whose sketches tell what its members share; the smallest ids: a uniform choice
_GATHERED = 256  # clusters whose sketches are in memory at once: at most 256 × 64 × 4 kB
_HELD = 0.9  # share of the members that hold a shingle of the core


@dataclass(frozen=True)
class Boilerplate:
    """When a cluster is boilerplate: it has at least `members` members, and one of two things is measured.

    'short': the median member has fewer than `shingles` distinct shingles (about as many words, or Chinese characters).
    'template': the core (the shingles that 90 % of the members hold) is at least the share `core` of the median
    member's shingles, and at least the share `own` of the members have a content that no other member has: one form,
    filled in anew each time, and not one page many times. The defaults were set on English Wikipedia, product manuals
    in five versions, and Chinese poems: there, clusters of 8 and more are templates, and those of versions are smaller.
    """

    members: int = 8
    shingles: int = 100
    core: float = 0.7
    own: float = 0.5

    def kind(self, size: int, shingles: float, core: float, own: float) -> str:
        """Name the kind of boilerplate, or '' for a cluster that is none."""
        if size < self.members:
            return ""
        if shingles < self.shingles:
            return "short"
        return "template" if core >= self.core and own >= self.own else ""


class Removals(NamedTuple):
    """The removed records, one row each, sorted by id.

    id, kept_id: S16. source, kept_source: int32, positions in the names of the survey; kept_source is -1 where no index
    holds the kept record. length: int64, characters. exact: bool, the content is equal. similarity, error: float64.
    """

    id: np.ndarray
    kept_id: np.ndarray
    source: np.ndarray
    kept_source: np.ndarray
    length: np.ndarray
    exact: np.ndarray
    similarity: np.ndarray
    error: np.ndarray


class Members(NamedTuple):
    """The members of the chosen clusters that the index holds, sorted by (cluster, id).

    cluster: int64, position in the survey's clusters. id, content: S16. source: int32. length, shingles: int64.
    shard, row: int64, where the member stands in the index.
    """

    cluster: np.ndarray
    id: np.ndarray
    content: np.ndarray
    source: np.ndarray
    length: np.ndarray
    shingles: np.ndarray
    shard: np.ndarray
    row: np.ndarray


class Outside(NamedTuple):
    """Where the kept records stand that this index does not hold, sorted by id; those found nowhere are left out.

    id: S16. other: int64, position among the others of the survey. shard, row: int64, in that one's `table_of`.
    """

    id: np.ndarray
    other: np.ndarray
    shard: np.ndarray
    row: np.ndarray


class Survey(NamedTuple):
    """Everything that the report is made of.

    names: of the sources. documents, characters: int64[len(names)] of the index. cluster_id: S16, sorted; size: int64.
    chosen: positions of the clusters whose members were gathered, the largest first.
    """

    names: list[str]
    documents: np.ndarray
    characters: np.ndarray
    removals: Removals
    cluster_id: np.ndarray
    size: np.ndarray
    chosen: np.ndarray
    members: Members
    outside: Outside


class Facts(NamedTuple):
    """What is measured of one cluster.

    members: slice of the survey's members. kept: bool of them. similarity: least and greatest of its removals (NaN
    where none is in this ledger). shingles, length: medians. core, own: shares of the members that the index holds, see
    Boilerplate; an exact copy of a record outside has no content of its own. kind: '' or the kind of boilerplate.
    """

    cluster: int
    members: slice
    kept: np.ndarray
    similarity: tuple[float, float]
    shingles: float
    length: float
    core: float
    own: float
    kind: str


def id_keys(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """View ids as numpy's S16, which compares all 16 bytes (printing drops trailing NULs: see `key_bytes`)."""
    return np.ascontiguousarray(id_bytes(ids)).view(f"S{ID_BYTES}").reshape(-1)


def key_bytes(key: np.bytes_) -> bytes:
    """The 16 bytes of one key."""
    return bytes(key).ljust(ID_BYTES, b"\0")


def find(wanted: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Look keys up in `wanted`, sorted and distinct: int64 positions, -1 where a key is not among them."""
    if not len(wanted):
        return np.full(len(keys), -1)
    at = np.searchsorted(wanted, keys)
    at[at == len(wanted)] = 0
    return np.where(wanted[at] == keys, at, -1)


class _Names:
    """Numbers for source names, in the order of their appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def codes(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        coded = array.dictionary_encode()
        known = [self.numbers.setdefault(name, len(self.numbers)) for name in coded.dictionary.to_pylist()]
        return np.array(known, np.int32)[coded.indices.to_numpy()]


def require_texts(dedupe: Dataset) -> Dataset:
    """Return an output of dedupe; SchemaError where it has no index, or one of images."""
    for key in dedupe.require(INDEX).keys(INDEX)[:1]:
        if "shingle_count" not in dedupe.open_shard(INDEX, key).schema.names:
            raise SchemaError(
                f"{files.redact(dedupe.roots[0])} is about images: `gristmill sheet` shows its duplicates"
            )
    return dedupe


def survey(dedupe: Dataset, others: Sequence[Dataset] = (), top: int = 20, least: int = 8) -> Survey:
    """Read an output of dedupe: one pass over its ledger and clusters, and one over a few columns of its index.

    others: what dedupe was run --against: outputs of dedupe or documents that may hold the kept records. top: so many
    of the largest clusters are chosen, and all those of at least `least` members. In memory: about 130 bytes a removed
    record, 50 a member of a cluster, 100 more a member of a chosen one. SchemaError where there is no index of texts.
    """
    require_texts(dedupe)
    names = _Names()
    removals = _read_removals(dedupe, names)
    member_id, cluster, cluster_id, size = _read_clusters(dedupe)
    order = np.lexsort([np.arange(len(size)), -size])
    chosen = order[: max(top, int((size >= least).sum()))]
    wanted = np.zeros(len(size), bool)
    wanted[chosen] = True
    member_id, cluster = member_id[wanted[cluster]], cluster[wanted[cluster]]
    kept, at_kept = np.unique(removals.kept_id, return_inverse=True)
    kept_source = np.full(len(kept), -1, np.int32)
    documents, characters = np.zeros(0, np.int64), np.zeros(0, np.int64)
    parts: list[tuple[np.ndarray, ...]] = []
    for part in _index(dedupe, names):
        documents = _added(documents, np.bincount(part.source))
        characters = _added(characters, np.bincount(part.source, part.length).astype(np.int64))
        _note(kept, kept_source, part.id, part.source)
        gone = find(removals.id, part.id)
        removals.length[gone[gone >= 0]] = part.length[gone >= 0]
        member = find(member_id, part.id)
        parts.append((cluster[member[member >= 0]], *(column[member >= 0] for column in part)))
    outside = _look_outside(others, names, kept, kept_source)
    columns = [np.concatenate(values) for values in zip(*parts, strict=True)] if parts else [np.zeros(0, np.int64)] * 8
    by_cluster = np.lexsort([columns[1], columns[0]])
    total = len(names.numbers)
    return Survey(
        list(names.numbers),
        _added(documents, np.zeros(total, np.int64)),
        _added(characters, np.zeros(total, np.int64)),
        removals._replace(kept_source=kept_source[at_kept]),
        cluster_id,
        size,
        chosen,
        Members(*(column[by_cluster] for column in columns)),
        outside,
    )


def table_of(other: Dataset) -> str:
    """The table that tells of the records of what dedupe was run --against; SchemaError where it has none."""
    if other.has(INDEX):
        return INDEX
    other.require(DOCUMENTS)
    return DOCUMENTS


def _look_outside(others: Sequence[Dataset], names: _Names, kept: np.ndarray, kept_source: np.ndarray) -> Outside:
    """Find the kept records that have no source yet: writes their sources, and returns where they stand."""
    rows = np.flatnonzero(kept_source < 0)
    wanted, place = kept[rows], np.full((len(rows), 3), -1)
    for number, other in enumerate(others):
        table = table_of(other)
        for shard, key in enumerate(other.keys(table)):
            start = 0
            for batch in other.batches(table, key, ["id", "source"]):
                at = find(wanted, id_keys(batch.column("id")))
                held = np.flatnonzero(at >= 0)
                kept_source[rows[at[held]]] = names.codes(batch.column("source"))[held]
                place[at[held]] = np.column_stack([np.broadcast_to([number, shard], (len(held), 2)), start + held])
                start += len(batch)
    found = place[:, 0] >= 0
    return Outside(wanted[found], *place[found].T)


class _Part(NamedTuple):
    """Rows of an index; the order of the columns is that of Members."""

    id: np.ndarray
    content: np.ndarray
    source: np.ndarray
    length: np.ndarray
    shingles: np.ndarray
    shard: np.ndarray
    row: np.ndarray


def _index(dataset: Dataset, names: _Names) -> Iterator[_Part]:
    columns = ["id", "content_hash", "source", "length", "shingle_count"]
    for number, key in enumerate(dataset.keys(INDEX)):
        start = 0
        for batch in dataset.batches(INDEX, key, columns):
            rows = start + np.arange(len(batch))
            yield _Part(
                id_keys(batch.column("id")),
                id_keys(batch.column("content_hash")),
                names.codes(batch.column("source")),
                batch.column("length").to_numpy().astype(np.int64),
                batch.column("shingle_count").to_numpy().astype(np.int64),
                np.full(len(batch), number),
                rows,
            )
            start += len(batch)


def _note(kept: np.ndarray, kept_source: np.ndarray, keys: np.ndarray, source: np.ndarray) -> None:
    at = find(kept, keys)
    kept_source[at[at >= 0]] = source[at >= 0]


def _added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _read_removals(dedupe: Dataset, names: _Names) -> Removals:
    columns = ["id", "kept_id", "source", "reason", "similarity", "similarity_error"]
    parts = []
    for key in dedupe.keys(LEDGER_TABLE):
        table = dedupe.table(LEDGER_TABLE, key, [*columns, "action"])
        rows = table.filter(pc.and_(pc.equal(table["action"], REMOVED), pc.is_valid(table["kept_id"])))
        exact = pc.starts_with(rows["reason"], "exact").to_numpy()
        measured = [rows[name].cast(pa.float64()).to_numpy() for name in columns[-2:]]
        unknown = [np.full(len(rows), -1, np.int32), np.zeros(len(rows), np.int64)]
        keys = [id_keys(rows[name]) for name in columns[:2]]
        parts.append((*keys, names.codes(rows["source"]), *unknown, exact, *measured))
    if not parts:
        return Removals(*(np.zeros(0, kind) for kind in ("S16", "S16", "i4", "i4", "i8", "?", "f8", "f8")))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return Removals(*(column[order] for column in joined))


def _read_clusters(dedupe: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Members' ids (sorted) and the position of their cluster; ids (sorted) and sizes of the clusters."""
    empty = np.zeros(0, "S16"), np.zeros(0, "S16"), np.zeros(0, np.int64)
    parts = []
    for key in dedupe.keys(CLUSTERS):
        table = dedupe.table(CLUSTERS, key)
        sizes = table["cluster_size"].to_numpy().astype(np.int64)
        parts.append((id_keys(table["id"]), id_keys(table["cluster_id"]), sizes))
    member, cluster, sizes = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    cluster_id, first, position = np.unique(cluster, return_index=True, return_inverse=True)
    order = np.argsort(member, kind="stable")
    return member[order], position[order], cluster_id, sizes[first]


def measure(dedupe: Dataset, found: Survey, rule: Boilerplate) -> list[Facts]:
    """Measure the chosen clusters, the largest first. What members share is measured on at most 64 of each."""
    facts = []
    for start in range(0, len(found.chosen), _GATHERED):
        chosen = found.chosen[start : start + _GATHERED]
        first = np.searchsorted(found.members.cluster, chosen)
        last = np.searchsorted(found.members.cluster, chosen, side="right")
        sampled = [np.arange(a, min(b, a + _SAMPLE)) for a, b in zip(first, last, strict=True)]
        shares = _core_shares(dedupe, found.members, sampled)
        for cluster, a, b, core in zip(chosen.tolist(), first.tolist(), last.tolist(), shares, strict=True):
            facts.append(_facts(found, cluster, slice(a, b), core, rule))
    return facts


def _facts(found: Survey, cluster: int, members: slice, core: float, rule: Boilerplate) -> Facts:
    gone = find(found.removals.id, found.members.id[members])
    removed = gone[gone >= 0]
    similarity = found.removals.similarity[removed]
    limits = (float(similarity.min()), float(similarity.max())) if len(removed) else (np.nan, np.nan)
    _, content, counts = np.unique(found.members.content[members], return_inverse=True, return_counts=True)
    size = int(found.size[cluster])
    copy = (gone >= 0) & found.removals.exact[gone] if len(removed) else np.zeros(len(gone), bool)
    own = float(((counts[content] == 1) & ~copy).sum() / max(1, len(gone)))
    shingles = _median(found.members.shingles[members])
    kind = rule.kind(size, shingles, core, own)
    return Facts(cluster, members, gone < 0, limits, shingles, _median(found.members.length[members]), core, own, kind)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _core_shares(dedupe: Dataset, members: Members, sampled: Sequence[np.ndarray]) -> list[float]:
    rows = np.concatenate(sampled) if sampled else np.zeros(0, np.int64)
    shards = members.shard[rows]
    keys = dedupe.keys(INDEX)
    order = np.argsort(shards, kind="stable")
    parts = []
    for number in np.unique(shards):
        reader = dedupe.open_shard(INDEX, keys[number])
        parts.append(take_rows(reader, members.row[rows[shards == number]], ["sketch", "shingle_count"]))
    if not parts:
        return [0.0] * len(sampled)
    gathered = pa.concat_batches(parts).take(pa.array(np.argsort(order, kind="stable")))
    shares, start = [], 0
    for one in sampled:
        part = gathered.slice(start, len(one))
        start += len(one)
        sketch = part.column("sketch")
        offsets = sketch.offsets.to_numpy().astype(np.int64)
        values = sketch.values.to_numpy()[offsets[0] : offsets[-1]]
        shares.append(core_share(values, offsets - offsets[0], part.column("shingle_count").to_numpy()))
    return shares


def core_share(values: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> float:
    """Measure how much of the median set belongs to the core: the values that 90 % of the sets hold.

    values, offsets: bottom-k sketches, ascending. counts: sizes of the whole sets. Where a sketch is not the whole set,
    all are compared below the smallest of the last values: there, each sketch holds all that its set has. Sets without
    a value share nothing.
    """
    held = np.diff(offsets)
    owner = np.repeat(np.arange(len(held)), held)
    cut = counts > held
    if cut.any():
        below = values <= values[offsets[1:][cut] - 1].min()
        values, owner = values[below], owner[below]
    if not len(values):
        return 0.0
    _, position, holders = np.unique(values, return_inverse=True, return_counts=True)
    core = holders >= np.ceil(_HELD * len(held))
    sizes = np.bincount(owner, minlength=len(held))
    shared = np.bincount(owner, core[position], len(held))
    return float(np.median(np.divide(shared, sizes, out=np.zeros(len(held)), where=sizes > 0)))
