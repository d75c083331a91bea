import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from trainer import checkpoint, optim
from trainer.checkpoint import CheckpointError, State
from trainer.config import load
from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import OptimConfig

ARCH = Architecture.of(ModelConfig(preset="tiny"), 64, 32)
CONFIG = asdict(load())


def trained(steps: int) -> tuple[MaskedLM, torch.optim.Optimizer]:
    """A model and its optimizer after some steps with made-up gradients."""
    model = MaskedLM(ARCH)
    model.initialise(0)
    optimizer = optim.build(model, OptimConfig())
    for step in range(steps):
        push(model, optimizer, step)
    return model, optimizer


def push(model: MaskedLM, optimizer: torch.optim.Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def save(folder: Path, steps: int, keep: int = 0) -> Path:
    return checkpoint.save(folder, State(steps, "aa" * 32, ARCH, CONFIG), *trained(steps), keep)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    model, optimizer = trained(0)
    assert checkpoint.restore(path, model, optimizer, "aa" * 32, CONFIG) == 3
    push(model, optimizer, 3)
    expected = trained(4)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_is_safetensors_and_json_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    one, two = save(tmp_path / "a", 2), save(tmp_path / "b", 2)
    names = sorted(path.name for path in one.iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert json.loads((one / "state.json").read_text())["step"] == 2


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000010"


def test_a_write_that_a_crash_cut_off_is_not_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync", lambda path: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000001"
    assert save(tmp_path, 2) == checkpoint.latest(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest has sha256 aaaaaaaaaaaaaaaa….*give the same --data"):
        checkpoint.restore(save(tmp_path, 1), *trained(0), "bb" * 32, CONFIG)


@pytest.mark.parametrize(("override", "name"), [("run.rows=4", "run.rows"), ("mask.ratio=0.2", "mask")])
def test_options_that_change_what_a_step_is_are_refused(tmp_path: Path, override: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"train\.{name} = .*resume with the same options"):
        checkpoint.restore(save(tmp_path, 1), *trained(0), "aa" * 32, asdict(load(None, [override])))


def test_other_options_may_change(tmp_path: Path) -> None:
    now = asdict(load(None, ["run.processes=4", "run.steps=9", "optim.lr=0.1"]))
    assert checkpoint.restore(save(tmp_path, 1), *trained(0), "aa" * 32, now) == 1


def test_find_takes_a_checkpoint_or_a_run_and_says_where_there_is_none(tmp_path: Path) -> None:
    path = save(tmp_path / "run/checkpoints", 1)
    assert checkpoint.find(path) == checkpoint.find(tmp_path / "run") == path
    with pytest.raises(CheckpointError, match="neither a checkpoint nor"):
        checkpoint.find(tmp_path)
    (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not the state of a checkpoint"):
        checkpoint.read_state(path)
