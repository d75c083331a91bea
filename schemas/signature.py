"""The deduplication index: one MinHash signature and shingle sketch per document."""

import pyarrow as pa

from schemas.base import Record, field, list_of
from schemas.document import ID


def minhash_fields(num_perm: int) -> tuple[pa.Field, ...]:
    """What verifies candidates by the shingles of their texts."""
    return (
        field("shingle_count", pa.uint32(), "number of distinct shingles; 0: it takes no part"),
        field(
            "signature",
            list_of(pa.uint32(), num_perm),
            "equal to datasketch.MinHash(num_perm, seed, scheme='affine32', hashfunc=shingle_hash).hashvalues",
        ),
        field(
            "sketch",
            list_of(pa.uint32()),
            "the k smallest distinct mixed shingle hashes, ascending: the whole set where shingle_count <= k",
        ),
    )


def signature_record(num_perm: int) -> Record:
    """Make the record type for signatures of `num_perm` permutations (num_perm = bands × rows)."""
    return Record(
        "signature",
        (1, 0),
        (
            field("id", ID, "id of the document"),
            field("source", pa.string(), "name of the corpus that the record came from"),
            field("locator", pa.string(), "the document's locator"),
            field("content_hash", ID, "the document's content_hash"),
            field("length", pa.uint32(), "characters of the text"),
            field("date", pa.int64(), "seconds since 1970 from the configured date field", nullable=True),
            *minhash_fields(num_perm),
        ),
    )


def validate(table: pa.Table, num_perm: int, where: str = "table") -> None:
    """Raise SchemaError where `table` is not a valid table of signatures of `num_perm` permutations."""
    signature_record(num_perm).validate(table, where)


CLUSTER = Record(
    "cluster",
    (1, 0),
    (
        field("id", ID, "id of the document"),
        field("cluster_id", ID, "smallest document id of its cluster of verified duplicates"),
        field("cluster_size", pa.uint32(), "documents in the cluster, the kept ones included"),
    ),
)
