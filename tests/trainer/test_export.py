import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from schemas.packed import SPECIAL_TOKENS
from trainer import checkpoint
from trainer.attention import Segments
from trainer.checkpoint import CheckpointError, State
from trainer.export import export, load_classifier, main
from trainer.model import Architecture, Classifier, MaskedLM, ModelConfig

VOCAB = 96


@pytest.fixture
def model() -> MaskedLM:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny", layers=4), VOCAB, 64))
    model.initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    return model.eval()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models

    pieces = [*SPECIAL_TOKENS, "▁the", "中", "文"]
    fast = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=1))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=fast, **{f"{key}_token": value for key, value in names.items()})
    wrapped.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_transformers_loads_the_export_and_computes_the_same_logits(
    model: MaskedLM, tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run/checkpoints/step-00000000"
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / checkpoint.WEIGHTS)
    state = State(0, "00" * 32, model.arch, {})
    (folder / checkpoint.STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
    output = tmp_path / "exported"
    arguments = ["--checkpoint", str(tmp_path / "run"), "--tokenizer", str(tokenizer), "--output", str(output)]
    assert main(arguments) == 0
    peer, report = AutoModelForMaskedLM.from_pretrained(output, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert set(peer.config.layer_types) == {"full_attention"}
    ids = torch.randint(5, VOCAB, (3, 64))
    with torch.no_grad():
        ours = model(ids, Segments.build(np.full(3, 64), 64)).view(3, 64, VOCAB)
        torch.testing.assert_close(ours, peer.eval()(ids).logits, atol=1e-6, rtol=0)
    loaded = AutoTokenizer.from_pretrained(output)
    assert loaded("中文")["input_ids"] == AutoTokenizer.from_pretrained(tokenizer)("中文")["input_ids"]
    assert (loaded.pad_token_id, loaded.mask_token_id) == (0, 4)


def test_the_older_spelling_of_rope_and_layers_is_enough(model: MaskedLM, tokenizer: Path, tmp_path: Path) -> None:
    export(model, tokenizer, tmp_path / "exported")
    path = tmp_path / "exported/config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["layer_types"]
    path.write_text(json.dumps(config))
    peer = AutoModelForMaskedLM.from_pretrained(tmp_path / "exported").eval()
    ids = torch.randint(5, VOCAB, (1, 64))
    with torch.no_grad():
        ours = model(ids, Segments.build(np.full(1, 64), 64))
        torch.testing.assert_close(ours, peer(ids).logits[0], atol=1e-6, rtol=0)


def test_transformers_loads_a_classifier_and_computes_the_same_logits(
    model: MaskedLM, tokenizer: Path, tmp_path: Path
) -> None:
    classifier = Classifier.of(model, 3).eval()
    with torch.no_grad():
        for parameter in classifier.classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    labels = ["诗", "2", "a b"]
    export(classifier, tokenizer, tmp_path / "out", labels)
    peer, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert peer.config.id2label == dict(enumerate(labels))
    assert (peer.config.label2id["诗"], peer.config.problem_type) == (0, "single_label_classification")
    # three texts in two rows for us, padded rows with a mask for the peer
    ids = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(4))
    lens = [24, 40, 9]
    rows = torch.zeros(2, 40, dtype=torch.long)
    rows[0, :24], rows[0, 24:33], rows[1] = ids[0, :24], ids[2, :9], ids[1]
    segments = Segments.build(np.array([24, 9, 7, 40]), 40)
    with torch.no_grad():
        ours = classifier(rows, segments, torch.tensor([0, 3, 1]))
        mask = torch.arange(40)[None] < torch.tensor(lens)[:, None]
        theirs = peer.eval()(input_ids=ids * mask, attention_mask=mask.long()).logits
    assert ours.abs().max() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    again, names = load_classifier(tmp_path / "out")
    assert names == labels
    assert again.arch == model.arch
    with torch.no_grad():
        assert torch.equal(again(rows, segments, torch.tensor([0, 3, 1])), ours)


def test_the_next_sentence_head_stays_behind(tokenizer: Path, tmp_path: Path) -> None:
    pairs = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), VOCAB, 64, next_sentence=True))
    pairs.initialise(0)
    export(pairs, tokenizer, tmp_path / "out")
    _, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    small = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 7, 64))
    with pytest.raises(CheckpointError, match="has 8 ids, the model 7"):
        export(small, tokenizer, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_directory_that_holds_something_is_left_alone(model: MaskedLM, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not empty"):
        export(model, tokenizer, tokenizer)
    with pytest.raises(CheckpointError, match="not a Hugging Face tokenizer"):
        export(model, tmp_path, tmp_path / "exported")


def test_others_may_read_the_weights_and_the_tokenizer_knows_the_longest_row(
    model: MaskedLM, tokenizer: Path, tmp_path: Path
) -> None:
    config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 512}), encoding="utf-8")
    export(model, tokenizer, tmp_path / "out")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 64
