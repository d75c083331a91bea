"""Pre-train a model on one real corpus, as a user does: ingest, shard, tokenizer, pack, train; and time each command.

    python benchmarks/pretrain.py DIR [--corpus wikipedia_en] [--steps 2000] [--seed 0] [--set part.name=value …]

DIR gets the outputs: DIR/run and DIR/tokenizer are what finetune.py takes for --english or --chinese. A tokenizer of
8,192 pieces, rows of 256 tokens, the preset `mini`, 16 rows a step (4,096 slots) and otherwise the default options; the
corpora are those of ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from corpora import SHARED
from measure import measure

ROOT = Path(__file__).resolve().parents[1]


def commands(corpus: str, folder: Path, steps: int, seed: int, more: list[str]) -> dict[str, list[str]]:
    """The command line of each stage, below its module's name."""
    source = SHARED / f"{corpus}.jsonl.zst"
    return {
        "pipelines.ingest": ["--input", str(source), "--source", corpus, "--id-field", "id"],
        "pipelines.shard": ["--input", str(folder / "ingest"), "--set", "splits={train: 0.98, validation: 0.02}"],
        "pipelines.tokenizer": ["--input", str(folder / "shard"), "--set", "vocab_size=8192"],
        "pipelines.pack": ["--input", str(folder / "shard"), "--tokenizer", str(folder / "tokenizer"),
                           "--set", "seq_len=256"],
        "trainer.train": ["--data", str(folder / "pack"), "--set", f"run.steps={steps}", "--set", f"run.seed={seed}",
                          "--set", "run.rows=2", "--set", "run.micro_batches=8", "--set", "run.eval_every=500",
                          *(each for option in more for each in ("--set", option))],
    }  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--corpus", default="wikipedia_en")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and masks")
    parser.add_argument("--set", action="append", default=[], metavar="PART.NAME=VALUE", help="for trainer.train")
    given = parser.parse_args()
    if not (SHARED / f"{given.corpus}.jsonl.zst").exists():
        sys.exit(f"not found: {SHARED / given.corpus}.jsonl.zst")
    folder = given.folder.resolve()
    print(f"  {'':<22} {'seconds':>8} {'of CPU':>8}")
    for module, arguments in commands(given.corpus, folder, given.steps, given.seed, given.set).items():
        stage = "run" if module == "trainer.train" else module.rpartition(".")[2]
        command = ["-m", module, *arguments, "--output", str(folder / stage)]
        took = measure([sys.executable, *command], cwd=str(ROOT))  # beside this file stands a trainer.py
        print(f"  {module:<22} {took.wall:>8.1f} {took.cpu:>8.1f}", flush=True)
    summary = json.loads((folder / "run/train.json").read_text(encoding="utf-8"))
    report = summary["validation"]
    print(
        f"\n  {summary['tokens']:,} tokens, {summary['tokens_per_second']:,} a second; "
        f"validation loss {report['loss']:.4f}, of the unigram model {report['unigram_loss']:.4f}"
    )


if __name__ == "__main__":
    main()
