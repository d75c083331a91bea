"""Measure cleaning, ours and datatrove's, in one run: the same decisions, rule by rule, and how long they take.

    python benchmarks/clean.py --peers-python PEERS/bin/python           the peers' environment: see dedupe.py
    python benchmarks/clean.py --documents 2000 --chain 300              a quick try

Decisions: every rule is asked alone, of the same texts and their dirty copies (dirty.py), at the limits of the papers;
`only ours` and `only theirs` are the texts that one removes and the other keeps. Speed: one core, texts in memory, MB
are 10^6 bytes of UTF-8; datatrove's chain is its four filters with their defaults, each on what the one before kept;
ours measures every signal of all those rules of every text. Medians of --repeat runs of ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import orjson
import pyarrow as pa
from dirty import dirty

from pipelines.clean import clean_batch
from pipelines.clean_config import CleanConfig
from pipelines.clean_texts import Texts
from pipelines.core.identity import content_hash, record_id
from pipelines.text import pages, repair, signals
from pipelines.text.normalize import NormalizeConfig, normalize
from pipelines.text.prepare import known_signals
from pipelines.text.rules import decide, groups_of, rules
from pipelines.text.unicode import utf8
from schemas.document import DOCUMENT

PEER = Path(__file__).resolve().parent / "peers" / "run_datatrove_filters.py"
SYMBOL = ("max_gopher_hash_ratio", "max_gopher_ellipsis_ratio")  # one filter of datatrove's asks both
PROFILES = ("fineweb", "c4")  # together all rules of datatrove's four filters


def ask_peer(python: str, texts: list[str], *flags: str) -> list[dict[str, Any]]:
    """Run datatrove's filters over texts; returns what they wrote, a line each."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        given.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
        subprocess.run([python, str(PEER), str(given), str(answer), *flags], check=True)
        return [json.loads(line) for line in answer.read_text().splitlines()]


def ask_ours(texts: list[str]) -> dict[str, np.ndarray]:
    """Whether each rule removes each text: rule → bool[n]."""
    asked = rules(PROFILES, {"min_c4_third_longest_line": 200}, known_signals())
    measured = pages.page_signals(pa.array(texts), groups_of(asked))
    found = {rule.name: rule.breaks(measured[rule.signal]) for rule in asked}
    found["max_gopher_symbol_ratio"] = found.pop(SYMBOL[0]) | found.pop(SYMBOL[1])
    return found


def compare(label: str, texts: list[str], python: str) -> None:
    """Print, rule by rule, how often ours and datatrove agree on removing a text."""
    theirs, ours = ask_peer(python, texts), ask_ours(texts)
    print(f"\n{label}: {len(texts):,} texts")
    print(f"| {'rule':<30} | {'removed by datatrove':>20} | {'only ours':>9} | {'only theirs':>11} | {'agree':>8} |")
    print(f"|:{'-' * 31}|{'-' * 21}:|{'-' * 10}:|{'-' * 12}:|{'-' * 9}:|")
    for name, mine in ours.items():
        answers = [answer[name] for answer in theirs]
        asked = np.array([answer is not None for answer in answers])  # datatrove fails on texts without a word
        removed = np.array([bool(answer) for answer in answers])
        more, less = int((mine & ~removed & asked).sum()), int((removed & ~mine & asked).sum())
        share = 1 - (more + less) / max(1, asked.sum())
        print(f"| {name:<30} | {removed.sum():>20,} | {more:>9,} | {less:>11,} | {share:>8.3%} |", flush=True)


def best(body: Callable[[], object], repeat: int) -> float:
    """Median seconds of CPU of a function, after one run."""
    body()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        body()
        times.append(time.process_time() - start)
    return statistics.median(times)


def documents(texts: list[str], rows: int = 800) -> list[pa.RecordBatch]:
    """Make batches of documents, as ingest writes them."""
    found = []
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        columns = {
            "id": [record_id("bench", str(start + i)) for i in range(len(part))],
            "source": ["bench"] * len(part),
            "locator": [str(start + i) for i in range(len(part))],
            "path": ["bench"] * len(part),
            "text": part,
            "content_hash": [content_hash(text.encode()) for text in part],
            "metadata": [None] * len(part),
        }
        found.append(pa.RecordBatch.from_pydict(columns, schema=DOCUMENT.schema))
    return found


def speeds(label: str, texts: list[str], repeat: int, chain: dict[str, Any] | None, asked_of: float) -> None:
    """Print MB/s a core of our rules and of whole profiles, and the share of each group of signals."""
    batches = documents(texts)
    size = sum(len(text.encode()) for text in texts) / 1e6
    asked = rules(PROFILES, {}, known_signals())
    groups = groups_of(asked)
    columns = [batch.column("text") for batch in batches]

    def ours() -> None:
        for column in columns:
            decide(pages.page_signals(column, groups), asked)

    rows: list[tuple[str, float]] = [("the same rules, all signals of all texts", best(ours, repeat))]
    for group in groups:
        rows.append((f"  of it: {group} alone, with tokens", best(lambda g=group: _each(columns, g), repeat)))  # type: ignore[misc]
    rows.append(("signals of every text", best(lambda: [signals.signals(c) for c in columns], repeat)))
    off = NormalizeConfig()
    rows.append(("normalisation, with repair", best(lambda: [normalize(c, off) for c in columns], repeat)))
    rows.append(
        (
            "  of it: looking for what ftfy would repair",
            best(lambda: [repair.suspects(*utf8(c)) for c in columns], repeat),
        )
    )
    for profile in (("default",), ("gopher",), PROFILES):
        config = CleanConfig(profile=profile)
        seconds = best(lambda c=config: [clean_batch(batch, Texts(c)) for batch in batches], repeat)  # type: ignore[misc]
        rows.append((f"clean, profile {' + '.join(profile)}", seconds))
    print(f"\n{label}: {size:.1f} MB, one core")
    print(f"| {'':<44} | {'CPU s':>7} | {'MB/s':>7} | {'× datatrove':>11} |")
    print(f"|:{'-' * 45}|{'-' * 8}:|{'-' * 8}:|{'-' * 12}:|")
    theirs = asked_of / chain["seconds"] if chain else None
    if theirs and chain:
        name = f"datatrove, its chain, on {asked_of:.1f} MB"
        print(f"| {name:<44} | {chain['seconds']:>7.2f} | {theirs:>7.2f} | {'1.0':>11} |")
    for name, seconds in rows:
        ratio = f"{size / seconds / theirs:.0f}" if theirs else ""
        print(f"| {name:<44} | {seconds:>7.3f} | {size / seconds:>7.1f} | {ratio:>11} |", flush=True)


def _each(columns: list[pa.Array], group: str) -> None:
    for column in columns:
        pages.page_signals(column, (group,))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers-python", metavar="PATH", help="Python of the peers' environment; without it, ours only"
    )
    parser.add_argument("--documents", type=int, default=20_000, metavar="N", help="to compare decisions on")
    parser.add_argument("--chain", type=int, default=1_500, metavar="N", help="documents of datatrove's timed chain")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    parser.add_argument("--only", choices=("decisions", "speed"))
    args = parser.parse_args(argv)
    if absent := corpora.missing(("wikipedia_en", "wikipedia_zh")):
        print(f"not measured: the real corpora are not here ({', '.join(absent)})")
        return 0
    texts = [record["text"] for record in corpora.records(("wikipedia_en",), args.documents)]
    if args.only != "speed" and args.peers_python:
        compare("wikipedia_en", texts, args.peers_python)
        compare("wikipedia_en, dirty copies", [text for _, text in dirty(texts, "en")], args.peers_python)
    if args.only != "decisions":
        some = texts[: args.chain]
        (chain,) = ask_peer(args.peers_python, some, "--chain") if args.peers_python else [None]
        size = sum(len(text.encode()) for text in some) / 1e6
        speeds("wikipedia_en", texts, args.repeat, chain, size)
        chinese = [record["text"] for record in itertools.islice(corpora.records(("wikipedia_zh",)), args.documents)]
        speeds("wikipedia_zh", chinese, args.repeat, None, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
