"""The deduplication index of images: hashes of views, and the thumbnail that candidates are verified on."""

import pyarrow as pa

from schemas.base import Record, field, list_of
from schemas.document import ID
from schemas.image import THUMBNAIL_SIDE
from schemas.signature import minhash_fields

CAPTION = "caption_"  # that the names of a caption's columns begin with


def fingerprint_record(views: int, permutations: int = 0) -> Record:
    """Make the record type for fingerprints of `views` views, and of captions where there are permutations."""
    return Record(
        "fingerprint",
        (1, 0),
        (
            field("id", ID, "id of the image"),
            field("source", pa.string(), "name of the corpus that the record came from"),
            field("locator", pa.string(), "the image's locator"),
            field("content_hash", ID, "of the bytes as they were read"),
            field("pixel_hash", ID, "of the decoded pixels, turned upright"),
            field("width", pa.uint32(), "pixels of the image as it was read, turned upright"),
            field("height", pa.uint32(), "pixels of the image as it was read, turned upright"),
            field("bytes", pa.uint64(), "of the image as it was read"),
            field("deviation", pa.float32(), "standard deviation of the thumbnail's grey values"),
            field(
                "hashes",
                list_of(pa.uint64(), views),
                "64-bit difference hash of each view, the whole image first; upper left bit most significant",
            ),
            field("fine_hash", list_of(pa.uint64(), 4), "256-bit difference hash of the whole image"),
            field("thumbnail", pa.binary(THUMBNAIL_SIDE * THUMBNAIL_SIDE), "64 × 64 grey values of the whole image"),
            *(caption_fields(permutations) if permutations else ()),
        ),
    )


def caption_fields(permutations: int) -> tuple[pa.Field, ...]:
    """The columns of captions: those of texts, under names that begin with CAPTION."""
    return tuple(one.with_name(f"{CAPTION}{one.name}") for one in minhash_fields(permutations))


def validate(table: pa.Table, views: int, where: str = "table", permutations: int = 0) -> None:
    """Raise SchemaError where `table` is not a valid table of such fingerprints."""
    fingerprint_record(views, permutations).validate(table, where)
