"""Fine-tune pre-trained models on two real tables, beside the same models from random weights and TF-IDF.

    python benchmarks/finetune.py --english RUN TOKENIZER --chinese RUN TOKENIZER [--set name=value …]
    python benchmarks/finetune.py --baselines                               TF-IDF alone, without any model of ours
    python benchmarks/finetune.py --tables DIR                              write the tables for `trainer.finetune`

  dbpedia14   abstracts of English Wikipedia in 14 topics, 1,000 of each.
  poetry_zh   classical Chinese poems in 4 genres; wudai (543 poems, a fifth genre) is left out.

Both from ../shared/data, split 80 : 5 : 15 into train, validation and test by a hash. A text that occurs twice is kept
once: compared by its letters alone, the first label stays. Poems that share a verse of five characters or more are one
group, which stays on one side, so the test table holds no other version of a poem of the training table.

The baseline: TF-IDF with logarithmic counts of terms that occur twice, of words and pairs of words for English and of
one to three characters for Chinese; logistic regression, the best on the validation table of C = 1, 10, 100. Ours: the
default options of `trainer.finetune`, and the epoch with the least log loss on the validation table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from corpora import SHARED

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"test": 0.15, "validation": 0.20, "train": 1.0}  # upper ends of the hash's range
PENALTIES = (1.0, 10.0, 100.0)

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A table and how to treat it. terms: arguments of TfidfVectorizer."""

    name: str
    without: tuple[str, ...]
    groups: Callable[[list[Record]], list[str]]
    terms: dict[str, Any]


def own(records: list[Record]) -> list[str]:
    """Every text is a group."""
    return [record["text"] for record in records]


def verses(records: list[Record]) -> list[str]:
    """Name each poem's group by the text of its first member: poems that share a verse, directly or through others."""
    parent = list(range(len(records)))

    def root(poem: int) -> int:
        while parent[poem] != poem:
            parent[poem] = poem = parent[parent[poem]]
        return poem

    seen: dict[str, int] = {}
    for poem, record in enumerate(records):
        for verse in re.split(r"\W+", record["text"]):
            if len(verse) >= 5:
                low, high = sorted((root(poem), root(seen.setdefault(verse, poem))))
                parent[high] = low
    return [records[root(poem)]["text"] for poem in range(len(records))]


TASKS = {
    "english": Task("dbpedia14", (), own, {"analyzer": "word", "ngram_range": (1, 2)}),
    "chinese": Task("poetry_zh", ("wudai",), verses, {"analyzer": "char", "ngram_range": (1, 3)}),
}


def split(task: Task, folder: Path, seed: int, most: int = 0) -> dict[str, Path]:
    """Write a task's tables as JSON Lines, say what they hold, and return where they are.

    most: texts to train on, chosen by a hash; 0: all.
    """
    with pa.input_stream(str(SHARED / f"{task.name}.jsonl.zst"), compression="zstd") as stream:
        every = [orjson.loads(line) for line in stream.read().splitlines()]
    once: dict[str, Record] = {}
    for record in every:
        if record["label"] not in task.without:
            once.setdefault(re.sub(r"[\W_]+", "", record["text"]).casefold(), record)
    records = list(once.values())
    parts: dict[str, list[Record]] = {part: [] for part in PARTS}
    for record, group in zip(records, task.groups(records), strict=True):
        share = int.from_bytes(hashlib.blake2b(f"{seed} {group}".encode(), digest_size=8).digest(), "little") / 2**64
        parts[next(part for part, end in PARTS.items() if share < end)].append(record)
    if most:
        order = sorted(parts["train"], key=lambda each: hashlib.blake2b(f"{seed} {each['text']}".encode()).digest())
        parts["train"] = order[:most]
    left = sum(record["label"] in task.without for record in every)
    print(
        f"{task.name}: {len(every):,} texts, {left:,} of genres left out, {len(every) - left - len(records):,} copies"
    )
    for part, chosen in reversed(parts.items()):
        counts = Counter(record["label"] for record in chosen)
        print(f"  {part:<11} {len(chosen):>7,}: " + ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items())))
        (folder / f"{task.name}-{part}.jsonl").write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in chosen))
    return {part: folder / f"{task.name}-{part}.jsonl" for part in parts}


def baseline(task: Task, tables: dict[str, Path]) -> Record:
    """Measure TF-IDF and logistic regression on the test table."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    rows = {part: [orjson.loads(line) for line in path.read_bytes().splitlines()] for part, path in tables.items()}
    texts = {part: [row["text"] for row in found] for part, found in rows.items()}
    labels = {part: [row["label"] for row in found] for part, found in rows.items()}
    began = time.perf_counter()
    terms = TfidfVectorizer(sublinear_tf=True, min_df=2, **task.terms)
    train = terms.fit_transform(texts["train"])
    models = [LogisticRegression(C=penalty, max_iter=300).fit(train, labels["train"]) for penalty in PENALTIES]
    held = terms.transform(texts["validation"])
    best = max(models, key=lambda model: f1_score(labels["validation"], model.predict(held), average="macro"))
    guesses = best.predict(terms.transform(texts["test"]))
    seconds = time.perf_counter() - began
    return {"model": f"TF-IDF, {train.shape[1]:,} terms, C = {best.C:.0f}", "seconds": seconds,
            "accuracy": accuracy_score(labels["test"], guesses),
            "macro_f1": f1_score(labels["test"], guesses, average="macro")}  # fmt: skip


def ours(name: str, tables: dict[str, Path], run: str, tokenizer: str, more: list[str]) -> Record:
    """Fine-tune, and measure on the test table."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        paths = {"--model": Path(run), "--tokenizer": Path(tokenizer), "--output": output}
        paths |= {f"--{part}": path for part, path in tables.items()}
        arguments = [*more, *(each for key, path in paths.items() for each in (key, str(path.resolve())))]
        began = time.perf_counter()
        # a process of its own: beside this file stands a trainer.py that would hide the package
        subprocess.run([sys.executable, "-m", "trainer.finetune", *arguments], cwd=ROOT, stdout=sys.stderr, check=True)
        metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return {"model": name, "seconds": time.perf_counter() - began, "epochs": len(metrics["training"]),
            "accuracy": metrics["accuracy"], "macro_f1": metrics["macro"]["f1"],
            "calibration_error": metrics["calibration_error"]}  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for language in TASKS:
        parser.add_argument(f"--{language}", nargs=2, metavar=("RUN", "TOKENIZER"))
    parser.add_argument("--baselines", action="store_true", help="no models of ours")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="write the tables here and stop")
    parser.add_argument("--train-on", type=int, default=0, metavar="N", help="so many texts at most; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of fine-tuning")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for trainer.finetune")
    given = parser.parse_args()
    chosen = [each for each in TASKS if given.baselines or given.tables or getattr(given, each)]
    if not chosen:
        parser.error("give --english, --chinese, --baselines or --tables")
    if absent := [str(path) for each in chosen if not (path := SHARED / f"{TASKS[each].name}.jsonl.zst").exists()]:
        sys.exit(f"not found: {', '.join(absent)}")
    folder = given.tables or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"seed={given.seed}", "monitor=log_loss", *given.set]
    more = [each for option in options for each in ("--set", option)]
    for language in chosen:
        tables = split(TASKS[language], folder, given.seed, given.train_on)
        if given.tables:
            continue
        rows = [baseline(TASKS[language], tables)]
        if not given.baselines:
            run, tokenizer = getattr(given, language)
            rows.append(ours("random weights", tables, run, tokenizer, ["--from-scratch", *more]))
            rows.append(ours("pre-trained", tables, run, tokenizer, more))
        print(f"\n  {'':<40} {'accuracy':>9} {'macro F1':>9} {'calibr.':>9} {'epochs':>7} {'seconds':>8}")
        for row in rows:
            error = f"{row['calibration_error']:.4f}" if "calibration_error" in row else ""
            print(f"  {row['model']:<40} {row['accuracy']:>9.4f} {row['macro_f1']:>9.4f} {error:>9} "
                  f"{row.get('epochs', ''):>7} {row['seconds']:>8.0f}")  # fmt: skip
        print(flush=True)


if __name__ == "__main__":
    main()
