"""Export a model for `transformers`, which loads it by its Auto classes and computes the same logits.

python -m trainer.export --checkpoint RUN_OR_CHECKPOINT --tokenizer DIR --output DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from schemas.packed import CLS_ID, MASK_ID, PAD_ID, SEP_ID
from trainer import checkpoint
from trainer.checkpoint import CheckpointError
from trainer.cli import guarded
from trainer.model import Architecture, Classifier, MaskedLM

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
)


def hugging_face_config(arch: Architecture, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """The config.json of ModernBERT with global attention in every layer: a masked LM, or with labels a classifier.

    All special ids must stand here: `transformers` takes 50281 and so on for those left out, and refuses a padding id
    beyond the vocabulary. The rotary base and the layers' kinds stand here twice, as `transformers` 5 spells them and
    as 4.48 did; a reader that found neither would silently take 160,000 and sliding windows.
    """
    rope = {"rope_type": "default", "rope_theta": arch.rope_theta}
    classes: dict[str, Any] = {"architectures": ["ModernBertForMaskedLM"]}
    if labels is not None:
        classes = {
            "architectures": ["ModernBertForSequenceClassification"],
            "problem_type": "single_label_classification",
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
        }
    return classes | {
        "model_type": "modernbert",
        "dtype": "float32",
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden,
        "intermediate_size": arch.intermediate,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "max_position_embeddings": arch.max_length,
        "norm_eps": arch.norm_eps,
        "initializer_range": arch.init_std,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_pooling": "mean",
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "tie_word_embeddings": True,
        "pad_token_id": PAD_ID,
        "cls_token_id": CLS_ID,
        "bos_token_id": CLS_ID,
        "sep_token_id": SEP_ID,
        "eos_token_id": SEP_ID,
        "mask_token_id": MASK_ID,
        "layer_types": ["full_attention"] * arch.layers,
        "rope_parameters": {"full_attention": rope, "sliding_attention": rope},
        "global_attn_every_n_layers": 1,
        "global_rope_theta": arch.rope_theta,
        "local_rope_theta": arch.rope_theta,
    }


def export(model: MaskedLM | Classifier, tokenizer: Path, output: Path, labels: Sequence[str] | None = None,
           max_length: int | None = None) -> None:  # fmt: skip
    """Write config.json, model.safetensors and the tokenizer's files to a new directory.

    labels: names of a classifier's classes. max_length: what the tokenizer cuts to, by default the model's longest row.
    CheckpointError where the tokenizer has no tokenizer.json or more ids than the model, or where `output` holds
    anything. The directory appears whole or not at all.
    """
    if output.exists() and any(output.iterdir()):
        raise CheckpointError(f"{output} is not empty: choose another --output")
    size = _vocabulary(tokenizer)
    if size > model.arch.vocab_size:
        raise CheckpointError(f"{tokenizer} has {size:,} ids, the model {model.arch.vocab_size:,}: not its tokenizer")
    partial = output.parent / f".{output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = hugging_face_config(model.arch, labels)
    (partial / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("next_sentence.")  # a head that `transformers` has no place for
    }
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, partial / name)
    _limit_length(partial / "tokenizer_config.json", max_length or model.arch.max_length)
    checkpoint.share(partial / "model.safetensors")
    for path in (*partial.iterdir(), partial):
        checkpoint.sync(path)
    if output.exists():
        output.rmdir()
    partial.rename(output)


def load_classifier(directory: Path) -> tuple[Classifier, list[str]]:
    """Read an exported classifier again: the model and its labels; CheckpointError where there is none."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if config["architectures"] != ["ModernBertForSequenceClassification"]:
            raise CheckpointError(f"{directory} holds no classifier but {config['architectures'][0]}: fine-tune it")
        labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
        arch = Architecture(
            config["vocab_size"], config["max_position_embeddings"], config["num_hidden_layers"], config["hidden_size"],
            config["num_attention_heads"], config["intermediate_size"], config["global_rope_theta"], config["norm_eps"],
            config["initializer_range"],
        )  # fmt: skip
        model = Classifier(arch, len(labels))
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{directory} holds no classifier that was fine-tuned here: {error}") from error
    return model, labels


def _limit_length(path: Path, longest: int) -> None:
    """Tell the tokenizer not to make sequences that are longer than the model can take."""
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_max_length"] = min(longest, config.get("model_max_length", longest))
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _vocabulary(tokenizer: Path) -> int:
    """Number of ids, by the largest that tokenizer.json knows."""
    path = tokenizer / "tokenizer.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = data["model"]["vocab"]  # unigram: a list of [piece, score]; BPE and WordPiece: piece -> id
        largest = len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values())
        return 1 + max([largest, *(token["id"] for token in data.get("added_tokens", []))])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a Hugging Face tokenizer: {error}") from error


@guarded
def main(argv: list[str] | None = None) -> int:
    """Export from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint, or a run: its newest one")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json")
    parser.add_argument("--output", type=Path, required=True, help="directory to make")
    options = parser.parse_args(argv)
    found = checkpoint.find(options.checkpoint)
    model, state = checkpoint.load_model(found)
    checkpoint.check_tokenizer(options.tokenizer, checkpoint.tokenizer_sha256(options.tokenizer), state)
    export(model, options.tokenizer, options.output)
    print(f"exported {found} to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
