"""Check dataset directories against their manifests: every shard's sha256 and rows, and every record type's contract.

gristmill verify data/shards
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.core import files
from pipelines.core.cli import guarded
from pipelines.core.dataset import Dataset
from pipelines.core.shards import read_table, verify_shard
from schemas.base import Record
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.signature import CLUSTER

_RECORDS = {record.name.encode(): record for record in (DOCUMENT, LEDGER, CLUSTER)}


def verify(root: str) -> str:
    """Verify one dataset directory; returns a line about it, or raises SchemaError naming the shard that is wrong."""
    dataset = Dataset.open(root)
    for shard in dataset.manifests[0].shards:
        verify_shard(root, shard)
        table = read_table(files.join(root, shard.path))
        record: Record | None = _RECORDS.get((table.schema.metadata or {}).get(b"gristmill.record", b""))
        if record is not None:
            record.validate(table, shard.path)
    size = sum(shard.bytes for shard in dataset.manifests[0].shards)
    return f"{root}: {len(dataset.manifests[0].shards)} shards, {size / 1e6:,.1f} MB: as the manifest says"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="gristmill verify",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="+", metavar="DIR", help="dataset directories")
    args = parser.parse_args(argv)

    def body() -> None:
        for root in args.dataset:
            print(verify(root))

    return guarded("verify", body)


if __name__ == "__main__":
    sys.exit(main())
