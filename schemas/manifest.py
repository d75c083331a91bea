"""The manifest: what a dataset directory holds. It is written last; readers trust only what it names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.base import SchemaError

FORMAT_VERSION = (1, 0)
MANIFEST_PATH = "_meta/manifest.json"


@dataclass(frozen=True, order=True)
class Shard:
    """One shard file.

    path: relative to the dataset's root, with '/'. table: the folder it belongs to ('documents', 'ledger', 'train', …).
    sha256: hex, of the file's bytes. row_hash: hex xxh3-128 of the rows' values, whatever their batching.
    text_bytes: bytes of record content, the measure that rates and shard sizes use.
    """

    path: str
    table: str
    rows: int
    bytes: int
    sha256: str
    row_hash: str
    first_id: str | None = None
    text_bytes: int = 0


@dataclass(frozen=True)
class Books:
    """What happened to the records of one source: in = kept + removed + rejected (+ nothing else)."""

    records_in: int
    kept: int
    removed: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def balance(self) -> int:
        """Records not accounted for: 0 where the books balance. (`repeated` counts extra copies, not records.)"""
        return self.records_in - self.kept - sum(self.removed.values()) - sum(self.rejected.values())


@dataclass(frozen=True)
class Manifest:
    """Everything a reader may trust about a dataset directory. No time, host, path outside or worker count is in it."""

    stage: str
    config: dict[str, Any]
    versions: dict[str, str]
    inputs: list[str]
    shards: list[Shard]
    books: dict[str, Books]
    facts: dict[str, Any] = field(default_factory=dict)
    format_version: tuple[int, int] = FORMAT_VERSION

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted({shard.table for shard in self.shards})

    def of(self, table: str) -> list[Shard]:
        """The shards of one table, sorted by path."""
        return sorted(shard for shard in self.shards if shard.table == table)

    def to_json(self) -> bytes:
        """The manifest as canonical JSON (sorted keys, one trailing newline)."""
        data = asdict(self)
        data["shards"] = [asdict(shard) for shard in sorted(self.shards)]
        return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def sha256(self) -> str:
        """Hex sha256 of the canonical JSON: the identity of the dataset."""
        return hashlib.sha256(self.to_json()).hexdigest()


def parse(raw: bytes, where: str = MANIFEST_PATH) -> Manifest:
    """Read a manifest, or raise SchemaError that says what is wrong with it."""
    try:
        data = json.loads(raw)
        major, minor = (int(part) for part in data["format_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SchemaError(f"{where} is not a Gristmill manifest: {error}") from error
    if major > FORMAT_VERSION[0]:
        raise SchemaError(
            f"{where} has format version {major}.{minor}; this Gristmill reads up to {FORMAT_VERSION[0]}.x: "
            "install a newer Gristmill, or write the data again with this one"
        )
    try:
        manifest = Manifest(
            stage=data["stage"],
            config=data["config"],
            versions=data["versions"],
            inputs=list(data["inputs"]),
            shards=[Shard(**shard) for shard in data["shards"]],
            books={source: Books(**books) for source, books in data["books"].items()},
            facts=data.get("facts", {}),
            format_version=(major, minor),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{where}: a manifest field is missing or unknown: {error}") from error
    for shard in manifest.shards:
        if shard.path.startswith("/") or ".." in shard.path.split("/") or "\\" in shard.path:
            raise SchemaError(f"{where} names the shard {shard.path!r}, which is no path inside the dataset")
    return manifest
