"""Fifty steps whose losses are on file: what any change to data, masks, model, gradients or optimizer shows in."""

import json
from pathlib import Path

import pytest

from trainer.metrics import read
from trainer.train import main

GOLDEN = Path(__file__).with_name("golden.json")


def test_fifty_steps_have_the_losses_on_file(packed: Path, tmp_path: Path) -> None:
    # To accept a change on purpose, write this list to golden.json and say in the commit why it moved.
    options = "model.preset=tiny run.steps=50 run.micro_batches=4 run.processes=1 run.log_every=1 run.eval_every=25"
    overrides = [part for option in [*options.split(), "optim.lr=0.01"] for part in ("--set", option)]
    assert main(["--data", str(packed), "--output", str(tmp_path), *overrides]) == 0
    lines = read(tmp_path / "metrics.jsonl")
    found = {
        kind: [[line["step"], round(line["loss"], 5)] for line in lines if line["kind"] == kind]
        for kind in ("train", "validation")
    }
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {kind: len(curve) for kind, curve in found.items()} == {"train": 50, "validation": 2}
    for kind, curve in expected.items():
        assert [step for step, _ in found[kind]] == [step for step, _ in curve]
        # other processors round otherwise, and fifty steps at this rate let that grow
        assert [loss for _, loss in found[kind]] == pytest.approx([loss for _, loss in curve], abs=2e-3)
