"""The example of the loop from losses to data: it damages as it says, and counts what was found."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from pipelines import ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from schemas.losses import LOSSES

SCRIPT = Path(__file__).resolve().parents[2] / "examples/loss_loop.py"
ENGLISH = "The committee met on Tuesday to discuss the new proposal, and most of its members were in favour of it. "
CHINESE = "委员会星期二开会讨论了新提案，大多数成员表示赞成，但也有人提出了不同意见，会议决定下周继续讨论。"
TEXTS = {f"{i}": (ENGLISH if i % 2 else CHINESE) * (1 + i % 3) + str(i) for i in range(200)}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loss_loop", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("loop")
    lines = [json.dumps({"id": name, "text": text}) for name, text in TEXTS.items()]
    (work / "raw.jsonl").write_text("\n".join(lines), encoding="utf-8")
    argv = ["--input", str(work / "raw.jsonl"), "--source", "s", "--id-field", "id", "--workers", "1"]
    assert ingest.main([*argv, "--output", str(work / "documents")]) == 0
    return work / "documents"


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_each_kind_of_damage_is_what_its_name_says(example: ModuleType, text: str) -> None:
    damaged = {kind: example.spoil(text, kind, Random(1)) for kind in example.KINDS}
    assert damaged == {kind: example.spoil(text, kind, Random(1)) for kind in example.KINDS}
    assert damaged["shuffled"] != text and sorted(damaged["shuffled"]) == sorted(text)
    shapes = [re.sub(r"\w", "x", each) for each in (text, damaged["noise"])]
    assert shapes[0] == shapes[1] and damaged["noise"] != text
    assert base64.b64decode(damaged["base64"], validate=True)
    assert all(len(line.split(",")) == 3 for line in damaged["ids"].splitlines())


def test_a_tenth_is_damaged_and_the_held_out_text_is_not(example: ModuleType, documents: Path, tmp_path: Path) -> None:
    kinds = example.write_raw([str(documents)], tmp_path, 0.3, 7)
    assert kinds == example.write_raw([str(documents)], tmp_path / "again", 0.3, 7)
    own = {record_id("s", name).hex(): text for name, text in TEXTS.items()}
    found = {}
    for part in ("train", "held_out"):
        rows = [
            json.loads(line) for line in (tmp_path / f"raw/{part}/s.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        found[part] = {row["id"]: row["text"] for row in rows}
    assert set(found["train"]) | set(found["held_out"]) == set(own) and not set(found["train"]) & set(found["held_out"])
    assert (
        8 <= len(found["held_out"]) <= 35
        and set(kinds) < set(found["train"])
        and set(kinds.values()) == set(example.KINDS)
    )
    assert all(text == own[name] for name, text in found["held_out"].items())
    assert {name for name, text in found["train"].items() if text != own[name]} == set(kinds)


def test_precision_and_recall_by_hand(example: ModuleType) -> None:
    spoiled = {b"a": "ids", b"b": "ids", b"c": "base64", b"d": "shuffled"}
    lines = example.report(
        spoiled, {b"a", b"c", b"x"}, {"all": [5.0, 6.0], "found": [4.5, 5.7], "by chance": [5.1, 6.1]}, 40
    )
    assert lines[0] == "4 of 40 documents are spoiled, 3 were removed, 2 of them spoiled"
    assert lines[1] == "precision 0.667, recall 0.500"
    assert [line.split() for line in lines[2:6]] == [
        ["shuffled", "0", "of", "1", "found"],
        ["noise", "0", "of", "0", "found"],
        ["base64", "1", "of", "1", "found"],
        ["ids", "1", "of", "2", "found"],
    ]
    assert lines[6:] == [
        "held-out loss, all        5.5000 nats",
        "held-out loss, found      5.1000 nats (-0.4000 ± 0.1000)",
        "held-out loss, by chance  5.6000 nats (+0.1000 ± 0.0000)",
    ]


def test_the_loop_with_a_stand_in_for_the_model(
    example: ModuleType,
    documents: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In place of the trainer: a document costs as much as it has characters outside the clean text, as a share."""
    usual, work, asked = set(ENGLISH + CHINESE), tmp_path / "work", list[str]()

    def trainer(command: str, *arguments: Any) -> None:
        options = [str(one) for one in arguments]
        asked.append(command)
        if "--metrics" in options:
            Path(options[options.index("--metrics") + 1]).write_text(json.dumps({"loss": 5.0}))
        if "--losses" in options:
            table = Dataset.open(str(work / "all/shards")).table("train")
            shares = [sum(c not in usual for c in text) / len(text) for text in table["text"].to_pylist()]
            n = len(table)
            columns = [table["id"], table["source"], pa.array([3] * n, pa.uint32()), pa.array(shares, pa.float32())]
            rows = pa.table([*columns, pa.array([20] * n, pa.uint32())], schema=LOSSES.schema)
            with pa.ipc.new_file(options[options.index("--losses") + 1], LOSSES.schema) as file:
                file.write_table(rows)

    monkeypatch.setattr(example, "trainer", trainer)
    options = ["--spoiled", "0.2", "--drop", "0.1", "--vocabulary", "1000", "--seq-len", "64", "--seeds", "2"]
    assert example.main([str(documents), "--work", str(work), *options]) == 0
    assert asked == [*["train", "evaluate"] * 2, "evaluate", *["train", "evaluate"] * 4]
    told = capsys.readouterr().out
    assert "precision 1.000" in told and "held-out loss, by chance" in told
    whole, found, chance = (Dataset.open(str(work / name / "shards")) for name in ("all", "found", "by chance"))
    count = int(0.1 * whole.table("train").num_rows)
    assert whole.table("train").num_rows - found.table("train").num_rows == count
    assert 0 < whole.table("train").num_rows - chance.table("train").num_rows <= 3 * count
