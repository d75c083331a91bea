"""What the parts of benchmarks/trainer.py share: the table."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One line. rate: of `name`. note: what stands beside it. ratio: our rate over this one, where it is a peer's."""

    name: str
    version: str
    rate: float
    note: str = ""
    ratio: float | None = None
    target: float | None = None


class Table:
    """Prints rows as they come: name, version, rate, a note, ratio, target, verdict."""

    def __init__(self, rate: str, note: str, width: int = 66) -> None:
        self.width = width
        head = f"| {'':<{width}} | {'version':<8} | {rate:>13} | {note:>12} | {'ours ×':>6} | {'target':>6} | verdict |"
        print(f"{head}\n|:{'-' * (width + 1)}|:{'-' * 9}|{'-' * 14}:|{'-' * 13}:|{'-' * 7}:|{'-' * 7}:|:--------|")

    def add(self, row: Row) -> None:
        """Print a row."""
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        target = "" if row.target is None else f"{row.target:g}"
        print(f"| {row.name:<{self.width}} | {row.version:<8} | {row.rate:>13,.0f} | {row.note:>12} | {ratio:>6} "
              f"| {target:>6} | {verdict(row):<7} |", flush=True)  # fmt: skip


def verdict(row: Row) -> str:
    """Say whether a row's ratio reaches its target; nothing where it has none."""
    if row.ratio is None or row.target is None:
        return ""
    return "met" if row.ratio >= row.target else "missed"


def peer_version(python: str, package: str) -> str:
    """Ask the peers' Python for the version of a package."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
