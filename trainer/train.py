"""Train a masked language model on packed rows.

    python -m trainer.train --data DIR --output DIR [--config params.yaml] [--set part.name=value …] [--resume]
    torchrun --nproc-per-node 4 -m trainer.train …

The output directory gets checkpoints/step-…, config.json, metrics.jsonl, tensorboard/, train.json and loss.csv.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer import checkpoint, evaluate, losses, optim
from trainer.checkpoint import CheckpointError, State
from trainer.cli import guarded
from trainer.config import SECTION, Config, ConfigError, RunConfig, describe, load
from trainer.data import PackedDataset, prefetch, read_batches
from trainer.losses import Recorder
from trainer.masking import MaskConfig
from trainer.metrics import Energy, Metrics, flops, memory, peak_tflops, read, summarise, summary_of, table
from trainer.model import Architecture, MaskedLM
from trainer.order import Schedule
from trainer.step import MicroBatch, Objective, Stepper, StepResult, shard
from trainer.world import STOPPED, STOPPER, World, connect, launch, processes

OPTIONS = "config.json"  # marks a directory as a run's


@dataclass(frozen=True)
class Paths:
    """Where a run reads and writes; `metrics` gets train.json and loss.csv."""

    data: tuple[Path, ...]
    output: Path
    metrics: Path
    init: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.output / "checkpoints"


def train(config: Any, paths: Paths, world: World, job: type[Job] | None = None) -> int:
    """Run from the newest checkpoint in the output directory, or from the start; return the exit code."""
    with STOPPER:
        return _loop(config, (job or Job)(config, paths, world))


def _loop(config: Any, job: Job) -> int:
    run, report = config.run, job.catch_up()
    batches = prefetch(job.batches(), run.prefetch)
    with closing(batches):
        for step in range(job.start, run.steps):
            rate = optim.learning_rate(config.optim, step, run.steps)
            optim.set_rate(job.optimizers, rate)
            began = time.perf_counter()
            share = next(batches)
            waited = time.perf_counter() - began
            try:
                result = job.stepper(share, stop=STOPPER.asked)
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"step {step + 1}: {error}; no weight was changed. Lower optim.lr (here {rate:.3g}) or optim.clip, "
                    f"and go on with --resume from {checkpoint.latest(job.paths.checkpoints) or 'the start'}"
                ) from error
            done = step + 1
            last = done == run.steps or result.stop
            clock = (time.perf_counter() - began, waited)
            job.record(done, share, result, rate, clock, log_it=last or due(done, run.log_every))
            report = None
            if not result.stop and (last or due(done, run.eval_every)):
                report = job.validate(done)
            better = report is not None and job.is_best(report)
            if last or better or due(done, run.save_every):
                job.save(done, report)
            if result.stop:
                return job.leave(done)
    return job.finish(report)


def due(step: int, every: int) -> bool:
    """Whether something that happens `every` so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


class Job:
    """What a run holds beside its loop: data, model, optimizers, and where numbers and checkpoints go.

    What is particular to text stands in methods of its own, which trainer.vision replaces.
    """

    unit = "tokens"
    layer_decay = 1.0
    by_accuracy = False  # what makes a checkpoint the best one: else the loss

    def __init__(self, config: Any, paths: Paths, world: World) -> None:
        """Build everything, as the newest checkpoint left it if there is one."""
        run = config.run
        self.config, self.paths, self.world = config, paths, world
        self.data, self.validation = self.tables()
        self.order = schedule(self.data, config)
        self.manifest: str = self.data.sha256()
        found = checkpoint.latest(paths.checkpoints)
        self.resumed = checkpoint.check(found, self.manifest, asdict(config)) if found else None
        self.start = self.resumed.step if self.resumed else 0
        best = checkpoint.best(paths.checkpoints)
        self.best = checkpoint.read_state(best).goodness if best else None
        self.model = self.new_model()
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.objective = self.new_objective()
        if run.mode == "fsdp":
            shard(self.objective)
        self.objective.to(world.device)
        self.optimizers = optim.build(self.model, config.optim, self.layer_decay)
        if found:
            checkpoint.restore(found, self.model, self.optimizers)
        elif paths.init:
            self.start_from(checkpoint.find(paths.init))
        self.stepper = Stepper(
            self.objective, self.optimizers, world, clip=config.optim.clip, mode=run.mode, compiled=run.compile
        )
        self.writer = checkpoint.Writer(paths.checkpoints, run.keep)
        self.recorder = Recorder(self.data) if run.losses else None
        self.metrics: Metrics | None = None
        if world.rank == 0:
            text = json.dumps(asdict(config), indent=1, sort_keys=True) + "\n"
            paths.output.mkdir(parents=True, exist_ok=True)
            self._lock = checkpoint.lock(paths.output)
            checkpoint.sweep(paths.checkpoints)
            losses.forget(paths.output / losses.FOLDER, self.start)
            (paths.output / OPTIONS).write_text(text, encoding="utf-8")
            self.metrics = Metrics(
                paths.output, self.start, run.steps, tensorboard=run.tensorboard, dvclive=run.dvclive, unit=self.unit
            )
        self.peak, self.energy = peak_tflops(world.device, run.peak_tflops), Energy(world.device)
        self.seconds = self.waited = self.flops = 0.0
        self.tokens = 0

    def tables(self) -> tuple[Any, Any]:
        """Open what to learn from and what to measure on."""
        data, several = self.config.data, self.paths.data
        return PackedDataset(several, data.train), PackedDataset(several, data.evaluate)

    def new_model(self) -> Any:
        """Make the model with its first weights; remember its architecture."""
        data, model = self.data, self.config.model
        self.unigram = evaluate.log_unigram(data.token_counts())
        self.architecture: Any = Architecture.of(model, data.vocab_size, data.seq_len, next_sentence=data.has_pairs)
        made = MaskedLM(self.architecture)
        made.initialise(self.config.run.seed, self.unigram if model.unigram_bias else None)
        return made

    def new_objective(self) -> Any:
        """Wrap the model as the stepper takes it."""
        return Objective(self.model, self.config.run.precision, self.world.device)

    def start_from(self, found: Path) -> None:
        """Take another run's weights for the first ones."""
        checkpoint.start_from(found, self.model, self.data.tokenizer)

    def batches(self) -> Iterator[Sequence[Any]]:
        """Make this process's micro-batches, step by step."""
        return micro_batches(self.data, self.config, self.start, self.world, self.order)

    def save(self, step: int, report: dict[str, Any] | None) -> None:
        """Write a checkpoint, and the losses of documents up to it; the first process does."""
        first, sharded = self.world.rank == 0, self.config.run.mode == "fsdp"
        if sharded:
            # an evaluation leaves some weights whole, and those have no moments
            self.objective.reshard()  # type: ignore[operator]
        if first or sharded:  # shards are put together by all processes
            tensors = checkpoint.Tensors.of(self.model, self.optimizers)
        parts = self.world.gather(self.recorder.take()) if self.recorder else []
        if first:
            if self.recorder:
                path = self.paths.output / losses.FOLDER / f"step-{step:08d}.arrow"
                losses.write(path, [each for part in parts for each in part])
            rows = self.config.run.position(step) * self.config.run.rows
            self.writer.save(self.state(step, rows, report), tensors)

    def state(self, step: int, rows: int, report: dict[str, Any] | None) -> State:
        """Say what a checkpoint holds beside its tensors."""
        return State(
            step, self.manifest, self.architecture, asdict(self.config), epoch=rows // self.order.size, rows=rows,
            validation_loss=report["loss"] if report else None, tokenizer=self.data.tokenizer,
        )  # fmt: skip

    def catch_up(self) -> dict[str, Any] | None:
        """Make up for the evaluation that a stop left out, so that the run goes on as if there had been none."""
        state, run = self.resumed, self.config.run
        if state is None or state.validation_loss is not None or not (
            self.start == run.steps or due(self.start, run.eval_every)
        ):  # fmt: skip
            return None
        report = self.validate(self.start)
        self.is_best(report)
        if self.world.rank == 0:
            measured = vars(self.state(self.start, state.rows, report))
            values = {name: value for name, value in measured.items() if name.startswith("validation_")}
            checkpoint.amend(self.paths.checkpoints / f"step-{self.start:08d}", replace(state, **values), run.keep)
        return report

    def is_best(self, report: dict[str, Any]) -> bool:
        """Whether no evaluation before was as good; remembers it."""
        found = checkpoint.goodness(report["loss"], report.get("accuracy") if self.by_accuracy else None)
        if self.best is not None and found <= self.best:
            return False
        self.best = found
        return True

    def work(self, result: StepResult) -> float:
        """Floating-point operations of a step."""
        return flops(self.architecture, result.tokens, result.masked, result.squares)

    def line(self, result: StepResult, rate: float) -> dict[str, Any]:
        """What a step's line in metrics.jsonl begins with."""
        return {
            "loss": result.loss, "next_sentence_loss": result.pair_loss, "learning_rate": rate,
            "gradient_norm": result.norm, "masked": result.masked, "tokens": result.tokens,
        }  # fmt: skip

    def record(self, step: int, share: Sequence[Any], result: StepResult, rate: float, clock: tuple[float, float], *,
               log_it: bool) -> None:  # fmt: skip
        """Count a step, show it on the progress line and, now and then, write it down."""
        seconds, waited = clock
        work = self.work(result)
        self.tokens += result.tokens
        self.seconds += seconds
        self.waited += waited
        self.flops += work
        if self.recorder:
            self.recorder.add(step, list(share), result.slots)
        if self.metrics:
            self.metrics.progress(step, result.loss, result.tokens / seconds)
            if log_it:
                self.metrics.log(step, result.loss, result.tokens / seconds)
                self.metrics.write(step, "train", {
                    **self.line(result, rate),
                    f"{self.unit}_per_second": round(result.tokens / seconds, 1), "mfu": self.mfu(work, seconds),
                    "data_wait": round(waited / seconds, 4), "memory": memory(self.world.device),
                    "joules": self.energy.joules(),
                })  # fmt: skip

    def mfu(self, work: float, seconds: float) -> float | None:
        """Share of the devices' peak that the model's own operations reach."""
        return round(work / seconds / self.world.size / (self.peak * 1e12), 4) if self.peak else None

    def validate(self, step: int) -> dict[str, Any]:
        """Measure the model on the validation rows; FloatingPointError where it has come apart."""
        report = self.measure()
        if not checkpoint.is_finite(report["loss"]):
            raise FloatingPointError(
                f"step {step}: the validation loss is {report['loss']}, so nothing was saved. Lower optim.lr or "
                f"optim.clip, and go on with --resume from {checkpoint.latest(self.paths.checkpoints) or 'the start'}"
            )
        if self.metrics:
            self.metrics.write(step, "validation", report)
            self.metrics.say(f"step {step:,}: validation {self.describe(report)}")
        return report

    def measure(self) -> dict[str, Any]:
        """The numbers of an evaluation; 'loss' is one of them."""
        run = self.config.run
        return evaluate.measure(
            self.objective, self.validation, evaluate.choose_rows(self.validation, run.eval_rows), self.unigram,
            MaskConfig(ratio=run.eval_ratio), batch=run.rows, world=self.world,
        ).report()  # fmt: skip

    def describe(self, report: dict[str, Any]) -> str:
        """An evaluation in a line."""
        return (
            f"loss {report['loss']:.4f} (unigram {report['unigram_loss']:.4f}), accuracy {report['accuracy']:.4f}, "
            f"{report['bits_per_byte']:.4f} bits per byte"
            + (f", next sentence {report['next_sentence_accuracy']:.4f}" if "next_sentence_loss" in report else "")
        )

    def table(self, report: dict[str, Any]) -> str:
        """An evaluation for the terminal."""
        return evaluate.table(report)

    def leave(self, step: int) -> int:
        """End early, with the checkpoint in place."""
        self.writer.wait()
        if self.metrics:
            self.metrics.say(f"stopped after step {step:,}, checkpoint saved; continue with --resume")
            self.metrics.close()
        self.world.gather(None)  # nobody exits while the first process still writes
        return STOPPED

    def finish(self, report: dict[str, Any] | None) -> int:
        """Write and print the summary; of a run that was complete already print what there is."""
        self.writer.wait()
        summary = self.world.gather(summary_of(self.paths.metrics))[0] if report is None else None
        if summary is None or summary["steps"] != self.start:
            summary = self.summary(report or self.validate(self.start))
            if self.metrics:
                summarise(self.paths.metrics, read(self.metrics.path), summary)
        if self.metrics:
            self.metrics.close()
            print(self.table(summary["validation"]))
            print(table(summary))
            print(f"checkpoint: {checkpoint.latest(self.paths.checkpoints)}")
        self.world.gather(None)
        return 0

    def summary(self, report: dict[str, Any]) -> dict[str, Any]:
        """What train.json holds: the numbers of this process's steps, and the last evaluation."""
        seconds, joules = max(self.seconds, 1e-9), self.world.gather(self.energy.joules())
        return {
            "steps": self.config.run.steps, "since_step": self.start, "parameters": self.parameters,
            self.unit: self.tokens,
            f"{self.unit}_per_second": round(self.tokens / seconds, 1), "mfu": self.mfu(self.flops, seconds),
            "data_wait": round(self.waited / seconds, 4), "seconds": round(seconds, 1),
            "processes": self.world.size, "memory": memory(self.world.device),
            "joules": None if None in joules else sum(joules),
            "validation": report,
        }  # fmt: skip


def schedule(dataset: Any, config: Any) -> Schedule:
    """Order a dataset's rows as the options say."""
    weights = dataset.weights(config.data)
    return Schedule(len(dataset), config.run.seed, block=config.data.block, weights=weights)


def micro_batches(dataset: PackedDataset, config: Config, start: int, world: World,
                  order: Schedule | None = None) -> Iterator[list[MicroBatch]]:  # fmt: skip
    """Make this process's micro-batches, step by step: a pure function of (configuration, step, index)."""
    run, order = config.run, order or schedule(dataset, config)
    rows = read_batches(dataset, order, positions(run, start, world))
    for step in itertools.count(start):
        share = [
            MicroBatch.of(dataset, numbers, draws, config.mask, run.seed, rows=each)
            for numbers, draws, each in itertools.islice(rows, run.width(step) // world.size)
        ]
        yield [micro.pinned() for micro in share] if world.device.type == "cuda" else share


def positions(run: RunConfig, start: int, world: World) -> Iterator[np.ndarray]:
    """Positions in the order of rows, int64 [run.rows], of each micro-batch that this process takes."""
    first = run.position(start)
    for step in itertools.count(start):
        share = run.width(step) // world.size
        for index in range(first + world.rank * share, first + (world.rank + 1) * share):
            yield np.arange(index * run.rows, (index + 1) * run.rows)
        first += run.width(step)


def _prepare(config: Any, paths: Paths, resume: bool, world_size: int, check: Callable[[Any, Paths], None]) -> None:
    """Refuse what cannot work before any process starts."""
    run = config.run
    if run.mode == "elastic" and world_size & (world_size - 1):
        raise ConfigError(
            f"{world_size} processes cannot add gradients as a binary tree: start 1, 2, 4, … of them, "
            "or set run.mode=ddp"
        )
    if (run.ramp_from or run.micro_batches) % world_size:
        raise ConfigError(
            f"{world_size} processes cannot share the {run.ramp_from or run.micro_batches} micro-batches of a step: "
            "change run.micro_batches, run.ramp_from or run.processes"
        )
    if paths.init:
        checkpoint.find(paths.init)
    if run.mode == "fsdp" and config.optim.name == "muon":
        raise ConfigError("optim.name=muon needs whole matrices: use run.mode=elastic or ddp with it")
    check(config, paths)
    if paths.output.exists() and any(paths.output.iterdir()):
        if not (paths.output / OPTIONS).exists():
            raise CheckpointError(f"{paths.output} holds something that is no training run: choose another --output")
        newest = checkpoint.latest(paths.checkpoints)
        if newest and (taken := checkpoint.read_state(newest).step) > run.steps:
            raise ConfigError(f"{newest} has taken {taken:,} steps already; raise run.steps (here {run.steps:,})")
        if newest and not resume:
            raise CheckpointError(f"{paths.output} holds a run: continue it with --resume, or choose another --output")
    paths.metrics.mkdir(parents=True, exist_ok=True)  # fails rather now than after hours


@guarded
def _work(config: Config, paths: Paths) -> int:
    """What each process does."""
    return train(config, paths, connect(config.run.threads, config.run.mode))


def _check(config: Config, paths: Paths) -> None:
    schedule(PackedDataset(paths.data, config.data.train), config)
    PackedDataset(paths.data, config.data.evaluate)


def arguments(module: str, about: str | None, cls: type[Any], section: str, data: str) -> argparse.ArgumentParser:
    """Make the parser of a command that trains. data: what --data names."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=about, epilog=describe(cls, section),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, nargs="+", help=f"directories of {data}, mixed")
    parser.add_argument("--output", type=Path, required=True, help="directory of the run")
    parser.add_argument("--config", type=Path, help=f"YAML file with a section '{section}'")
    parser.add_argument("--set", action="append", default=[], metavar="PART.NAME=VALUE", help="replace an option")
    parser.add_argument("--metrics", type=Path, help="directory for train.json and loss.csv; default: --output")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint, if there is one")
    parser.add_argument("--init", type=Path, help="a checkpoint or run whose weights to start from, on whatever data")
    return parser


def start(config: Any, options: argparse.Namespace, check: Callable[[Any, Paths], None],
          work: Callable[[Any, Paths], int]) -> int:  # fmt: skip
    """Train as the command line says: `check` what is given, then `work` in each process."""
    paths = Paths(tuple(options.data), options.output, options.metrics or options.output, options.init)
    count = processes(config.run.processes, config.run.ramp_from or config.run.micro_batches)
    if int(os.environ.get("RANK", 0)) == 0:
        _prepare(config, paths, options.resume, int(os.environ.get("WORLD_SIZE", count)), check)
    return launch(count, work, config, paths)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    options = arguments("trainer.train", __doc__, Config, SECTION, "packed rows").parse_args(argv)
    return start(load(Config, SECTION, options.config, options.set), options, _check, _work)


if __name__ == "__main__":
    sys.exit(main())
