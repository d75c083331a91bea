"""Evaluation under fixed masks: loss, accuracy and bits per byte, by source, beside the unigram model.

    python -m trainer.evaluate --checkpoint RUN_OR_CHECKPOINT --data DIR [--table validation] [--metrics FILE]

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

from schemas.packed import IGNORE_INDEX
from trainer import checkpoint
from trainer.cli import guarded
from trainer.data import PackedDataset, shuffled
from trainer.masking import ORDINARY, MaskConfig
from trainer.model import MaskedLM
from trainer.step import MicroBatch, token_losses
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

    source: str. loss, unigram: float64, summed nats under the model and under the unigram model. masked, correct,
    tokens, bytes: int64; tokens are the ordinary ones, masked or not.
    """

    source: np.ndarray
    loss: np.ndarray
    unigram: np.ndarray
    masked: np.ndarray
    correct: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @staticmethod
    def join(parts: list[Losses]) -> Losses:
        """Put parts one after the other."""
        names = [each.name for each in fields(Losses)]
        return Losses(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def report(self) -> dict[str, Any]:
        """Means over all documents and, under 'sources', over each source's."""
        sources = sorted(set(self.source.tolist()))
        return {**self._means(np.ones(len(self.source), bool)), "sources": {
            source: self._means(self.source == source) for source in sources
        }}  # fmt: skip

    def _means(self, chosen: np.ndarray) -> dict[str, Any]:
        masked = int(self.masked[chosen].sum())
        tokens, size = int(self.tokens[chosen].sum()), int(self.bytes[chosen].sum())
        loss, unigram = (float(values[chosen].sum()) / max(masked, 1) for values in (self.loss, self.unigram))
        return {
            "loss": round(loss, 6),
            "unigram_loss": round(unigram, 6),
            "accuracy": round(int(self.correct[chosen].sum()) / max(masked, 1), 6),
            "bits_per_byte": round(loss / math.log(2) * tokens / max(size, 1), 6),
            "masked_tokens": masked,
            "tokens": tokens,
            "bytes": size,
        }


@torch.no_grad()
def measure(model: MaskedLM, dataset: PackedDataset, rows: np.ndarray, unigram: torch.Tensor, mask: MaskConfig, *,
            batch: int, precision: str, world: World) -> Losses:  # fmt: skip
    """Evaluate global rows in batches dealt out to the processes; every process gets the same whole result."""
    starts = range(0, len(rows), batch)
    mine = {
        start: _measure(model, dataset, rows[start : start + batch], unigram, mask, precision, world.device)
        for start in starts[world.rank :: world.size]
    }
    parts = {start: part for shares in world.gather(mine) for start, part in shares.items()}
    return Losses.join([parts[start] for start in starts])


def _measure(model: MaskedLM, dataset: PackedDataset, chosen: np.ndarray, unigram: torch.Tensor, mask: MaskConfig,
             precision: str, device: torch.device) -> Losses:  # fmt: skip
    rows, documents = dataset.rows(chosen), dataset.documents(chosen)
    epochs = np.zeros(len(chosen), np.int64)
    micro = MicroBatch.of(rows, epochs, mask, dataset, SEED, device)
    losses, logits = token_losses(model, micro, precision)
    correct = logits.argmax(-1) == micro.labels
    segment = micro.segments.document.flatten()[micro.slots].cpu().numpy()
    labels = micro.labels.cpu().numpy()
    valid = labels != IGNORE_INDEX
    where = segment[valid]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(where, values[valid].astype(np.float64), minlength=len(rows.lens))[~rows.padding]

    ordinary = (rows.input_ids >= ORDINARY).ravel()
    tokens = np.add.reduceat(ordinary.astype(np.int64), np.cumsum(rows.lens) - rows.lens)[~rows.padding]
    baseline = -unigram.numpy()[np.where(valid, labels, 0)]
    masked, right = (total(values).astype(np.int64) for values in (valid, correct.cpu().numpy()))
    loss = total(losses.cpu().numpy())
    return Losses(documents.source, loss, total(baseline), masked, right, tokens, documents.bytes)


def choose_rows(dataset: PackedDataset, most: int) -> np.ndarray:
    """All rows, or for most > 0 at most so many, the same ones for every run, in ascending order: int64 [n]."""
    count = min(most, len(dataset)) if most else len(dataset)
    return np.sort(shuffled(np.arange(count), len(dataset), SEED))


def table(report: dict[str, Any]) -> str:
    """Lay out a report for a terminal: one line for each source and one for all."""
    lines = [f"{'source':<24}{'loss':>9}{'unigram':>9}{'accuracy':>10}{'bits/byte':>11}{'masked':>11}"]
    for name, one in [*report["sources"].items(), ("all", report)]:
        lines.append(
            f"{name[:23]:<24}{one['loss']:>9.4f}{one['unigram_loss']:>9.4f}{one['accuracy']:>10.4f}"
            f"{one['bits_per_byte']:>11.4f}{one['masked_tokens']:>11,}"
        )
    return "\n".join(lines)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Evaluate a checkpoint from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint, or a run: its newest one")
    parser.add_argument("--data", type=Path, required=True, help="directory of packed rows")
    parser.add_argument("--table", default="validation", help="table to evaluate on")
    parser.add_argument("--train-table", default="train", help="table whose token frequencies are the unigram model")
    parser.add_argument("--rows", type=int, default=0, help="packed rows to use, the same for every run; 0: all")
    parser.add_argument("--ratio", type=float, default=0.15, help="share of tokens masked")
    parser.add_argument("--batch", type=int, default=8, help="packed rows in a batch")
    parser.add_argument("--threads", type=int, default=1, help="threads; 0: all cores; bits depend on it")
    parser.add_argument("--metrics", type=Path, help="JSON file to write the report to")
    options = parser.parse_args(argv)

    world = connect(options.threads)
    model, state = checkpoint.load_model(checkpoint.find(options.checkpoint), world.device)
    dataset = PackedDataset(options.data, options.table)
    if dataset.vocab_size != state.architecture.vocab_size:
        raise checkpoint.CheckpointError(
            f"the model has {state.architecture.vocab_size:,} token ids, {options.data} {dataset.vocab_size:,}: "
            "evaluate on rows that were packed with the model's own tokenizer"
        )
    unigram = log_unigram(PackedDataset(options.data, options.train_table).token_counts())
    mask = MaskConfig(ratio=options.ratio)
    losses = measure(
        model.eval(), dataset, choose_rows(dataset, options.rows), unigram, mask,
        batch=options.batch, precision="auto", world=world,
    )  # fmt: skip
    report = {"step": state.step, "table": options.table, **losses.report()}
    if world.rank:
        return 0
    print(table(report))
    if options.metrics:
        options.metrics.parent.mkdir(parents=True, exist_ok=True)
        options.metrics.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
