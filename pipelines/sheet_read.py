"""Gather what a contact sheet shows: a few images of every kind, chosen by their ids, and counts of all of them.

One pass over a few columns of each shard, then only the rows that are shown. In memory: the decisions of one shard, the
removals of dedupe (about 80 bytes each), the counts by label, and the rows that are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.dataset import LEDGER_TABLE, Dataset
from pipelines.core.identity import id_bytes, mixed64
from pipelines.core.shards import take_rows
from pipelines.lsh.survey import CLUSTERS, find, id_keys, key_bytes
from schemas.base import SchemaError
from schemas.image import IMAGES, THUMBNAILS
from schemas.ledger import NEAR_CAPTION, REMOVED
from schemas.signals import SIGNALS

KEPT, RULED, COPY = range(3)  # what became of an image
_SALT = "sheet"
_MEASURED = 20_000  # images that the quantiles of signals are of: three digits of a percentile
_ROWS = 32  # images in memory at once: they may be large
Shape = tuple[int, int]


class Choice:
    """The n rows of the smallest rank of all that were added; ties by id. What comes first does not matter."""

    def __init__(self, n: int) -> None:
        self.n, self.rank, self.rows = n, np.zeros(0), pa.table({"id": pa.array([], pa.binary(16))})

    def add(self, rank: np.ndarray, rows: pa.Table) -> None:
        """Add rows (with a column `id`) and their ranks: numbers of one dtype, none of them NaN."""
        if len(self.rank) == self.n:
            near = rank <= self.rank[-1] if self.n else np.zeros(len(rank), bool)
            rank, rows = rank[near], rows.filter(pa.array(near))
        if not len(rank):
            return
        if len(self.rank):
            rank, rows = (
                np.concatenate([self.rank, rank]),
                pa.concat_tables([self.rows, rows], promote_options="default"),
            )
        order = np.lexsort([id_keys(rows["id"]), rank])[: self.n]
        self.rank, self.rows = rank[order], rows.take(pa.array(order)).combine_chunks()

    def ids(self) -> list[bytes]:
        """The ids of the rows, the smallest rank first."""
        return self.rows["id"].to_pylist()


def hashes(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The rank of a choice without favour: uint64, a hash of the id."""
    return mixed64(id_bytes(ids), _SALT)


# --- ledgers ----------------------------------------------------------------------------------------------------------


@dataclass
class Reason:
    """The ledger rows of one stage, action and reason.

    chosen: by hash. nearest: those whose score is closest to the threshold. thresholds: all that were found.
    """

    stage: str
    action: str
    reason: str
    count: int
    chosen: Choice
    nearest: Choice
    thresholds: set[float] = field(default_factory=set)

    def rule(self) -> tuple[str, float] | None:
        """The signal that a rule compared, and its limit; None where there is no such rule, or several limits."""
        side, _, signal = self.reason.partition("_")
        known = self.action == REMOVED and side in ("min", "max") and len(self.thresholds) == 1
        return (signal, *self.thresholds) if known else None  # type: ignore[return-value]


_LEDGER = ["id", "source", "stage", "action", "reason", "score", "threshold", "locator", "detail"]


def read_ledgers(datasets: Iterable[Dataset], samples: int, nearest: int) -> list[Reason]:
    """Read the ledgers of directories; the reasons with the most records first."""
    found: dict[tuple[str, str, str], Reason] = {}
    for dataset in datasets:
        for key in dataset.keys(LEDGER_TABLE):
            table = dataset.table(LEDGER_TABLE, key, _LEDGER)
            kinds = table.select(["stage", "action", "reason"])
            for kind in kinds.group_by(kinds.column_names).aggregate([]).to_pylist():
                mask = np.logical_and.reduce([pc.equal(table[name], kind[name]).to_numpy() for name in kind])
                name = (kind["stage"], kind["action"], kind["reason"])
                if name not in found:
                    found[name] = Reason(*name, 0, Choice(samples), Choice(nearest))
                _note(found[name], table.filter(pa.array(mask)))
    return sorted(found.values(), key=lambda one: (-one.count, one.stage, one.action, one.reason))


def _note(reason: Reason, rows: pa.Table) -> None:
    reason.count += len(rows)
    reason.chosen.add(hashes(rows["id"]), rows)
    reason.thresholds |= set(pc.drop_null(rows["threshold"]).unique().to_pylist())
    distance = np.abs(rows["score"].to_numpy() - rows["threshold"].to_numpy())
    scored = np.isfinite(distance)
    reason.nearest.add(distance[scored], rows.filter(pa.array(scored)))


# --- duplicates -------------------------------------------------------------------------------------------------------


class Copies(NamedTuple):
    """What dedupe removed, one row each, sorted by (group, id).

    id, kept_id, group: S16; the group is the cluster, or the kept record where the removed one is in no cluster.
    size: int64, members of the cluster, 0 where there is none. similarity: float64, NaN where it was not measured.
    reason: int64, positions in `reasons`.
    """

    id: np.ndarray
    kept_id: np.ndarray
    group: np.ndarray
    size: np.ndarray
    similarity: np.ndarray
    reason: np.ndarray
    reasons: list[str]


class Star(NamedTuple):
    """A kept image and the removed ones that name it: positions in Copies, the least similar first."""

    kept: bytes
    removed: list[int]


class Cluster(NamedTuple):
    """A cluster that is shown. size: members; removed: those of them that are gone; stars: at most so many images."""

    id: bytes
    size: int
    removed: int
    stars: list[Star]


def read_copies(dedupe: Sequence[Dataset]) -> Copies:
    """Read what dedupe removed, and in which clusters."""
    parts: list[tuple[np.ndarray, ...]] = []
    names: dict[str, int] = {}
    for dataset, key in ((one, key) for one in dedupe for key in one.keys(LEDGER_TABLE)):
        table = dataset.table(LEDGER_TABLE, key, ["id", "kept_id", "similarity", "action", "reason"])
        rows = table.filter(pc.and_(pc.equal(table["action"], REMOVED), pc.is_valid(table["kept_id"])))
        reason = [names.setdefault(name, len(names)) for name in rows["reason"].to_pylist()]
        similarity = rows["similarity"].cast(pa.float64()).to_numpy()
        parts.append((id_keys(rows["id"]), id_keys(rows["kept_id"]), similarity, np.array(reason, np.int64)))
    empty = np.zeros(0, "S16"), np.zeros(0, "S16"), np.zeros(0), np.zeros(0, np.int64)
    ids, kept, similarity, code = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    group, size = kept.copy(), np.zeros(len(ids), np.int64)
    by_id = np.argsort(ids, kind="stable")
    for dataset, key in ((one, key) for one in dedupe for key in one.keys(CLUSTERS)):
        table = dataset.table(CLUSTERS, key, ["id", "cluster_id", "cluster_size"])
        at = find(ids[by_id], id_keys(table["id"]))
        gone, rows = by_id[at[at >= 0]], table.filter(pa.array(at >= 0))
        group[gone], size[gone] = id_keys(rows["cluster_id"]), rows["cluster_size"].to_numpy()
    order = np.lexsort([ids, group])
    return Copies(ids[order], kept[order], group[order], size[order], similarity[order], code[order], list(names))


def choose_clusters(copies: Copies, count: int, images: int) -> dict[str, list[Cluster]]:
    """Choose `count` clusters: a third are the least similar, a third the largest, the rest by hash; none twice.

    Similar in their looks: that of captions says nothing of those. A cluster of two is never among the largest.
    images: at most so many of each are shown.
    """
    groups, first, removed = np.unique(copies.group, return_index=True, return_counts=True)
    size = np.where(copies.size[first] > 0, copies.size[first], removed + 1)
    least = np.full(len(groups), np.inf)
    looks = np.array([name != NEAR_CAPTION for name in copies.reasons] or [True])[copies.reason]
    np.fmin.at(least, np.searchsorted(groups, copies.group), np.where(looks, copies.similarity, np.nan))
    mixed = mixed64(groups.view(np.uint8).reshape(-1, 16), _SALT)
    rows = np.arange(len(groups))  # ties: by id
    taken: set[int] = set()
    chosen = {}
    for name, rank, end in (("least", least, count // 3), ("largest", -size, 2 * count // 3), ("hash", mixed, count)):
        order = np.lexsort([rows, rank])
        order = order[size[order] > 2] if name == "largest" else order
        fresh = [i for i in order[:end].tolist() if i not in taken][: end - len(taken)]
        taken |= set(fresh)
        chosen[name] = [
            Cluster(key_bytes(groups[i]), int(size[i]), int(removed[i]), _stars(copies, first[i], removed[i], images))
            for i in fresh
        ]
    return chosen


def _stars(copies: Copies, first: int, count: int, images: int) -> list[Star]:
    """The kept records of a cluster, that with the most copies first, each with its copies; `images` of all."""
    rows = np.arange(first, first + count)
    kept, star, votes = np.unique(copies.kept_id[rows], return_inverse=True, return_counts=True)
    stars, left = [], images
    for i in np.lexsort([np.arange(len(kept)), -votes]).tolist():
        if left < 2:
            break
        mine = rows[star == i]
        mine = mine[np.argsort(copies.similarity[mine], kind="stable")][: left - 1]
        stars.append(Star(key_bytes(kept[i]), mine.tolist()))
        left -= 1 + len(mine)
    return stars


# --- one pass over everything -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an image stands."""

    dataset: Dataset
    key: str
    row: int


@dataclass
class Walk:
    """What one pass over all images found.

    classes: images by (source, label, what became of them). shapes: by (floor(log2 width), floor(log2 height)) of the
    image as it was read: all, and the kept. kept: of every source, by hash. nearest: of every rule, the kept images
    whose signal is closest to its limit. measured: rows of signals. places: of the wanted, and of all that were chosen.
    """

    kept: dict[str, Choice]
    nearest: dict[str, Choice]
    measured: Choice
    classes: Counter[tuple[str, str | None, int]] = field(default_factory=Counter)
    shapes: Counter[Shape] = field(default_factory=Counter)
    kept_shapes: Counter[Shape] = field(default_factory=Counter)
    places: dict[bytes, Place] = field(default_factory=dict)


def walk(
    decided: Sequence[Dataset], wanted: Iterable[bytes], reasons: Sequence[Reason], samples: int, near: int
) -> Walk:
    """Read a few columns of every shard of clean.

    decided: clean, and where there is one, dedupe. wanted: ids of images whose place is asked for.
    """
    clean = decided[0]
    rules = {one.reason: rule for one in reasons if (rule := one.rule())}
    found = Walk({}, {name: Choice(near) for name in rules}, Choice(_MEASURED))
    keys, wanted_keys = clean.keys(IMAGES), _sorted_keys(wanted)
    for number, key in enumerate(keys):
        gone = [np.sort(id_keys(one.removed_ids(key))) for one in decided]
        _walk_images(found, clean, number, gone, wanted_keys, samples)
        _walk_shapes(found, clean, key, gone)
        _walk_signals(found, clean, number, gone, rules)
    for choice in (*found.kept.values(), *found.nearest.values()):
        for row in choice.rows.to_pylist():
            found.places[row["id"]] = Place(clean, keys[row["shard"]], row["row"])
    return found


def places(datasets: Sequence[Dataset], wanted: Iterable[bytes]) -> dict[bytes, Place]:
    """Find images by their ids; those that no dataset holds are left out, and the first that does counts."""
    keys = _sorted_keys(wanted)
    found: dict[bytes, Place] = {}
    for dataset in datasets if len(keys) else ():
        for key in dataset.keys(IMAGES):
            for start, batch in _batches(dataset, IMAGES, key, ["id"]):
                found = _placed(keys, id_keys(batch["id"]), dataset, key, start) | found
    return found


def _sorted_keys(ids: Iterable[bytes]) -> np.ndarray:
    return np.sort(np.array(list(ids), "S16"))


def _placed(keys: np.ndarray, ids: np.ndarray, dataset: Dataset, key: str, start: int) -> dict[bytes, Place]:
    rows = np.flatnonzero(find(keys, ids) >= 0).tolist()
    return {key_bytes(ids[row]): Place(dataset, key, start + row) for row in rows}


def _batches(dataset: Dataset, table: str, key: str, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Batches of a shard with the number of their first row; the shard is not hashed, which would read all images."""
    reader, start = dataset.open_sized(table, key), 0
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i).select(columns)
        yield start, pa.Table.from_batches([batch])
        start += len(batch)


def _status(ids: np.ndarray, gone: Sequence[np.ndarray]) -> np.ndarray:
    status = np.full(len(ids), KEPT)
    for what, removed in reversed(list(enumerate(gone, RULED))):
        status[find(removed, ids) >= 0] = what
    return status


def _at(rows: pa.Table, shard: int, start: int) -> pa.Table:
    """Say of rows of a shard where they stand."""
    numbers = pa.array(np.arange(start, start + len(rows)))
    return rows.append_column("shard", pa.repeat(shard, len(rows))).append_column("row", numbers)


def _walk_images(
    found: Walk, clean: Dataset, shard: int, gone: Sequence[np.ndarray], wanted: np.ndarray, samples: int
) -> None:
    key = clean.keys(IMAGES)[shard]
    for start, rows in _batches(clean, IMAGES, key, ["id", "source", "label"]):
        ids = id_keys(rows["id"])
        status = _status(ids, gone)
        found.places |= _placed(wanted, ids, clean, key, start)
        rows = _at(rows.append_column("status", pa.array(status)), shard, start)
        classes = rows.group_by(["source", "label", "status"]).aggregate([([], "count_all")])
        for one in classes.to_pylist():
            found.classes[one["source"], one["label"], one["status"]] += one["count_all"]
        stays = rows.filter(pa.array(status == KEPT))
        for source in stays["source"].unique().to_pylist():
            mine = stays.filter(pc.equal(stays["source"], source)).select(["id", "shard", "row"])
            found.kept.setdefault(source, Choice(samples)).add(hashes(mine["id"]), mine)


def _walk_shapes(found: Walk, clean: Dataset, key: str, gone: Sequence[np.ndarray]) -> None:
    for _, rows in _batches(clean, THUMBNAILS, key, ["id", "width", "height"]):
        stays = _status(id_keys(rows["id"]), gone) == KEPT
        exponents = np.stack([np.frexp(rows[name].to_numpy())[1] - 1 for name in ("width", "height")], 1)
        for into, mine in ((found.shapes, exponents), (found.kept_shapes, exponents[stays])):
            shapes, counts = np.unique(mine, axis=0, return_counts=True)
            for (width, height), n in zip(shapes.tolist(), counts.tolist(), strict=True):
                into[width, height] += n


def _walk_signals(
    found: Walk, clean: Dataset, shard: int, gone: Sequence[np.ndarray], rules: Mapping[str, tuple[str, float]]
) -> None:
    key = clean.keys(IMAGES)[shard]
    if clean.shard(SIGNALS, key) is None:
        return
    schema = clean.open_sized(SIGNALS, key).schema
    names = [one.name for one in schema if one.name == "id" or pa.types.is_floating(one.type)]
    for start, rows in _batches(clean, SIGNALS, key, names):
        found.measured.add(hashes(rows["id"]), rows)
        stays = _status(id_keys(rows["id"]), gone) == KEPT
        rows = _at(rows, shard, start)
        for rule, (signal, limit) in rules.items():
            if signal in names:
                distance = np.abs(rows[signal].to_numpy() - limit)
                near = stays & np.isfinite(distance)
                mine = rows.filter(pa.array(near)).select(["id", "shard", "row", signal])
                found.nearest[rule].add(distance[near], mine.rename_columns([*mine.column_names[:3], "score"]))


# --- the rows that are shown ------------------------------------------------------------------------------------------

_COLUMNS = ["id", "source", "locator", "label", "caption", "image"]


def take(places: Mapping[bytes, Place]) -> Iterator[dict[str, Any]]:
    """Yield the images at places: id, source, locator, label, caption, data, and width, height, bytes as it was read.

    A few are in memory at once. SchemaError where tables are not row for row.
    """
    shards: dict[tuple[tuple[str, ...], str], list[Place]] = {}
    for place in places.values():
        shards.setdefault((place.dataset.roots, place.key), []).append(place)
    for (roots, key), here in sorted(shards.items(), key=lambda item: item[0]):
        dataset, rows = here[0].dataset, np.sort([place.row for place in here])
        readers = [dataset.open_sized(table, key) for table in (IMAGES, THUMBNAILS)]
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            images = take_rows(readers[0], part, _COLUMNS).to_pylist()
            sizes = take_rows(readers[1], part, ["id", "width", "height", "bytes"]).to_pylist()
            for image, size in zip(images, sizes, strict=True):
                if image["id"] != size["id"] or image["id"] not in places:
                    raise SchemaError(
                        f"{files.redact(roots[0])}: the tables of shard {key} are not row for row; write it again"
                    )
                yield {**image, **size, "data": image.pop("image")["bytes"]}
