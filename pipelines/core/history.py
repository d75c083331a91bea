"""Find what every dataset directory under a folder says about one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import files
from pipelines.core.dataset import Dataset
from schemas.base import SchemaError
from schemas.manifest import MANIFEST_PATH, Shard

STAGE_ORDER = ("ingest", "clean", "lines", "decontaminate", "dedupe", "shard", "pack")
_EXCERPT = 100
_BULKY = ("signature", "sketch", "thumbnail", "hashes", "fine_hash")  # what no person reads


@dataclass(frozen=True)
class Finding:
    """One row that speaks of the document: its table, its shard, its row number, and its values."""

    table: str
    path: str
    row: int
    values: dict[str, Any]


def datasets_under(root: str) -> list[Dataset]:
    """Open every dataset directory under `root`, in the order of the stages; SchemaError where there is none."""
    found = []
    for path, _ in files.list_tree(root):
        relative = files.relative(path, root)
        if relative.endswith(MANIFEST_PATH) and not relative.startswith("."):
            found.append(Dataset.open(path[: -len(MANIFEST_PATH)].rstrip("/") or "."))
    if not found:
        raise SchemaError(f"no dataset directory (with {MANIFEST_PATH}) lies under {files.redact(root)}")
    rank = {stage: i for i, stage in enumerate(STAGE_ORDER)}
    return sorted(found, key=lambda dataset: (rank.get(dataset.manifests[0].stage, len(rank)), dataset.roots))


def resolve_id(datasets: list[Dataset], wanted: str) -> bytes:
    """Turn what a person typed into an id: 32 hex digits, a record's locator, the path of its file, or of a member.

    SchemaError where no record has it, or several have, naming some of those.
    """
    try:
        raw = bytes.fromhex(wanted)
        if len(raw) == 16:
            return raw
    except ValueError:
        pass
    matches: dict[bytes, tuple[str, str]] = {}
    for dataset in datasets:
        for table in ("documents", "images", "ledger"):
            for shard in dataset.of(table) if dataset.manifests[0].stage == "ingest" else []:
                columns = ["id", "source", "locator", *(["path"] if table != "ledger" else [])]
                for _, batch in _batches(dataset, shard, columns):
                    hits = batch.filter(_named(batch, wanted)).to_pylist()
                    matches |= {hit["id"]: (hit["source"], hit["locator"]) for hit in hits}
    if not matches:
        raise SchemaError(f"no record with the locator or path {wanted!r}; give the id (32 hex digits)")
    exact = [record for record, (_, locator) in matches.items() if locator == wanted]
    if len(exact or matches) > 1:
        some = "; ".join(
            f"{record.hex()} {source}: {locator}" for record, (source, locator) in sorted(matches.items())[:5]
        )
        raise SchemaError(f"{len(matches)} records with the locator or path {wanted!r}; give an id: {some}")
    return (exact or list(matches))[0]


def _named(batch: pa.RecordBatch, wanted: str) -> pa.Array:
    locators = batch.column("locator")  # of a member of an archive: archive#member
    named = pc.or_(pc.equal(locators, wanted), pc.ends_with(locators, f"#{wanted}"))
    return pc.or_(named, pc.equal(batch.column("path"), wanted)) if "path" in batch.schema.names else named


def findings(dataset: Dataset, record: bytes) -> Iterator[Finding]:
    """Yield every row of a dataset that has this id, or that packs a segment of this document."""
    for table in dataset.tables():
        for shard in dataset.of(table):
            for start, batch in _batches(dataset, shard, None):
                if "id" in batch.schema.names:
                    row = pc.index(batch.column("id"), pa.scalar(record, pa.binary(16))).as_py()
                    while row >= 0:
                        yield Finding(table, shard.path, start + row, _values(batch, row))
                        rest = batch.column("id").slice(row + 1)
                        following = pc.index(rest, pa.scalar(record, pa.binary(16))).as_py()
                        row = row + 1 + following if following >= 0 else -1
                elif "doc_ids" in batch.schema.names:
                    yield from _packed(table, shard, start, batch, record)


def _packed(table: str, shard: Shard, start: int, batch: pa.RecordBatch, record: bytes) -> Iterator[Finding]:
    lists = batch.column("doc_ids")
    hits = pc.equal(lists.flatten(), pa.scalar(record, pa.binary(16)))
    rows = pc.list_parent_indices(lists).filter(hits).unique().to_pylist()
    for row in rows:
        ids, lens = lists[row].as_py(), batch.column("seq_lens")[row].as_py()
        tokens = [length for one, length in zip(ids, lens, strict=True) if one == record]
        yield Finding(table, shard.path, start + row, {"tokens": tokens, "segments_in_row": len(ids)})


def _batches(dataset: Dataset, shard: Shard, columns: list[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
    key = shard.path.rsplit("/", 1)[-1].removeprefix("shard-").removesuffix(".arrow")
    start = 0
    for batch in dataset.batches(shard.table, key, columns):
        yield start, batch
        start += len(batch)


def _values(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    values = {name: batch.column(name)[row].as_py() for name in batch.schema.names if name not in _BULKY}
    if isinstance(values.get("image"), dict):
        values["image"] = len(values["image"]["bytes"])
    return values


def describe(stage: str, finding: Finding) -> list[str]:
    """Say in a line or a few what a finding means."""
    values = finding.values
    where = f"{finding.path} row {finding.row}"
    if finding.table == "ledger":
        return [_decision(values), f"  {where}"]
    if finding.table == "signals":
        told = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in values.items() if name != "id"}
        return ["signals: " + ", ".join(f"{name} {value}" for name, value in told.items())]
    if finding.table == "thumbnails":
        return [f"decoded: {values['width']} × {values['height']}, pixels {values['pixel_hash'].hex()}"]
    if finding.table == "index" and "shingle_count" not in values:
        return [f"hashed: {where}"]
    if finding.table == "index":
        return [f"signed: {values['shingle_count']} distinct shingles, {values['length']} characters"]
    if finding.table == "clusters":
        return [f"in the cluster {values['cluster_id'].hex()} of {values['cluster_size']} verified duplicates"]
    if stage == "pack":
        return [f"packed in {where}: segments of {values['tokens']} tokens among {values['segments_in_row']}"]
    lines = [f"{'written to' if stage == 'shard' else 'held in'} {where}: {_content(values)}"]
    if stage == "ingest":
        lines.append(f"  source {values['source']!r}, locator {values['locator']!r}, file {values['path']!r}")
        if values.get("metadata"):
            lines.append(f"  metadata {_excerpt(values['metadata'])}")
    return lines


def _content(values: dict[str, Any]) -> str:
    if "text" in values:
        return _excerpt(values["text"])
    size = f"{values['width']} × {values['height']}, " if values["width"] is not None else ""
    said = [f"{name} {_excerpt(values[name])}" for name in ("label", "caption") if values[name] is not None]
    return ", ".join([f"{size}{values['image']:,} bytes", *said])


def _decision(values: dict[str, Any]) -> str:
    line = f"{values['action'].upper()}: {values['reason']}"
    if values["kept_id"] is not None:
        line += f" of {values['kept_id'].hex()}"
    if values["similarity"] is not None:
        error = f" ± {values['similarity_error']:.3f}" if values["similarity_error"] else ""
        line += f", similarity {values['similarity']:.4f}{error}"
    elif values["score"] is not None:
        line += f", measured {values['score']:.4g}"
    if values["threshold"] is not None:
        line += f", threshold {values['threshold']:g}"
    if values["detail"]:
        line += f" ({values['detail']})"
    return line + f"  [{values['stage']}]"


def _excerpt(text: str) -> str:
    shown = json.dumps(text[:_EXCERPT], ensure_ascii=False)
    return shown + ("…" if len(text) > _EXCERPT else "")
