"""Clean images: decode each once, in a process that may crash; validate, turn upright, measure, resize and encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import ledger
from pipelines.core.kinds import IMAGE_KIND, Kind
from pipelines.images.config import Processed, Refused
from pipelines.images.rules import ImageCleanConfig, derived, measure
from pipelines.images.sandbox import sandbox
from pipelines.text.rules import Rule
from schemas.image import IMAGE, IMAGE_TYPE, IMAGES, THUMBNAIL, THUMBNAIL_SIDE, THUMBNAILS
from schemas.ledger import REJECTED
from schemas.signals import SIGNALS, signals_record

_DECIDING = ("profile", "filters", "max_rejected", "rejected_floor", "measure_captions", "scores")
_STAGE = "clean"


@dataclass(frozen=True)
class Images:
    """How images are cleaned: the counterpart of `pipelines.clean.Texts`."""

    config: ImageCleanConfig

    @property
    def kind(self) -> Kind:
        """What the records are."""
        return IMAGE_KIND

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """The tables that hold every image that could be decoded, row for row."""
        signals = signals_record(self.config.signal_names, "docs/images.md").schema
        return {IMAGES: IMAGE.schema, THUMBNAILS: THUMBNAIL.schema, SIGNALS: signals}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order."""
        return self.config.rules

    @property
    def ceiling(self) -> tuple[float, int]:
        """The share of a source, and the number, that may be dead letters."""
        return self.config.max_rejected, self.config.rejected_floor

    @property
    def scores(self) -> tuple[str, ...]:
        """The signals that come from the metadata, which may not hold them."""
        return self.config.scores

    def derived(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Add the signals that are not stored."""
        return derived(measured, self.config)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that images and signals depend on, of a configuration as the manifest has it."""
        own = {name: value for name, value in config["images"].items() if name not in _DECIDING}
        return {**own, "language": {"max_chars": own["language"]["max_chars"]}, "compression": config["compression"]}

    def start(self, workers: int, records: int) -> None:
        """Start the processes that decode, so that they are ready when a pipeline in this process has begun."""
        sandbox(self.config.process).start(workers, records)

    def clean(self, batch: pa.RecordBatch) -> tuple[dict[str, pa.RecordBatch], pa.RecordBatch]:
        """Decode and measure a batch of IMAGE records: its tables, and the ledger rows of what is no image."""
        results = sandbox(self.config.process).process(batch.column("image").field("bytes").to_pylist())
        good = [row for row, one in enumerate(results) if isinstance(one, Processed)]
        done = [one for one in results if isinstance(one, Processed)]
        refused = [(row, one) for row, one in enumerate(results) if isinstance(one, Refused)]
        kept = batch.take(pa.array(good, pa.int64()))
        raw_bytes = pc.binary_length(kept.column("image").field("bytes")).to_pylist()
        tables = {IMAGES: _images(kept, done), THUMBNAILS: _thumbnails(kept, done, raw_bytes)}
        tables[SIGNALS] = self._signals(kept, done, raw_bytes)
        return tables, _dead_letters(batch, refused)

    def _signals(self, kept: pa.RecordBatch, done: Sequence[Processed], raw_bytes: Sequence[int]) -> pa.RecordBatch:
        side = THUMBNAIL_SIDE
        thumbnails = np.frombuffer(b"".join(one.thumbnail for one in done), np.uint8).reshape(-1, side, side)
        sizes = [
            (one.original_width, one.original_height, size, one.frames)
            for one, size in zip(done, raw_bytes, strict=True)
        ]
        measured = measure(thumbnails, sizes, kept.column("caption"), kept.column("metadata"), self.config)
        schema = self.schemas[SIGNALS]
        columns = [kept.column("id"), *(pa.array(measured[name]) for name in schema.names[1:])]
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _images(kept: pa.RecordBatch, done: Sequence[Processed]) -> pa.RecordBatch:
    """The records with their images as they were made; hashes and paths stay those of what was read."""
    paths = kept.column("image").field("path")
    images = pa.StructArray.from_arrays([pa.array([one.data for one in done], pa.binary()), paths], fields=IMAGE_TYPE)
    made = {
        "image": images,
        "width": pa.array([one.width for one in done], pa.int32()),
        "height": pa.array([one.height for one in done], pa.int32()),
    }
    columns = [made[name] if name in made else kept.column(name) for name in IMAGE.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=IMAGE.schema)


def _thumbnails(kept: pa.RecordBatch, done: Sequence[Processed], raw_bytes: Sequence[int]) -> pa.RecordBatch:
    columns = {
        "pixel_hash": [one.pixel_hash for one in done],
        "width": [one.original_width for one in done],
        "height": [one.original_height for one in done],
        "bytes": raw_bytes,
        "thumbnail": [one.thumbnail for one in done],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else kept.column(f.name) for f in THUMBNAIL.fields]
    return pa.RecordBatch.from_arrays(arrays, schema=THUMBNAIL.schema)


def _dead_letters(batch: pa.RecordBatch, refused: Sequence[tuple[int, Refused]]) -> pa.RecordBatch:
    gone = batch.select(["id", "source", "locator"]).take(pa.array([row for row, _ in refused], pa.int64()))
    columns = {name: gone.column(name) for name in gone.schema.names}
    said = {
        "reason": [one.reason for _, one in refused],
        "detail": [one.detail[: ledger.MAX_DETAIL] for _, one in refused],
    }
    return ledger.rows({**columns, **said, "stage": _STAGE, "action": REJECTED}, len(refused))
