"""One image of an image corpus, and the thumbnail that decisions are made on."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import Record, field, first_row
from schemas.document import ID

IMAGES, THUMBNAILS = "images", "thumbnails"  # the tables
THUMBNAIL_SIDE = 64
# What Hugging Face `datasets` calls a column of images: its reader gives PIL images for it.
IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

_FIELDS = (
    field("id", ID, "blake2b-128 of (source, locator); unique, and stable across re-runs, shards and machines"),
    field("source", pa.string(), "name of the corpus that the record came from"),
    field("locator", pa.string(), "the record's own id or URL, else path, content hash and occurrence in the file"),
    field("path", pa.string(), "file that held the record, relative to the source's root, with '/'"),
    # Never null, but declared so: `datasets` takes the column for images only where it can be.
    field("image", IMAGE_TYPE, "the encoded image: its bytes, and its own file name", nullable=True),
    field("width", pa.int32(), "pixels; null before the image was decoded", nullable=True),
    field("height", pa.int32(), "pixels; null before the image was decoded", nullable=True),
    field("label", pa.string(), "name of the class, where the record has one", nullable=True),
    field("caption", pa.string(), "text that describes the image, where the record has one", nullable=True),
    field("content_hash", ID, "xxh3-128 (big-endian) of the bytes as they were read"),
    field("sha256", pa.binary(32), "of the bytes as they were read, whatever was done to them since"),
    field("metadata", pa.string(), "all other fields of the record as one JSON object, keys sorted", nullable=True),
)


def _features() -> bytes:
    """Say to Hugging Face `datasets` which column holds images; it keeps this beside Arrow's own types."""
    features = {
        one.name: {"_type": "Image"} if one.name == "image" else {"dtype": str(one.type), "_type": "Value"}
        for one in _FIELDS
    }
    return json.dumps({"info": {"features": features}}).encode()


def _present(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    for part in ("bytes", "path"):
        row = first_row(pc.is_null(pc.struct_field(table["image"], part)))
        if row is not None:
            yield "image", row, f"it has no {part}"


IMAGE = Record("image", (1, 0), _FIELDS, (_present,), ((b"huggingface", _features()),))

THUMBNAIL = Record(
    "thumbnail",
    (1, 0),
    (
        field("id", ID, "id of the image"),
        field(
            "pixel_hash",
            ID,
            "xxh3-128 (big-endian) of width, height and the upright RGB pixels; of a JPEG of which both sides have 1024"
            " pixels or more, of width, height, orientation and its compressed data without metadata",
        ),
        field("width", pa.uint32(), "pixels of the image as it was read, turned upright"),
        field("height", pa.uint32(), "pixels of the image as it was read, turned upright"),
        field("bytes", pa.uint64(), "of the image as it was read"),
        field(
            "thumbnail",
            pa.binary(THUMBNAIL_SIDE * THUMBNAIL_SIDE),
            "64 × 64 grey values, row by row: the whole image, not keeping its aspect",
        ),
    ),
)

validate = IMAGE.validate
