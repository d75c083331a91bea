import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from schemas.packed import CLS_ID, MASK_ID, PAD_ID, SEP_ID, SPECIAL_TOKENS
from trainer import checkpoint
from trainer.attention import Segments
from trainer.classify import Example, Fields, read
from trainer.config import load
from trainer.export import load_classifier
from trainer.finetune import (
    SECTION,
    FineTuneConfig,
    Learner,
    Texts,
    fit,
    hide,
    hold_out,
    load_tokenizer,
    logits,
    main,
    pack,
)
from trainer.model import Architecture, Classifier, MaskedLM, ModelConfig

WORDS = [*"abcdefghij", *"天地玄黄宇宙洪荒"]
ARCH = Architecture.of(ModelConfig(preset="tiny"), len(SPECIAL_TOKENS) + len(WORDS), 32)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token for each word or Chinese character."""
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL_TOKENS, *WORDS))}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("[CLS]", CLS_ID), ("[SEP]", SEP_ID)]
    fast.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special)
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=fast, **{f"{key}_token": value for key, value in names.items()})
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights."""
    folder = tmp_path_factory.mktemp("run") / "step-00000000"
    folder.mkdir()
    model = MaskedLM(ARCH)
    model.initialise(3)
    save_file(model.state_dict(), folder / checkpoint.WEIGHTS)
    state: dict[str, Any] = {"step": 0, "manifest": "", "architecture": vars(ARCH), "config": {}}
    (folder / checkpoint.STATE).write_text(json.dumps(state))
    return folder


def table(path: Path, count: int, seed: int, pairs: bool = False) -> Path:
    """Texts whose label is whether they are of the first half of the words; pairs: whether both halves agree."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        sides = rng.integers(2, size=2) if pairs else np.full(2, number % 2)
        words = [" ".join(rng.choice(WORDS[: len(WORDS) // 2] if s else WORDS[len(WORDS) // 2 :], 4)) for s in sides]
        text = {"a": words[0], "b": words[1]} if pairs else {"text": " ".join(words)}
        label = ("不同", "同")[int(sides[0] == sides[1])] if pairs else ("zh", "en")[number % 2]
        lines.append(json.dumps({"id": number, **text, "label": label, "source": ("books", "web")[number % 3 % 2]}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


FAST = ["--set", "epochs=3", "--set", "max_length=8", "--set", "batch=8", "--set", "optim.lr=0.01"]


def call(*arguments: Any) -> int:
    return main([str(each) for each in arguments])


def trained(folder: Path, pretrained: Path, tokenizer: Path, *more: Any) -> Path:
    train, test = table(folder / "train.jsonl", 96, 0), table(folder / "test.jsonl", 40, 1)
    required = ("--model", pretrained, "--tokenizer", tokenizer, "--train", train, "--test", test)
    assert call(*required, "--output", folder / "out", *FAST, *more) == 0
    return folder / "out"


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, tokenizer: Path) -> Path:
    """What fine-tuning wrote; texts of ten tokens were cut to eight."""
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("first"), pretrained, tokenizer)


def digest(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_it_learns_and_the_same_input_gives_the_same_bytes(
    output: Path, tmp_path: Path, pretrained: Path, tokenizer: Path
) -> None:
    first, second = digest(output), digest(trained(tmp_path, pretrained, tokenizer))
    assert first.keys() == second.keys()
    # where a record stands is part of the predictions, and that is another file here
    assert {name for name in first if first[name] != second[name]} == {"predictions.arrow"}
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["table"], metrics["examples"], metrics["accuracy"]) == ("test", 40, 1.0)
    assert [line["epoch"] for line in metrics["training"]] == [1, 2, 3]
    slices = json.loads((output / "slices.json").read_text(encoding="utf-8"))
    assert {name: row["examples"] for name, row in slices["source"]["groups"].items()} == {"books": 27, "web": 13}
    assert set(slices) == {"length", "source"}


def test_transformers_predicts_what_was_reported(output: Path) -> None:
    with pa.memory_map(str(output / "predictions.arrow")) as file:
        found = pa.ipc.open_file(file).read_all().to_pylist()
    rows = [json.loads(line) for line in (output.parent / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    peer, loading = AutoModelForSequenceClassification.from_pretrained(output / "model", output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = AutoTokenizer.from_pretrained(output / "model")(
        [row["text"] for row in rows], padding=True, truncation=True, return_tensors="pt"
    )
    assert batch["input_ids"].shape[1] == 8
    with torch.no_grad():
        chances = peer(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.softmax(1)
    assert [each["prediction"] for each in found] == [peer.config.id2label[each] for each in chances.argmax(1).tolist()]
    np.testing.assert_allclose([each["probability"] for each in found], chances.max(1).values, atol=1e-6)
    assert [(each["id"], each["label"]) for each in found] == [(str(row["id"]), row["label"]) for row in rows]
    confusion = (output / "confusion.csv").read_text(encoding="utf-8").splitlines()
    assert confusion == ["actual,predicted", *(f"{each['label']},{each['prediction']}" for each in found)]


def test_evaluating_the_export_gives_the_numbers_of_its_training(output: Path, tmp_path: Path) -> None:
    again = ("--evaluate", output / "model", "--test", output.parent / "test.jsonl", "--output", tmp_path / "again")
    assert call(*again, "--set", "batch=8") == 0
    before, after = digest(output), digest(tmp_path / "again")
    names = ["confusion.csv", "predictions.arrow", "slices.json"]
    assert [before[name] for name in names] == [after[name] for name in names]
    _, labels = load_classifier(output / "model")
    assert labels == ["en", "zh"]


def test_pairs_are_read_as_one_sequence_and_a_validation_share_is_held_out(
    tmp_path: Path, pretrained: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = table(tmp_path / "pairs.jsonl", 60, 2, pairs=True)
    examples = read(str(train), Fields(text="a", pair="b"))
    texts = Texts.of("train", examples, ["不同", "同"], load_tokenizer(tokenizer, ARCH, 9))
    row = json.loads(train.read_text(encoding="utf-8").splitlines()[0])
    ids = [len(SPECIAL_TOKENS) + WORDS.index(word) for word in (row["a"] + " " + row["b"]).split()]
    assert texts.tokens[0].tolist() == [CLS_ID, *ids[:3], SEP_ID, *ids[4:7], SEP_ID]  # each lost one of four
    fields = ("--text", "a", "--pair", "b", "--group", "source")
    required = ("--model", pretrained, "--tokenizer", tokenizer, "--train", train, "--output", tmp_path / "out")
    assert call(*required, *fields, "--set", "epochs=1", "--set", "validation=0.3") == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    held = len(hold_out(examples, FineTuneConfig(validation=0.3))[1])
    assert (metrics["table"], metrics["examples"]) == ("validation", held)
    assert 10 < held < 30
    assert f"train: {60 - held} texts, 0 of them empty, 0 cut to 32 tokens" in capsys.readouterr().err


def test_weights_from_scratch_know_nothing_of_the_checkpoint(tmp_path: Path, pretrained: Path, tokenizer: Path) -> None:
    frozen = ("--set", "epochs=1", "--set", "optim.lr=1e-30", "--set", "optim.weight_decay=0")
    for name, more in (("a", ()), ("b", ("--from-scratch", "--set", "seed=5"))):
        (tmp_path / name).mkdir()
        trained(tmp_path / name, pretrained, tokenizer, *frozen, *more)
    name = "model.layers.0.mlp.Wi.weight"
    weights = [load_file(tmp_path / each / "out/model/model.safetensors")[name] for each in ("a", "b")]
    fresh = MaskedLM(ARCH)
    for seed, found in zip((3, 5), weights, strict=True):
        fresh.initialise(seed)
        torch.testing.assert_close(fresh.state_dict()[name], found, atol=1e-9, rtol=0)


def test_packed_texts_have_the_logits_that_each_has_alone() -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model = Classifier.of(base, 3)
    torch.nn.init.normal_(model.classifier.weight)
    rng = np.random.default_rng(0)
    texts = [np.array([CLS_ID, *rng.integers(5, ARCH.vocab_size, size), SEP_ID]) for size in (3, 0, 20, 7, 11, 2, 1)]
    ids, segments, number = pack(texts, torch.device("cpu"))
    assert ids.shape == (3, 24)  # 22 tokens and no room; 13 + 9; 5 + 4 + 3 + 2 and padding
    flat = ids.flatten()
    for text, segment in zip(texts, number.tolist(), strict=True):
        assert flat[segments.document.flatten() == segment].tolist() == text.tolist()
    with torch.no_grad():
        together = logits(model, texts, FineTuneConfig())
        for text, found in zip(texts, together, strict=True):
            torch.testing.assert_close(logits(model, [text], FineTuneConfig())[0], found, atol=1e-5, rtol=0)
    assert int((flat == PAD_ID).sum()) == flat.numel() - sum(map(len, texts))


def test_attention_in_float32_gets_the_mask_that_it_needs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model, asked, plain = Classifier.of(base, 3), [], Segments.to

    def to(self: Segments, device: torch.device, *, dense: bool = False) -> Segments:
        asked.append(dense)
        return plain(self, device, dense=dense)

    monkeypatch.setattr(Segments, "to", to)
    for precision in ("float32", "bf16"):
        logits(model, [np.array([CLS_ID, 7, SEP_ID])], FineTuneConfig(precision=precision))
    assert asked == [True, False]


def test_hidden_tokens_depend_on_seed_epoch_and_row_alone_and_spare_the_specials() -> None:
    rows = np.arange(400)
    texts = [np.array([CLS_ID, *range(5, 15), SEP_ID])] * 400
    first = hide(texts, rows, 0, FineTuneConfig(mask=0.25))
    again = hide(texts[:1], rows[7:8], 0, FineTuneConfig(mask=0.25))
    assert first[7].tolist() == again[0].tolist()
    assert any((a != b).any() for a, b in zip(first, hide(texts, rows, 1, FineTuneConfig(mask=0.25)), strict=True))
    hidden = np.stack(first) == MASK_ID
    assert not hidden[:, [0, -1]].any()
    assert 0.22 < hidden[:, 1:-1].mean() < 0.28


def example(text: str, label: str, number: int) -> Example:
    return Example(f"t, line {number}", text, None, label, None, {})


def test_the_best_epoch_is_kept_and_patience_ends_the_run(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model = Classifier.of(base, 2)
    examples = [example("a b" if number % 2 else "天 地", str(number % 2), number) for number in range(8)]
    texts = Texts.of("train", examples, ["0", "1"], load_tokenizer(tokenizer, ARCH, None))
    measured = iter((0.5, 0.9, 0.9, 0.4))  # the second is the best; one that is only as good does not count
    seen: list[torch.Tensor] = []

    def fake(*_: Any) -> dict[str, Any]:
        seen.append(model.classifier.weight.detach().clone())
        return {"log_loss": 0.0, "accuracy": 0.0, "macro": {"f1": next(measured)}}

    monkeypatch.setattr("trainer.classify.score", fake)
    history = fit(model, texts, texts, ["0", "1"], FineTuneConfig(epochs=9, patience=2, batch=4))
    assert [line["validation_macro_f1"] for line in history] == [0.5, 0.9, 0.9, 0.4]
    assert torch.equal(model.classifier.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_the_epoch_of_the_least_log_loss_can_be_kept(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model = Classifier.of(base, 2)
    examples = [example("a b" if number % 2 else "天 地", str(number % 2), number) for number in range(8)]
    texts = Texts.of("train", examples, ["0", "1"], load_tokenizer(tokenizer, ARCH, None))
    measured, seen = iter((0.5, 0.2, 0.3)), []

    def fake(*_: Any) -> dict[str, Any]:
        seen.append(model.classifier.weight.detach().clone())
        return {"log_loss": next(measured), "accuracy": 0.0, "macro": {"f1": len(seen)}}

    monkeypatch.setattr("trainer.classify.score", fake)
    fit(model, texts, texts, ["0", "1"], FineTuneConfig(epochs=3, monitor="log_loss"))
    assert torch.equal(model.classifier.weight, seen[1])


def test_a_table_that_a_hash_of_texts_has_cut_out_can_be_cut_again() -> None:
    def share(text: str) -> float:
        return int.from_bytes(hashlib.blake2b(f"0 {text}".encode(), digest_size=8).digest(), "little") / 2**64

    texts = [str(number) for number in range(500) if share(str(number)) >= 0.2]  # as benchmarks/finetune.py does
    held = hold_out([example(text, str(number % 2), number) for number, text in enumerate(texts)], FineTuneConfig())[1]
    assert 20 < len(held) < 65


def test_hidden_tokens_are_guessed_from_the_states_that_the_labels_are_told_from() -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model, options = Classifier.of(base, 2), FineTuneConfig(smoothing=0.1)
    torch.nn.init.normal_(model.classifier.weight)
    texts = [np.array([CLS_ID, 7, 6, 8, SEP_ID]), np.array([CLS_ID, 9, SEP_ID]), np.array([CLS_ID, 6, 7, SEP_ID])]
    seen = [np.array([CLS_ID, 7, MASK_ID, MASK_ID, SEP_ID]), texts[1], np.array([CLS_ID, MASK_ID, 7, SEP_ID])]
    labels = torch.tensor([1, 0, 1])
    loss, guesses = Learner(model, base)(texts, seen, labels, None, options)
    sums, nats = torch.zeros(()), []
    for text, shown, label in zip(texts, seen, labels, strict=True):
        ids, segments, place = pack([shown], torch.device("cpu"))
        sums += torch.nn.functional.cross_entropy(model(ids, segments, place), label[None], label_smoothing=0.1)
        found = base(ids, segments)[: len(text)]
        nats += [-found[slot].log_softmax(0)[text[slot]] for slot in np.flatnonzero(shown == MASK_ID)]
    torch.testing.assert_close(loss, sums, atol=1e-5, rtol=0)
    torch.testing.assert_close(guesses, torch.stack(nats).mean(), atol=1e-5, rtol=0)
    assert float(Learner(model, base)(texts, texts, labels, None, options)[1]) == 0  # nothing is hidden


def test_guessing_teaches_the_model_and_its_weight_0_leaves_what_guesses_alone(tokenizer: Path) -> None:
    examples = [example("a b" if number % 2 else "天 地", str(number % 2), number) for number in range(8)]
    texts = Texts.of("train", examples, ["0", "1"], load_tokenizer(tokenizer, ARCH, None))
    biases = {}
    for guess in (0.0, 1.0):
        base = MaskedLM(ARCH)
        base.initialise(0)
        fit(Classifier.of(base, 2), texts, texts, ["0", "1"], FineTuneConfig(epochs=6, patience=0, guess=guess), base)
        biases[guess] = base.decoder.bias.detach()
    assert not biases[0.0].any()
    words = torch.tensor(sorted({int(each) for ids in texts.tokens for each in ids if each >= len(SPECIAL_TOKENS)}))
    others = torch.tensor(sorted(set(range(ARCH.vocab_size)) - set(words.tolist())))
    assert biases[1.0][words].mean() > 1e-3 > 0 > biases[1.0][others].max()


def test_a_loss_that_is_not_finite_stops_before_any_weight_changes(tokenizer: Path) -> None:
    base = MaskedLM(ARCH)
    base.initialise(0)
    model = Classifier.of(base, 2)
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    before = model.head.dense.weight.clone()
    examples = [example("a", str(number % 2), number) for number in range(4)]
    texts = Texts.of("train", examples, ["0", "1"], load_tokenizer(tokenizer, ARCH, None))
    with pytest.raises(FloatingPointError, match=r"step 1: .* lower optim\.lr"):
        fit(model, texts, texts, ["0", "1"], FineTuneConfig())
    assert torch.equal(before, model.head.dense.weight)


def test_balanced_classes_weigh_by_the_inverse_of_their_frequency(tokenizer: Path) -> None:
    examples = [example("a", "rare" if number == 0 else "common", number) for number in range(8)]
    texts = Texts.of("train", examples, ["common", "rare"], load_tokenizer(tokenizer, ARCH, None))
    biases = {}
    for balanced in (False, True):
        base = MaskedLM(ARCH)
        base.initialise(0)
        model = Classifier.of(base, 2)
        options = load(FineTuneConfig, SECTION, None, [f"balanced={balanced}", "batch=8", "epochs=1", "mask=0"])
        fit(model, texts, texts, ["common", "rare"], options)
        biases[balanced] = model.classifier.bias.tolist()
    assert biases[False][0] > 5e-4 > -5e-4 > biases[False][1]
    # equal texts, weighed equally: the gradient of the bias is 0 but for rounding, which Adam's step may magnify
    base.initialise(0)
    model = Classifier.of(base, 2)
    loss = torch.nn.functional.cross_entropy(
        logits(model, texts.tokens, FineTuneConfig()), torch.from_numpy(texts.labels), torch.tensor([8 / 14, 4.0])
    )
    loss.backward()
    torch.testing.assert_close(model.classifier.bias.grad, torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--test": '{"text": "a", "label": "fr"}'}, "t.jsonl, line 1: label 'fr' does not occur in training: en, zh"),
        (
            {"--train": "\n".join(f'{{"text": "a{n}", "label": "en"}}' for n in range(40))},
            "have label 'en': a classifier needs two",
        ),
        ({"--train": '{"text": "a", "label": "en"}'}, "too few to hold out 10%"),
        ({"--group": "region"}, "no record has a field 'region' to report by"),
        ({"--set": "max_length=64"}, "max_length is 64; the model was trained on rows of 32"),
        ({"--set": "epoch=1"}, "unknown option finetune.epoch"),
        ({"--set": "monitor=loss"}, "monitor is 'loss'; it must be one of macro_f1, log_loss"),
        ({"--set": "mask=1"}, "shares below 1"),
        ({"--text": "body"}, "there is no field 'body'; there are: id, text, label, source"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    tmp_path: Path, pretrained: Path, tokenizer: Path, change: dict[str, str],
    message: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options: dict[str, Any] = {"--train": table(tmp_path / "train.jsonl", 40, 0)}
    for name, value in change.items():
        options[name] = value
        if value.startswith("{"):
            options[name] = tmp_path / "t.jsonl"
            options[name].write_text(value)
    listed = [each for pair in options.items() for each in pair]
    before = sorted(tmp_path.iterdir())
    assert call("--model", pretrained, "--tokenizer", tokenizer, "--output", tmp_path / "out", *listed) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="has 23 ids, the model 96: not its tokenizer"):
        load_tokenizer(tokenizer, Architecture.of(ModelConfig(preset="tiny"), 96, 32), None)
    with pytest.raises(checkpoint.CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        load_tokenizer(tmp_path, ARCH, None)
    data = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = data["model"]["vocab"]
    vocabulary["a"], vocabulary["[SEP]"] = vocabulary["[SEP]"], vocabulary["a"]
    data["added_tokens"], data["post_processor"] = [], None
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(checkpoint.CheckpointError, match="do not have the ids 0 to 4"):
        load_tokenizer(tmp_path, ARCH, None)


def test_a_masked_model_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ModernBertForMaskedLM"]}')
    with pytest.raises(checkpoint.CheckpointError, match="holds no classifier but ModernBertForMaskedLM: fine-tune it"):
        load_classifier(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="holds no classifier that was fine-tuned here"):
        load_classifier(tmp_path / "absent")
