"""Where a run's numbers go: JSON Lines, TensorBoard, dvclive, a progress line, and plain JSON and CSV for DVC."""

from __future__ import annotations

import csv
import json
import math
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trainer.model import Architecture

LINES, SUMMARY = "metrics.jsonl", "train.json"
#: bfloat16 TFLOP/s without sparsity, from the makers' data sheets, by words of a device's name
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H200 NVL": 835, "H100": 989, "H100 PCIe": 756, "H100 NVL": 835, "GH200": 989,
    "A100": 312, "L40S": 362, "L4": 121, "A10G": 70,
}  # fmt: skip


def flops(arch: Architecture, tokens: int, masked: int, squares: int) -> float:
    """Floating-point operations of a step, forward and backward, on what is not padding.

    6 for each weight and token it meets: the layers meet all tokens, head and decoder the masked ones. Attention: 12 ·
    hidden for each pair of tokens that see each other, in each layer. squares: Σ segment length².
    """
    layer = 4 * arch.hidden**2 + 3 * arch.hidden * arch.intermediate
    head = arch.hidden**2 + arch.hidden * arch.vocab_size
    return 6.0 * (arch.layers * layer * tokens + head * masked) + 12.0 * arch.hidden * arch.layers * squares


def peak_tflops(device: torch.device, stated: float) -> float | None:
    """Peak of a device in TFLOP/s: as stated, or as known of a GPU; None where it is not known."""
    if stated or device.type != "cuda":
        return stated or None
    words = set(re.split(r"[\s-]+", torch.cuda.get_device_name(device)))
    known = [key for key in PEAK_TFLOPS if words.issuperset(key.split())]
    return PEAK_TFLOPS[max(known, key=len)] if known else None


class Energy:
    """Joules that a CUDA device has used, where NVML counts them; elsewhere nothing is claimed."""

    def __init__(self, device: torch.device) -> None:
        self._read: Any = None
        if device.type == "cuda":
            with suppress(Exception):  # without the library, the driver or the right
                import pynvml

                pynvml.nvmlInit()
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        self._start = self._read() if self._read else 0.0

    def joules(self) -> float | None:
        """Since the start."""
        return round(self._read() - self._start, 1) if self._read else None


def memory(device: torch.device) -> int:
    """Peak bytes: allocated on a CUDA device, resident of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Metrics:
    """Write a run's numbers. Under --resume, lines of steps that will be taken again are dropped first."""

    def __init__(
        self,
        output: Path,
        start: int,
        steps: int,
        *,
        tensorboard: bool = True,
        dvclive: bool = False,
        unit: str = "tokens",
    ) -> None:
        """Continue after `start` steps of `steps`. unit: what rates count."""
        self.path, self.start, self.steps, self.unit = output / LINES, start, steps, unit
        self.began = time.monotonic()
        kept = [line for line in read(self.path) if line["step"] <= start] if start else []
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._board, self._dvc = None, None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import; only the first process writes

            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=start + 1)
        if dvclive:
            try:
                from dvclive import Live
            except ImportError as error:
                raise ValueError("run.dvclive needs the package dvclive: pip install 'gristmill[dvclive]'") from error
            self._dvc = Live(str(output / "dvclive"), resume=start > 0, save_dvc_exp=False, dvcyaml=None, report=None)
        self._live = sys.stderr is not None and sys.stderr.isatty()

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Record numbers of kind 'train' or 'validation' after a step. Nested ones ('sources') get nested names."""
        values = {key: None if isinstance(each, float) and math.isnan(each) else each for key, each in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        numbers = _flat(values, kind)
        if self._board:
            for name, value in numbers:
                self._board.add_scalar(name, value, step)
        if self._dvc:
            self._dvc.step = step
            for name, value in numbers:
                self._dvc.log_metric(name, value)
            self._dvc.make_summary()

    def progress(self, step: int, loss: float, rate: float) -> None:
        """Show where the run stands, on a terminal only."""
        if self._live:
            left = (time.monotonic() - self.began) / max(step - self.start, 1) * (self.steps - step)
            text = f"step {step:,}/{self.steps:,}  loss {loss:.4f}  {rate:,.0f} {self.unit}/s  {left:,.0f} s left"
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def log(self, step: int, loss: float, rate: float) -> None:
        """Say where the run stands, where there is no terminal to show it all the time."""
        if not self._live:
            self.say(f"step {step:,}/{self.steps:,}: loss {loss:.4f}, {rate:,.0f} {self.unit}/s")

    def say(self, text: str) -> None:
        """Print a line that also a log should hold."""
        print(("\r\033[K" if self._live else "") + text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._board:
            self._board.close()
        if self._dvc:
            self._dvc.end()


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} holds something else than lines of JSON ({error}): remove it") from error


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in values.items():
        if value is not None:
            flat += _flat(value, f"{prefix}/{name}") if isinstance(value, dict) else [(f"{prefix}/{name}", value)]
    return flat


def summarise(folder: Path, lines: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write `train.json` (the summary) and `loss.csv` (step, train and validation loss, learning rate) for DVC."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    curve: dict[int, dict[str, Any]] = {}
    for line in lines:
        row = curve.setdefault(line["step"], {"step": line["step"]})
        row["train_loss" if line["kind"] == "train" else "validation_loss"] = line["loss"]
        if line["kind"] == "train":
            row["learning_rate"] = line["learning_rate"]
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("step", "train_loss", "validation_loss", "learning_rate"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve[step] for step in sorted(curve))


def summary_of(folder: Path) -> dict[str, Any] | None:
    """Read the `train.json` of a run that ended; None where there is none."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and {"steps", "validation"} <= set(summary) else None


def table(summary: dict[str, Any]) -> str:
    """Lay out a run's summary for a terminal: one line for each number that is known."""
    rows = [(name.replace("_", " "), value) for name, value in summary.items() if not isinstance(value, dict)]
    shown = ((name, f"{value:,}" if isinstance(value, (int, float)) else str(value)) for name, value in rows)
    return "\n".join(f"  {name:<22}{value:>18}" for name, value in shown if value != "None")
