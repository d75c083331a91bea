"""Measure how dedupe grows: time for 1, 4 and 16 times the input, memory a document, and millions of short documents.

    python benchmarks/dedupe_scale.py                          1, 4 and 16 times wikipedia_en + documentation_versions
    python benchmarks/dedupe_scale.py --short 1000000 5000000 --memory 16M

Inputs are those of corpora.py: real text and seeded copies of it that are perturbed, so that they are no duplicates of
one another. `CPU / linear` is the CPU time beyond start-up (that of a run on ten records) by MB, divided by that of the
first row. Memory is the peak of all processes: `anonymous` is what they hold, `resident` counts pages of mapped shards
too, which the system drops when it needs them. `B/doc` is the growth of anonymous memory from the first row, by
document. `add 1 %` is the CPU time of a run over one per cent more documents `--against` the output, and `share` what
that is of the whole run, both beyond start-up. Start-up and `add 1 %` are the least of three runs. `--work` keeps the
inputs for another run.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import corpora
from measure import Measured, measure

from pipelines.core.dataset import Dataset


def stage(name: str, source: str, output: Path, *options: str) -> Measured:
    """Run a stage of ours in a process of its own."""
    shutil.rmtree(output, ignore_errors=True)
    return measure([sys.executable, "-m", f"pipelines.{name}", "--input", source, "--output", str(output), *options])


def prepared(work: Path, name: str, records: object, source: str = "scale") -> Path:
    """Write and ingest an input, unless that was done before."""
    target = work / f"ingest-{name}"
    if not (target / "_meta").exists():
        corpora.write(records, work / name, 2)  # type: ignore[arg-type]
        stage("ingest", str(work / name / "*.jsonl"), target, "--source", source, "--id-field", "id")
        shutil.rmtree(work / name)
    return target


def cheapest(name: str, source: str, output: Path, *options: str) -> Measured:
    """Run a short stage three times: the one of least CPU time, as the machine varies by more than what is measured."""
    return min((stage(name, source, output, *options) for _ in range(3)), key=lambda one: one.cpu)


def add_one_percent(work: Path, documents: int) -> Measured:
    """Deduplicate new documents, one for each hundred, against what the last run left."""
    each = max(1, documents // 100 // len(corpora.DEFAULT))
    copies = corpora.copies(corpora.DEFAULT, 2, seed=9, limit=each)
    new = prepared(work, f"new-{each}", itertools.islice(copies, each * len(corpora.DEFAULT), None), "new")
    return cheapest("dedupe", str(new), work / "added", "--against", str(work / "out"))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="*", default=[1, 4, 16], help="copies of the real corpora")
    parser.add_argument("--short", type=int, nargs="*", default=[], help="numbers of short documents, in place of that")
    parser.add_argument("--memory", default="", help="budget of dedupe, as 64M (default: its own)")
    parser.add_argument("--materialize", action="store_true", help="write the surviving records too")
    parser.add_argument("--work", type=Path, help="keep inputs here")
    args = parser.parse_args(argv)
    if missing := corpora.missing():
        print(f"the real corpora are not here: {', '.join(missing)}")
        return 0
    work = args.work or Path(tempfile.mkdtemp(prefix="gristmill-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    options = [*(["--memory", args.memory] if args.memory else []), *(["--materialize"] if args.materialize else [])]
    sizes = [(f"{n:,} short", n, True) for n in args.short] or [(f"{n} ×", n, False) for n in args.times]
    try:
        tiny = prepared(work, "tiny", corpora.copies(corpora.DEFAULT, 1, limit=5))
        start = cheapest("dedupe", str(tiny), work / "out", *options)
        print(f"start-up: {start.cpu:.1f} CPU s, {start.anonymous / 1e6:.0f} MB anonymous")
        print(f"{'input':>18}{'docs':>12}{'MB':>9}{'wall s':>8}{'CPU s':>8}{'MB/cpu s':>10}{'CPU / linear':>14}"
              f"{'anonymous MB':>14}{'B/doc':>8}{'resident MB':>13}{'removed':>10}"
              f"{'add 1 %':>9}{'share':>7}")  # fmt: skip
        first: tuple[float, float, int] | None = None
        for label, count, short in sizes:
            made = corpora.short_documents(corpora.DEFAULT, count) if short else corpora.copies(corpora.DEFAULT, count)
            dataset = prepared(work, f"{'short' if short else 'times'}-{count}", made)
            run = stage("dedupe", str(dataset), work / "out", *options)
            opened, result = Dataset.open(str(dataset)), Dataset.open(str(work / "out"))
            documents, size = sum(s.rows for s in opened.of("documents")), opened.content_bytes() / 1e6
            cost = (run.cpu - start.cpu) / size
            first = first or (cost, run.anonymous, documents)
            grown = (run.anonymous - first[1]) / max(1, documents - first[2])
            added = add_one_percent(work, documents).cpu - start.cpu
            removed = sum(sum(books.removed.values()) for books in result.books.values())
            print(f"{label:>18}{documents:>12,}{size:>9.1f}{run.wall:>8.1f}{run.cpu:>8.1f}{1 / cost:>10.1f}"
                  f"{cost / first[0]:>14.2f}{run.anonymous / 1e6:>14.0f}{grown:>8.0f}{run.resident / 1e6:>13.0f}"
                  f"{removed:>10,}{added:>9.2f}{added / (run.cpu - start.cpu):>7.1%}", flush=True)  # fmt: skip
    finally:
        for name in ("out", "added"):
            shutil.rmtree(work / name, ignore_errors=True)
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
