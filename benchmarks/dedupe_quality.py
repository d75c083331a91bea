"""Judge the dedupe stage by brute force: is every removal right, and how much of what it should find does it find?

    python benchmarks/dedupe_quality.py [--corpus NAME=FILE …] [--bands 14x8x2 …] [--threshold 0.7] [--keep DIR]

Runs `ingest` and `dedupe` on each corpus, once for each setting of the bands, and compares the output with all similar
pairs, found by other code (judge.py). `recall` at a similarity t, and in brackets the number of records missed, are
defined there (`judge.recall`); an asterisk marks a recall under the target, 0.98 at 0.8 and 0.999 at 0.9. Of the
removals, `exact` are of equal content, `near` have an exact similarity, `estimated` one with an error bound (documents
of more shingles than a sketch holds). `cpu s` is that of the whole process of `dedupe`, start-up included.
Ends with status 1 where a removal is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from judge import Findings, Recall, Truth, examine, find_truth, recall
from measure import measure

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
NAMES = ("documentation_versions", "wikipedia_en", "wikipedia_zh", "poetry_zh", "laws_zh")
THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TARGETS = {0.8: 0.98, 0.9: 0.999}
_WARM = "first-run"


@dataclass(frozen=True)
class Documents:
    """The records of a corpus, as `ingest` wrote them, and the truth about them."""

    ids: list[bytes]
    texts: list[str]
    truth: Truth


@dataclass(frozen=True)
class Judgement:
    """What is wrong with the removals of one run, and its recall by threshold."""

    findings: Findings
    recalls: dict[float, Recall]


def table(root: Path, name: str) -> pa.Table | None:
    """Read a table of an output directory; None where it has none. Any reader of Arrow files does."""
    folder = root / name
    return ds.dataset(folder, format="arrow").to_table() if folder.is_dir() else None


def documents(root: Path, size: int = 5) -> Documents:
    """Read the documents of a directory that `ingest` wrote and compare them all, by shingles of `size` tokens."""
    rows = table(root, "documents")
    assert rows is not None
    ids, texts = rows["id"].to_pylist(), rows["text"].to_pylist()
    return Documents(ids, texts, find_truth(ids, texts, size))


def judge_output(corpus: Documents, root: Path, threshold: float) -> Judgement:
    """Judge the ledger of a directory that `dedupe` wrote at this threshold."""
    rows = table(root, "ledger")
    ledger = rows.filter(pc.equal(rows["action"], "removed")).to_pylist() if rows is not None else []
    kept, findings = examine(corpus.truth, corpus.ids, corpus.texts, ledger, threshold)
    return Judgement(findings, {t: recall(corpus.truth, kept, t) for t in THRESHOLDS if t >= threshold})


def ingest(name: str, path: Path, output: Path) -> None:
    """Run the ingest stage as a user does."""
    arguments = ["--input", str(path), "--source", name, "--id-field", "id", "--output", str(output)]
    measure([sys.executable, "-m", "pipelines.ingest", *arguments])


def dedupe(source: Path, output: Path, bands: tuple[int, int, int], threshold: float, workers: int) -> float:
    """Run the dedupe stage as a user does, with (bands, rows, cuts); returns its CPU seconds."""
    minhash = zip(("bands", "rows", "cuts"), bands, strict=True)
    settings = [f"threshold={threshold}", *(f"minhash.{name}={value}" for name, value in minhash)]
    options = [arg for setting in settings for arg in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines.dedupe", "--input", str(source), "--output", str(output)]
    return measure([*command, *options, "--workers", str(workers)]).cpu


def line(bands: str, cpu: float, judged: Judgement) -> str:
    """Format a row of the table."""
    found = judged.findings
    cells = []
    for threshold, one in judged.recalls.items():
        mark = "*" if one.share < TARGETS.get(threshold, 0.0) else " "
        cells.append(f"{one.share:.4f}{mark}{f'({one.missed:,})':>7}")
    removed = found.exact + found.near + found.estimated
    counts = f"{removed:>8,} {found.exact:>7,} {found.near:>7,} {found.estimated:>9,}"
    return f"{bands:<9}{cpu:>7.1f} {counts}  {'  '.join(cells)}"


def remarks(judged: Judgement, threshold: float) -> list[str]:
    """Say how far the ledger is from the truth."""
    found, sigmas = judged.findings, judged.findings.sigmas
    lines = [f"fault: {fault}" for fault in found.faults]
    lines.append(
        f"exact similarities: {found.below:,} truly below {threshold}, the lowest {found.lowest:.4f}; "
        f"{found.inexact:,} not the true one, by at most {found.furthest:.1e}"
    )
    if len(sigmas):
        lines.append(
            f"estimated: {found.estimated_below:,} truly below {threshold}, the lowest {found.estimated_lowest:.4f}; "
            f"off by at most {sigmas.max():.1f} standard errors, {np.mean(sigmas > 2):.1%} of them by more than 2"
        )
    return lines


def run_corpus(name: str, path: Path, work: Path, settings: list[str], threshold: float, workers: int) -> bool:
    """Judge all settings on one corpus and print its table; returns whether every removal was right."""
    source = work / name / "ingest"
    ingest(name, path, source)
    corpus = documents(source)
    pairs = corpus.truth.similarity
    print(f"\n{name}: {len(corpus.ids):,} records; {np.sum(pairs >= threshold):,} pairs at {threshold} or more")
    columns = "  ".join(f"{f'recall {t:g}':<14}" for t in THRESHOLDS if t >= threshold)
    print(f"{'bands':<9}{'cpu s':>7} {'removed':>8} {'exact':>7} {'near':>7} {'estimated':>9}  {columns}")
    if not (work / _WARM).exists():  # compiles the kernels, which no setting should pay for
        dedupe(source, work / _WARM, (14, 8, 2), threshold, workers)
    right, notes = True, []
    for setting in settings:
        bands, rows, cuts = (int(part) for part in setting.split("x"))
        output = work / name / setting
        cpu = dedupe(source, output, (bands, rows, cuts), threshold, workers)
        judged = judge_output(corpus, output, threshold)
        print(line(setting, cpu, judged), flush=True)
        notes += [f"  {setting}: {remark}" for remark in remarks(judged, threshold)]
        right &= not judged.findings.faults
    print("\n".join(notes), flush=True)
    return right


def main() -> None:
    """Judge every corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--bands", action="append", metavar="BANDSxROWSxCUTS", help="repeatable; default: 14x8x2")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder for the outputs, which then stay")
    args = parser.parse_args()
    corpora = {name: Path(path) for name, path in (one.split("=", 1) for one in args.corpus)}
    corpora = corpora or {name: SHARED / f"{name}.jsonl.zst" for name in NAMES}
    if missing := [str(path) for path in corpora.values() if not path.exists()]:
        sys.exit(f"not found: {', '.join(missing)}; name your own with --corpus NAME=FILE (JSON Lines, id and text)")
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as temporary:
        work = args.keep or Path(temporary)
        options = (args.bands or ["14x8x2"], args.threshold, args.workers)
        right = [run_corpus(name, path, work, *options) for name, path in corpora.items()]
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
