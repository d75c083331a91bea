"""Read a dataset directory: what its manifest names, and the records that survive its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files, shards
from pipelines.core.identity import id_bytes
from pipelines.core.ledger import add as ledger_books
from schemas.base import SchemaError
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST_PATH, Books, Manifest, Shard, parse

DOCUMENTS, LEDGER_TABLE = "documents", "ledger"
SHARD_SUFFIX = ".arrow"


def shard_path(table: str, key: str) -> str:
    """The path of a shard in a dataset directory: table/shard-KEY.arrow."""
    return f"{table}/shard-{key}{SHARD_SUFFIX}"


def shard_key(path: str) -> str:
    """The key of a shard: 'documents/shard-00007-000.arrow' → '00007-000'."""
    return path.rsplit("/", 1)[-1].removeprefix("shard-").removesuffix(SHARD_SUFFIX)


@dataclass(frozen=True)
class Dataset:
    """One committed dataset directory, or several read as one.

    Cheap to send to a worker: a shard is opened where it is read.
    """

    roots: tuple[str, ...]
    manifests: tuple[Manifest, ...]

    @classmethod
    def open(cls, *roots: str) -> Dataset:
        """Read the manifests of directories, or of all that a pattern matches; their order does not matter.

        SchemaError where a directory has no manifest, where a pattern matches none, or where two directories hold
        shards of the same name.
        """
        found = sorted(
            ((_read_manifest(root), root) for root in expand(roots)), key=lambda pair: (pair[0].sha256(), pair[1])
        )
        owners: dict[str, str] = {}
        for manifest, root in found:
            for shard in manifest.shards:
                other = owners.setdefault(shard.path, root)
                if other != root:
                    raise SchemaError(
                        f"{files.redact(other)} and {files.redact(root)} both hold {shard.path}: they are the "
                        "same corpus, or two that were ingested under one --source; give each its own"
                    )
        return cls(tuple(root.rstrip("/") for _, root in found), tuple(manifest for manifest, _ in found))

    @cached_property
    def _shards(self) -> dict[str, tuple[str, Shard]]:
        pairs = zip(self.roots, self.manifests, strict=True)
        return {shard.path: (root, shard) for root, manifest in pairs for shard in manifest.shards}

    @property
    def sha256s(self) -> list[str]:
        """The identities of the directories: sha256 of each manifest, sorted."""
        return sorted(manifest.sha256() for manifest in self.manifests)

    @property
    def books(self) -> dict[str, Books]:
        """The books of all directories, added source by source."""
        return ledger_books(manifest.books for manifest in self.manifests)

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted({table for manifest in self.manifests for table in manifest.tables()})

    def of(self, table: str) -> list[Shard]:
        """The shards of one table, sorted by path."""
        return sorted(shard for manifest in self.manifests for shard in manifest.of(table))

    def content_bytes(self, table: str = DOCUMENTS) -> int:
        """Bytes of record content in a table."""
        return sum(shard.text_bytes for shard in self.of(table))

    def require(self, table: str) -> Dataset:
        """Return the dataset itself; SchemaError naming the stages that wrote it where it has no such table."""
        for root, manifest in zip(self.roots, self.manifests, strict=True):
            if table not in manifest.tables():
                raise SchemaError(
                    f"{files.redact(root)} is an output of {manifest.stage} and has no {table}/ (it has: "
                    f"{', '.join(manifest.tables()) or 'no tables'}); name the output of a stage that writes {table}/"
                )
        return self

    def has(self, table: str) -> bool:
        """Say whether the directory holds a table of that name."""
        return table in self.tables()

    def keys(self, table: str = DOCUMENTS) -> list[str]:
        """The keys of a table's shards, sorted."""
        return [shard_key(shard.path) for shard in self.of(table)]

    def shard(self, table: str, key: str) -> Shard | None:
        """The manifest line of a shard, or None where the table has no such shard."""
        found = self._shards.get(shard_path(table, key))
        return found[1] if found else None

    def open_shard(self, table: str, key: str) -> pa.ipc.RecordBatchFileReader:
        """Open one shard by its footer, memory-mapped."""
        root, shard = self._shards[shard_path(table, key)]
        return shards.open_verified(files.join(root, shard.path), shard)

    def open_sized(self, table: str, key: str) -> pa.ipc.RecordBatchFileReader:
        """Open one shard without hashing it; SchemaError where its size is not that of the manifest."""
        root, shard = self._shards[shard_path(table, key)]
        return shards.open_sized(files.join(root, shard.path), shard)

    def batches(self, table: str, key: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the batches of one shard without copying."""
        reader = self.open_shard(table, key)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            yield batch.select(columns) if columns is not None else batch

    def table(self, table: str, key: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """Read one shard, or with key None a whole table. SchemaError where the directory has no such table."""
        keys = self.keys(table) if key is None else [key]
        if not keys:
            raise SchemaError(
                f"{files.redact(', '.join(self.roots))} has no table {table!r}; it has: {', '.join(self.tables())}"
            )
        tables = []
        for one in keys:
            whole = self.open_shard(table, one).read_all()
            tables.append(whole.select(columns) if columns is not None else whole)
        return pa.concat_tables(tables)

    def removed_ids(self, key: str) -> pa.Array:
        """Ids that this directory's ledger removes from shard `key`: fixed_size_binary[16]."""
        if self.shard(LEDGER_TABLE, key) is None:
            return pa.array([], pa.binary(16))
        ledger = self.table(LEDGER_TABLE, key, ["id", "action"])
        LEDGER.check_version(ledger.schema, shard_path(LEDGER_TABLE, key))
        return ledger.filter(pc.equal(ledger["action"], "removed"))["id"].combine_chunks()


def expand(roots: Sequence[str]) -> list[str]:
    """Replace patterns by the dataset directories that they match; other paths stay as they are."""
    expanded = []
    for root in roots:
        if not files.has_glob(root):
            expanded.append(root.rstrip("/") or root)
            continue
        found = [path for path, _ in files.match(files.join(root.rstrip("/"), MANIFEST_PATH))]
        if not found:
            raise SchemaError(f"no dataset directory (with {MANIFEST_PATH}) matches {files.redact(root)!r}")
        expanded += [path[: -len(MANIFEST_PATH)].rstrip("/") for path in found]
    return list(dict.fromkeys(expanded))


def of_corpora(roots: Sequence[str], corpora: Sequence[str]) -> list[str]:
    """Expand patterns, and keep the directories that carry the name of a corpus: others are of an earlier run.

    SchemaError where a corpus has no directory.
    """
    found = {root.rsplit("/", 1)[-1]: root for root in expand(roots)}
    missing = [name for name in corpora if name not in found]
    if missing:
        raise SchemaError(f"no input directory for the corpora {', '.join(missing)}; found: {', '.join(sorted(found))}")
    return [found[name] for name in corpora]


def _read_manifest(root: str) -> Manifest:
    path = files.join(root, MANIFEST_PATH)
    try:
        with files.open_read(path) as source:
            raw = source.read()
    except (OSError, ValueError) as error:
        raise SchemaError(
            f"{files.redact(root)} is not a dataset directory: it has no {MANIFEST_PATH}. {_instead(root)}"
        ) from error
    return parse(raw, files.redact(path))


def _instead(root: str) -> str:
    """What to name in the place of a directory that is no dataset directory: those that lie in it, if any do."""
    try:
        found = expand([files.join(root, "*")]) if not files.has_glob(root) else []
    except (OSError, SchemaError):
        found = []
    if not found:
        return "Name the output directory of an earlier stage"
    below = f"{files.redact(root.rstrip('/'))}/*"
    return f"It holds {len(found)}: name one, such as {files.redact(found[0])}, or all of them: '{below}'"


def survivors(batch: pa.RecordBatch, removed: pa.Array) -> pa.RecordBatch:
    """Drop the rows whose id is in `removed` (joined on id, never on a position)."""
    if not len(removed):
        return batch
    return batch.filter(pc.invert(pc.is_in(batch.column("id"), removed)))


def surviving_batches(
    documents: Dataset,
    key: str,
    columns: list[str] | None = None,
    decisions: tuple[Dataset, ...] = (),
    table: str = DOCUMENTS,
) -> Iterator[pa.RecordBatch]:
    """Yield the records of a shard of a table that survive its directory's ledger and those of `decisions`."""
    removed = pa.concat_arrays([dataset.removed_ids(key) for dataset in (documents, *decisions)])
    wanted = None if columns is None else list(dict.fromkeys(["id", *columns]))
    for batch in documents.batches(table, key, wanted):
        batch = survivors(batch, removed)
        if len(batch):
            yield batch if columns is None else batch.select(columns)


def sorted_by_id(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Join batches and sort their rows by id, so that the order of arrival does not matter."""
    rows = pa.concat_batches(list(batches))
    words = np.ascontiguousarray(id_bytes(rows.column("id"))).view(">u8").reshape(-1, 2)
    return rows.take(pa.array(np.lexsort([words[:, 1], words[:, 0]])))
