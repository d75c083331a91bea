"""Training speed on a GPU: tokens per second and MFU at 110 M parameters, beside the measured matmul ceiling."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from trainer_speed import rate_of
from trainer_table import ROOT, Row, Table

from schemas.manifest import MANIFEST_PATH, Manifest, Shard
from schemas.packed import CLS_ID, SEP_ID, SPECIAL_TOKENS, packed_record
from trainer.data import read_manifest
from trainer.metrics import peak_tflops

VOCABULARY, LENGTHS = 32_768, (512, 1024)
TARGET, PASS, ELASTIC, MINUTES = 0.5, 0.4, 0.9, 10.0
STEP_TOKENS, MICRO_BATCHES = 262_144, 8
SIDE, CEILING_SECONDS = 8192, 3.0
TABLES = {"train": 40_960, "validation": 512}  # rows of the seeded generator


def ceiling(device: torch.device, side: int = SIDE, seconds: float = CEILING_SECONDS) -> float:
    """Measure the best TFLOP/s of a square bfloat16 product, `side` each way."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - began) / 10)
    return 2 * side**3 / best / 1e12


def generate(folder: Path, length: int, vocabulary: int, tables: dict[str, int], seed: int = 0) -> Path:
    """Write packed rows of a seeded generator, for speed alone: token ids by Zipf's law, documents of about 300 tokens.

    Lengths of documents are log-normal (σ 0.8), cut at the row's end, as in corpora of web pages.
    """
    record, shards = packed_record(length, vocabulary), []
    for number, (table, rows) in enumerate(tables.items()):
        rng = np.random.default_rng([seed, number])
        drawn = rng.zipf(1.2, (rows, length)) % (vocabulary - len(SPECIAL_TOKENS)) + len(SPECIAL_TOKENS)
        sizes = np.clip(rng.lognormal(np.log(220), 0.8, (rows, length // 8)).astype(np.int64), 8, None)
        ends = np.minimum(np.cumsum(sizes, axis=1), length)
        ends[(ends > length - 8) & (ends < length)] = length  # no document of less than 8 tokens
        lens = [np.diff(np.unique(row), prepend=0) for row in ends]
        flat, counts = np.concatenate(lens), np.array([len(row) for row in lens])
        ids, stop = drawn.ravel(), np.cumsum(flat)
        ids[stop - flat], ids[stop - 1] = CLS_ID, SEP_ID
        starts = ids >= len(SPECIAL_TOKENS)
        offsets, documents = np.append(0, np.cumsum(counts)).astype(np.int32), np.arange(len(flat), dtype="<u8")
        names = pa.array(np.stack([documents, documents], axis=1).view("S16").ravel(), pa.binary(16))
        values = {
            "row_id": pa.array(np.arange(rows, dtype=np.uint64)), "input_ids": ids, "word_start": starts,
            "seq_lens": flat, "doc_ids": names, "sources": ["generated"] * len(flat), "byte_lens": flat * 4,
        }  # fmt: skip
        columns = [_column(values[field.name], field.type, offsets) for field in record.schema]
        path = folder / table / "shard-00000.arrow"
        path.parent.mkdir(parents=True)
        with pa.ipc.new_file(str(path), record.schema) as writer:
            writer.write_table(pa.Table.from_arrays(columns, schema=record.schema), max_chunksize=4096)
        raw = path.read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        shards.append(Shard(f"{table}/{path.name}", table, rows, len(raw), digest, "", text_bytes=int(flat.sum()) * 4))
    facts = {"seq_len": length, "vocab_size": vocabulary}
    manifest = Manifest("generated", {"seed": seed}, {}, [], shards, {}, facts)
    (folder / MANIFEST_PATH).parent.mkdir()
    (folder / MANIFEST_PATH).write_bytes(manifest.to_json())
    return folder


def _column(values: Any, kind: pa.DataType, offsets: np.ndarray) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values).cast(kind.value_type), type=kind)
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(offsets, pa.array(values).cast(kind.value_type), type=kind)
    return values


class Bench:
    """Runs of one row length. preset, ceiling in TFLOP/s; micro-batches of a fixed number of tokens."""

    def __init__(self, data: Path, work: Path, preset: str, ceiling: float, length: int) -> None:
        self.data, self.work, self.ceiling, self.runs = data, work, ceiling, 0
        self.settings = {
            "model.preset": preset, "run.rows": max(1, STEP_TOKENS // MICRO_BATCHES // length), "run.compile": "true",
            "run.micro_batches": MICRO_BATCHES, "run.precision": "bf16", "run.processes": 1, "run.threads": 4,
            "run.log_every": 1, "run.eval_every": 0, "run.save_every": 0, "run.tensorboard": "false",
            "run.peak_tflops": ceiling,
        }  # fmt: skip

    def train(self, steps: int, mode: str, **more: Any) -> tuple[Path, list[dict[str, Any]]]:
        """Run `steps` steps; the run's folder, and the lines of its metrics.jsonl."""
        self.runs += 1
        output = self.work / f"run-{self.runs}"
        settings = self.settings | {"run.steps": steps, "run.mode": mode} | more
        sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "trainer.train", "--data", str(self.data), "--output", str(output), *sets]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return output, [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def share_of_peak(lines: list[dict[str, Any]], warm: int) -> float:
    """Median share of the stated peak over the steps after the first `warm`."""
    return statistics.median(line["mfu"] for line in lines if line["kind"] == "train" and line["step"] > warm)


def long_run(bench: Bench, rate: float, minutes: float, curve: Path) -> None:
    """Train for so many minutes and keep the loss curve as CSV."""
    steps = max(10, round(rate * minutes * 60 / STEP_TOKENS))
    began = time.perf_counter()
    output, lines = bench.train(steps, "elastic", **{"optim.lr": 8e-4, "run.log_every": 10, "run.eval_every": 100})
    shutil.copyfile(output / "loss.csv", curve)
    losses = [line["loss"] for line in lines if line["kind"] == "validation"]
    taken = (time.perf_counter() - began) / 60
    print(
        f"\n{steps:,} steps, {steps * STEP_TOKENS:,} slots in {taken:.1f} minutes: validation loss "
        f"{losses[0]:.4f} at first, {losses[-1]:.4f} at the end; curve: {curve}"
    )


def run(args: Any, work: Path) -> None:
    """Measure what a GPU does, if one is here."""
    if not torch.cuda.is_available():
        print("\nGPU: not measured, no CUDA device here")
        return
    device = torch.device("cuda", 0)
    top, peak = ceiling(device), peak_tflops(device, 0.0)
    sheet = f", {top / peak:.0%} of the data sheet's {peak:g}" if peak else ""
    name = torch.cuda.get_device_name(device)
    print(f"\n{name}, torch {torch.__version__}: bfloat16 product of {SIDE}³: {top:.0f} TFLOP/s{sheet}")
    given = {read_manifest(path).facts["seq_len"]: path for path in args.gpu_data}
    longest: tuple[Bench, float] | None = None
    for length in dict.fromkeys([*LENGTHS, *given]):
        data = given.get(length)
        if data is None:
            data = generate(work / f"rows-{length}", length, VOCABULARY, TABLES)
            print(f"\nrows of {length}: of a seeded generator (no --gpu-data has them); losses mean nothing")
        bench = Bench(data, work / f"gpu-{length}", args.gpu_preset, top, length)
        ratios: list[float] = []
        found: dict[str, list[tuple[float, float]]] = {"elastic": [], "ddp": []}
        for _ in range(args.repeat):
            for mode, runs in found.items():
                lines = bench.train(args.gpu_steps, mode)[1]
                runs.append((rate_of(lines, args.gpu_warm), share_of_peak(lines, args.gpu_warm)))
            ratios.append(found["elastic"][-1][0] / found["ddp"][-1][0])
        print(f"\n{args.gpu_preset}, rows of {length}, bf16, compiled; {STEP_TOKENS:,} slots a step")
        report(found, statistics.median(ratios), top, peak)
        if longest is None or length in given:
            longest = (bench, statistics.median(rate for rate, _ in found["elastic"]))
    if longest and args.minutes:
        long_run(*longest, args.minutes, args.curve)


def report(found: dict[str, list[tuple[float, float]]], ratio: float, top: float, peak: float | None) -> None:
    """Print rates, shares of the ceiling, MFU by the data sheet, and verdicts."""
    table, notes = Table("tokens/s", "of ceiling", 40), []
    for mode, runs in found.items():
        rate, share = (statistics.median(column) for column in zip(*runs, strict=True))
        label, *own = ("run.mode=ddp: elastic over it", ratio, ELASTIC) if mode == "ddp" else ("run.mode=elastic",)
        table.add(Row(label, torch.__version__.split("+")[0], rate, f"{share:.1%}", *own))
        word = "target met" if share >= TARGET else "pass mark met" if share >= PASS else "missed"
        sheet = f"; MFU by the data sheet {share * top / peak:.1%}" if peak else ""
        notes.append(f"{mode}: {share * top:.0f} of {top:.0f} TFLOP/s{sheet}; wanted at least {PASS:.0%} of the "
                     f"ceiling, aimed at {TARGET:.0%}: {word}")  # fmt: skip
    print("\n" + "\n".join(notes))
