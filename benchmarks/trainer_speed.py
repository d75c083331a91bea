"""Training speed on CPU, ours and that of `transformers.Trainer`, from the same weights on the same text."""

from __future__ import annotations

import json
import math
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measure import measure
from safetensors.torch import load_file, save_file
from trainer_table import ROOT, Row, Table, peer_version

from schemas.packed import SPECIAL_TOKENS
from trainer import evaluate
from trainer.config import Config, load
from trainer.data import PackedDataset
from trainer.export import hugging_face_config
from trainer.masking import MaskConfig
from trainer.model import Architecture, MaskedLM
from trainer.step import Objective
from trainer.train import schedule
from trainer.world import World

SCRIPT = ROOT / "benchmarks" / "peers" / "trainer_hf.py"
TARGET = 1.5
CORES = 2
#: what transformers.Trainer is asked to do; the target is for the first, the way it is used by default
WAYS = {
    "a document an example": [],
    "a document an example, sparse_prediction": ["--sparse"],
    "group_texts, no document mask": ["--texts", "group"],
    "group_texts, sparse_prediction": ["--texts", "group", "--sparse"],
}


class Speed:
    """One model size: where everything is, and one run of each."""

    def __init__(self, data: Path, work: Path, preset: str, steps: int, warm: int) -> None:
        """Write what the peer starts from: our initial weights, our documents, our options."""
        self.data, self.work, self.steps, self.warm, self.runs = data, work / preset, steps, warm, 0
        self.settings = [
            f"model.preset={preset}", f"run.steps={steps}", f"run.processes={CORES}", "run.threads=1",
            "run.precision=float32", "run.log_every=1", "run.eval_every=0", "run.save_every=0", "run.tensorboard=false",
        ]  # fmt: skip
        self.config = load(Config, "train", None, self.settings)
        self.rows, self.validation = PackedDataset(data, "train"), PackedDataset(data, self.config.data.evaluate)
        self.arch = Architecture.of(self.config.model, self.rows.vocab_size, self.rows.seq_len)
        self.unigram = evaluate.log_unigram(self.rows.token_counts())
        (self.work / "start").mkdir(parents=True)
        self.documents = self._write()

    def _write(self) -> int:
        config, optim = self.config, self.config.optim
        model = MaskedLM(self.arch)
        model.initialise(config.run.seed, self.unigram if config.model.unigram_bias else None)
        save_file(model.state_dict(), self.work / "start" / "model.safetensors", metadata={"format": "pt"})
        (self.work / "start" / "config.json").write_text(json.dumps(hugging_face_config(self.arch)))
        options = {
            "optim": asdict(optim), "ratio": config.mask.ratio, "length": self.rows.seq_len, "seed": config.run.seed,
            "warmup_steps": math.ceil(optim.warmup * self.steps), "decay_steps": math.ceil(optim.decay * self.steps),
            "specials": {name: number for number, name in enumerate(SPECIAL_TOKENS)},
        }  # fmt: skip
        (self.work / "options.json").write_text(json.dumps(options))
        count = self.steps * config.run.micro_batches * config.run.rows
        chosen = self.rows.rows(schedule(self.rows, config)(np.arange(count))[0])
        pieces = np.split(chosen.input_ids.ravel(), np.cumsum(chosen.lens)[:-1])
        documents = [piece for piece, padding in zip(pieces, chosen.padding, strict=True) if not padding]
        table = pa.table({"input_ids": pa.array(documents, pa.list_(pa.int64()))})
        with pa.ipc.new_stream(str(self.work / "documents.arrow"), table.schema) as writer:
            writer.write_table(table)
        return len(documents)

    def output(self) -> Path:
        """Name a folder that does not exist yet."""
        self.runs += 1
        return self.work / f"run-{self.runs}"

    def ours(self) -> tuple[float, float]:
        """Train with ours: real tokens per second after the warm-up, and the loss on the validation rows at the end."""
        output = self.output()
        sets = [part for setting in self.settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "trainer.train", "--data", str(self.data), "--output", str(output), *sets]
        measure(command, None, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return rate_of(lines, self.warm), lines[-1]["loss"]

    def theirs(self, python: str, flags: list[str], processes: int) -> tuple[float, float]:
        """Train with transformers.Trainer; the same two numbers."""
        output, run = self.output(), self.config.run
        grouped = "group" in flags
        batch = run.micro_batches * run.rows if grouped else round(self.documents / self.steps)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [python, *(torchrun if processes > 1 else []), str(SCRIPT), str(self.work), str(output), *flags]
        command += ["--steps", str(self.steps), "--batch", str(max(1, round(batch / processes)))]
        threads = str(CORES // processes)
        environment = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
        measure(command, None, environment)
        clocks = [json.loads(path.read_text()) for path in sorted(output.glob("steps-*.json"))]
        seconds = clocks[0][-1][0] - clocks[0][self.warm - 1][0]
        tokens = sum(clock[-1][1] - clock[self.warm - 1][1] for clock in clocks)
        return tokens / seconds, self.loss(output / "model.safetensors")

    def loss(self, weights: Path) -> float:
        """Measure weights of the peer as ours are measured at the end of a run."""
        state = load_file(weights)
        state.pop("decoder.weight", None)
        model, run = MaskedLM(self.arch), self.config.run
        model.load_state_dict(state)
        chosen = evaluate.choose_rows(self.validation, run.eval_rows)
        objective = Objective(model.eval(), "float32", torch.device("cpu"))
        mask = MaskConfig(ratio=run.eval_ratio)
        losses = evaluate.measure(objective, self.validation, chosen, self.unigram, mask, batch=run.rows, world=World())
        return float(losses.report()["loss"])


def rate_of(lines: list[dict[str, Any]], warm: int) -> float:
    """Tokens per second of a run's steps after the first `warm`, from the lines of its metrics.jsonl."""
    steps = [line for line in lines if line["kind"] == "train" and line["step"] > warm]
    seconds = sum(line["tokens"] / line["tokens_per_second"] for line in steps)
    return float(sum(line["tokens"] for line in steps) / seconds)


Pairs = dict[tuple[str, int], list[tuple[tuple[float, float], ...]]]  # (ours, theirs) by way and processes


def compare(speed: Speed, python: str, repeat: int, ways: int) -> Pairs:
    """Run ours and each way of the peer in turns: (ours, theirs) pairs by way and processes.

    The first round tries one process and several; the later ones go on with what was faster.
    """
    pairs: Pairs = {}
    for number in range(repeat):
        for way, flags in list(WAYS.items())[:ways]:
            counts = (1, CORES) if not number else (faster(pairs, way),)
            for count in counts:
                pair = (speed.ours(), speed.theirs(python, flags, count))
                pairs.setdefault((way, count), []).append(pair)
    return pairs


def faster(pairs: Pairs, way: str) -> int:
    """Choose the number of processes that served a way of the peer better, beside ours."""
    return min((1, CORES), key=lambda count: ratio_of(pairs[way, count]))


def ratio_of(pairs: list[tuple[tuple[float, float], ...]]) -> float:
    """Our rate over theirs: the median of the pairs."""
    return statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)


def run(args: Any, work: Path) -> None:
    """Measure each preset and print the table."""
    for preset in args.preset:
        speed = Speed(args.data, work, preset, args.steps, args.warm)
        size, run = sum(p.numel() for p in MaskedLM(speed.arch).parameters()), speed.config.run
        print(f"\n{preset}: {size:,} parameters, {speed.rows.vocab_size:,} ids; {run.micro_batches * run.rows} rows of "
              f"{speed.rows.seq_len} a step, {speed.documents:,} documents in {args.steps} steps, of which the first "
              f"{args.warm} are not counted\n", flush=True)  # fmt: skip
        table, name = Table("real tokens/s", "loss"), f"ours, {CORES} processes"
        if args.peers_python is None:
            table.add(Row(name, "", *medians([speed.ours() for _ in range(args.repeat)])))
            continue
        version = peer_version(args.peers_python, "transformers")
        pairs = compare(speed, args.peers_python, args.repeat, args.ways)
        table.add(Row(name, "", *medians([ours for found in pairs.values() for ours, _ in found])))
        for (way, count), found in pairs.items():
            aimed = way == next(iter(WAYS)) and count == faster(pairs, way)
            label = f"Trainer, {way}, {count} process{'es' * (count > 1)}"
            theirs = medians([theirs for _, theirs in found])
            table.add(Row(label, version, *theirs, ratio_of(found), TARGET if aimed else None))


def medians(runs: list[tuple[float, float]]) -> tuple[float, str]:
    """Median rate, and median loss as text."""
    rates, losses = zip(*runs, strict=True)
    return statistics.median(rates), f"{statistics.median(losses):.4f}"
