import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.metrics import Energy, Metrics, flops, memory, peak_tflops, read, summarise
from trainer.model import Architecture, ModelConfig

TRAIN = {"loss": 5.0, "learning_rate": 0.1}


def test_numbers_reach_the_lines_and_the_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics(tmp_path, 0, 20)
    metrics.write(10, "train", TRAIN)
    metrics.write(10, "validation", {"loss": 4.0, "sources": {"新闻": {"loss": 3.0}}})
    metrics.progress(10, 5.0, 100.0)
    metrics.close()
    assert read(tmp_path / "metrics.jsonl") == [
        {"step": 10, "kind": "train", **TRAIN},
        {"step": 10, "kind": "validation", "loss": 4.0, "sources": {"新闻": {"loss": 3.0}}},
    ]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("validation/sources/新闻/loss")] == [3.0]
    assert board.Scalars("train/learning_rate")[0].step == 10
    assert capsys.readouterr().err == ""  # no progress line in a log


def test_resuming_drops_the_lines_of_steps_that_are_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "kind": "train", **TRAIN}) + "\n" for n in (10, 20, 30)) + '{"ste')
    metrics = Metrics(tmp_path, 20, 40)
    metrics.write(30, "train", TRAIN)
    metrics.close()
    assert [line["step"] for line in read(path)] == [10, 20, 30]


def test_the_curve_has_one_row_a_step(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "kind": "train", **TRAIN},
        {"step": 20, "kind": "train", "loss": 4.5, "learning_rate": 0.05},
        {"step": 20, "kind": "validation", "loss": 4.0},
    ]
    summarise(tmp_path / "new", lines, {"b": 1, "a": {"loss": 4.0}})
    assert (tmp_path / "new/loss.csv").read_text() == (
        "step,train_loss,validation_loss,learning_rate\n10,5.0,,0.1\n20,4.5,4.0,0.05\n"
    )
    assert (tmp_path / "new/train.json").read_text() == '{\n "a": {\n  "loss": 4.0\n },\n "b": 1\n}\n'


def test_dvclive_gets_the_same_numbers_and_starts_no_experiment(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0, 20, tensorboard=False, dvclive=True)
    metrics.write(10, "train", TRAIN | {"mfu": None})
    metrics.write(10, "validation", {"loss": 4.0, "sources": {"新闻": {"loss": 3.0}}})
    metrics.close()
    found = json.loads((tmp_path / "dvclive/metrics.json").read_text(encoding="utf-8"))
    assert found["train"] == TRAIN and found["validation"] == {"loss": 4.0, "sources": {"新闻": {"loss": 3.0}}}
    assert found["step"] == 10
    curve = (tmp_path / "dvclive/plots/metrics/train/loss.tsv").read_text()
    assert curve == "step\tloss\n10\t5.0\n"
    assert not (tmp_path / "tensorboard").exists()


def test_operations_of_a_step_by_hand() -> None:
    arch = Architecture.of(ModelConfig(preset="tiny"), 1000, 64)  # 2 layers, 64 hidden, 192 intermediate
    layer = 64 * 192 + 64 * 64 + 64 * 384 + 192 * 64  # Wqkv, Wo, Wi, Wo
    head = 64 * 64 + 64 * 1000
    documents = [10, 30]
    attention = sum(2 * 2 * n * n * 64 for n in documents) * 2 * 3  # QKᵀ and AV, in two layers, forward and backward
    assert flops(arch, 40, 7, sum(n * n for n in documents)) == 6 * (2 * layer * 40 + head * 7) + attention


def test_nothing_is_claimed_of_a_processor_that_nobody_knows() -> None:
    cpu = torch.device("cpu")
    assert peak_tflops(cpu, 0.0) is None and peak_tflops(cpu, 0.2) == 0.2
    assert Energy(cpu).joules() is None
    assert memory(cpu) > 10e6


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", 989), ("NVIDIA A10", None),
    ],
)  # fmt: skip
def test_the_peak_is_that_of_the_very_device(name: str, peak: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_tflops(torch.device("cuda"), 0.0) == peak


def test_lines_that_are_not_json_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\nnothing\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds something else than lines of JSON"):
        read(tmp_path / "metrics.jsonl")
