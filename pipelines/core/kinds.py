"""The two kinds of corpora: what a table of records is called, what a record is, and which column is its content."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.core import files
from pipelines.core.dataset import DOCUMENTS, Dataset
from schemas.base import Record, SchemaError
from schemas.document import DOCUMENT
from schemas.image import IMAGE, IMAGES


@dataclass(frozen=True)
class Kind:
    """A kind of corpus. table: of its records. content: the column that a record is about; its bytes are what counts.

    noun: what a person calls the records.
    """

    table: str
    record: Record
    content: str
    noun: str


TEXT = Kind(DOCUMENTS, DOCUMENT, "text", "documents")
IMAGE_KIND = Kind(IMAGES, IMAGE, "image", "images")


def kind_of(dataset: Dataset) -> Kind:
    """Tell the kind of a dataset's records; SchemaError where its directories are of both kinds, or of neither."""
    if not any(IMAGES in manifest.tables() for manifest in dataset.manifests):
        dataset.require(DOCUMENTS)
        return TEXT
    for root, manifest in zip(dataset.roots, dataset.manifests, strict=True):
        if IMAGES not in manifest.tables():
            raise SchemaError(
                f"{files.redact(root)} holds no {IMAGES}/, another input does: prepare texts and images apart"
            )
    return IMAGE_KIND
