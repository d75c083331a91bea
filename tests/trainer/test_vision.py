"""The command on images: what it leaves behind, and that its bits depend on nothing but options and data."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.losses import LOSSES
from trainer import checkpoint, export
from trainer.config import ConfigError, load
from trainer.images import ImageBatch, ImagesConfig
from trainer.metrics import Metrics, read
from trainer.vision import Objective, VisionConfig, VisionModel, main
from trainer.world import STOPPED

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of datasets, which the benchmark uses too
from image_data import png, record, write_images

from .runs import arguments as run_arguments
from .runs import digest

OPTIONS = {
    "model.preset": "digits", "model.layers": 2, "model.hidden": 32, "model.intermediate": 64, "run.steps": 6,
    "run.rows": 8, "run.micro_batches": 4, "run.processes": 1, "run.log_every": 1, "run.eval_every": 0,
    "run.save_every": 2, "run.keep": 0, "run.tensorboard": False,
}  # fmt: skip


def drawn(count: int, seed: int, *, labelled: bool = True) -> list[dict[str, object]]:
    """Bars that lie or stand, in two sources, on noise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = rng.integers(0, 90, (8, 8)).astype(np.uint8)
        place, lies = rng.integers(1, 6), number % 2
        bar = (slice(place, place + 2), slice(None))
        pixels[bar if lies else bar[::-1]] = 220
        label = ("竖", "横")[lies] if labelled else None
        found.append(
            record(png(pixels), f"{seed}/{number}.png", label, ("left", "right")[number % 3 > 0], pen=int(place % 2))
        )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = {"train": drawn(96, 0), "validation": drawn(20, 1), "test": drawn(40, 2)}
    return write_images(tmp_path_factory.mktemp("data") / "set", tables, per_shard=50)


def arguments(data: Path, output: Path, **options: object) -> list[str]:
    merged = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    return run_arguments(data, output, merged)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("runs") / "alone"
    assert main(arguments(folder, output)) == 0
    return output


@pytest.fixture(scope="module")
def learnt(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("runs") / "learnt"
    options = {"images__operations": 0, "images__flip": False, "optim__lr": 0.004, "epochs": 25, "run__losses": True}
    assert main(arguments(folder, output, **options, run__log_every=0, run__eval_every=5)) == 0
    return output


def test_a_run_leaves_checkpoints_metrics_and_summary(uninterrupted: Path) -> None:
    saved = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert saved == ["step-00000002", "step-00000004", "step-00000006"]
    lines = [line for line in read(uninterrupted / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 7)) and lines[0]["images"] == 32
    assert lines[0]["loss"] == pytest.approx(np.log(2), rel=1e-4)  # the last layer starts at 0
    summary = json.loads((uninterrupted / "train.json").read_text())
    assert summary["images"] == 6 * 32 and summary["validation"]["images"] == 20
    state = checkpoint.read_state(checkpoint.find(uninterrupted))
    assert state.architecture.labels == ("横", "竖") and state.epoch == 2
    assert state.goodness == (summary["validation"]["accuracy"], -summary["validation"]["loss"])


def test_one_two_and_four_processes_end_in_the_same_bits(folder: Path, uninterrupted: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert main(arguments(folder, tmp_path / "two", run__processes=2)) == 0
    assert digest(tmp_path / "two") == digest(uninterrupted)
    with monkeypatch.context() as patch:  # and one that is stopped, resumed with four
        plain = Metrics.progress

        def tell(self: Metrics, step: int, loss: float, rate: float) -> None:
            plain(self, step, loss, rate)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Metrics, "progress", tell)
        assert main(arguments(folder, tmp_path / "run")) == STOPPED
    assert checkpoint.find(tmp_path / "run").name == "step-00000003"
    assert main([*arguments(folder, tmp_path / "run", run__processes=4), "--resume"]) == 0
    assert digest(tmp_path / "run") == digest(uninterrupted)
    losses = [[line["loss"] for line in read(run / "metrics.jsonl")] for run in (uninterrupted, tmp_path / "run")]
    assert losses[0] == losses[1]


def test_a_vit_learns_and_the_best_is_that_of_the_highest_accuracy(learnt: Path) -> None:
    assert json.loads((learnt / "train.json").read_text())["steps"] == 75  # 25 epochs of 96 in steps of 32
    measured = {line["step"]: line for line in read(learnt / "metrics.jsonl") if line["kind"] == "validation"}
    best = max(measured.values(), key=lambda line: (line["accuracy"], -line["loss"]))
    assert checkpoint.find(learnt / "best").name == f"step-{best['step']:08d}"
    assert best["accuracy"] >= 0.9


def test_losses_of_images_are_written_by_step(folder: Path, learnt: Path) -> None:
    parts = [pa.ipc.open_file(path).read_all() for path in sorted((learnt / "losses").glob("*.arrow"))]
    table = pa.concat_tables(parts)
    LOSSES.validate(table)
    assert len(table) == 75 * 32 and set(table["tokens"].to_pylist()) == {1}
    assert len(set(table["id"].to_pylist())) == 96 and set(table["source"].to_pylist()) == {"left", "right"}


def test_a_report_measures_every_image_of_a_table(folder: Path, learnt: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    given = ["--evaluate", str(learnt / "best"), "--data", str(folder), "--output", str(tmp_path / "out")]
    assert main([*given, "--group", "pen", "--losses", str(tmp_path / "losses.arrow")]) == 0
    losses = pa.ipc.open_file(tmp_path / "losses.arrow").read_all()
    LOSSES.validate(losses)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert np.mean(losses["loss"]) == pytest.approx(metrics["log_loss"], rel=1e-5) and len(losses) == 40
    assert metrics["examples"] == 40 and metrics["table"] == "test" and metrics["accuracy"] >= 0.85
    assert set(metrics["classes"]) == {"横", "竖"} and "images" in capsys.readouterr().out
    slices = json.loads((tmp_path / "out/slices.json").read_text())
    assert sum(row["examples"] for row in slices["pen"]["groups"].values()) == 40 and set(slices) == {"source", "pen"}
    assert (tmp_path / "out/confusion.csv").read_text(encoding="utf-8").count("\n") == 41
    table = pa.ipc.open_file(tmp_path / "out/predictions.arrow").read_all()
    right = sum(a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    assert right / 40 == metrics["accuracy"]
    assert table["place"][0].as_py() == "2/0.png" and table["id"][0].as_py() == drawn(1, 2)[0]["id"].hex()
    assert main([*given[:-1], str(tmp_path / "no"), "--group", "ink"]) == 1
    assert "no record has a field 'ink'" in capsys.readouterr().err


def test_a_trained_run_is_exported_from_the_command_line(learnt: Path, tmp_path: Path) -> None:
    assert export.main(["--checkpoint", str(learnt), "--output", str(tmp_path / "out")]) == 0
    with pytest.raises(checkpoint.CheckpointError, match="holds a model of images"):
        checkpoint.load_model(checkpoint.find(learnt))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_classifier_starts_from_an_autoencoders_encoder(folder: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    blank = write_images(tmp_path / "blank", {"train": drawn(64, 3, labelled=False), "validation": drawn(8, 4)})
    assert main(arguments(blank, tmp_path / "mae", task="mae", run__eval_every=3)) == 0
    lines = [line for line in read(tmp_path / "mae/metrics.jsonl") if line["kind"] == "validation"]
    assert lines[-1]["loss"] < lines[0]["loss"] and "accuracy" not in lines[0]
    assert checkpoint.find(tmp_path / "mae/best").name == "step-00000006"
    start = ["--init", str(tmp_path / "mae")]
    assert main([*arguments(folder, tmp_path / "run", run__steps=1, optim__lr=1e-12), *start]) == 0
    assert "new: classifier, pool" in capsys.readouterr().err
    before, after = (checkpoint.load_image_model(checkpoint.find(tmp_path / name))[0] for name in ("mae", "run"))
    for name, tensor in before.model.state_dict().items():
        torch.testing.assert_close(after.model.state_dict()[name], tensor)
    assert main([*arguments(folder, tmp_path / "no", model__layers=3), *start]) == 1
    assert "has another encoder: model.layers.2" in capsys.readouterr().err
    for option, message in (({"model__heads": 2}, "trained with model.heads [4], not [2]"),
                            ({"images__mean": "[0.1]"}, "trained with images.mean [0.5], not [0.1]")):  # fmt: skip
        assert main([*arguments(folder, tmp_path / "no", **option), *start]) == 1
        assert message in capsys.readouterr().err
    assert main(["--evaluate", str(tmp_path / "mae"), "--data", str(folder), "--output", str(tmp_path / "no")]) == 1
    assert "is a masked autoencoder, it has no classes" in capsys.readouterr().err


def test_a_head_is_taken_where_its_classes_are_the_same(folder: Path, learnt: Path, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    names = {"横": "cat", "竖": "dog"}
    other = write_images(tmp_path / "set", {
        table: [one | {"label": names[one["label"]]} for one in drawn(24, seed)]
        for seed, table in enumerate(("train", "validation"))
    })  # fmt: skip
    for name, data, expected in (("same", folder, "new: nothing"), ("other", other, "new: classifier\n")):
        assert main([*arguments(data, tmp_path / name, run__steps=1), "--init", str(learnt)]) == 0
        assert expected in capsys.readouterr().err


def test_a_resnet_trains_by_the_same_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--set", "model={preset: resnet8, image_size: 8, channels: 1, width: 16, blocks: [1, 1]}"]
    assert main([*arguments(folder, tmp_path / "run", run__steps=2), *model]) == 0
    found, _ = checkpoint.load_image_model(checkpoint.find(tmp_path / "run"))
    assert found.arch.blocks == (1, 1) and found.model.hidden == 32
    assert main([*arguments(folder, tmp_path / "no", optim__name="muon"), *model]) == 1
    assert "optim.name=muon needs matrices" in capsys.readouterr().err


def test_bad_data_and_options_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = write_images(tmp_path / "set", {"train": drawn(9, 0), "validation": [
        record(png(np.zeros((8, 8), np.uint8)), "x.png", "斜")]})  # fmt: skip
    for data, options, message in (
        (strange, {}, "x.png: label '斜' does not occur in training: 横, 竖"),
        (folder, {"model__preset": "vgg"}, "model.preset is 'vgg'; it must be one of digits,"),
        (folder, {"model__blocks": "[1]"}, "model.blocks is nothing that digits has"),
        (folder, {"data__train": "all"}, "names no shard of table 'all'"),
        (folder, {"images__mean": "[0.1, 0.2]", "images__std": "[1, 1]"}, "images.mean has 2 numbers"),
        (folder, {"task": "mae", "model__decoder_layers": 0}, "task=mae needs a decoder"),
        (folder, {"task": "mae", "model__image_size": 2}, "hides some patches and shows others"),
        (folder, {"images__mixup": 1000}, "mixup from 0 to 100"),
    ):
        assert main(arguments(data, tmp_path / "run", **options)) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigError, match="hides patches, which resnet8 has not"):
        VisionModel("resnet8").architecture("mae", (), ImagesConfig())


def objective(*overrides: str) -> Objective:
    config = load(VisionConfig, "vision", None, ["model.preset=digits", *overrides])
    model = config.model.architecture(config.task, ("a", "b", "c"), config.images).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return Objective(model, config, torch.device("cpu"))


def batch(extra: torch.Tensor) -> ImageBatch:
    pixels = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    count = np.arange(4)
    return ImageBatch(pixels, torch.tensor([0, 1, 2, 1]), extra, count, count, count, (4, 0, 4, 0))


def test_a_mixture_costs_its_shares_of_both_labels() -> None:
    take, extra = objective("smoothing=0.1"), torch.tensor([0.0, 0.25, 0.5, 1.0])
    micro = batch(extra)
    losses, _, _ = take(*micro.arguments(torch.device("cpu")))
    normal = (micro.pixels.float() / 255 - 0.5) / 0.5
    for number, share in enumerate(extra.tolist()):
        mixed = share * normal[number] + (1 - share) * normal[number - 1]
        wanted = torch.full((3,), 0.1 / 3)
        wanted[micro.labels[number]] += 0.9 * share
        wanted[micro.labels[number - 1]] += 0.9 * (1 - share)
        expected = torch.nn.functional.cross_entropy(take.model(mixed[None]), wanted[None])
        assert float(losses[number].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_an_image_alone_costs_its_cross_entropy_when_measured() -> None:
    take, micro = objective().eval(), batch(torch.ones(4))
    losses, _, found = take(*micro.arguments(torch.device("cpu")))
    logits = take.model((micro.pixels.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(logits, micro.labels, reduction="none"))
    torch.testing.assert_close(found, logits.log_softmax(1))


def test_an_autoencoder_sees_a_quarter_of_the_patches() -> None:
    assert objective("task=mae").visible == 4 and objective("task=mae", "hidden=0.5").visible == 8
