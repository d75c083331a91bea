import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer import checkpoint, optim
from trainer.checkpoint import CheckpointError, State, Tensors, Writer
from trainer.config import Config, load
from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import NAMES, OptimConfig

ARCH = Architecture.of(ModelConfig(preset="tiny"), 64, 32)
CONFIG = asdict(Config())
Trained = tuple[MaskedLM, list[torch.optim.Optimizer]]


def options(*overrides: str) -> dict[str, object]:
    return asdict(load(Config, "train", None, overrides))


def trained(steps: int, name: str = "adamw") -> Trained:
    """A model and its optimizers after some steps with made-up gradients."""
    model = MaskedLM(ARCH)
    model.initialise(0)
    optimizers = optim.build(model, OptimConfig(name=name))
    for step in range(steps):
        push(model, optimizers, step)
    return model, optimizers


def push(model: MaskedLM, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for optimizer in optimizers:
        optimizer.step()


def save(folder: Path, steps: int, keep: int = 0, name: str = "adamw", loss: float | None = None) -> Path:
    state = State(steps, "aa" * 32, ARCH, CONFIG, validation_loss=loss)
    return checkpoint.save(folder, state, Tensors.of(*trained(steps, name)), keep)


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3, name=name)
    model, optimizers = trained(0, name)
    checkpoint.restore(path, model, optimizers)
    push(model, optimizers, 3)
    expected = trained(4, name)[0].state_dict()
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


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, loss in ((1, 3.0), (2, 2.0), (3, None), (4, 2.5), (5, 2.0)):
        save(folder, step, keep=1, loss=loss)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000005"]
    assert checkpoint.find(tmp_path / "best") == checkpoint.best(folder) == folder / "step-00000002"
    assert checkpoint.find(tmp_path) == folder / "step-00000005"


def test_a_thread_writes_what_the_weights_were_when_it_was_asked(tmp_path: Path) -> None:
    model, optimizers = trained(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    writer = Writer(tmp_path, 0)
    writer.save(State(1, "aa" * 32, ARCH, CONFIG), Tensors.of(model, optimizers))
    push(model, optimizers, 9)  # while it writes
    writer.wait()
    saved = load_file(tmp_path / "step-00000001/model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in before.items())


def test_what_goes_wrong_in_the_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, 0)
    monkeypatch.setattr(checkpoint, "sync", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    writer.save(State(1, "aa" * 32, ARCH, CONFIG), Tensors.of(*trained(1)))
    with pytest.raises(OSError, match="disk full"):
        writer.wait()


def test_a_write_that_a_crash_cut_off_is_not_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync", lambda path: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000001"
    assert save(tmp_path, 2) == checkpoint.latest(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    (path / name).write_bytes((path / name).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read .*--resume takes the one before it"):
        checkpoint.restore(path, *trained(0))


def test_weights_or_moments_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    weights, moments = load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors")
    save_file({**weights, "head.norm.weight": torch.ones(1)}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"another model than its state says: head\.norm\.weight"):
        checkpoint.load_model(path)
    save_file(weights, path / "model.safetensors")
    save_file({k: v for k, v in moments.items() if not k.endswith("decoder.bias")}, path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match="lacks moments"):
        checkpoint.restore(path, *trained(0))


def test_another_tokenizer_of_the_same_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"one")
    state = State(1, "aa" * 32, ARCH, CONFIG, tokenizer=hashlib.sha256(b"one").hexdigest())
    assert checkpoint.tokenizer_sha256(tmp_path) == state.tokenizer
    checkpoint.check_tokenizer(tmp_path, state.tokenizer, state)
    checkpoint.check_tokenizer(tmp_path, None, state)  # rows of an older `pack` do not say it
    (tmp_path / "tokenizer.model").write_bytes(b"two")
    with pytest.raises(CheckpointError, match="another tokenizer than the model was trained with"):
        checkpoint.check_tokenizer(tmp_path, checkpoint.tokenizer_sha256(tmp_path), state)


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest has sha256 aaaaaaaaaaaaaaaa….*give the same --data"):
        checkpoint.check(save(tmp_path, 1), "bb" * 32, CONFIG)


@pytest.mark.parametrize(
    ("override", "name"), [("run.rows=4", "run.rows"), ("mask.ratio=0.2", "mask"), ("optim.name=sgd", "optim.name")]
)
def test_options_that_change_what_a_step_is_are_refused(tmp_path: Path, override: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"train\.{name} = .*resume with the same options"):
        checkpoint.check(save(tmp_path, 1), "aa" * 32, options(override))


def test_other_options_may_change(tmp_path: Path) -> None:
    now = options("run.processes=4", "run.steps=9", "optim.lr=0.1", "data.mix=[]")
    assert checkpoint.check(save(tmp_path, 1), "aa" * 32, now).step == 1


def test_find_takes_a_checkpoint_or_a_run_and_says_where_there_is_none(tmp_path: Path) -> None:
    path = save(tmp_path / "run/checkpoints", 1)
    assert checkpoint.find(path) == checkpoint.find(tmp_path / "run") == path
    with pytest.raises(CheckpointError, match="neither a checkpoint nor"):
        checkpoint.find(tmp_path)
    (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not the state of a checkpoint"):
        checkpoint.read_state(path)


def test_what_has_lost_its_state_is_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "state.json").unlink()
    assert checkpoint.latest(tmp_path) is None
    assert save(tmp_path, 1) == checkpoint.latest(tmp_path)
    with pytest.raises(CheckpointError, match=r"not the state of a checkpoint .*: remove "):
        checkpoint.read_state(tmp_path)


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / ".step-00000002.partial").mkdir()
    (tmp_path / ".step-00000002.partial/model.safetensors").write_bytes(b"half")
    checkpoint.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    for step, loss in ((1, 3.0), (2, float("nan")), (3, float("-inf"))):
        save(tmp_path, step, loss=loss)
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000001"


def test_an_evaluation_made_up_for_is_written_into_the_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    before = checkpoint.read_state(path)
    checkpoint.amend(path, replace(before, validation_loss=2.5), 0)
    assert checkpoint.read_state(path) == replace(before, validation_loss=2.5)
    assert checkpoint.best(tmp_path) == path
    assert sorted(each.name for each in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]


def test_weights_start_a_model_with_or_without_a_head_for_pairs(tmp_path: Path) -> None:
    path, source = save(tmp_path, 1), trained(1)[0].state_dict()
    paired = MaskedLM(replace(ARCH, next_sentence=True, max_length=64))
    paired.initialise(7)
    head = paired.next_sentence.weight.detach().clone()  # type: ignore[union-attr]
    checkpoint.start_from(path, paired, None)
    assert torch.equal(paired.next_sentence.weight, head)  # type: ignore[union-attr]
    assert all(torch.equal(paired.state_dict()[name], value) for name, value in source.items())
    state = State(1, "aa" * 32, paired.arch, CONFIG)
    other = checkpoint.save(tmp_path / "pairs", state, Tensors.of(paired, []), 0)
    plain = trained(0)[0]
    checkpoint.start_from(other, plain, None)
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in source.items())


def test_weights_that_would_mean_something_else_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"was trained with heads \d+, not \d+: give the same model options"):
        checkpoint.start_from(path, MaskedLM(replace(ARCH, heads=2 * ARCH.heads)), None)
    with pytest.raises(CheckpointError, match="rope_theta"):
        checkpoint.start_from(path, MaskedLM(replace(ARCH, rope_theta=500.0)), None)
