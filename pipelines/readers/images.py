"""From a task's files to batches of images and of ledger rows: identity, content hashes, bounded bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pipelines.core import files
from pipelines.core.identity import ID_BYTES, content_hash, record_id
from pipelines.readers import idx, image_columns, lists, samples
from pipelines.readers.base import Image, InputFile, Item, ReadConfig, Reject, reject
from pipelines.readers.batches import Batch, Batches, Readers, batches
from pipelines.readers.discover import ReadTask
from pipelines.readers.image_fields import Fields, Unusable, from_sidecars, parent_label
from schemas.document import ID
from schemas.image import IMAGE, IMAGE_TYPE


def read_task(task: ReadTask, source: str, config: ReadConfig) -> Iterator[Batches]:
    """Yield (images, ledger) batches of a task's files, in order; each pair covers the same stretch of records.

    As `documents.read_task`, with the schema IMAGE. No image is looked into: width and height are null. content_hash is
    xxh3-128 of the bytes. The locator is the record's own id, `path#member` in archives and `path#row` in IDX files,
    else `path#content hash#n`.
    """
    yield from batches(task, _Images(source), READERS, config)


def read_image(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the one image of a file, as it is: nothing is decoded, so also what is no image under its name.

    What a list says of it counts, and nothing else; else what the files beside it say (`from_sidecars`); without a
    label there, the folder names it (`images.label_from`). Rejected: 'too_large' (read no further than the limit), what
    `from_sidecars` refuses; and of images that a list names 'missing_file' and, of local files, 'path_outside' (a link
    leads out of the list's folder).
    """
    said = file.listed
    local = said is not None and files.is_local(file.path) and not config.images.follow_links
    if said is not None and local and files.leads_out(file.path, said.folder):
        yield Reject(said.number, "path_outside", f"{said.where} names it, and a link leads out of the list's folder")
        return
    try:
        with files.open_read(file.path) as raw:
            data = _read(raw, config.max_record_bytes + 1)
    except OSError:
        if said is None or _is_file(file.path):
            raise
        yield Reject(said.number, "missing_file", f"{said.where} names it, and there is no such file")
        return
    if len(data) > config.max_record_bytes:
        detail = f"more than {config.max_record_bytes} bytes; the hash covers the first {len(data)}"
        yield reject(0 if said is None else said.number, "too_large", detail, data)
        return
    name = file.relative.rpartition("/")[2]
    if said is None:
        yield _unlisted(file, data, name, config)
        return
    key = said.key
    if key is None and said.number:  # named again: the same content at the same path
        key = f"{file.relative}#{content_hash(data).hex()}#{said.number}"
    yield Image(data, name, key, said.label, said.caption, said.metadata)


def _read(raw: BinaryIO, size: int) -> bytes:
    pieces = []
    while size and (piece := raw.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _unlisted(file: InputFile, data: bytes, name: str, config: ReadConfig) -> Image | Reject:
    fields = Fields(None, None, None, None)
    if file.beside:
        beside = {}
        for path in file.beside:
            with files.open_read(path) as raw:
                beside[path.rpartition(".")[2].lower()] = _read(raw, config.max_record_bytes)
        try:
            fields = from_sidecars(beside, file.relative.rpartition(".")[0], config)
        except Unusable as error:
            return reject(0, error.reason, str(error), data)
    label = fields.label if fields.label is not None else parent_label(file.relative, config.images)
    return Image(data, name, fields.key, label, fields.caption, fields.metadata)


def refuse_link(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the dead letter of a link that discovery does not follow: 'path_outside' or 'missing_file'."""
    assert file.refused is not None
    yield Reject(0, file.refused, _LINKS[file.refused])


def _is_file(path: str) -> bool:
    return Path(path).is_file() if files.is_local(path) else files.exists(path)


_LINKS = {
    "path_outside": "a link leads out of the input; read.images.follow_links: true reads what it leads to",
    "missing_file": "a link leads nowhere, or in a circle",
}
READERS: Readers = {
    "image": read_image,
    "link": refuse_link,
    "tar": samples.read,
    "parquet": image_columns.read_parquet,
    "arrow": image_columns.read_arrow,
    "list": lists.read,
    "idx": idx.read,
}


class _Images(Batch):
    """The columns of the batch in progress."""

    def clear(self) -> None:
        super().clear()
        self._images: list[bytes] = []
        self._names: list[str] = []
        self._labels: list[str | None] = []
        self._captions: list[str | None] = []

    def add(self, item: Item) -> None:
        assert isinstance(item, Image)
        self._images.append(item.data)
        self._names.append(item.name)
        self._labels.append(item.label)
        self._captions.append(item.caption)
        size = len(item.data) + 4 * (len(item.name) + len(item.caption or "") + len(item.label or ""))
        self.add_record(item.key, content_hash(item.data), item.metadata, size)

    def records(self) -> pa.RecordBatch:
        rows = len(self._images)
        parts = [pa.array(self._images, pa.binary()), pa.array(self._names, pa.string())]
        columns = {
            "id": pa.array([record_id(self.source, locator) for locator in self.locators], ID),
            "source": pa.array([self.source] * rows, pa.string()),
            "locator": pa.array(self.locators, pa.string()),
            "path": pa.array(self.paths, pa.string()),
            "image": pa.StructArray.from_arrays(parts, fields=list(IMAGE_TYPE)),
            "width": pa.nulls(rows, pa.int32()),
            "height": pa.nulls(rows, pa.int32()),
            "label": pa.array(self._labels, pa.string()),
            "caption": pa.array(self._captions, pa.string()),
            "content_hash": pa.array(self.hashes, pa.binary(ID_BYTES)),
            "sha256": pa.array([hashlib.sha256(data).digest() for data in self._images], pa.binary(32)),
            "metadata": pa.array(self.metadata, pa.string()),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in IMAGE.schema.names], schema=IMAGE.schema)
