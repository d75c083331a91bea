import json
import math
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import checkpoint, evaluate
from trainer.checkpoint import State, Tensors
from trainer.config import Config
from trainer.data import PackedDataset
from trainer.evaluate import choose_rows, log_unigram, main, measure
from trainer.masking import MaskConfig, mask_rows
from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.step import MicroBatch, Objective
from trainer.world import World


@pytest.fixture
def model() -> MaskedLM:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 128, 64))
    model.initialise(0)
    with torch.no_grad():
        model.decoder.bias.normal_(generator=torch.Generator().manual_seed(1))
    return model.eval()


def test_the_report_equals_a_plain_loop_over_documents(model: MaskedLM, packed: Path) -> None:
    dataset, train = PackedDataset(packed, "validation"), PackedDataset(packed, "train")
    unigram = log_unigram(train.token_counts())
    rows, mask = np.arange(len(dataset)), MaskConfig(ratio=0.15)
    objective = Objective(model, "float32", torch.device("cpu"))
    got = measure(objective, dataset, rows, unigram, mask, batch=5, world=World()).report()

    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        one, documents = dataset.rows(rows[row : row + 1]), dataset.documents(rows[row : row + 1])
        masked = mask_rows(one.input_ids, one.word_start, one.row_ids, np.zeros(1, np.int64), mask, 128, evaluate.SEED)
        batch = MicroBatch.of(dataset, rows[row : row + 1], np.zeros(1, np.int64), mask, evaluate.SEED)
        with torch.no_grad():
            logs = torch.log_softmax(model(batch.input_ids, batch.segments.to("cpu")), -1)
        start = 0
        for source, size, n in zip(
            documents["source"].to_pylist(), documents["bytes"].to_pylist(), one.lens[~one.padding], strict=True
        ):
            for name in ("all", str(source)):
                sums[name]["bytes"] += size
                sums[name]["tokens"] += n - 2  # all but [CLS] and [SEP]
                for slot, label in zip(masked.slots[0], masked.labels[0], strict=True):
                    if label >= 0 and start <= slot < start + n:
                        sums[name]["masked"] += 1
                        sums[name]["loss"] -= float(logs[slot, label])
                        sums[name]["unigram"] -= float(unigram[label])
                        sums[name]["right"] += int(logs[slot].argmax()) == label
            start += int(n)

    for name, expected in sums.items():
        report = got if name == "all" else got["sources"][name]
        assert report["masked_tokens"] == expected["masked"]
        assert (report["tokens"], report["bytes"]) == (expected["tokens"], expected["bytes"])
        assert report["loss"] == pytest.approx(expected["loss"] / expected["masked"], abs=2e-5)
        assert report["unigram_loss"] == pytest.approx(expected["unigram"] / expected["masked"], abs=2e-6)
        assert report["accuracy"] == pytest.approx(expected["right"] / expected["masked"], abs=1e-6)
        bits = report["loss"] / math.log(2) * expected["tokens"] / expected["bytes"]
        assert report["bits_per_byte"] == pytest.approx(bits, abs=2e-6)
    assert set(got["sources"]) == {"books", "新闻"}


def test_the_unigram_model_by_hand() -> None:
    counts = np.array([9, 9, 9, 9, 9, 2, 0, 1])  # the five specials do not count
    assert log_unigram(counts).exp().tolist() == pytest.approx([1 / 11] * 5 + [3 / 11, 1 / 11, 2 / 11])


def test_a_part_of_the_rows_is_the_same_part_each_time(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    part = choose_rows(dataset, 10)
    assert len(set(part.tolist())) == 10 and part.tolist() == sorted(choose_rows(dataset, 10).tolist())
    assert set(part.tolist()) < set(choose_rows(dataset, 20).tolist())
    assert choose_rows(dataset, 0).tolist() == choose_rows(dataset, 1000).tolist() == list(range(40))


def test_the_command_writes_what_it_prints(
    model: MaskedLM, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = State(0, PackedDataset(packed, "train").sha256(), model.arch, asdict(Config()))
    run = tmp_path / "run"
    checkpoint.save(run / "checkpoints", state, Tensors.of(model, []), 0)
    options = ["--checkpoint", str(run), "--data", str(packed), "--threads", "1"]
    assert main([*options, "--metrics", str(tmp_path / "m/eval.json")]) == 0
    report = json.loads((tmp_path / "m/eval.json").read_text())
    printed = capsys.readouterr().out
    assert f"{report['loss']:.4f}" in printed and "新闻" in printed
    assert main([*options, "--table", "test"]) == 1
    assert "names no shard of table 'test'" in capsys.readouterr().err


def test_a_dataset_with_another_vocabulary_is_refused(
    model: MaskedLM, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 256, 64))
    state = State(0, "00" * 32, other.arch, asdict(Config()))
    checkpoint.save(tmp_path / "checkpoints", state, Tensors.of(other, []), 0)
    assert main(["--checkpoint", str(tmp_path), "--data", str(packed), "--threads", "1"]) == 1
    assert "the model has 256 token ids" in capsys.readouterr().err


def losses(masked: list[int]) -> evaluate.Losses:
    """Two documents of two sources, of which so many tokens were masked."""
    count = np.array(masked)
    zeros = np.zeros(2)
    return evaluate.Losses(
        np.array([b"a", b"b"], object), np.array(["books", "新闻"], object), 2.0 * count, 3.0 * count, count, count,
        np.array([8, 8]), np.array([16, 24]), zeros, zeros, zeros,
    )  # fmt: skip


def test_of_a_source_without_masked_tokens_no_loss_is_claimed() -> None:
    report = losses([4, 0]).report()
    assert report["loss"] == report["sources"]["books"]["loss"] == 2.0
    assert report["sources"]["新闻"] == {
        "loss": None, "unigram_loss": None, "accuracy": None, "bits_per_byte": None,
        "masked_tokens": 0, "tokens": 8, "bytes": 24,
    }  # fmt: skip
    assert evaluate.table(report).splitlines()[2].split() == ["新闻", "-", "-", "-", "-", "0"]
    with pytest.raises(ValueError, match="special tokens alone"):
        losses([0, 0]).report()
