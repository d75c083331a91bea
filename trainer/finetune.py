"""Fine-tune a text classifier from a pre-trained model, or evaluate one: metrics, calibration, and gaps between groups.

    python -m trainer.finetune --model RUN_OR_CHECKPOINT --tokenizer DIR --train FILE [--validation FILE] [--test FILE]
                               --output DIR [--text FIELD] [--pair FIELD] [--label FIELD] [--group FIELD …]
                               [--from-scratch] [--config params.yaml] [--set name=value …]
    python -m trainer.finetune --evaluate DIR/model --test FILE --output DIR …

FILE: .csv, .tsv or .jsonl, also .gz or .zst; or a directory for datasets.load_from_disk, DIR:SPLIT where it has splits.
The output directory gets model/ (AutoModelForSequenceClassification loads it) and, about the test table or else the
validation table, metrics.json, slices.json, predictions.arrow and confusion.csv (for `dvc plots`' template confusion).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.packed import MASK_ID, PAD_ID, SPECIAL_TOKENS
from trainer import checkpoint, classify, config, optim
from trainer.attention import Segments
from trainer.checkpoint import CheckpointError
from trainer.classify import Example, Fields, TableError
from trainer.cli import guarded
from trainer.export import export, load_classifier
from trainer.masking import ORDINARY, draws
from trainer.model import Architecture, Classifier, MaskedLM
from trainer.optim import OptimConfig
from trainer.order import shuffled
from trainer.step import half
from trainer.world import connect

SECTION = "finetune"


@dataclass(frozen=True)
class FineTuneOptim(OptimConfig):
    __doc__ = OptimConfig.__doc__

    lr: float = 1.5e-3
    weight_decay: float = 0.1
    schedule: str = "linear"
    warmup: float = 0.1


@dataclass(frozen=True)
class FineTuneConfig:
    """Options of fine-tuning.

    epochs: at most. monitor: the number on the validation table that says which epoch is the best and is kept,
    'macro_f1', or 'log_loss', which varies less where the table is small. patience: epochs without a better one after
    which training stops, 0: never. batch: texts of an optimizer step. seed: of order, masks, the held-out share and
    weights from scratch. validation: share of the training table to hold out, by a hash of the text, where no
    --validation is given. max_length: tokens of a text, specials included, after which it is cut (of a pair the longer
    text first); by default the model's longest row. layer_decay: rate of each layer over that of the layer above it.
    mask: share of a training text's tokens that is hidden, anew in each epoch, so that no few words decide. guess:
    weight of the mean loss of guessing the hidden tokens, as in pre-training, beside the mean loss of the labels: so
    the encoder learns the language of the table, too; 0: no guessing. smoothing: share of a label's probability that
    goes to all classes (Szegedy et al. 2016). balanced: weigh classes by the inverse of their frequency. precision:
    'auto' (bfloat16 on CUDA devices that have it, else float32), 'float32' or 'bf16'. threads: 0: all cores; the
    weights' last bits depend on their number. min_group: texts that a group needs to count in a gap.
    """

    epochs: int = 6
    monitor: str = "macro_f1"
    patience: int = 2
    batch: int = 32
    seed: int = 0
    validation: float = 0.1
    max_length: int | None = None
    layer_decay: float = 1.0
    mask: float = 0.3
    guess: float = 0.3
    smoothing: float = 0.0
    balanced: bool = False
    precision: str = "auto"
    threads: int = 1
    min_group: int = 30
    optim: FineTuneOptim = field(default_factory=FineTuneOptim)

    def __post_init__(self) -> None:
        config.one_of("precision", self.precision, config.PRECISIONS)
        config.one_of("monitor", self.monitor, ("macro_f1", "log_loss"))
        if min(self.epochs, self.batch) < 1 or min(self.patience, self.threads) < 0 or (self.max_length or 3) < 3:
            raise ValueError("epochs and batch must be at least 1, max_length 3, patience and threads 0")
        if not (0 < self.validation < 1 and 0 <= self.mask < 1 and 0 <= self.smoothing < 1):
            raise ValueError("validation, mask and smoothing are shares below 1")
        if not (0 < self.layer_decay <= 1 and 0 <= self.seed < 2**63 and self.guess >= 0):
            raise ValueError(
                "layer_decay must be above 0 and at most 1, seed at least 0 and below 2⁶³, guess at least 0"
            )


@dataclass(frozen=True)
class Texts:
    """An encoded table. tokens: int64 arrays, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. labels: int64 [n]."""

    examples: list[Example]
    tokens: list[np.ndarray]
    labels: np.ndarray

    @staticmethod
    def of(name: str, examples: list[Example], labels: Sequence[str], tokenizer: Any) -> Texts:
        """Number labels, encode texts, and say how many are empty or were cut."""
        numbers = classify.number_labels(examples, labels)
        found = tokenizer.encode_batch(
            [each.text if each.pair is None else (each.text, each.pair) for each in examples]
        )
        empty, cut = sum(each.empty for each in examples), sum(bool(each.overflowing) for each in found)
        most = tokenizer.truncation["max_length"]
        say(f"{name}: {len(examples):,} texts, {empty:,} of them empty, {cut:,} cut to {most} tokens")
        return Texts(examples, [np.array(each.ids, np.int64) for each in found], numbers)


def load_tokenizer(directory: Path, arch: Architecture, max_length: int | None) -> Any:
    """Read tokenizer.json; CheckpointError unless it has the model's number of ids and our special ones."""
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower type
        raise CheckpointError(f"{path} is no tokenizer: {error}") from error
    if (size := tokenizer.get_vocab_size()) != arch.vocab_size:
        raise CheckpointError(f"{directory} has {size:,} ids, the model {arch.vocab_size:,}: not its tokenizer")
    if any(tokenizer.token_to_id(name) != number for number, name in enumerate(SPECIAL_TOKENS)):
        raise CheckpointError(f"{directory}: {', '.join(SPECIAL_TOKENS)} do not have the ids 0 to {ORDINARY - 1}")
    if (max_length or 0) > arch.max_length:
        raise CheckpointError(f"max_length is {max_length}; the model was trained on rows of {arch.max_length}")
    settings = directory / "tokenizer_config.json"  # of a fine-tuned model, it says what texts were cut to
    limit = json.loads(settings.read_text(encoding="utf-8")).get("model_max_length") if settings.exists() else None
    tokenizer.no_padding()  # rows are packed
    tokenizer.enable_truncation(max_length or min(arch.max_length, limit or arch.max_length), strategy="longest_first")
    return tokenizer


def pack(texts: Sequence[np.ndarray], device: torch.device, *, dense: bool = True) -> tuple[Tensor, Segments, Tensor]:
    """Lay texts side by side, longest first, each into the first row with room: ids, segments, each text's segment.

    Rows are as long as the longest text, rounded up to a multiple of 8; so the same-document mask stays small. dense:
    with that mask, which attention in float32 needs.
    """
    length = -(-max(map(len, texts)) // 8) * 8
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(texts)), key=lambda each: -len(texts[each])):
        row = next((row for row, free in enumerate(room) if free >= len(texts[text])), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(text)
        room[row] -= len(texts[text])
    ids: list[np.ndarray] = []
    lens: list[int] = []
    segment = np.empty(len(texts), np.int64)
    for members, free in zip(rows, room, strict=True):
        segment[members] = np.arange(len(lens), len(lens) + len(members))
        ids += [*(texts[text] for text in members), np.full(free, PAD_ID)]
        lens += [len(texts[text]) for text in members] + [free] * (free > 0)
    segments = Segments.lay_out(np.array(lens), length).to(device, dense=dense)
    tokens = torch.from_numpy(np.concatenate(ids).reshape(-1, length))
    return tokens.to(device), segments, torch.from_numpy(segment).to(device)


def hide(texts: list[np.ndarray], rows: np.ndarray, epoch: int, options: FineTuneConfig) -> list[np.ndarray]:
    """Replace a share of the texts' ordinary tokens by [MASK]: a pure function of (seed, epoch, row)."""
    score, _ = draws(rows, np.full(len(rows), epoch), max(map(len, texts)), options.seed)
    hidden = score < np.uint64(round(options.mask * 2**32))
    return [
        np.where(mine[: len(ids)] & (ids >= ORDINARY), MASK_ID, ids) for mine, ids in zip(hidden, texts, strict=True)
    ]


def logits(model: Classifier, texts: Sequence[np.ndarray], options: FineTuneConfig) -> Tensor:
    """Logits, float32 [texts, classes]."""
    device = model.classifier.weight.device
    halved = half(options.precision, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=halved):
        return model(*pack(texts, device, dense=not halved)).float()


@torch.no_grad()
def predict(model: Classifier, texts: Texts, options: FineTuneConfig) -> np.ndarray:
    """Log probabilities, float64 [texts, classes]."""
    order = np.argsort([len(ids) for ids in texts.tokens], kind="stable")
    found = np.empty((len(order), model.classifier.out_features))
    for rows in np.split(order, range(options.batch, len(order), options.batch)):
        some = logits(model, [texts.tokens[row] for row in rows], options)
        found[rows] = some.double().log_softmax(1).cpu().numpy()
    return found


class Learner(nn.Module):
    """What is trained: the classifier and, for the tokens that are hidden from it, the model that it comes from."""

    def __init__(self, classifier: Classifier, pretrained: MaskedLM | None) -> None:
        super().__init__()
        self.model = classifier.model  # the first, for optim.build; the others share it
        self.classifier, self.pretrained = classifier, pretrained

    def forward(self, texts: list[np.ndarray], hidden: list[np.ndarray], labels: Tensor, weights: Tensor | None,
                options: FineTuneConfig) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Summed loss of the labels (int64 [n]) of texts that the model sees as `hidden`; mean loss of the guesses."""
        device, guesses = labels.device, torch.zeros((), device=labels.device)
        halved = half(options.precision, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            ids, segments, places = pack(hidden, device, dense=not halved)
            states = self.model(ids, segments).flatten(0, 1)
            found = self.classifier.logits(states, segments, places).float()
            if self.pretrained is not None:
                tokens = pack(texts, device, dense=False)[0].flatten()
                slots = (ids.flatten() != tokens).nonzero()[:, 0]
                if len(slots):
                    guesses = F.cross_entropy(self.pretrained.logits(states[slots]).float(), tokens[slots])
        loss = F.cross_entropy(found, labels, weights, reduction="sum", label_smoothing=options.smoothing)
        return loss, guesses


def fit(model: Classifier, train: Texts, validation: Texts, labels: Sequence[str], options: FineTuneConfig,
        pretrained: MaskedLM | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """Train, leave the best epoch's weights in the model, and return each epoch's numbers.

    pretrained: what guesses hidden tokens; shares the model's encoder. FloatingPointError, before any weight changes,
    where the loss or the gradient is not finite.
    """
    size, device = len(train.labels), model.classifier.weight.device
    counts = np.bincount(train.labels, minlength=len(labels))
    weights = torch.from_numpy(size / (len(labels) * counts)).float().to(device) if options.balanced else None
    learner = Learner(model, pretrained if options.guess and options.mask else None)
    optimizers = optim.build(learner, options.optim, options.layer_decay)
    starts = range(0, size, options.batch)
    history: list[dict[str, Any]] = []
    best: dict[str, Tensor] = {}
    for epoch in range(options.epochs):
        began, total = time.perf_counter(), 0.0
        order = shuffled(np.arange(size), size, options.seed, epoch)
        for number, start in enumerate(starts, epoch * len(starts)):
            rows = order[start : start + options.batch]
            texts, target = [train.tokens[row] for row in rows], torch.from_numpy(train.labels[rows]).to(device)
            loss, guesses = learner(texts, hide(texts, rows, epoch, options), target, weights, options)
            (loss / len(rows) + options.guess * guesses).backward()
            norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), options.optim.clip or float("inf"))
            total += float(loss.detach())
            if not np.isfinite(total + float(norm)):
                raise FloatingPointError(f"step {number + 1}: loss or gradient is not finite: lower optim.lr")
            optim.set_rate(optimizers, optim.learning_rate(options.optim, number, len(starts) * options.epochs))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        report = classify.score(predict(model, validation, options), validation.labels, labels)
        line = {"epoch": epoch + 1, "loss": total / size, "validation_log_loss": report["log_loss"],
                "validation_accuracy": report["accuracy"], "validation_macro_f1": report["macro"]["f1"]}  # fmt: skip
        words = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in list(line.items())[1:])
        say(f"epoch {epoch + 1}: {words}; {time.perf_counter() - began:.0f} s")
        history.append(line)
        goodness = [
            each[f"validation_{options.monitor}"] * (-1 if options.monitor == "log_loss" else 1) for each in history
        ]
        if goodness.index(max(goodness)) == epoch:
            latest, best = epoch, {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if options.patience and epoch - latest >= options.patience:
            break
    model.load_state_dict(best)
    return history


def hold_out(examples: list[Example], options: FineTuneConfig) -> tuple[list[Example], list[Example]]:
    """Split examples in two by a hash of their text, so that equal texts stay on one side."""

    def held(example: Example) -> bool:
        digest = hashlib.blake2b(f"{options.seed} {example.text}".encode(), digest_size=8, person=b"held out").digest()
        return int.from_bytes(digest, "little") < options.validation * 2**64

    train, validation = ([each for each in examples if held(each) is side] for side in (False, True))
    known = {each.label for each in train}  # a class that would be held out whole is learned from instead
    train += [each for each in validation if each.label not in known]
    validation = [each for each in validation if each.label in known]
    if not (train and validation):
        raise TableError(f"{len(examples)} texts are too few to hold out {options.validation:.0%}: give --validation")
    return train, validation


def report(folder: Path, facts: dict[str, Any], model: Classifier, texts: Texts, labels: Sequence[str],
           options: FineTuneConfig) -> None:  # fmt: skip
    """Predict a table and write what classify.report does."""
    examples = texts.examples
    columns = {"id": pa.array([each.id for each in examples], pa.string()), "place": [each.place for each in examples]}
    lengths = [0 if each.empty else len(ids) for each, ids in zip(examples, texts.tokens, strict=True)]
    groups = {"length": [classify.length_class(each) for each in lengths]}
    groups |= {
        name: [each.groups.get(name, "") for each in examples]
        for name in dict.fromkeys(name for each in examples for name in each.groups)
    }
    found = predict(model, texts, options)
    classify.report(folder, facts, columns, groups, found, texts.labels, labels, least=options.min_group)


def say(text: str) -> None:
    """Print a line that a log should hold too."""
    print(text, file=sys.stderr, flush=True)


def run(given: argparse.Namespace, options: FineTuneConfig, folder: Path) -> None:
    """Do what the command line asks for, and write everything to a folder."""
    device = connect(options.threads).device
    fields, base = Fields(given.text, given.pair, given.label, tuple(given.group)), None
    tables = {name: classify.read(getattr(given, name), fields)
              for name in ("train", "validation", "test") if getattr(given, name)}  # fmt: skip
    if given.evaluate:
        model, labels = load_classifier(given.evaluate)
        tokenizer = load_tokenizer(given.evaluate, model.arch, options.max_length)
    else:
        if not given.validation:
            tables["train"], tables["validation"] = hold_out(tables["train"], options)
        labels = classify.label_names(tables["train"])
        base, state = checkpoint.load_model(checkpoint.find(given.model))
        checkpoint.check_tokenizer(given.tokenizer, checkpoint.tokenizer_sha256(given.tokenizer), state)
        if given.from_scratch:
            base.initialise(options.seed)
        tokenizer = load_tokenizer(given.tokenizer, base.arch, options.max_length)
        model = Classifier.of(base.to(device), len(labels))
    last = "test" if given.test else "validation"
    if absent := set(given.group) - {name for each in tables[last] for name in each.groups}:
        raise TableError(f"{getattr(given, last) or given.train}: no record has a field {min(absent)!r} to report by")
    model.to(device)
    texts = {name: Texts.of(name, table, labels, tokenizer) for name, table in tables.items()}
    facts: dict[str, Any] = {"table": last}
    if not given.evaluate:
        facts["training"] = fit(model, texts["train"], texts["validation"], labels, options, base)
        export(model, given.tokenizer, folder / "model", labels, options.max_length)
    report(folder, facts, model, texts[last], labels, options)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Fine-tune or evaluate from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=config.describe(FineTuneConfig, SECTION),
    )  # fmt: skip
    parser.add_argument("--model", type=Path, help="pre-trained: a checkpoint, or a run: its newest one")
    parser.add_argument("--from-scratch", action="store_true", help="only its architecture, with random weights")
    parser.add_argument("--tokenizer", type=Path, help="directory with the model's tokenizer.json")
    parser.add_argument("--evaluate", type=Path, metavar="DIR/model", help="train nothing, report on this model")
    parser.add_argument("--train", metavar="FILE", help="table to learn from")
    parser.add_argument("--validation", metavar="FILE", help="table that chooses the epoch; default: a part of --train")
    parser.add_argument("--test", metavar="FILE", help="table to report on; default: the validation table")
    parser.add_argument("--output", type=Path, required=True, help="directory to make")
    parser.add_argument("--text", default="text", metavar="FIELD", help="field of the text (default: %(default)s)")
    parser.add_argument("--pair", metavar="FIELD", help="second text, where texts are pairs")
    parser.add_argument("--label", default="label", metavar="FIELD", help="field of the label (default: %(default)s)")
    parser.add_argument("--group", action="append", default=[], metavar="FIELD", help="report by it; repeatable")
    parser.add_argument("--config", type=Path, help="YAML file with a section 'finetune'")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set an option; repeatable")
    given = parser.parse_args(argv)
    if given.evaluate and (given.train or given.validation or not given.test):
        parser.error("--evaluate takes --test alone")
    if not given.evaluate and not (given.model and given.tokenizer and given.train):
        parser.error("give --model, --tokenizer and --train, or --evaluate and --test")
    options = config.load(FineTuneConfig, SECTION, given.config, given.set)
    if given.output.exists() and any(given.output.iterdir()):
        raise CheckpointError(f"{given.output} is not empty: choose another --output")
    partial = given.output.parent / f".{given.output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        run(given, options, partial)
        if given.output.exists():
            given.output.rmdir()
        partial.rename(given.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
