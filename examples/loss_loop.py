"""From the model's losses back to the data: does removing what they point at make the next model better?

    python examples/loss_loop.py data/clean/docstrings data/clean/readmes --work /somewhere/loop

The documents (outputs of ingest or clean) are split: a tenth is held out and stays clean. Of the others a share
(--spoiled) is damaged by a seeded generator, in four ways that corpora know: letters shuffled in words, random letters,
base64, and tables of ids. Nothing but this script knows which. Then, with the commands that anybody would use:

1. shard, tokenizer, pack, train; `evaluate --table train --losses` measures every training document;
2. `gristmill losses --per byte --drop hardest=SHARE` decides, `shard --decisions` applies it; pack, and train again:
   as many steps, the same tokenizer, the same seed;
3. for comparison, a third model loses as many documents by chance;
4. each is trained with several seeds and measured on the held-out text. Printed: the mean losses, their differences
   with standard errors, and which of the spoiled documents were found.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

from pipelines import ingest, losses, pack, shard, tokenizer
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, surviving_batches

KINDS = ("shuffled", "noise", "base64", "ids")
HELD_OUT = 0.1
Spoiled = dict[bytes, str]  # id: kind


def spoil(text: str, kind: str, random: Random) -> str:
    """Damage a text in one of the four ways; about as long as it was, never equal to it where it has two words."""
    if kind == "shuffled":  # a word keeps its letters; Chinese, which has no spaces, its characters between two marks
        return re.sub(r"\w{2,}", lambda word: "".join(random.sample(word[0], len(word[0]))), text)
    if kind == "noise":  # words keep their length; letters and Chinese characters alike become random letters
        return re.sub(r"\w", lambda _: random.choice("abcdefghijklmnopqrstuvwxyz"), text)
    if kind == "base64":
        return base64.b64encode(random.randbytes(max(12, len(text.encode()) * 3 // 4))).decode()
    rows = max(2, len(text) // 40)
    return "\n".join(
        f"{random.getrandbits(64):016x},{random.randrange(10**9):09d},{random.choice('NY')}" for _ in range(rows)
    )


def chance(name: str, purpose: str, seed: int) -> float:
    """A number from 0 to 1 that a name alone decides."""
    return int.from_bytes(hashlib.blake2b(f"{purpose} {seed} {name}".encode(), digest_size=8).digest(), "big") / 2**64


def documents(roots: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield source, hex id and text of every document that survives its own ledger."""
    dataset = Dataset.open(*roots).require(DOCUMENTS)
    for key in dataset.keys(DOCUMENTS):
        for batch in surviving_batches(dataset, key, ["id", "source", "text"]):
            columns = (batch.column(name).to_pylist() for name in ("source", "id", "text"))
            for source, record, text in zip(*columns, strict=True):
                yield source, record.hex(), text


def write_raw(roots: list[str], work: Path, share: float, seed: int) -> dict[str, str]:
    """Write raw/train and raw/held_out, SOURCE.jsonl each; returns the kind of damage by the id in those files."""
    lines: dict[tuple[str, str], list[str]] = {}
    kinds = {}
    for source, name, text in documents(roots):
        part = "held_out" if chance(name, "held out", seed) < HELD_OUT else "train"
        if part == "train" and chance(name, "spoil", seed) < share:
            kinds[name] = KINDS[int(chance(name, "kind", seed) * len(KINDS))]
            text = spoil(text, kinds[name], Random(f"{seed} {name}"))
        lines.setdefault((part, source), []).append(json.dumps({"id": name, "text": text}))
    for (part, source), records in lines.items():
        path = work / "raw" / part / f"{source}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(records) + "\n", encoding="utf-8")
    return kinds


def stage(module: Any, *arguments: str | Path) -> None:
    """Run a stage as its command does."""
    if code := module.main([str(one) for one in arguments]):
        raise SystemExit(code)


def trainer(command: str, *arguments: str | Path) -> None:
    """Run a command of the trainer, in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = [sys.executable, "-m", f"trainer.{command}", *map(str, arguments)]
    subprocess.run(done, check=True, env=os.environ | {"PYTHONPATH": path})


def prepare(roots: list[str], work: Path, share: float, seed: int, vocabulary: int, seq_len: int) -> Spoiled:
    """Ingest both parts, train the tokenizer on the spoiled one, as one would who knows nothing; pack the held-out."""
    kinds = write_raw(roots, work, share, seed)
    for part in ("train", "held_out"):
        for path in sorted((work / "raw" / part).glob("*.jsonl")):
            named = ("--source", path.stem, "--id-field", "id")
            stage(ingest, "--input", path, *named, "--output", work / part / path.stem)
    whole = ("--set", "splits={validation: 1.0}")
    stage(shard, "--input", work / "held_out/*", *whole, "--output", work / "held_out_shards")
    stage(shard, "--input", work / "train/*", "--set", "splits={train: 1.0}", "--output", work / "all/shards")
    vocabulary_size = ("--set", f"vocab_size={vocabulary}")
    stage(tokenizer, "--input", work / "all/shards", "--output", work / "tokenizer", *vocabulary_size)
    packed = ("--tokenizer", work / "tokenizer", "--set", f"seq_len={seq_len}")
    stage(pack, "--input", work / "held_out_shards", *packed, "--output", work / "held_out_packed")
    table = Dataset.open(str(work / "all/shards")).table("train", columns=["id", "locator"])
    names = zip(table["id"].to_pylist(), table["locator"].to_pylist(), strict=True)
    return {record: kinds[locator] for record, locator in names if locator in kinds}


def train(work: Path, name: str, seq_len: int, seeds: int, options: list[str]) -> list[float]:
    """Pack work/NAME/shards, train on them once for each seed, and return the losses on the held-out text."""
    packed, found = work / name / "packed", []
    settings = ("--tokenizer", work / "tokenizer", "--set", f"seq_len={seq_len}")
    stage(pack, "--input", work / name / "shards", *settings, "--output", packed)
    quiet = ["run.eval_every=0", "run.save_every=0", "data.evaluate=train", "run.eval_rows=64"]
    for seed in range(seeds):
        run, metrics = work / name / f"run-{seed}", work / name / f"held_out-{seed}.json"
        chosen = [f"--set={one}" for one in [*quiet, f"run.seed={seed}", *options]]
        trainer("train", "--data", packed, "--output", run, *chosen)
        measured = ("--data", work / "held_out_packed", "--train-table", "validation", "--metrics", metrics)
        trainer("evaluate", "--checkpoint", run, *measured)
        found.append(float(json.loads(metrics.read_text(encoding="utf-8"))["loss"]))
    return found


def removed(dataset: Path) -> set[bytes]:
    """The ids that a ledger removes."""
    return set(Dataset.open(str(dataset)).table(LEDGER_TABLE, columns=["id"])["id"].to_pylist())


def report(spoiled: Spoiled, gone: set[bytes], results: dict[str, list[float]], total: int) -> list[str]:
    """What was found, and what it was worth."""
    found, kinds = Counter(spoiled[one] for one in gone if one in spoiled), Counter(spoiled.values())
    hits = sum(found.values())
    lines = [
        f"{len(spoiled):,} of {total:,} documents are spoiled, {len(gone):,} were removed, {hits:,} of them spoiled"
    ]
    lines.append(f"precision {hits / max(1, len(gone)):.3f}, recall {hits / max(1, len(spoiled)):.3f}")
    lines += [f"  {kind:<10} {found[kind]:,} of {kinds[kind]:,} found" for kind in KINDS]
    for name, losses_ in results.items():
        line = f"held-out loss, {name:<10} {fmean(losses_):.4f} nats"
        if name != "all":  # seed by seed: order and first weights are the same
            less = [one - other for one, other in zip(losses_, results["all"], strict=True)]
            error = f" ± {stdev(less) / len(less) ** 0.5:.4f}" if len(less) > 1 else ""
            line += f" ({fmean(less):+.4f}{error})"
        lines.append(line)
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run the loop and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", metavar="DIR_OR_GLOB", help="outputs of ingest or clean")
    parser.add_argument("--work", type=Path, required=True, help="directory for all that is written; must be new")
    parser.add_argument("--spoiled", type=float, default=0.3, help="share of documents that are damaged")
    parser.add_argument("--drop", type=float, default=0.3, help="share of documents to remove")
    parser.add_argument("--per", choices=("byte", "token"), default="byte", help="how documents are scored")
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind: one alone is mostly chance")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens")
    parser.add_argument("--seq-len", type=int, default=128, help="slots of a row")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and the damage")
    parser.add_argument("--set", action="append", default=[], help="option of the trainer; repeatable")
    args = parser.parse_args(argv)
    if args.work.exists():
        parser.error(f"{args.work} exists; name a new directory")
    work, options = args.work, [f"run.steps={args.steps}", "model.preset=mini", "run.rows=4", *args.set]
    training = (args.seq_len, args.seeds, options)
    spoiled = prepare(args.documents, work, args.spoiled, args.seed, args.vocabulary, args.seq_len)
    results = {"all": train(work, "all", *training)}
    measured = ("--table", "train", "--passes", "2", "--losses", work / "train.arrow")
    trainer("evaluate", "--checkpoint", work / "all/run-0", "--data", work / "all/packed", *measured)
    decided = ("--per", args.per, "--drop", f"hardest={args.drop}", "--min-tokens", "5", "--output", work / "decisions")
    stage(losses, work / "train.arrow", "--documents", work / "train/*", *decided)
    whole = ("--input", work / "train/*", "--set", "splits={train: 1.0}")
    stage(shard, *whole, "--decisions", work / "decisions", "--output", work / "found/shards")
    results["found"] = train(work, "found", *training)
    gone, books = removed(work / "decisions"), Dataset.open(str(work / "all/shards")).books
    total = sum(one.kept for one in books.values())
    weights = "{" + ", ".join(f"{json.dumps(name)}: {1 - len(gone) / total}" for name in books) + "}"
    stage(shard, *whole, "--set", f"weights={weights}", "--output", work / "by chance/shards")
    results["by chance"] = train(work, "by chance", *training)
    print("\n".join(["", *report(spoiled, gone, results, total)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
