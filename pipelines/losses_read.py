"""Read losses, and find their documents: what `gristmill losses` knows before it shows or decides anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from pipelines.core import files, ledger
from pipelines.core.config import ConfigError
from pipelines.core.dataset import DOCUMENTS, Dataset, survivors
from pipelines.core.shards import open_shard, take_rows
from pipelines.losses_groups import Groups, Joined, join, length_groups, partial, size_groups, value_groups
from pipelines.lsh.survey import CLUSTERS, find, id_keys
from schemas.base import SchemaError
from schemas.losses import LOSSES
from schemas.signals import SIGNALS

_LANGUAGE, _METADATA = "language", "metadata."
_NO_GROUPS = ("id", "text", "content_hash", "metadata")


class Found(NamedTuple):
    """Where the documents of `Joined` stand, row for row, and what is known of them.

    shard, row: int64, in documents/. size: int64, UTF-8 bytes of the text. alive: bool, not removed by the ledger
    beside it. groups: by source first. books: documents by shard key and source that are not removed.
    """

    shard: np.ndarray
    row: np.ndarray
    size: np.ndarray
    alive: np.ndarray
    groups: list[Groups]
    books: dict[str, Counter[str]]


def loss_files(paths: Sequence[str]) -> list[str]:
    """The files named or matched, and the *.arrow files of folders; SchemaError where there are none."""
    found = []
    for path in paths:
        inside = [path]
        if files.has_glob(path) or Path(path).is_dir():
            inside = [one for one, _ in files.match(path if files.has_glob(path) else files.join(path, "*.arrow"))]
        if not inside:
            raise SchemaError(f"{files.redact(path)}: no *.arrow file there; name the losses/ folder of a training run")
        found += inside
    return list(dict.fromkeys(found))


def read_losses(paths: Sequence[str], last: bool) -> Joined:
    """Read files of schemas.losses and join the lines of each document. SchemaError names a file that is amiss."""
    parts = []
    for path in loss_files(paths):
        if files.is_local(path) and Path(path).exists() and not Path(path).stat().st_size:
            raise SchemaError(f"{path} is empty: the run that wrote it ended early; leave it out or write it again")
        table = open_shard(path).read_all()
        LOSSES.validate(table, files.redact(path))
        parts.append(partial(table, last))
    joined = join(parts, last)
    if not len(joined.id):
        raise SchemaError(f"{files.redact(', '.join(paths))}: no losses in it; did the run take a step?")
    return joined


def locate(joined: Joined, documents: Dataset, clusters: Dataset | None = None, by: Sequence[str] = ()) -> Found:
    """Find the documents of the losses, one pass over `documents`; SchemaError where they do not hold them all."""
    keys = id_keys(joined.id)
    shard, row = np.full(len(keys), -1), np.full(len(keys), -1)
    alive, characters, size = (np.zeros(len(keys), kind) for kind in (bool, np.int64, np.int64))
    columns, places, books = _columns_of(documents, by), list[np.ndarray](), {}
    values: dict[str, list[pa.Array]] = {name: [] for name in columns}
    for number, key in enumerate(documents.keys()):
        removed, start, books[key] = documents.removed_ids(key), 0, Counter[str]()
        beside = documents.table(SIGNALS, key) if set(columns.values()) & {SIGNALS} else None
        wanted = [name.split(".")[0] for name, table in columns.items() if table == DOCUMENTS]
        for batch in documents.batches(DOCUMENTS, key, list(dict.fromkeys(["id", "source", "text", *wanted]))):
            books[key] += ledger.by_source(survivors(batch, removed))
            at = find(keys, id_keys(batch.column("id")))
            here = np.flatnonzero(at >= 0)
            at, held = at[here], batch.take(pa.array(here))
            shard[at], row[at] = number, start + here
            characters[at] = pc.utf8_length(held.column("text")).to_numpy()
            size[at] = pc.binary_length(held.column("text")).to_numpy()
            alive[at] = ~pc.is_in(held.column("id"), removed).to_numpy(zero_copy_only=False)
            places.append(at)
            for name, table in columns.items():
                values[name].append(_values(name, held if table == DOCUMENTS else beside, start + here))
            start += len(batch)
    _refuse_strangers(joined, np.flatnonzero(shard < 0))
    order = np.argsort(np.concatenate(places), kind="stable")
    groups = [value_groups(name, pa.concat_arrays(parts).take(pa.array(order))) for name, parts in values.items()]
    groups.insert(1, length_groups(characters))
    if clusters is not None:
        groups.insert(2, size_groups(_cluster_sizes(keys, clusters)))
    return Found(shard, row, size, alive, groups, books)


def _columns_of(documents: Dataset, by: Sequence[str]) -> dict[str, str]:
    """The columns to group by, and the table of each; ConfigError for one that there is not."""
    (key, *_) = documents.keys() or [""]
    if not key:
        raise SchemaError(f"{files.redact(', '.join(documents.roots))} hold no documents")
    own = [name for name in documents.open_shard(DOCUMENTS, key).schema.names if name not in _NO_GROUPS]
    measured = documents.open_shard(SIGNALS, key).schema.names if _all_have(documents, SIGNALS) else []
    found = {"source": DOCUMENTS, **({_LANGUAGE: SIGNALS} if _LANGUAGE in measured else {})}
    for name in by:
        if name in own or name.startswith(_METADATA):
            found[name] = DOCUMENTS
        elif name in measured:
            found[name] = SIGNALS
        else:
            raise ConfigError(
                f"--by {name}: the documents have no such column; they have {', '.join([*own, *measured[1:]])}, "
                "and metadata.KEY for a key of their metadata"
            )
    return found


def _all_have(documents: Dataset, table: str) -> bool:
    return all(table in manifest.tables() for manifest in documents.manifests)


def _values(name: str, table: pa.RecordBatch | pa.Table, rows: np.ndarray) -> pa.Array:
    """The column `name` of the rows held: of documents these are all rows of `table`, of signals its rows `rows`."""
    if isinstance(table, pa.Table):
        return table[name].take(pa.array(rows)).combine_chunks()
    if not name.startswith(_METADATA):
        return table.column(name)
    return _key_of(table.column("metadata").fill_null("{}"), name.removeprefix(_METADATA))


def _key_of(metadata: pa.Array, key: str) -> pa.Array:
    """One key of JSON objects as words, null where an object has it not."""
    if not len(metadata):
        return pa.array([], pa.string())
    offsets = pa.array([0, len(metadata)], pa.int32())
    lines = pa.py_buffer(pc.binary_join(pa.ListArray.from_arrays(offsets, metadata), "\n")[0].as_py().encode())
    whole = pyarrow.json.ReadOptions(use_threads=False, block_size=lines.size + 1)  # a record must lie in one block
    for kind in (pa.string(), pa.float64(), pa.bool_()):
        options = pyarrow.json.ParseOptions(pa.schema([(key, kind)]), unexpected_field_behavior="ignore")
        try:
            return pyarrow.json.read_json(lines, whole, options)[key].combine_chunks().cast(pa.string())
        except pa.ArrowInvalid:
            continue
    raise ConfigError(f"--by {_METADATA}{key}: its values are neither words nor numbers, or not of one kind")


def _refuse_strangers(joined: Joined, unknown: np.ndarray) -> None:
    if len(unknown):
        raise SchemaError(
            f"{len(unknown):,} of {len(joined.id):,} documents in the losses are in none of --documents (the first: "
            f"{joined.id[int(unknown[0])].as_py().hex()}); name all the documents that the model's rows were made of"
        )


def _cluster_sizes(keys: np.ndarray, clusters: Dataset) -> np.ndarray:
    """The size of each document's cluster, 1 where it has none: int64."""
    sizes = np.ones(len(keys), np.int64)
    for key in clusters.require(CLUSTERS).keys(CLUSTERS):
        table = clusters.table(CLUSTERS, key, ["id", "cluster_size"])
        at = find(keys, id_keys(table["id"]))
        sizes[at[at >= 0]] = table["cluster_size"].to_numpy()[at >= 0]
    return sizes


def take(documents: Dataset, found: Found, rows: np.ndarray, columns: list[str]) -> pa.Table:
    """Read columns of the documents `rows`, in that order."""
    keys, parts, order = documents.keys(), [], np.argsort(found.shard[rows], kind="stable")
    for number in np.unique(found.shard[rows]).tolist():
        mine = rows[order][found.shard[rows[order]] == number]
        parts.append(take_rows(documents.open_shard(DOCUMENTS, keys[number]), found.row[mine], columns))
    if not parts:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.Table.from_batches(parts).take(pa.array(np.argsort(order, kind="stable")))
