"""Check dataset directories against their manifests: every shard's sha256 and rows, and every record type's contract.

gristmill verify data/shards
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence

from pipelines.core import files
from pipelines.core.cli import guarded
from pipelines.core.dataset import Dataset
from pipelines.core.shards import read_table, verify_shard
from schemas.base import Record, SchemaError
from schemas.document import DOCUMENT
from schemas.image import IMAGE, THUMBNAIL
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST_PATH
from schemas.signature import CLUSTER

_RECORDS = {record.name.encode(): record for record in (DOCUMENT, IMAGE, THUMBNAIL, LEDGER, CLUSTER)}


def verify(root: str) -> str:
    """Verify one dataset directory; returns a line about it, or raises SchemaError naming the file that is wrong.

    Wrong is a shard, card or model that is missing or has other bytes than when it was committed, a shard that breaks
    its record's contract, and a file that the manifest does not name.
    """
    dataset = Dataset.open(root)
    manifest = dataset.manifests[0]
    extra = dict(manifest.facts.get("extra_files", {}))
    check_files(root, {shard.path for shard in manifest.shards} | set(extra) | {MANIFEST_PATH})
    for path, sha256 in extra.items():
        with files.open_read(files.join(root, path)) as source:
            if hashlib.sha256(source.read()).hexdigest() != sha256:
                raise SchemaError(f"{files.redact(root)}: {path} was changed after it was committed")
    for shard in manifest.shards:
        verify_shard(root, shard)
        table = read_table(files.join(root, shard.path))
        record: Record | None = _RECORDS.get((table.schema.metadata or {}).get(b"gristmill.record", b""))
        if record is not None:
            record.validate(table, shard.path)
    size = sum(shard.bytes for shard in manifest.shards)
    return (
        f"{root}: {len(manifest.shards)} shards of {size / 1e6:,.1f} MB and {len(extra)} other files: "
        "as the manifest says"
    )


def check_files(root: str, named: set[str]) -> None:
    """Raise SchemaError where a named file is missing, or one is there that nobody names."""
    found = {files.relative(path, root) for path, _ in files.list_tree(root)}
    for what, paths in (("is missing", named - found), ("is not named by the manifest", found - named)):
        if paths:
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            raise SchemaError(f"{files.redact(root)}: {min(paths)} {what}{more}")


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
