"""Runs of the trainer's commands in tests: their arguments, and what they end in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from trainer import checkpoint


def arguments(data: Path, output: Path, options: Mapping[str, object]) -> list[str]:
    """The command line of a run with options by name ('run.steps')."""
    pairs = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    return ["--data", str(data), "--output", str(output), *pairs]


def digest(run: Path) -> str:
    """sha256 over the weights and the optimizer's state of a run's newest checkpoint, after its name."""
    newest = checkpoint.find(run)
    names = ("model.safetensors", "optimizer.safetensors")
    return newest.name + hashlib.sha256(b"".join((newest / name).read_bytes() for name in names)).hexdigest()
