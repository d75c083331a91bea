"""Dedupe that ended early, run again with --resume: what was done is not done twice, and the bytes are the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import dedupe, ingest
from pipelines.core import stage
from pipelines.core.dataset import Dataset
from pipelines.core.output import RESUMABLE_PATH
from pipelines.lsh import stars

ONE = ["--workers", "1", "--mode", "inline"]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Two hundred documents in families of near-duplicates, English and Chinese."""
    rng, rows = random.Random(5), []
    for family in range(50):
        words = [chr(rng.randrange(0x4E00, 0x9000)) if family % 2 else f"w{rng.randrange(999)} " for _ in range(80)]
        for member in range(4):
            words[member * 9] = f"x{member} "
            rows.append({"id": f"{family}-{member}", "text": "".join(words)})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["--input", str(path), "--source", "s", "--id-field", "id", "--output", str(tmp_path / "documents"), *ONE]
    assert ingest.main(argv) == 0
    return tmp_path / "documents"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the pipelines that were run, as they begin."""
    labels: list[str] = []
    shown = stage.progress.shown

    def note(title: str, total: int) -> Any:
        labels.append(title.split()[1])
        return shown(title, total)

    monkeypatch.setattr(stage.progress, "shown", note)
    return labels


def command(documents: Path, output: Path, *options: str) -> int:
    return dedupe.main(["--input", str(documents), "--output", str(output), *ONE, *options])


def breaks(monkeypatch: pytest.MonkeyPatch, label: str) -> Callable[[], None]:
    """Let the pipeline of this label fail; returns what mends it."""
    run = stage.StageRun.pipeline

    def broken(self: stage.StageRun, name: str, *args: Any) -> Any:
        if name == label:
            raise OSError(f"the machine went away before {label}")
        return run(self, name, *args)

    monkeypatch.setattr(stage.StageRun, "pipeline", broken)
    return lambda: monkeypatch.setattr(stage.StageRun, "pipeline", run)


def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the components with stars, as for a graph that is larger than the memory."""
    monkeypatch.setattr(dedupe, "_NODE_BYTES", 1 << 40)


@pytest.mark.parametrize("label", ["stars-001-small-0", "verify"])
def test_a_resumed_run_does_only_what_is_left_and_gives_the_same_bytes(
    label: str, documents: Path, ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(monkeypatch)
    assert command(documents, tmp_path / "whole") == 0
    all_of_them = ran.copy()
    mend = breaks(monkeypatch, label)
    assert command(documents, tmp_path / "out", "--resume") == 1
    mend()
    ran.clear()
    assert command(documents, tmp_path / "out", "--resume") == 0
    assert ran == all_of_them[all_of_them.index(label) :]
    assert Dataset.open(str(tmp_path / "out")).sha256s == Dataset.open(str(tmp_path / "whole")).sha256s
    assert not (tmp_path / "out" / RESUMABLE_PATH).exists()


@pytest.mark.parametrize("change", [["--set", "threshold=0.6"], ["--memory", "16M"], ["--materialize"]])
def test_a_run_that_asks_for_something_else_starts_anew(
    change: list[str], documents: Path, ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = breaks(monkeypatch, "verify")
    assert command(documents, tmp_path / "out", "--resume") == 1
    mend()
    ran.clear()
    assert command(documents, tmp_path / "out", "--resume", *change) == 0
    assert ran[0] == "sign"


def test_a_pipeline_that_failed_halfway_is_run_again_whole(
    documents: Path, ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(monkeypatch)
    whole = stars.gather_partition

    def halfway(key: str, *args: Any) -> Any:
        report = whole(key, *args)  # its files are written by then
        if key.startswith("small"):
            raise OSError("no space left on device")
        return report

    monkeypatch.setattr(stars, "gather_partition", halfway)
    assert command(documents, tmp_path / "out", "--resume") == 1
    monkeypatch.setattr(stars, "gather_partition", whole)
    ran.clear()
    assert command(documents, tmp_path / "out", "--resume") == 0
    assert ran[0] == "stars-001-small-0"


def test_without_the_option_a_failed_run_leaves_nothing(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, "verify")
    assert command(documents, tmp_path / "out") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "in.jsonl"]
