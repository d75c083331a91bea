"""Where a run's numbers go: JSON Lines, TensorBoard, a progress line, and plain JSON and CSV for DVC."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

LINES = "metrics.jsonl"


class Metrics:
    """Write a run's numbers. Under --resume, lines of steps that will be taken again are dropped first."""

    def __init__(self, output: Path, start: int, steps: int) -> None:
        """Continue after `start` steps of `steps`."""
        from torch.utils.tensorboard import SummaryWriter  # seconds to import; only the first process writes

        self.path, self.start, self.steps = output / LINES, start, steps
        self.began = time.monotonic()
        kept = [line for line in read(self.path) if line["step"] <= start] if start else []
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(output / "tensorboard"), purge_step=start + 1)
        self._live = sys.stderr.isatty()

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Record numbers of kind 'train' or 'validation' after a step. Nested ones ('sources') get nested names."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in _flat(values, kind):
            self._board.add_scalar(name, value, step)

    def progress(self, step: int, loss: float, rate: float) -> None:
        """Show where the run stands, on a terminal only."""
        if self._live:
            left = (time.monotonic() - self.began) / max(step - self.start, 1) * (self.steps - step)
            text = f"step {step:,}/{self.steps:,}  loss {loss:.4f}  {rate:,.0f} tokens/s  {left:,.0f} s left"
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line that also a log should hold."""
        print(("\r\033[K" if self._live else "") + text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in values.items():
        flat += _flat(value, f"{prefix}/{name}") if isinstance(value, dict) else [(f"{prefix}/{name}", value)]
    return flat


def summarise(folder: Path, lines: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write `train.json` (the summary) and `loss.csv` (step, train and validation loss, learning rate) for DVC."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
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
