"""Tell a record's history: where it came from, what each stage measured and decided, where it stands now.

gristmill why 9f86d081884c7d659a2feaa0c55ad015 --data data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.core import files
from pipelines.core.cli import guarded
from pipelines.core.dataset import LEDGER_TABLE, Dataset
from pipelines.core.history import Finding, datasets_under, describe, findings, resolve_id
from schemas.base import SchemaError


def history(wanted: str, data: str) -> list[str]:
    """The lines of a record's history through all dataset directories under `data`.

    wanted: its id (32 hex digits), its locator, or the path of the file that held it. SchemaError where no dataset
    knows it.
    """
    datasets = datasets_under(data)
    record = resolve_id(datasets, wanted)
    lines, known = [f"record {record.hex()}"], False
    for dataset in datasets:
        stage = dataset.manifests[0].stage
        found = list(findings(dataset, record))
        told = [line for finding in found for line in (*describe(stage, finding), *_kept(datasets, finding))]
        if found and not any(finding.table == LEDGER_TABLE for finding in found):
            told.append("kept")
        known = known or bool(told)
        if told:
            lines.append(f"{stage}  {files.relative(dataset.roots[0], data)}/")
            lines += [f"  {line}" for line in told]
    if not known:
        raise SchemaError(f"no dataset under {files.redact(data)} knows a record {record.hex()}")
    return lines


def _kept(datasets: Sequence[Dataset], finding: Finding) -> list[str]:
    """Say which record one was removed for, by the name that people know."""
    kept: bytes = (finding.table == LEDGER_TABLE and finding.values.get("kept_id")) or b""
    for dataset in datasets if kept else ():
        for other in findings(dataset, kept):
            if other.values.get("locator"):
                return [f"  the kept one: source {other.values['source']!r}, locator {other.values['locator']!r}"]
    return []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="gristmill why",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", help="32 hex digits, the record's own id or URL, or its file's path")
    parser.add_argument("--data", default="data", metavar="DIR", help="folder that holds the stages' outputs")
    args = parser.parse_args(argv)
    return guarded("why", lambda: print("\n".join(history(args.id, args.data))))


if __name__ == "__main__":
    sys.exit(main())
