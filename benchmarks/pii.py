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


Span = tuple[int, int, str]  # first byte, end, kind


def ask_peer(python: str, texts: list[str]) -> tuple[float, list[list[Span]]]:
    """Run datatrove's formatter over texts: (CPU seconds, what it takes of each)."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "texts.json"), Path(folder, "answer.json")
        given.write_bytes(orjson.dumps(texts))
        environment = os.environ | {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        subprocess.run([python, str(PEER), str(given), str(answer)], check=True, env=environment)
        read = orjson.loads(answer.read_bytes())
    return read["seconds"], [[(start, end, kind) for start, end, kind in row] for row in read["spans"]]


def ours(texts: list[str]) -> list[list[Span]]:
    """Find in texts: (first byte, end, kind) of each."""
    rows: list[list[Span]] = [[] for _ in texts]
    spans = pii.find(pa.array(texts), PiiConfig("report"))
    for row, start, end, kind in zip(*(column.tolist() for column in spans), strict=True):
        rows[row].append((start, end, KINDS[kind]))
    return rows


def snap(cases: list[Case], found: list[list[Span]]) -> list[list[Span]]:
    """Replace every span that overlaps a label of its kind by that label."""

    def to_label(case: Case, span: Span) -> Span:
        labels = (label for label in case.spans() if label[2] == span[2])
        return next((label for label in labels if label[0] < span[1] and span[0] < label[1]), span)

    return [[to_label(case, span) for span in spans] for case, spans in zip(cases, found, strict=True)]


def quality(seeds: int, peers_python: str | None) -> None:
    """Print recall and precision of every kind."""
    cases = [case for seed in range(4, 4 + seeds) for case in positives(seed) + negatives(seed)]
    texts = [case.text for case in cases]
    scores = score(cases, ours(texts))
    theirs = score(cases, snap(cases, ask_peer(peers_python, texts)[1])) if peers_python else {}
    with_data = sum(bool(case.found) for case in cases)
    print(f"Labelled set: {with_data} positive texts, {len(cases) - with_data} hard negatives\n")
    print("| kind | labels | recall | precision | missed | wrong | datatrove: recall | precision | wrong |")
    print("|:-----|-------:|-------:|----------:|-------:|------:|------------------:|----------:|------:|")
    for kind, one in scores.items():
        peer = theirs.get(kind) if kind in ("email", "ipv4") else None
        cells = [kind, one.right + one.missed, f"{one.recall:.4f}", f"{one.precision:.4f}", one.missed, one.wrong]
        cells += [f"{peer.recall:.4f}", f"{peer.precision:.4f}", peer.wrong] if peer else [""] * 3
        print(f"| {' | '.join(map(str, cells))} |")
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
            took = ask_peer(peers_python, texts)[0]
            peer, ratio = f"{size / 1e6 / took:.1f}", f"{took / find:.1f}"
        kinds = ", ".join(f"{kind} {count}" for kind, count in found.most_common())
        rates = [f"{size / 1e6 / one:.1f}" for one in (find, both)]
        print(f"| {' | '.join([name, f'{size / 1e6:.1f}', *rates, peer, ratio, kinds])} |", flush=True)


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
