"""Train a masked language model on packed rows.

    python -m trainer.train --data DIR --output DIR [--config params.yaml] [--set part.name=value …] [--resume]
    torchrun --nproc-per-node 4 -m trainer.train …

The output directory gets checkpoints/step-…, config.json, metrics.jsonl, tensorboard/, train.json and loss.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer import checkpoint, evaluate, optim
from trainer.checkpoint import CheckpointError, State
from trainer.cli import guarded
from trainer.config import Config, ConfigError, describe, load
from trainer.data import PackedDataset, schedule
from trainer.masking import MaskConfig
from trainer.metrics import Metrics, read, summarise
from trainer.model import Architecture, MaskedLM
from trainer.step import MicroBatch, StepResult, update
from trainer.world import STOPPED, World, connect, launch, processes

OPTIONS = "config.json"  # marks a directory as a run's


@dataclass(frozen=True)
class Paths:
    """Where a run reads and writes; `metrics` gets train.json and loss.csv."""

    data: Path
    output: Path
    metrics: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.output / "checkpoints"


def train(config: Config, paths: Paths, world: World) -> int:
    """Run from the newest checkpoint in the output directory, or from the start; return the exit code."""
    with Stopper() as stopper:
        return _loop(config, Job(config, paths, world), stopper)


def _loop(config: Config, job: Job, stopper: Stopper) -> int:
    run, world = config.run, job.world
    for step in range(job.start, run.steps):
        lr = optim.learning_rate(config.optim, step, run.steps)
        for group in job.optimizer.param_groups:
            group["lr"] = lr
        began = time.perf_counter()
        batches = micro_batches(job.data, config, step, world)
        try:
            result = update(
                job.model, job.optimizer, batches, world,
                clip=config.optim.clip, precision=run.precision, stop=stopper.asked,
            )  # fmt: skip
        except FloatingPointError as error:
            raise FloatingPointError(
                f"step {step + 1}: {error}; no weight was changed. Lower optim.lr (here {lr:.3g}) or optim.clip and "
                f"start again; newest checkpoint: {checkpoint.latest(job.paths.checkpoints)}"
            ) from error
        done = step + 1
        last = done == run.steps or result.stop
        job.record(done, result, lr, time.perf_counter() - began, log_it=last or due(done, run.log_every))
        if last or due(done, run.save_every):
            job.save(done)
        if result.stop:
            return job.leave(done)
        if not last and due(done, run.eval_every):
            job.validate(done)
    return job.finish()


def due(step: int, every: int) -> bool:
    """Whether something that happens `every` so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


class Job:
    """What a run holds beside its loop: data, model, optimizer, and where numbers and checkpoints go."""

    def __init__(self, config: Config, paths: Paths, world: World) -> None:
        """Build everything, as the newest checkpoint left it if there is one."""
        self.config, self.paths, self.world = config, paths, world
        self.data, self.validation = (PackedDataset(paths.data, table) for table in astuple(config.data))
        self.manifest = self.data.manifest.sha256()
        self.unigram = evaluate.log_unigram(self.data.token_counts())
        self.architecture = Architecture.of(config.model, self.data.vocab_size, self.data.seq_len)
        self.model = MaskedLM(self.architecture)
        self.model.initialise(config.run.seed, self.unigram if config.model.unigram_bias else None)
        self.model.to(world.device)
        self.optimizer = optim.build(self.model, config.optim)
        self.start = 0
        found = checkpoint.latest(paths.checkpoints)
        if found:
            self.start = checkpoint.restore(found, self.model, self.optimizer, self.manifest, asdict(config))
        self.step_tokens = config.run.micro_batches * config.run.rows * self.data.seq_len
        self.metrics: Metrics | None = None
        if world.rank == 0:
            text = json.dumps(asdict(config), indent=1, sort_keys=True) + "\n"
            paths.output.mkdir(parents=True, exist_ok=True)
            (paths.output / OPTIONS).write_text(text, encoding="utf-8")
            self.metrics = Metrics(paths.output, self.start, config.run.steps)
        self.began = time.perf_counter()

    def save(self, step: int) -> None:
        """Write a checkpoint; the first process does."""
        if self.world.rank == 0:
            state = State(step, self.manifest, self.architecture, asdict(self.config))
            checkpoint.save(self.paths.checkpoints, state, self.model, self.optimizer, self.config.run.keep)

    def record(self, step: int, result: StepResult, lr: float, seconds: float, *, log_it: bool) -> None:
        """Show a step on the progress line and, now and then, write it down."""
        if self.metrics:
            rate = self.step_tokens / seconds
            self.metrics.progress(step, result.loss, rate)
            if log_it:
                self.metrics.write(step, "train", {
                    "loss": result.loss, "learning_rate": lr, "gradient_norm": result.norm, "masked": result.masked,
                    "tokens": step * self.step_tokens, "tokens_per_second": round(rate, 1),
                })  # fmt: skip

    def validate(self, step: int) -> dict[str, Any]:
        """Measure the model on the validation rows."""
        run = self.config.run
        losses = evaluate.measure(
            self.model, self.validation, evaluate.choose_rows(self.validation, run.eval_rows), self.unigram,
            MaskConfig(ratio=run.eval_ratio), batch=run.rows, precision=run.precision, world=self.world,
        )  # fmt: skip
        report = losses.report()
        if self.metrics:
            self.metrics.write(step, "validation", report)
            self.metrics.say(
                f"step {step:,}: validation loss {report['loss']:.4f} (unigram {report['unigram_loss']:.4f}), "
                f"accuracy {report['accuracy']:.4f}, {report['bits_per_byte']:.4f} bits per byte"
            )
        return report

    def leave(self, step: int) -> int:
        """End early, with the checkpoint in place."""
        if self.metrics:
            self.metrics.say(f"stopped after step {step:,}, checkpoint saved; continue with --resume")
            self.metrics.close()
        self.world.gather(None)  # nobody exits while the first process still writes
        return STOPPED

    def finish(self) -> int:
        """Evaluate, and write and print the summary."""
        steps = self.config.run.steps
        seconds = time.perf_counter() - self.began
        report = self.validate(steps)
        if self.metrics:
            self.metrics.close()
            parameters = sum(p.numel() for p in self.model.parameters())
            rate = (steps - self.start) * self.step_tokens / seconds
            summarise(self.paths.metrics, read(self.metrics.path), {
                "steps": steps, "parameters": parameters, "tokens": steps * self.step_tokens,
                "tokens_per_second": round(rate, 1), "validation": report,
            })  # fmt: skip
            print(evaluate.table(report))
            print(f"{parameters:,} parameters, {steps * self.step_tokens:,} tokens in {steps:,} steps; "
                  f"{seconds:,.0f} s, {rate:,.0f} tokens/s on {self.world.size} processes")  # fmt: skip
            print(f"checkpoint: {checkpoint.latest(self.paths.checkpoints)}")
        self.world.gather(None)
        return 0


def micro_batches(dataset: PackedDataset, config: Config, step: int, world: World) -> Iterator[MicroBatch]:
    """Make this process's micro-batches of a step: a pure function of (configuration, step, index)."""
    run = config.run
    share = run.micro_batches // world.size
    for index in range(world.rank * share, (world.rank + 1) * share):
        first = (step * run.micro_batches + index) * run.rows
        rows, epochs = schedule(np.arange(first, first + run.rows), len(dataset), run.seed)
        yield MicroBatch.of(dataset.rows(rows), epochs, config.mask, dataset, run.seed, world.device)


class Stopper:
    """Remember, while entered, that SIGTERM came. All processes stop at one step: the wish travels with gradients."""

    asked = False

    def __enter__(self) -> Stopper:
        self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _ask(self, *_: object) -> None:
        self.asked = True


def _prepare(config: Config, paths: Paths, resume: bool, world_size: int) -> None:
    """Refuse what cannot work before any process starts."""
    if world_size & (world_size - 1) or config.run.micro_batches % world_size:
        raise ConfigError(
            f"{world_size} processes cannot share {config.run.micro_batches} micro-batches as a binary tree: use a "
            "power of two, at most run.micro_batches"
        )
    for name in (config.data.train, config.data.evaluate):
        PackedDataset(paths.data, name)
    if paths.output.exists() and any(paths.output.iterdir()):
        if not (paths.output / OPTIONS).exists():
            raise CheckpointError(f"{paths.output} holds something that is no training run: choose another --output")
        if not resume:
            raise CheckpointError(f"{paths.output} holds a run: continue it with --resume, or choose another --output")


@guarded
def _work(config: Config, paths: Paths) -> int:
    """What each process does."""
    return train(config, paths, connect(config.run.threads))


@guarded
def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.train", description=__doc__, epilog=describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="directory of packed rows")
    parser.add_argument("--output", type=Path, required=True, help="directory of the run")
    parser.add_argument("--config", type=Path, help="YAML file with a section 'train'")
    parser.add_argument("--set", action="append", default=[], metavar="PART.NAME=VALUE", help="replace an option")
    parser.add_argument("--metrics", type=Path, help="directory for train.json and loss.csv; default: --output")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint, if there is one")
    options = parser.parse_args(argv)

    config = load(options.config, options.set)
    paths = Paths(options.data, options.output, options.metrics or options.output)
    count = processes(config.run.processes, config.run.micro_batches)
    if int(os.environ.get("RANK", 0)) == 0:
        _prepare(config, paths, options.resume, int(os.environ.get("WORLD_SIZE", count)))
    return launch(count, _work, config, paths)


if __name__ == "__main__":
    sys.exit(main())
