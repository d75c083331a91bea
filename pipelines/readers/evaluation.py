"""Evaluation sets, which documents are compared with: read from files, indexed by n-gram, shared with the workers."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.core import files
from pipelines.core.shards import write_bytes
from pipelines.readers.base import Document, ReadConfig, ReadError, Reject
from pipelines.readers.discover import find_files
from pipelines.readers.documents import READERS
from pipelines.text.overlap import Grams, grams_of


def read_items(paths: Sequence[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (benchmark, item) of every record of evaluation files; a benchmark is a file's path without its suffixes.

    fields: of a record, together one item; the first is required. ReadError where a record cannot be read: an
    evaluation set must be whole.
    """
    read = ReadConfig(text_field=fields[0])
    for file in find_files(paths, read).files:
        folder, slash, name = file.relative.rpartition("/")
        benchmark = folder + slash + (name.split(".", 1)[0] or name)
        items = 0
        for one in READERS[file.format](file, read):
            if isinstance(one, Reject):
                raise ReadError(
                    f"{file.relative}@{one.position}: {one.reason}: {one.detail}; mend the evaluation set, or name the "
                    "fields of its records with --set fields=[…]"
                )
            assert isinstance(one, Document)
            items += 1
            yield benchmark, _whole(one, fields[1:])
        if not items:
            raise ReadError(f"{file.relative} holds no record; an evaluation set has at least one")


def _whole(record: Document, others: Sequence[str]) -> str:
    """The fields of a record, one a line: its text, and the strings in the others that are asked for."""
    parts = [record.text]
    metadata = json.loads(record.metadata) if record.metadata else {}
    for name in others:
        value = metadata.get(name)
        parts += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
    return "\n".join(parts)


@dataclass(frozen=True)
class Evaluation:
    """The evaluation sets of a run, in a file under scratch that every worker reads.

    names: of the benchmarks, sorted. digest: of all names, items and lengths, hex.
    """

    path: str
    names: tuple[str, ...]
    digest: str

    def load(self) -> tuple[Grams, np.ndarray]:
        """The n-grams, and the benchmark of each item: int64."""
        return _load(self.path)


@functools.lru_cache(maxsize=1)
def _load(path: str) -> tuple[Grams, np.ndarray]:
    with files.open_read(path) as source, np.load(io.BytesIO(source.read()), allow_pickle=False) as data:
        return Grams(*(data[name] for name in Grams._fields)), data["benchmarks"]


def write_evaluation(found: Sequence[tuple[str, str]], scratch: str, n: int, shortest: int) -> Evaluation:
    """Collect the n-grams of all items and write them under scratch."""
    names = sorted({name for name, _ in found})
    benchmarks = np.array([names.index(name) for name, _ in found], np.int64)
    grams = grams_of(pa.array([item for _, item in found], pa.large_string()), n, shortest)
    raw = io.BytesIO()
    np.savez(raw, benchmarks=benchmarks, **grams._asdict())
    settings = [sorted(found), n, shortest]
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()
    path = files.join(scratch, f"evaluation-{digest}.npz")  # workers keep it by name
    write_bytes(path, raw.getvalue())
    return Evaluation(path, tuple(names), digest)
