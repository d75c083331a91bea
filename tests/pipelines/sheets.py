"""Outputs of clean and dedupe made by hand for the contact sheet, the command run on them, and its page read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipelines import sheet
from pipelines.core import ledger
from pipelines.core.identity import content_hash, record_id
from pipelines.core.shards import write_shard
from schemas.base import Record
from schemas.image import IMAGE, THUMBNAIL
from schemas.manifest import MANIFEST_PATH, Manifest
from schemas.signals import signals_record
from schemas.signature import CLUSTER

FILES = ["index.html", "labels.csv", "removals.csv", "similarities.csv", "sizes.csv", "totals.json"]
HOSTILE = "<script>alert('名')</script>\u202e\n\"><img src=x onerror=alert(1)>"


def png(width: int = 40, height: int = 40, value: int = 99, mode: str = "L", form: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode)).save(sink, form)
    return sink.getvalue()


@dataclass(frozen=True)
class One:
    """An image of a corpus made by hand, and what was decided on it: (reason, score, limit), or (kept, similarity)."""

    locator: str
    shard: str = "a-0"
    data: bytes = b""
    label: str | None = None
    caption: str | None = None
    size: tuple[int, int] = (320, 240)
    sharpness: float = 50.0
    rule: tuple[str, float | None, float | None] | None = None
    copy: tuple[str, float | None] | None = None
    reason: str = "near_duplicate"

    @property
    def source(self) -> str:
        return self.shard.partition("-")[0]

    @property
    def id(self) -> bytes:
        return record_id(self.source, self.locator)


def batch(record: Record, rows: list[list[Any]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(record.fields)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, record.schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=record.schema)


def commit(root: Path, stage: str, tables: list[tuple[str, pa.RecordBatch]], books: Any, inputs: list[str]) -> str:
    shards = [write_shard(str(root), path, batch.schema, [batch], rows_per_batch=2) for path, batch in tables]
    manifest = Manifest(stage, {}, {}, inputs, shards, books)
    (root / MANIFEST_PATH).parent.mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(manifest.to_json())
    return manifest.sha256()


def _ledger(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    names = sorted({name for row in rows for name in row})
    return ledger.rows({name: [row.get(name) for row in rows] for name in names}, len(rows))


Lost = tuple[str, str, str, str]  # shard, locator, reason, detail


def write(folder: Path, images: Sequence[One], lost: Sequence[Lost] = (), stage: str = "clean") -> Path:
    """Write folder/clean and folder/dedupe as the stages do; returns the folder."""
    clean: list[tuple[str, pa.RecordBatch]] = []
    dedupe: list[tuple[str, pa.RecordBatch]] = []
    books, later = [], []
    groups: dict[bytes, set[bytes]] = {}
    ids = {one.locator: one.id for one in images}
    for one in images:
        if one.copy:
            kept = ids.get(one.copy[0], record_id("other", one.copy[0]))
            groups.setdefault(kept, {kept}).add(one.id)
    cluster = {member: (min(group), len(group)) for group in groups.values() for member in group}
    record = signals_record(("sharpness",))
    for shard in sorted({one.shard for one in images} | {row[0] for row in lost}):
        rows = sorted((one for one in images if one.shard == shard), key=lambda one: one.id)
        clean += [
            (f"images/shard-{shard}.arrow", batch(IMAGE, [image(one) for one in rows])),
            (f"thumbnails/shard-{shard}.arrow", batch(THUMBNAIL, [thumbnail(one) for one in rows])),
            (f"signals/shard-{shard}.arrow", batch(record, [[one.id, one.sharpness] for one in rows])),
        ]
        source = shard.partition("-")[0]
        same = {"source": source, "stage": stage}
        gone = [
            {**same, "id": one.id, "action": "removed", "reason": one.rule[0], "score": one.rule[1],
             "threshold": one.rule[2], "locator": one.locator}
            for one in rows if one.rule
        ] + [
            {**same, "id": record_id(source, locator), "action": "rejected", "reason": reason, "locator": locator,
             "detail": detail}
            for where, locator, reason, detail in lost if where == shard
        ]  # fmt: skip
        copies = [
            {"source": source, "stage": "dedupe", "id": one.id, "action": "removed", "reason": one.reason,
             "locator": one.locator, "kept_id": ids.get(one.copy[0], record_id("other", one.copy[0])),
             "similarity": one.copy[1]}
            for one in rows if one.copy
        ]  # fmt: skip
        clean.append((f"ledger/shard-{shard}.arrow", _ledger(gone)))
        dedupe.append((f"ledger/shard-{shard}.arrow", _ledger(copies)))
        members = [[one.id, *cluster[one.id]] for one in rows if one.id in cluster]
        dedupe.append((f"clusters/shard-{shard}.arrow", batch(CLUSTER, members)))
        books.append(ledger.count({source: len(rows) + sum(row[0] == shard for row in lost)}, [_ledger(gone)]))
        later.append(ledger.count({source: sum(not one.rule for one in rows)}, [_ledger(copies)]))
    known = commit(folder / "clean", stage, clean, ledger.add(books), [])
    commit(folder / "dedupe", "dedupe", dedupe, ledger.add(later), [known])
    return folder


def image(one: One) -> list[Any]:
    data = one.data or png(value=len(one.locator))
    return [
        one.id, one.source, one.locator, one.locator, {"bytes": data, "path": "x.png"}, *one.size, one.label,
        one.caption, content_hash(data), bytes(32), None,
    ]  # fmt: skip


def thumbnail(one: One) -> list[Any]:
    return [one.id, content_hash(one.locator.encode()), *one.size, 2048, bytes(4096)]


def run(folder: Path, *options: str) -> dict[str, bytes]:
    """Run the command on a folder of `write`; the files of the report."""
    output = folder / "report"
    assert sheet.main([str(folder / "clean"), "--output", str(output), *options]) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    return {path.name: path.read_bytes() for path in output.iterdir()}


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))[1:]


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the captions of its images by section."""

    VOID = ("meta", "rect", "img")

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.sections: dict[str, list[str]] = {}
        self.text = self.section = ""
        self.feed(content.decode())
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["aria-labelledby"] or ""
        if tag == "figcaption":
            self.sections.setdefault(self.section, []).append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.VOID or self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text += data
        if "figcaption" in self.stack and data.strip():
            self.sections[self.section][-1] += f"{data.strip()}|"

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.tags if name == tag]


CORPUS = [
    One("cats/1.jpg", label="cat", size=(320, 240)),
    One("cats/2.jpg", label="cat", size=(320, 240), sharpness=34.5),
    One("cats/3.jpg", label="cat", size=(1, 4096), sharpness=9.5, rule=("min_sharpness", 9.5, 34.25)),
    One("cats/4.jpg", label="cat", size=(320, 255), sharpness=34.0, rule=("min_sharpness", 34.0, 34.25)),
    One("狗/一.jpg", "b-0", label="狗", caption="一只黑色的狗在公园里跑", size=(256, 256)),
    One("狗/二.jpg", "b-0", label="狗", size=(512, 300), copy=("狗/一.jpg", 0.95)),
    One("狗/三.jpg", "b-1", label="狗", size=(512, 300), copy=("狗/一.jpg", 0.29 / 0.3)),
    One("狗/四.jpg", "b-1", size=(512, 300), copy=("狗/一.jpg", 1.0), reason="exact_duplicate"),
    One("old.jpg", "b-1", size=(512, 300), copy=("gone.jpg", None), reason="near_duplicate"),
]
LOST = [("a-0", "cats/5.jpg", "truncated", "the file ends early"), ("b-1", "狗/x.jpg", "truncated", "again")]


def options(folder: Path, *more: str) -> tuple[str, ...]:
    return ("--duplicates", str(folder / "dedupe"), *more)
