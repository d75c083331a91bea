"""Corpora of images for tests of `dedupe`, as `clean` writes them, and what was decided about them."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from PIL import Image

from pipelines import dedupe
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.core.shards import verify_shard, write_shard
from pipelines.images.thumbnail import pixel_hash, thumbnail
from schemas.image import IMAGE, THUMBNAIL
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST_PATH, Books, Manifest
from schemas.signature import CLUSTER


class Picture(NamedTuple):
    """One image of a test: where it stands, and what it shows."""

    locator: str
    image: Image.Image
    data: bytes
    source: str = "s"
    caption: str | None = None


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with shapes at all scales, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 24):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        total += np.asarray(noise, float) / 4
    return Image.fromarray(total.astype(np.uint8))


def picture(locator: str, image: Image.Image, quality: int = 90, source: str = "s") -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Picture(locator, Image.open(buffer).convert("RGB"), buffer.getvalue(), source)


def cleaned(root: Path, shards: dict[str, Sequence[Picture]], rows_per_batch: int = 7) -> Path:
    """Write images as `clean` does; batches of thumbnails are shorter than those of images."""
    written, counts = [], defaultdict(int)
    for key, pictures in shards.items():
        images, thumbnails = [], []
        for one in sorted(pictures, key=lambda p: record_id(p.source, p.locator)):
            name, (width, height) = record_id(one.source, one.locator), one.image.size
            counts[one.source] += 1
            images.append(
                {
                    **{"id": name, "source": one.source, "locator": one.locator, "path": one.locator},
                    "image": {"bytes": one.data, "path": one.locator},
                    **{"width": width, "height": height, "label": "猫", "caption": one.caption, "sha256": bytes(32)},
                    "content_hash": xxhash.xxh3_128_digest(one.data),
                }
            )
            thumbnails.append(
                {
                    **{"id": name, "width": width, "height": height, "bytes": len(one.data)},
                    **{"pixel_hash": pixel_hash(one.image), "thumbnail": thumbnail(one.image)},
                }
            )
        for table, record, rows, size in (
            ("images", IMAGE, images, rows_per_batch),
            ("thumbnails", THUMBNAIL, thumbnails, rows_per_batch - 2),
        ):
            batch = pa.RecordBatch.from_pylist(rows, schema=record.schema)
            path = f"{table}/shard-{key}.arrow"
            written.append(write_shard(str(root), path, record.schema, [batch], rows_per_batch=size))
    books = {source: Books(count, count) for source, count in counts.items()}
    (root / MANIFEST_PATH).parent.mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(Manifest("clean", {}, {}, [], sorted(written), books).to_json())
    return root


def run(output: Path, *inputs: Path, options: Sequence[str] = ()) -> Dataset:
    argv = [arg for path in inputs for arg in ("--input", str(path))]
    assert dedupe.main([*argv, "--output", str(output), "--workers", "1", *options]) == 0
    dataset = Dataset.open(str(output))
    for shard in dataset.manifests[0].shards:
        verify_shard(str(output), shard)
    for table, record in (("ledger", LEDGER), ("clusters", CLUSTER)):
        if dataset.has(table):
            record.validate(dataset.table(table))
    return dataset


def decisions(dataset: Dataset) -> dict[str, tuple[str, str, float, float]]:
    """locator → (locator of the kept image, reason, similarity, threshold)."""
    name = dict(zip(*(dataset.table("index")[column].to_pylist() for column in ("id", "locator")), strict=True))
    rows = dataset.table("ledger").to_pylist() if dataset.has("ledger") else []
    return {
        row["locator"]: (name.get(row["kept_id"], "?"), row["reason"], row["similarity"], row["threshold"])
        for row in rows
    }


def told(dataset: Dataset) -> list[list[dict[str, Any]]]:
    """The rows of ledger and clusters, by id."""
    tables = [dataset.table(name).to_pylist() for name in ("ledger", "clusters")]
    return [sorted(rows, key=lambda row: row["id"]) for rows in tables]
