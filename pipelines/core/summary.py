"""The closing lines of a stage: its books, its sizes, its rate, and where everything is."""

from __future__ import annotations

import time

from pipelines.core.stage import StageRun
from schemas.manifest import Books, Manifest


def print_summary(run: StageRun, notes: tuple[str, ...] = ()) -> None:
    """Print books per source, sizes per table, the rate, and the output's place."""
    assert run.manifest is not None
    seconds = time.monotonic() - run.started
    print(f"{run.stage}: {run.output.path}")
    print(books_table(run.manifest.books))
    for line in size_lines(run.manifest):
        print(f"  {line}")
    content = content_bytes(run.manifest)
    workers = run.options.worker_count if run.options.runner == "local" else 0
    rate = f", {content / 1e6 / seconds:.1f} MB/s" if content else ""
    print(f"  {seconds:.1f} s{rate}{f' with {workers} workers' if workers else ''}")
    for note in notes:
        print(f"  {note}")


def content_bytes(manifest: Manifest) -> int:
    """Bytes of record content in the dataset's main tables."""
    return sum(shard.text_bytes for shard in manifest.shards if shard.table not in ("surviving",))


def size_lines(manifest: Manifest) -> list[str]:
    """One line per table: shards, rows, bytes."""
    lines = []
    for table in manifest.tables():
        shards = manifest.of(table)
        rows, size = sum(s.rows for s in shards), sum(s.bytes for s in shards)
        lines.append(f"{table + '/':<12} {len(shards):>5} shards {rows:>12,} rows {size / 1e6:>10,.1f} MB")
    return lines


def books_table(books: dict[str, Books]) -> str:
    """The books as a text table: a line per source, and per reason under it."""
    header = f"  {'source':<24} {'in':>12} {'kept':>12} {'removed':>12} {'rejected':>12}"
    lines = [header]
    for source, one in books.items():
        removed, rejected = sum(one.removed.values()), sum(one.rejected.values())
        lines.append(f"  {source:<24} {one.records_in:>12,} {one.kept:>12,} {removed:>12,} {rejected:>12,}")
        for reason, count in sorted(one.removed.items(), key=lambda item: (-item[1], item[0])):
            lines.append(f"    removed  {reason:<20} {count:>10,}")
        for reason, count in sorted(one.rejected.items(), key=lambda item: (-item[1], item[0])):
            lines.append(f"    rejected {reason:<20} {count:>10,}")
        if one.repeated:
            lines.append(f"    repeated {'(weight over 1)':<20} {one.repeated:>10,}")
    return "\n".join(lines)
