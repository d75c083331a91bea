"""Images: difference hashes of views in bands, candidates whose hashes are close, verified on their thumbnails.

Bands: CONTENT (the bytes), PIXELS, then four of the 64-bit hashes, then those of captions if these count. A band of
hashes holds all views of an image, and two images are candidates where the whole of one shares a band with a view of
the other and these two hashes differ in few bits. Buckets of 16 bits are large, so their pairs are looked at where the
bucket is (`image_pairs`): only edges between images that resemble each other are written, and components stay small.
Inside them pairs are compared, in the order of the survivor policy (`image_verdicts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core import ledger, progress
from pipelines.core.dataset import Dataset, shard_path, survivors
from pipelines.core.kinds import IMAGE_KIND
from pipelines.core.shards import ShardWriter
from pipelines.images.hashing import BANDS, band_keys, deviations, difference_hashes, fine_hashes
from pipelines.images.views import view_table
from pipelines.lsh import image_verdicts
from pipelines.lsh.buckets import BUCKET_BYTES, CONTENT, star_edges
from pipelines.lsh.captions import caption_buckets, caption_edges, joined, permutations, signed_captions
from pipelines.lsh.config import DedupeConfig, ImageDedupeConfig
from pipelines.lsh.image_pairs import VIEW_BITS, near_edges, thumbnail_values
from pipelines.lsh.image_verdicts import featureless
from pipelines.lsh.method import EXACT, HEAD, INDEX, NEAR, Decided, Linked, Method, Signer
from pipelines.lsh.nodes import IndexShard, Nodes
from pipelines.lsh.texts import content_hashes, minhash_settings
from schemas.base import SchemaError
from schemas.fingerprint import CAPTION, fingerprint_record
from schemas.image import THUMBNAILS
from schemas.ledger import NEAR_CAPTION

PIXELS, FIRST_NEAR = 0, 1  # bands
FIRST_CAPTION = FIRST_NEAR + BANDS
EXACT_PIXELS, COVERED = "exact_pixels", "near_duplicate_covered"
_MOST_RANGES = 1 << 16  # of a band of 16 bits


def views_of(config: ImageDedupeConfig) -> np.ndarray:
    """The views that a configuration asks for: see `pipelines.images.views.view_table`."""
    options = {"corners": config.corners, "sides": config.sides, "orientations": config.orientations}
    return view_table(config.crops, **options, flips=config.flips)


def index_schema(config: DedupeConfig) -> pa.Schema:
    """The schema of the index."""
    return fingerprint_record(len(views_of(config.images)), permutations(config)).schema


def fingerprints(heads: pa.RecordBatch, thumbnails: pa.RecordBatch, config: DedupeConfig) -> pa.RecordBatch:
    """Make the index rows; heads: columns of HEAD and `caption`, thumbnails: rows of the table, of the same images."""
    views = views_of(config.images)
    schema, greys = index_schema(config), thumbnail_values(thumbnails.column("thumbnail"))
    columns = {
        **{name: heads.column(name) for name in HEAD},
        **{name: thumbnails.column(name) for name in ("pixel_hash", "width", "height", "bytes", "thumbnail")},
        "deviation": pa.array(deviations(greys)),
        "hashes": _lists(difference_hashes(greys, views), schema.field("hashes").type),
        "fine_hash": _lists(fine_hashes(greys), schema.field("fine_hash").type),
        **signed_captions(heads.column("caption"), config),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _lists(values: np.ndarray, type_: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=type_)


class ImageSigner(Signer):
    """Write the index of one shard of images.

    Facts: 'flat' and 'small', how many have only exact copies by their looks; 'captions', how many take part.
    """

    def __init__(self, dataset: Dataset, key: str, table: str, root: str, config: DedupeConfig) -> None:
        super().__init__()
        self.dataset, self.key, self.table, self.root, self.config = dataset, key, table, root, config
        self.facts["flat"] = self.facts["small"] = self.facts["captions"] = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Read thumbnails and a few columns of the images, row for row; yield the index."""
        own = self.config.images
        schema, path = index_schema(self.config), shard_path(INDEX, self.key)
        # By size: to hash all bytes of the images, for a few columns, would take longer than all else here.
        heads = self.dataset.open_sized(self.table, self.key).read_all().select([*HEAD, "caption"])
        removed, start = self.dataset.removed_ids(self.key), 0
        with ShardWriter(self.root, path, schema, compression=self.config.compression) as writer:
            for thumbnails in self.dataset.batches(THUMBNAILS, self.key):
                part = _one_batch(heads.slice(start, len(thumbnails)), thumbnails, f"{self.table}/shard-{self.key}")
                start += len(thumbnails)
                part, thumbnails = survivors(part, removed), survivors(thumbnails, removed)
                if not len(part):
                    continue
                index = fingerprints(part, thumbnails, self.config)
                writer.write(index)
                self.seen += ledger.by_source(part)
                flat, small = featureless(index, own)
                self.facts["flat"] += int(flat.sum())
                self.facts["small"] += int((small & ~flat).sum())
                if joined(self.config):
                    self.facts["captions"] += int((index.column(f"{CAPTION}shingle_count").to_numpy() > 0).sum())
                progress.advance(len(part), thumbnails.nbytes)
                yield index
        if start != len(heads):
            raise SchemaError(f"{self.table}/shard-{self.key}: {len(heads)} images, but {start} thumbnails")
        self.shard = writer.shard


def _one_batch(heads: pa.Table, thumbnails: pa.RecordBatch, where: str) -> pa.RecordBatch:
    columns = [pa.concat_arrays(column.chunks) for column in heads.columns] if len(heads) else []
    schema = pa.schema([pa.field(one.name, one.type) for one in heads.schema])
    part = pa.RecordBatch.from_arrays(columns or [pa.array([], one.type) for one in schema], schema=schema)
    if not part.column("id").equals(thumbnails.column("id")):
        raise SchemaError(f"{where}: its thumbnails are not row for row those of its images; run clean again")
    return part


class Images(Method):
    """Images."""

    kind = IMAGE_KIND
    measured = THUMBNAILS
    needs = (THUMBNAILS,)
    reasons = (EXACT, NEAR, EXACT_PIXELS, COVERED, NEAR_CAPTION)
    counted = ("flat", "small", "captions", "pairs_compared", "captions_compared", "capped_comparisons")

    def signing(self, config: dict[str, Any]) -> dict[str, Any]:
        """The views, and what captions were signed with."""
        images = config.get("images", {})
        without = {"corners": False, "sides": False, "orientations": False, "flips": 0}
        known = {name: images.get(name) or off for name, off in without.items()}  # as an older version did
        captions = images.get("captions") or {}
        signed = {name: captions.get(name) for name in ("shingle_size", "least_shingles")}
        settings = {**minhash_settings(config), **signed} if captions.get("join") and config.get("near") else None
        return {"crops": list(images.get("crops") or ()), **known, "captions": settings}

    def check_index(self, schema: pa.Schema, where: str) -> None:
        """Raise SchemaError where an index is not one of fingerprints."""
        fingerprint_record(1).check_version(schema, where)

    def bands(self, config: DedupeConfig) -> int:
        """That of the pixels, those of the hashes, and those of the captions."""
        captions = config.minhash.all_bands if joined(config) else 0
        return 1 + (BANDS + captions if config.near else 0)

    def bucket_bytes(self, config: DedupeConfig) -> int:
        """A hash and a node for each view."""
        return BUCKET_BYTES * (len(views_of(config.images)) if config.near else 1)

    def ranges(self, least: int) -> int:
        """A power of two, so that no range ends inside a bucket of 16 bits."""
        return min(1 << (least - 1).bit_length(), _MOST_RANGES)

    def cap(self, config: DedupeConfig) -> int:
        """Entries that one is compared with, on either side."""
        return config.images.bucket_cap

    def signer(self, dataset: Dataset, key: str, table: str, root: str, config: DedupeConfig) -> ImageSigner:
        """Make the signer of one shard."""
        return ImageSigner(dataset, key, table, root, config)

    def entries(
        self, index: pa.RecordBatch, start: int, here: np.ndarray, bands: range, config: DedupeConfig
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield hashes of content, pixels and captions, and those of all views, turned so that the band is first."""
        rows = np.flatnonzero(here)
        for band, column in ((CONTENT, "content_hash"), (PIXELS, "pixel_hash")):
            if band in bands:
                yield band, content_hashes(index, column)[rows], start + rows
        if joined(config):
            near = range(max(bands.start - FIRST_CAPTION, 0), max(bands.stop - FIRST_CAPTION, 0))
            for band, of_band, nodes in caption_buckets(index, start, here, near, config):
                yield FIRST_CAPTION + band, of_band, nodes
        flat, small = featureless(index, config.images)
        rows = np.flatnonzero(here & ~flat & ~small)
        near = range(max(bands.start, FIRST_NEAR), min(bands.stop, FIRST_CAPTION))
        if not len(near) or not len(rows):
            return
        hashes = index.column("hashes").flatten().to_numpy().reshape(len(index), -1)[rows]
        views = np.arange(hashes.shape[1])
        entries = ((start + rows)[:, None] << VIEW_BITS | views).reshape(-1)
        for band in near:
            yield band, band_keys(hashes, band - FIRST_NEAR).reshape(-1), entries

    def link(
        self, band: int, hashes: np.ndarray, entries: np.ndarray, numbering: Nodes, config: DedupeConfig
    ) -> Linked:
        """Join exact copies to the smallest node; compare the pairs of the other bands."""
        if band >= FIRST_CAPTION:
            return caption_edges(hashes, entries, numbering, config)
        if band < FIRST_NEAR:
            return Linked(*star_edges(hashes, entries), {})
        return near_edges(hashes, entries, numbering, config, views_of(config.images))

    def probe(self, shards: Sequence[IndexShard], config: DedupeConfig, scratch: str) -> None:
        """Bands of 16 bits are all taken: nothing can be spared."""
        return

    def decide(self, nodes: np.ndarray, component: np.ndarray, numbering: Nodes, config: DedupeConfig) -> Decided:
        """Decide by the correlation of detail, in the order of the survivor policy."""
        return image_verdicts.decide(nodes, component, numbering, config, views_of(config.images), self.reasons)

    def thresholds(self, config: DedupeConfig) -> tuple[float, ...]:
        """1 for equal bytes and equal pixels."""
        own = config.images
        return 1.0, own.correlation, 1.0, 1.0 - own.hash_distance / 256, own.captions.threshold

    def notes(self, facts: dict[str, Any], config: DedupeConfig) -> list[str]:
        """How large buckets were, what was compared, and what took no part."""
        if not config.near:
            return []
        cap = config.images.bucket_cap
        notes = [
            f"{facts['pairs_compared']:,} pairs compared; largest bucket {facts['largest_bucket']:,}; "
            f"{facts['hot_buckets']:,} of more than {cap:,} hashes, comparisons that the cap left out "
            f"{facts['capped_comparisons']:,}"
        ]
        if facts["flat"]:
            notes.append(
                f"{facts['flat']:,} images are flat (the grey values deviate by less than {config.images.flat:g}): "
                "they have exact copies only"
            )
        if facts["small"]:
            notes.append(
                f"{facts['small']:,} images have a side of less than {config.images.min_side} pixels: they have exact "
                "copies only"
            )
        if joined(config):
            notes.append(
                f"{facts['captions']:,} captions take part, {facts['captions_compared']:,} pairs of them compared"
            )
        return notes
