"""Real text from ../shared for the tests of stages, where it is present; and outputs of dedupe made by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core import ledger
from pipelines.core.identity import content_hash, record_id
from pipelines.core.shards import write_shard
from pipelines.readers.base import InputFile, ReadConfig, Reject
from pipelines.readers.lines import read_lines
from pipelines.text.minhash import signatures, sketches
from pipelines.text.shingles import shingle_hashes
from schemas.base import Record
from schemas.document import DOCUMENT
from schemas.manifest import MANIFEST_PATH, Manifest, Shard
from schemas.signature import CLUSTER, signature_record

from . import sheets

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def real_records() -> Callable[..., list[dict[str, Any]]]:
    """A function (file name, count, skip=0) → records of a file of ../shared/data; skips where it is absent."""

    def read(name: str, count: int, skip: int = 0) -> list[dict[str, Any]]:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no real data here: {name} is not in ../shared/data")
        records = []
        for number, (_, line) in enumerate(read_lines(InputFile(str(path), name, 0, "jsonl"), ReadConfig())):
            if number >= skip + count:
                break
            if number >= skip:
                assert not isinstance(line, Reject)
                records.append(json.loads(line))
        return records

    return read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of `sheets.CORPUS`: images as clean writes them, and the decisions on them."""
    return sheets.write(tmp_path, sheets.CORPUS, sheets.LOST)


Document = tuple[str, str, str, str]  # shard, source, locator, text
Removal = tuple[str, str, float]  # locator, locator of the kept record, similarity; 1 is exact


def _batch(record: Record, columns: list[Any]) -> pa.RecordBatch:
    arrays = [pa.array(values, field.type) for values, field in zip(columns, record.schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=record.schema)


def _index(documents: list[Document], ids: list[bytes], hashes: list[bytes], sketch_size: int) -> pa.RecordBatch:
    values, offsets = shingle_hashes(pa.array([text for *_, text in documents]))
    sketch, borders = sketches(values, offsets, sketch_size)
    columns = [
        ids,
        [source for _, source, _, _ in documents],
        [locator for _, _, locator, _ in documents],
        hashes,
        [len(text) for *_, text in documents],
        [None] * len(ids),
        np.diff(offsets),
        list(signatures(values, offsets, 112, 1)),
        [sketch[a:b] for a, b in itertools.pairwise(borders)],
    ]
    return _batch(signature_record(112), columns)


def _commit(root: Path, stage: str, config: dict[str, Any], shards: list[Shard], inputs: list[str]) -> str:
    manifest = Manifest(stage, config, {}, inputs, shards, {})
    (root / MANIFEST_PATH).parent.mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(manifest.to_json())
    return manifest.sha256()


@pytest.fixture(scope="session")
def decided() -> Callable[..., Path]:
    """A function that writes tables as dedupe does, of decisions made by hand; returns the directory.

    Called with (folder, documents, removed, clusters, sketch_size=1024); clusters are lists of locators. The documents
    are in folder/clean, the decisions in folder/dedupe; lengths, signatures and sketches are those of the texts. A
    record that is kept elsewhere has the source 'other'.
    """

    def write(
        folder: Path, documents: list[Document], removed: list[Removal], clusters: list[list[str]], k: int = 1024
    ) -> Path:
        sources = {locator: source for _, source, locator, _ in documents}
        id_of = {
            name: record_id(sources.get(name, "other"), name)
            for name in [*sources, *(kept for _, kept, _ in removed), *itertools.chain(*clusters)]
        }
        lost = {locator: (id_of[kept], similarity) for locator, kept, similarity in removed}
        cluster_of = {name: (min(id_of[one] for one in group), len(group)) for group in clusters for name in group}
        texts, tables = [], []
        for key in sorted({row[0] for row in documents}):
            rows = sorted((row for row in documents if row[0] == key), key=lambda row: id_of[row[2]])
            ids, hashes = [id_of[row[2]] for row in rows], [content_hash(row[3].encode()) for row in rows]
            names = [row[2] for row in rows]
            columns = [ids, [row[1] for row in rows], names, names, [row[3] for row in rows], hashes, [None] * len(ids)]
            texts.append((str(folder / "clean"), f"documents/shard-{key}.arrow", _batch(DOCUMENT, columns)))
            gone = [row for row in rows if row[2] in lost]
            ledger_columns = {
                "id": [id_of[row[2]] for row in gone],
                "source": [row[1] for row in gone],
                "locator": [row[2] for row in gone],
                "stage": "dedupe",
                "action": "removed",
                "reason": ["exact_duplicate" if lost[row[2]][1] == 1 else "near_duplicate" for row in gone],
                "kept_id": [lost[row[2]][0] for row in gone],
                "similarity": [lost[row[2]][1] for row in gone],
                "similarity_error": [0.0] * len(gone),
            }
            members = [(id_of[name], *cluster_of[name]) for name in names if name in cluster_of]
            for table, batch in (
                ("index", _index(rows, ids, hashes, k)),
                ("ledger", ledger.rows(ledger_columns, len(gone))),
                ("clusters", _batch(CLUSTER, [list(column) for column in zip(*members, strict=True)] or [[]] * 3)),
            ):
                tables.append((str(folder / "dedupe"), f"{table}/shard-{key}.arrow", batch))
        shards = [
            [
                write_shard(root, path, batch.schema, [batch], rows_per_batch=2 + len(batch) // 4)
                for root, path, batch in part
            ]
            for part in (texts, tables)
        ]
        read = _commit(folder / "clean", "clean", {}, shards[0], [])
        minhash = {"bands": 14, "rows": 8, "seed": 1, "sketch_size": k}
        config = {"near": True, "threshold": 0.7, "shingle_size": 5, "minhash": minhash}
        _commit(folder / "dedupe", "dedupe", config, shards[1], [read])
        return folder / "dedupe"

    return write
