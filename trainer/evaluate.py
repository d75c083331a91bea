"""Evaluation under fixed masks: loss, accuracy and bits per byte, by source, beside the unigram model.

    python -m trainer.evaluate --checkpoint RUN_OR_CHECKPOINT --data DIR [--table validation] [--metrics FILE]
    python -m trainer.evaluate --checkpoint RUN/best --data DIR --table train --passes 3 --losses FILE.arrow

--losses writes what each document cost (see schemas/losses.py); more passes guess at more of its tokens.

Bits per byte: mean loss of a masked token, in bits, times the tokens per byte of the text. It makes models with
different tokenizers comparable, but it is no code length: each token is guessed with most others in view.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer import checkpoint
from trainer.cli import guarded
from trainer.config import PRECISIONS
from trainer.data import PackedDataset
from trainer.losses import by_piece
from trainer.losses import table as loss_table
from trainer.losses import write as write_losses
from trainer.masking import ORDINARY, MaskConfig
from trainer.order import shuffled
from trainer.step import MicroBatch, Objective
from trainer.world import World, connect

SEED = 0  # of evaluation masks and of the choice of rows: one for all runs, so that their numbers compare


def log_unigram(counts: np.ndarray) -> torch.Tensor:
    """Natural log of token frequencies, with one count added to each id: float32 [vocabulary]. Specials count 0."""
    counts = counts.astype(np.float64)
    counts[:ORDINARY] = 0
    return torch.from_numpy(np.log((counts + 1) / (counts + 1).sum())).float()


@dataclass(frozen=True)
class Losses:
    """What each document of the evaluated rows cost, one entry for each document segment.

    id: bytes. source: str. loss, unigram: float64, summed nats under the model and under the unigram model. masked,
    correct, tokens, bytes: int64; tokens are the ordinary ones, masked or not. pair_loss, pairs, pairs_right: float64,
    nats of the next-sentence head and counts, at the piece that a pair begins with.
    """

    id: np.ndarray
    source: np.ndarray
    loss: np.ndarray
    unigram: np.ndarray
    masked: np.ndarray
    correct: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    pair_loss: np.ndarray
    pairs: np.ndarray
    pairs_right: np.ndarray

    @staticmethod
    def join(parts: list[Losses]) -> Losses:
        """Put parts one after the other."""
        names = [each.name for each in fields(Losses)]
        return Losses(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def report(self) -> dict[str, Any]:
        """Means over all documents and, under 'sources', over each source's: None where none of its tokens is masked.

        ValueError where nothing is.
        """
        if not self.masked.any():
            raise ValueError("no token of the rows to evaluate on can be masked: they hold special tokens alone")
        sources = sorted(set(self.source.tolist()))
        return {**self._means(np.ones(len(self.source), bool)), "sources": {
            source: self._means(self.source == source) for source in sources
        }}  # fmt: skip

    def _means(self, chosen: np.ndarray) -> dict[str, Any]:
        masked = int(self.masked[chosen].sum())
        tokens, size = int(self.tokens[chosen].sum()), int(self.bytes[chosen].sum())
        pairs = float(self.pairs[chosen].sum())
        next_sentence = {
            "next_sentence_loss": round(float(self.pair_loss[chosen].sum()) / pairs, 6),
            "next_sentence_accuracy": round(float(self.pairs_right[chosen].sum()) / pairs, 6),
        } if pairs else {}  # fmt: skip
        names = ("loss", "unigram_loss", "accuracy", "bits_per_byte")
        means: tuple[float | None, ...] = (None,) * len(names)
        if masked:
            loss, unigram = (float(values[chosen].sum()) / masked for values in (self.loss, self.unigram))
            per_byte = loss / math.log(2) * tokens / max(size, 1)
            means = tuple(
                round(each, 6) for each in (loss, unigram, int(self.correct[chosen].sum()) / masked, per_byte)
            )
        return {
            **dict(zip(names, means, strict=True)),
            **next_sentence,
            "masked_tokens": masked,
            "tokens": tokens,
            "bytes": size,
        }


@torch.no_grad()
def measure(objective: Objective, dataset: PackedDataset, rows: np.ndarray, unigram: torch.Tensor, mask: MaskConfig, *,
            batch: int, world: World, draw: int = 0) -> Losses:  # fmt: skip
    """Evaluate global rows in batches dealt out to the processes; every process gets the same whole result.

    draw: which of a row's masks.
    """
    starts = range(0, len(rows), batch)
    rounds = range(world.rank, -(-len(starts) // world.size) * world.size, world.size)
    mine = {}
    for start in (starts[min(number, len(starts) - 1)] for number in rounds):  # as often in all: shards need them all
        mine[start] = _measure(objective, dataset, rows[start : start + batch], unigram, mask, draw)
    parts = {start: part for shares in world.gather(mine) for start, part in shares.items()}
    return Losses.join([parts[start] for start in starts])


def _measure(objective: Objective, dataset: PackedDataset, chosen: np.ndarray, unigram: torch.Tensor, mask: MaskConfig,
             draw: int) -> Losses:  # fmt: skip
    documents = dataset.documents(chosen)
    micro = MicroBatch.of(dataset, chosen, np.full(len(chosen), draw, np.int64), mask, SEED)
    losses, pair_losses, best = objective.on(micro)
    labels = micro.labels.numpy()
    baseline = -unigram.numpy()[np.maximum(labels, 0)]
    values = (losses.cpu().numpy(), baseline, np.ones(len(labels)), best.cpu().numpy() == labels)
    loss, floor, masked, hits = by_piece(micro, *values)
    paired, count = micro.paired[: len(pair_losses)], len(micro.ordinary)  # no losses without a head for them
    nats = pair_losses.cpu().numpy()[: len(paired)].astype(np.float64)
    right = (nats < math.log(2)).astype(np.float64)  # more than half of the probability
    pairs = [np.bincount(paired, each, minlength=count) for each in (nats, np.ones(len(paired)), right)]
    return Losses(
        np.array(documents["id"].to_pylist(), object), np.array(documents["source"].to_pylist(), object), loss, floor,
        masked.astype(np.int64), hits.astype(np.int64), micro.ordinary, documents["bytes"].to_numpy().astype(np.int64),
        *pairs,
    )  # fmt: skip


def choose_rows(dataset: PackedDataset, most: int) -> np.ndarray:
    """All rows, or for most > 0 at most so many, the same ones for every run, in ascending order: int64 [n]."""
    count = min(most, len(dataset)) if most else len(dataset)
    return np.sort(shuffled(np.arange(count), len(dataset), SEED))


def table(report: dict[str, Any]) -> str:
    """Lay out a report for a terminal: one line for each source and one for all."""
    lines = [f"{'source':<24}{'loss':>9}{'unigram':>9}{'accuracy':>10}{'bits/byte':>11}{'masked':>11}"]
    for name, one in [*report["sources"].items(), ("all", report)]:
        columns = (("loss", 9), ("unigram_loss", 9), ("accuracy", 10), ("bits_per_byte", 11))
        means = (f"{'-' if one[key] is None else format(one[key], '.4f'):>{width}}" for key, width in columns)
        lines.append(f"{name[:23]:<24}{''.join(means)}{one['masked_tokens']:>11,}")
    return "\n".join(lines)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Evaluate a checkpoint from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint; a run: its newest; RUN/best")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="directories of packed rows")
    parser.add_argument("--table", default="validation", help="table to evaluate on")
    parser.add_argument("--train-table", default="train", help="table whose token frequencies are the unigram model")
    parser.add_argument("--rows", type=int, default=0, help="packed rows to use, the same for every run; 0: all")
    parser.add_argument("--ratio", type=float, default=0.15, help="share of tokens masked")
    parser.add_argument("--passes", type=int, default=1, help="times to go over the rows, each under other masks")
    parser.add_argument("--batch", type=int, default=8, help="packed rows in a batch")
    parser.add_argument("--threads", type=int, default=1, help="threads; 0: all cores; bits depend on it")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="as run.precision in training")
    parser.add_argument("--metrics", type=Path, help="JSON file to write the report to")
    parser.add_argument("--losses", type=Path, help="Arrow file to write the losses of documents to")
    options = parser.parse_args(argv)

    if min(options.passes, options.batch) < 1 or options.rows < 0 or not 0 < options.ratio < 1:
        raise ValueError("--passes and --batch must be at least 1, --rows at least 0, --ratio a share")
    world = connect(options.threads)
    model, state = checkpoint.load_model(checkpoint.find(options.checkpoint), world.device)
    dataset = PackedDataset(options.data, options.table)
    if dataset.vocab_size != state.architecture.vocab_size:
        raise checkpoint.CheckpointError(
            f"the model has {state.architecture.vocab_size:,} token ids, {options.data[0]} {dataset.vocab_size:,}: "
            "evaluate on rows that were packed with the model's own tokenizer"
        )
    checkpoint.check_tokenizer(options.data[0], dataset.tokenizer, state)
    if dataset.seq_len > state.architecture.max_length:
        raise checkpoint.CheckpointError(
            f"{options.data[0]} has rows of {dataset.seq_len}; the model was trained on {state.architecture.max_length}"
        )
    unigram = log_unigram(PackedDataset(options.data, options.train_table).token_counts())
    objective = Objective(model.eval(), options.precision, world.device)
    chosen, mask = choose_rows(dataset, options.rows), MaskConfig(ratio=options.ratio)
    losses = Losses.join([
        measure(objective, dataset, chosen, unigram, mask, batch=options.batch, world=world, draw=draw)
        for draw in range(options.passes)
    ])  # fmt: skip
    if not np.isfinite(losses.loss).all():
        raise FloatingPointError(f"{options.checkpoint}: its losses are not finite; take an older checkpoint")
    report = {"step": state.step, "table": options.table, **losses.report()}
    if world.rank:
        return 0
    print(table(report))
    if options.losses:
        rows = loss_table(losses.id, losses.source, state.step, losses.loss, losses.masked)
        write_losses(options.losses, [rows])
    if options.metrics:
        options.metrics.parent.mkdir(parents=True, exist_ok=True)
        options.metrics.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
