"""Export a model for `transformers`, which loads it by its Auto classes and computes the same logits.

python -m trainer.export --checkpoint RUN_OR_CHECKPOINT --tokenizer DIR --output DIR
python -m trainer.export --checkpoint RUN_OR_CHECKPOINT --output DIR                  of a ViT of trainer.vision
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.packed import CLS_ID, MASK_ID, PAD_ID, SEP_ID
from trainer import checkpoint
from trainer.checkpoint import CheckpointError, ImageState
from trainer.cli import guarded
from trainer.model import Architecture, Classifier, MaskedLM
from trainer.vit import NORM_EPS, Vit, VitArchitecture

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
    size = _vocabulary(tokenizer)
    if size > model.arch.vocab_size:
        raise CheckpointError(f"{tokenizer} has {size:,} ids, the model {model.arch.vocab_size:,}: not its tokenizer")
    partial = _begin(output)
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("next_sentence.")  # a head that `transformers` has no place for
    }
    _write(partial, {"config.json": hugging_face_config(model.arch, labels)}, weights)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, partial / name)
    _limit_length(partial / "tokenizer_config.json", max_length or model.arch.max_length)
    _commit(partial, output)


def export_images(model: Any, output: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors of a ViT classifier to a new directory.

    CheckpointError where `transformers` has no such model, or where `output` holds anything. The directory appears
    whole or not at all.
    """
    if not isinstance(model, Vit):
        raise CheckpointError(
            "only a ViT classifier has a form in transformers that computes the same: a masked autoencoder has no "
            "classes (fine-tune it with --init), and transformers' ResNet has batch normalisation instead of groups"
        )
    partial = _begin(output)
    configs = {"config.json": vit_config(model.arch), "preprocessor_config.json": preprocessor_config(model.arch)}
    _write(partial, configs, vit_weights(model))
    _commit(partial, output)


def vit_config(arch: VitArchitecture) -> dict[str, Any]:
    """The config.json of ViTForImageClassification; mean pooling is a layer more."""
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "dtype": "float32",
        "problem_type": "single_label_classification",
        "id2label": {str(number): label for number, label in enumerate(arch.labels)},
        "label2id": {label: number for number, label in enumerate(arch.labels)},
        "image_size": arch.image_size,
        "patch_size": arch.patch,
        "num_channels": arch.channels,
        "hidden_size": arch.hidden,
        "num_hidden_layers": arch.layers + (arch.pooling == "mean"),
        "num_attention_heads": arch.heads,
        "intermediate_size": arch.intermediate,
        "hidden_act": "gelu",
        "layer_norm_eps": NORM_EPS,
        "qkv_bias": True,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
    }


def preprocessor_config(arch: VitArchitecture) -> dict[str, Any]:
    """The preprocessor_config.json that makes of an image the pixels that trainer.vision measures on."""
    mean, std = (list(each) * (arch.channels // len(each)) for each in (arch.mean, arch.std))
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": arch.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": arch.image_size},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": arch.image_size, "width": arch.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }


def vit_weights(model: Vit) -> dict[str, Tensor]:
    """Name the weights as `transformers` writes them; a pooling layer attends evenly, for its queries are 0."""
    arch, own = model.arch, model.state_dict()
    positions = torch.cat((torch.zeros(1, arch.hidden), model.model.embeddings.positions.cpu()))
    found = {
        "vit.embeddings.cls_token": own["model.embeddings.cls"].view(1, 1, -1),
        "vit.embeddings.position_embeddings": positions[None],
    }

    def take(theirs: str, ours: str, part: slice = slice(None)) -> None:
        for kind in ("weight", "bias"):
            found[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"][part].clone()  # no file holds one memory twice

    def layer(number: int, ours: str, first: str) -> None:
        theirs = f"vit.encoder.layer.{number}"
        take(f"{theirs}.layernorm_before", first)
        take(f"{theirs}.layernorm_after", f"{ours}.mlp_norm")
        take(f"{theirs}.intermediate.dense", f"{ours}.mlp.Wi")
        take(f"{theirs}.output.dense", f"{ours}.mlp.Wo")

    take("vit.embeddings.patch_embeddings.projection", "model.embeddings.patches")
    for number in range(arch.layers):
        ours, theirs = f"model.layers.{number}", f"vit.encoder.layer.{number}.attention"
        layer(number, ours, f"{ours}.attn_norm")
        take(f"{theirs}.output.dense", f"{ours}.attn.Wo")
        for place, name in enumerate(("query", "key", "value")):
            take(
                f"{theirs}.attention.{name}", f"{ours}.attn.Wqkv", slice(place * arch.hidden, (place + 1) * arch.hidden)
            )
    if arch.pooling == "mean":
        theirs = f"vit.encoder.layer.{arch.layers}.attention"
        layer(arch.layers, "pool", "model.norm")
        take(f"{theirs}.output.dense", "pool.Wo")
        take(f"{theirs}.attention.value", "pool.value")
        for name in ("query", "key"):
            found[f"{theirs}.attention.{name}.weight"] = torch.zeros(arch.hidden, arch.hidden)
            found[f"{theirs}.attention.{name}.bias"] = torch.zeros(arch.hidden)
    take("vit.layernorm", "pool.norm" if arch.pooling == "mean" else "model.norm")
    take("classifier", "classifier")
    return found


def _begin(output: Path) -> Path:
    """Make the directory that will become `output`."""
    if output.exists() and any(output.iterdir()):
        raise CheckpointError(f"{output} is not empty: choose another --output")
    partial = output.parent / f".{output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _write(partial: Path, configs: dict[str, dict[str, Any]], weights: dict[str, Tensor]) -> None:
    for name, config in configs.items():
        (partial / name).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(whole, partial / "model.safetensors", metadata={"format": "pt"})
    checkpoint.share(partial / "model.safetensors")


def _commit(partial: Path, output: Path) -> None:
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
    parser.add_argument("--tokenizer", type=Path, help="directory with tokenizer.json; of a model of text")
    parser.add_argument("--output", type=Path, required=True, help="directory to make")
    options = parser.parse_args(argv)
    found = checkpoint.find(options.checkpoint)
    if isinstance(checkpoint.read_state(found), ImageState):
        export_images(checkpoint.load_image_model(found)[0], options.output)
    elif options.tokenizer is None:
        parser.error("a model of text needs --tokenizer")
    else:
        model, state = checkpoint.load_model(found)
        checkpoint.check_tokenizer(options.tokenizer, checkpoint.tokenizer_sha256(options.tokenizer), state)
        export(model, options.tokenizer, options.output)
    print(f"exported {found} to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
