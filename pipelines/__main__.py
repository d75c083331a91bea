"""The `gristmill` command: every stage, the trainer, and the questions one asks afterwards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from pipelines.core.start import imported, importing

# name: (module, what it does). A module is imported only when its command is used: Beam and torch take seconds.
COMMANDS = {
    "sample": ("pipelines.sample", "collect real text that this Python installation holds"),
    "ingest": ("pipelines.ingest", "read raw files into shards of texts or images"),
    "clean": ("pipelines.clean", "repair texts or prepare images, decide by quality rules"),
    "lines": ("pipelines.lines", "drop lines that a corpus repeats"),
    "decontaminate": ("pipelines.decontaminate", "find evaluation sets in documents, remove what holds them"),
    "dedupe": ("pipelines.dedupe", "remove exact and near duplicates"),
    "shard": ("pipelines.shard", "apply all decisions; write shuffled, split, even shards"),
    "tokenizer": ("pipelines.tokenizer", "train a SentencePiece tokenizer"),
    "pack": ("pipelines.pack", "encode and pack documents into rows of tokens"),
    "train": ("trainer.train", "train a masked language model on packed rows"),
    "evaluate": ("trainer.evaluate", "measure a checkpoint on a split"),
    "export": ("trainer.export", "write a checkpoint for transformers"),
    "finetune": ("trainer.finetune", "make a classifier of a trained model, or evaluate one"),
    "vision": ("trainer.vision", "train a classifier of images or a masked autoencoder, or evaluate one"),
    "losses": ("pipelines.losses", "lead the losses of a model back to sources and documents; drop or reweigh them"),
    "rules": ("pipelines.rules", "try other rules on what clean measured, and write nothing"),
    "duplicates": ("pipelines.duplicates", "show what dedupe found: clusters, similarities, overlaps"),
    "sheet": ("pipelines.sheet", "show images: kept ones, those each rule removed, duplicates side by side"),
    "near": ("pipelines.near", "find the near-duplicates of one text in an index"),
    "report": ("pipelines.report", "gather books, metrics and plots of all stages"),
    "why": ("pipelines.why", "tell a document's history through the stages"),
    "verify": ("pipelines.verify", "check every shard of a dataset against its manifest"),
}


def usage() -> str:
    """The text of `gristmill --help`."""
    lines = ["usage: gristmill COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join([*lines, "", "gristmill COMMAND --help explains each one."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 2
    if args[0] not in COMMANDS:
        print(f"gristmill: unknown command {args[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    if argv is None:
        importing(COMMANDS[args[0]][0])
    try:
        command = importlib.import_module(COMMANDS[args[0]][0])
    finally:
        imported()
    return int(command.main(args[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
