"""Measure personal data: how well each kind is found in the labelled set, and how fast, beside datatrove's formatter.

    python benchmarks/pii.py                                    the tables of quality and of our speed
    python benchmarks/pii.py --peers-python PEERS/bin/python    with datatrove's; for PEERS see benchmarks/dedupe.py

Quality: the labelled set of tests/pipelines/text (pii_cases.py, pii_negatives.py), with `--seeds` sets of values. A
value counts as found if its first and last byte are right. Recall and precision of datatrove are of the kinds it has,
e-mail and IPv4, on the same texts; where its span is longer or shorter than the label, overlap is enough for it.

Speed: one core, CPU seconds over the texts in memory, start-up and compilation left out; MB are 10^6 bytes of UTF-8.
Ours reads Arrow arrays and looks for all eight kinds; datatrove's PIIFormatter reads Python strings and looks for two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import corpora
import orjson
import pyarrow as pa
from measure import use_cores

from pipelines.text import pii
from pipelines.text.pii import KINDS, PiiConfig

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "pipelines" / "text"))

from pii_cases import Case, positives, score
from pii_negatives import negatives

BATCH = 2 << 20  # bytes of text in an array, about that of a shard's batch
CORPORA = ("wikipedia_en", "wikipedia_zh", "laws_zh", "poetry_zh", "documentation_versions")
PEER = Path(__file__).resolve().parent / "peers" / "run_datatrove_pii.py"


def ask_peer(python: str, texts: list[str]) -> dict[str, object]:
    """Run datatrove's formatter over texts: {seconds, spans: [[first byte, end, kind], …] a text}."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "texts.json"), Path(folder, "answer.json")
        given.write_bytes(orjson.dumps(texts))
        environment = os.environ | {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        subprocess.run([python, str(PEER), str(given), str(answer)], check=True, env=environment)
        return dict(json.loads(answer.read_bytes()))


def ours(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    """Find in texts: (first byte, end, kind) of each."""
    rows: list[list[tuple[int, int, str]]] = [[] for _ in texts]
    spans = pii.find(pa.array(texts), PiiConfig("report"))
    for row, start, end, kind in zip(*(column.tolist() for column in spans), strict=True):
        rows[row].append((start, end, KINDS[kind]))
    return rows


def snap(cases: list[Case], found: list[list[tuple[int, int, str]]]) -> list[list[tuple[int, int, str]]]:
    """Replace every span that overlaps a label of its kind by that label."""
    snapped = []
    for case, spans in zip(cases, found, strict=True):
        labels = case.spans()
        snapped.append(
            [
                next(
                    (label for label in labels if label[2] == kind and label[0] < end and start < label[1]),
                    (start, end, kind),
                )
                for start, end, kind in spans
            ]
        )
    return snapped


def quality(seeds: int, peers_python: str | None) -> None:
    """Print recall and precision of every kind."""
    cases = [case for seed in range(4, 4 + seeds) for case in positives(seed) + negatives(seed)]
    texts = [case.text for case in cases]
    scores = score(cases, ours(texts))
    theirs = {}
    if peers_python:
        spans = [[tuple(span) for span in row] for row in ask_peer(peers_python, texts)["spans"]]  # type: ignore[attr-defined]
        theirs = score(cases, snap(cases, spans))
    print(
        f"Labelled set: {sum(bool(c.found) for c in cases)} positive texts, {sum(not c.found for c in cases)} hard negatives\n"
    )
    print("| kind   | labels | recall | precision | missed | wrong | datatrove: recall | precision | wrong |")
    print("|:-------|-------:|-------:|----------:|-------:|------:|------------------:|----------:|------:|")
    for kind, one in scores.items():
        peer = theirs.get(kind) if kind in ("email", "ipv4") else None
        last = (
            f"{peer.recall:>17.4f} | {peer.precision:>9.4f} | {peer.wrong:>5}"
            if peer
            else f"{'':>17} | {'':>9} | {'':>5}"
        )
        print(
            f"| {kind:<6} | {one.right + one.missed:>6} | {one.recall:.4f} | {one.precision:>9.4f} | {one.missed:>6} | {one.wrong:>5} | {last} |"
        )
    print(flush=True)


def batches(texts: list[str]) -> list[pa.Array]:
    """Make arrays of about BATCH bytes."""
    made: list[pa.Array] = []
    size, first = 0, 0
    for i, text in enumerate(texts):
        size += len(text.encode())
        if size >= BATCH or i + 1 == len(texts):
            made.append(pa.array(texts[first : i + 1], pa.large_string()))
            size, first = 0, i + 1
    return made


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Give the least CPU seconds of some runs."""
    took = []
    for _ in range(repeat):
        begin = time.process_time()
        work()
        took.append(time.process_time() - begin)
    return min(took)


def speed(limit: int, repeat: int, peers_python: str | None) -> None:
    """Print MB/s a core, ours and datatrove's, and what was found."""
    print("| corpus | MB | find MB/s | + redact MB/s | datatrove MB/s | find × | found |")
    print("|:-------|---:|----------:|--------------:|---------------:|-------:|:------|")
    report, redact = PiiConfig("report"), PiiConfig("redact")
    for name in CORPORA:
        if corpora.missing((name,)):
            print(f"| {name}: not on this machine |", flush=True)
            continue
        texts, size = [], 0
        for record in corpora.records((name,)):
            texts.append(record["text"])
            size += len(record["text"].encode())
            if size >= limit:
                break
        arrays = batches(texts)
        pii.find(arrays[0][:1], report)
        find = seconds(lambda arrays=arrays: [pii.find(a, report) for a in arrays], repeat)
        both = seconds(lambda arrays=arrays: [pii.apply(a, pii.find(a, redact), redact) for a in arrays], repeat)
        found = Counter(KINDS[kind] for a in arrays for kind in pii.find(a, report).kinds.tolist())
        peer = ratio = ""
        if peers_python:
            took = float(ask_peer(peers_python, texts)["seconds"])  # type: ignore[arg-type]
            peer, ratio = f"{size / 1e6 / took:.1f}", f"{took / find:.1f}"
        kinds = ", ".join(f"{kind} {count}" for kind, count in found.most_common())
        print(
            f"| {name} | {size / 1e6:.1f} | {size / 1e6 / find:.1f} | {size / 1e6 / both:.1f} | {peer} | {ratio} | {kinds} |",
            flush=True,
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", help="interpreter of the peers' environment")
    parser.add_argument("--seeds", type=int, default=1, help="sets of values in the labelled set")
    parser.add_argument("--megabytes", type=float, default=20, help="of each corpus")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    use_cores(1)
    quality(args.seeds, args.peers_python)
    speed(int(args.megabytes * 1e6), args.repeat, args.peers_python)


if __name__ == "__main__":
    main()
