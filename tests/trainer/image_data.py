"""Image datasets for tests and benchmarks, written as `shard` writes them but without its stages."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.core.sealed import SealedStream
from schemas.image import IMAGE
from schemas.manifest import MANIFEST_PATH, Manifest, Shard


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width] or [height, width, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def record(data: bytes, name: str, label: str | None, source: str = "drawn", **metadata: Any) -> dict[str, Any]:
    """An image record; its id is that of source and name."""
    width, height = Image.open(io.BytesIO(data)).size
    digest = hashlib.blake2b(f"{source} {name}".encode(), digest_size=16).digest()
    return {
        "id": digest, "source": source, "locator": name, "path": name, "image": {"bytes": data, "path": name},
        "width": width, "height": height, "label": label, "caption": None, "content_hash": digest,
        "sha256": hashlib.sha256(data).digest(), "metadata": json.dumps(metadata) if metadata else None,
    }  # fmt: skip


def write_images(root: Path, tables: dict[str, Iterable[dict[str, Any]]], *, per_shard: int = 1 << 14,
                 per_batch: int = 1 << 10) -> Path:  # fmt: skip
    """Write a dataset directory of image records."""
    shards = []
    for table, records in tables.items():
        (root / table).mkdir(parents=True, exist_ok=True)
        rows = list(records)
        for number, first in enumerate(range(0, len(rows), per_shard)):
            path, some = f"{table}/shard-{number:05d}.arrow", rows[first : first + per_shard]
            with (root / path).open("wb") as file:
                stream = SealedStream(file.write, IMAGE.schema)
                for begin in range(0, len(some), per_batch):
                    stream.write(pa.RecordBatch.from_pylist(some[begin : begin + per_batch], IMAGE.schema))
                stream.close()
            data = (root / path).read_bytes()
            shards.append(Shard(path, table, len(some), len(data), hashlib.sha256(data).hexdigest(), ""))
    (root / "_meta").mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(Manifest("shard", {}, {}, [], shards, {}, {}).to_json())
    return root
