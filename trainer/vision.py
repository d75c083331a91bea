"""Train a classifier of images or a masked autoencoder on image shards, or evaluate a classifier.

    python -m trainer.vision --data DIR --output RUN [--config params.yaml] [--set part.name=value …] [--resume]
    python -m trainer.vision --data DIR --output RUN --set task=mae …           pre-train without labels
    python -m trainer.vision --data DIR --output RUN --init MAE_RUN …           go on from its encoder
    python -m trainer.vision --evaluate RUN/best --data DIR --table test --output REPORT [--group FIELD …]

Several processes as in trainer.train. A run gets checkpoints/step-…, config.json, metrics.jsonl, train.json and
loss.csv; a report metrics.json, slices.json, predictions.arrow and confusion.csv. trainer.export takes a run's ViT.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from schemas.base import SchemaError
from trainer import checkpoint, classify, losses
from trainer.checkpoint import CheckpointError, ImageState
from trainer.classify import TableError
from trainer.cli import guarded
from trainer.config import ConfigError, RunConfig, load, one_of
from trainer.data import DataConfig
from trainer.evaluate import SEED, choose_rows
from trainer.images import ImageBatch, ImageDataset, ImagesConfig, Loader
from trainer.optim import OptimConfig
from trainer.order import Schedule
from trainer.resnet import ResNetArchitecture
from trainer.step import StepResult, half
from trainer.train import Job, Paths, arguments, positions, schedule, start, train
from trainer.vit import VitArchitecture
from trainer.world import World, connect

SECTION = "vision"
#: image_size, patch, channels, layers, hidden, heads, intermediate: for 8×8 digits, for small images, and ViT-Ti/16 and
#: ViT-S/16 (Touvron et al. 2021)
VITS = {
    "digits": (8, 2, 1, 4, 64, 4, 256),
    "mini": (32, 4, 3, 6, 128, 4, 512),
    "tiny": (224, 16, 3, 12, 192, 3, 768),
    "small": (224, 16, 3, 12, 384, 6, 1536),
}
#: image_size, channels, blocks, width, bottleneck: He et al. 2015, of CIFAR and of ImageNet
RESNETS: dict[str, tuple[int, int, tuple[int, ...], int, bool]] = {
    "resnet8": (32, 3, (1, 1, 1), 16, False),
    "resnet20": (32, 3, (3, 3, 3), 16, False),
    "resnet18": (224, 3, (2, 2, 2, 2), 64, False),
    "resnet50": (224, 3, (3, 4, 6, 3), 64, True),
}


@dataclass(frozen=True)
class VisionModel:
    """Size of the model.

    preset: a ViT: 'digits' (8×8 grey, patches of 2), 'mini' (32×32, patches of 4), 'tiny' or 'small' (224×224, patches
    of 16); or a ResNet: 'resnet8', 'resnet20' (32×32), 'resnet18' or 'resnet50' (224×224). image_size: replaces the
    preset's. channels: replaces the preset's, 1 or 3. patch, layers, hidden, heads, intermediate: replace a ViT's.
    blocks, width: replace a ResNet's. pooling: a ViT's, 'mean' of the tokens or 'cls', the first. decoder_layers,
    decoder_hidden: of a masked autoencoder.
    """

    preset: str = "mini"
    image_size: int | None = None
    channels: int | None = None
    patch: int | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    intermediate: int | None = None
    blocks: tuple[int, ...] = ()
    width: int | None = None
    pooling: str = "mean"
    decoder_layers: int = 2
    decoder_hidden: int = 64

    def architecture(self, task: str, labels: tuple[str, ...], images: ImagesConfig) -> Any:
        """Resolve the preset and its replacements; ConfigError where they do not fit each other or the task."""
        one_of("model.preset", self.preset, (*VITS, *RESNETS))
        vit = self.preset in VITS
        names: tuple[str, ...] = ("image_size", "channels", "blocks", "width")
        names = ("image_size", "patch", "channels", "layers", "hidden", "heads", "intermediate") if vit else names
        table: dict[str, Any] = VITS if vit else RESNETS
        values = dict(zip((*names, "bottleneck"), table[self.preset], strict=False))
        for one in (each.name for each in fields(self)[1:10]):
            if (given := getattr(self, one)) not in (None, ()):
                if one not in values:
                    raise ConfigError(f"model.{one} is nothing that {self.preset} has; it has: {', '.join(names)}")
                values[one] = given
        one_of("model.channels", str(values["channels"]), ("1", "3"))
        if len(images.mean) not in (1, values["channels"]):
            raise ConfigError(f"images.mean has {len(images.mean)} numbers; the model {values['channels']} channels")
        values |= {"labels": labels, "mean": images.mean, "std": images.std}
        if not vit:
            if task == "mae":
                raise ConfigError(f"task=mae hides patches, which {self.preset} has not: choose a ViT")
            return ResNetArchitecture(**values)
        if task == "mae":
            values |= {"decoder_layers": self.decoder_layers, "decoder_hidden": self.decoder_hidden}
            if min(self.decoder_layers, self.decoder_hidden) < 1:
                raise ConfigError("task=mae needs a decoder: model.decoder_layers and decoder_hidden are at least 1")
            if values["image_size"] < 2 * values["patch"]:
                raise ConfigError(
                    "task=mae hides some patches and shows others: model.image_size is two patches or more"
                )
        return VitArchitecture(**values, pooling=self.pooling)


@dataclass(frozen=True)
class VisionOptim(OptimConfig):
    __doc__ = OptimConfig.__doc__

    lr: float = 1e-3
    beta2: float = 0.999
    weight_decay: float = 0.1  # times the rate, as torch has it: the 1e-4 of Beyer et al., who have not
    schedule: str = "cosine"
    warmup: float = 0.1


@dataclass(frozen=True)
class VisionRun(RunConfig):
    __doc__ = RunConfig.__doc__

    rows: int = 64
    micro_batches: int = 2
    eval_rows: int = 0


@dataclass(frozen=True)
class VisionConfig:
    """All options of a run on images; each part is described beside the code that it steers.

    task: 'classify' or 'mae' (masked autoencoder). epochs: over the training table, instead of run.steps; 0: run.steps
    counts. hidden: share of the patches that a masked autoencoder does not see (He et al. 2021: 0.75). smoothing: share
    of a label's probability that goes to all classes. layer_decay: rate of each layer over that of the layer above it.
    """

    task: str = "classify"
    epochs: float = 0.0
    hidden: float = 0.75
    smoothing: float = 0.0
    layer_decay: float = 1.0
    model: VisionModel = field(default_factory=VisionModel)
    data: DataConfig = field(default_factory=DataConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    optim: VisionOptim = field(default_factory=VisionOptim)
    run: VisionRun = field(default_factory=VisionRun)

    def __post_init__(self) -> None:
        one_of("task", self.task, ("classify", "mae"))
        if not (0 < self.hidden < 1 and 0 <= self.smoothing < 1 and 0 < self.layer_decay <= 1 and self.epochs >= 0):
            raise ConfigError("hidden and smoothing are shares below 1, layer_decay at most 1, epochs not negative")


class Objective(nn.Module):
    """The model and its loss, as one function that can be compiled and wrapped."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: VisionConfig, device: torch.device) -> None:
        super().__init__()
        arch: Any = model.arch
        self.model, self.device, self.halved = model, device, half(config.run.precision, device)
        self.smoothing = config.smoothing
        self.patches = arch.patches if config.task == "mae" else 0
        shown = max(1, round((1 - config.hidden) * self.patches))
        self.visible = min(shown, self.patches - 1) if self.patches else 0  # what is shown costs nothing
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(arch, name), device=device).view(-1, 1, 1), False)

    def forward(self, pixels: Tensor, labels: Tensor, extra: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of each image, float32 [n], nothing, and log probabilities, float32 [n, classes], or nothing."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halved):
            x, nothing = (pixels.float() / 255 - self.mean) / self.std, torch.zeros(0, device=pixels.device)
            if self.visible:
                return self.model(x, extra, self.visible), nothing, nothing
            if self.training:
                x = torch.lerp(x.roll(1, 0), x, extra[:, None, None, None])
            found = self.model(x).float().log_softmax(1)
            own, other = (-found.gather(1, each[:, None])[:, 0] for each in (labels, labels.roll(1)))
            return torch.lerp(torch.lerp(other, own, extra), -found.mean(1), self.smoothing), nothing, found


class ImageJob(Job):
    """A run on images: the loop, the checkpoints and the gradients' sum are those of text."""

    unit = "images"
    config: VisionConfig

    def tables(self) -> tuple[ImageDataset, ImageDataset]:
        """Open what to learn from and what to measure on."""
        data, validation, self.labels = tables(self.config, self.paths)
        return data, validation

    def new_model(self) -> nn.Module:
        """Make the model with its first weights."""
        config = self.config
        self.by_accuracy, self.layer_decay = config.task == "classify", config.layer_decay
        self.architecture = config.model.architecture(config.task, self.labels, config.images)
        size = self.architecture.image_size
        self.loader, self.measured = (Loader(each, config.images, size) for each in (self.data, self.validation))
        model = self.architecture.build()
        model.initialise(config.run.seed)
        return model

    def new_objective(self) -> Objective:
        """Wrap the model as the stepper takes it."""
        made = Objective(self.model, self.config, self.world.device)
        self.work_of_one = self.architecture.flops(made.visible)
        return made

    def start_from(self, found: Path) -> None:
        """Take what fits of another run's weights."""
        fresh = sorted({name.partition(".")[0] for name in checkpoint.start_from_images(found, self.model)})
        if self.world.rank == 0:
            print(f"from {found}; new: {', '.join(fresh) or 'nothing'}", file=sys.stderr)

    def batches(self) -> Iterator[Sequence[ImageBatch]]:
        """Make this process's micro-batches, step by step."""
        return micro_batches(self.loader, self.order, self.config.run, self.start, self.world, self.objective.patches)

    def state(self, step: int, rows: int, report: dict[str, Any] | None) -> ImageState:
        """Say what a checkpoint holds beside its tensors."""
        accuracy = report.get("accuracy") if report else None
        return ImageState(**vars(super().state(step, rows, report)), validation_accuracy=accuracy)

    def work(self, result: StepResult) -> float:
        """Floating-point operations of a step."""
        return float(self.work_of_one * result.tokens)

    def line(self, result: StepResult, rate: float) -> dict[str, Any]:
        """What a step's line in metrics.jsonl begins with."""
        return {"loss": result.loss, "learning_rate": rate, "gradient_norm": result.norm, "images": result.tokens}

    def measure(self) -> dict[str, Any]:
        """Loss and accuracy on the validation images."""
        rows = choose_rows(self.validation, self.config.run.eval_rows)  # type: ignore[arg-type]
        costs, found = predict(self.objective, self.measured, rows, self.config.run.rows, self.world)
        report = {"loss": round(float(costs.mean()), 6), "images": len(rows)}
        if found.size:
            report["accuracy"] = round(float((found.argmax(1) == self.validation.classes[rows]).mean()), 6)
        return report

    def describe(self, report: dict[str, Any]) -> str:
        """An evaluation in a line."""
        return f"loss {report['loss']:.4f}" + (f", accuracy {report['accuracy']:.4f}" if "accuracy" in report else "")

    def table(self, report: dict[str, Any]) -> str:
        """An evaluation for the terminal."""
        return f"validation, {report['images']:,} images: {self.describe(report)}"


def tables(config: VisionConfig, paths: Paths) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
    """Open both tables of a run, what to learn from and what to measure on; and the names of the classes, sorted."""
    channels = config.model.architecture(config.task, ("",), config.images).channels
    classes = config.task == "classify"
    data, validation = (
        ImageDataset(paths.data, name, labelled=classes, channels=channels, cache=config.images.cache)
        for name in (config.data.train, config.data.evaluate)
    )
    if not classes:
        return data, validation, ()
    labels = tuple(sorted({str(each) for each in data.labels}))
    if len(labels) < 2:
        raise SchemaError(f"{paths.data[0]}: all labels of {data.table!r} are {labels[0]!r}: a classifier needs two")
    for each in (data, validation):
        each.number(labels)
    return data, validation, labels


def micro_batches(loader: Loader, order: Schedule, run: RunConfig, first: int, world: World,
                  patches: int) -> Iterator[list[ImageBatch]]:  # fmt: skip
    """Make this process's micro-batches, step by step: a pure function of (configuration, step, index)."""
    places = map(order, positions(run, first, world))
    for step in itertools.count(first):
        share = [
            ImageBatch.of(loader, rows, draws, run.seed, patches)
            for rows, draws in itertools.islice(places, run.width(step) // world.size)
        ]
        yield [batch.pinned() for batch in share] if world.device.type == "cuda" else share


@torch.no_grad()
def predict(objective: Objective, loader: Loader, rows: np.ndarray, batch: int,
            world: World) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Losses, float64 [n], and log probabilities, float64 [n, classes] or empty, of rows; all processes get all.

    Batches are dealt out to the processes; patches to hide are the same in every run.
    """
    objective.eval()
    starts = range(0, len(rows), batch)
    mine = {}
    # as often in all processes: shards need them all
    for turn in range(world.rank, -(-len(starts) // world.size) * world.size, world.size):
        begin = starts[min(turn, len(starts) - 1)]
        some = ImageBatch.of(loader, rows[begin : begin + batch], None, SEED, objective.patches)
        costs, _, found = objective(*some.arguments(objective.device))
        mine[begin] = costs.double().cpu().numpy(), found.double().cpu().numpy()
    objective.train()
    parts = {begin: part for shares in world.gather(mine) for begin, part in shares.items()}
    costs, found = zip(*(parts[begin] for begin in starts), strict=True)
    return np.concatenate(costs), np.concatenate(found)


def evaluate(given: argparse.Namespace, config: VisionConfig) -> int:
    """Report on a classifier: --evaluate."""
    world = connect(config.run.threads)
    model, state = checkpoint.load_image_model(checkpoint.find(given.evaluate), world.device)
    arch: Any = state.architecture
    if not arch.labels:
        raise CheckpointError(f"{given.evaluate} is a masked autoencoder, it has no classes: fine-tune it with --init")
    dataset = ImageDataset(given.data, given.table, labelled=True, channels=arch.channels)
    dataset.number(arch.labels)
    objective = Objective(model, replace(config, task="classify"), world.device)
    loader = Loader(dataset, config.images, arch.image_size)
    costs, found = predict(objective, loader, np.arange(len(dataset)), config.run.rows, world)
    if world.rank:
        return 0
    given.output.mkdir(parents=True, exist_ok=True)
    records = dataset.records
    names = {"id": [each.hex() for each in records["id"].to_pylist()], "place": records["locator"].to_pylist()}
    groups = {"source": records["source"].to_pylist()} | {name: values(dataset, name) for name in given.group}
    if given.losses:
        ids, sources = (records[name].combine_chunks() for name in ("id", "source"))
        losses.write(given.losses, [losses.table(ids, sources, state.step, costs, np.ones(len(costs)))])
    facts = {"table": given.table, "step": state.step}
    classify.report(given.output, facts, names, groups, found, dataset.classes, arch.labels, least=30, unit="images")
    return 0


def values(dataset: ImageDataset, name: str) -> list[str]:
    """A field to report by: a column of the records, or a field of the JSON object in `metadata`; '' where absent."""
    if name in dataset.records.column_names:
        return ["" if each is None else str(each) for each in dataset.records[name].to_pylist()]
    found = [_field(dataset, row, name) for row in range(len(dataset.records))]
    if not any(each is not None for each in found):
        raise TableError(f"table {dataset.table!r}: no record has a field {name!r} to report by")
    return ["" if each is None else str(each) for each in found]


def _field(dataset: ImageDataset, row: int, name: str) -> Any:
    text = dataset.records["metadata"][row].as_py()
    try:
        fields = json.loads(text or "{}")
    except ValueError as error:
        fields = error
    if not isinstance(fields, dict):
        where = f"table {dataset.table!r}, {dataset.records['locator'][row]}"
        raise TableError(f"{where}: its metadata is no JSON object, so --group {name} has nothing to look into")
    return fields.get(name)


def _check(config: VisionConfig, paths: Paths) -> None:
    data, validation, labels = tables(config, paths)
    arch = config.model.architecture(config.task, labels, config.images)
    if config.optim.name == "muon" and isinstance(arch, ResNetArchitecture):
        raise ConfigError("optim.name=muon needs matrices: use another optimizer for a ResNet")
    schedule(data, config)
    if paths.init:
        checkpoint.start_from_images(checkpoint.find(paths.init), arch.build())
    without = f", {data.unlabelled:,} more without a label" if data.unlabelled else ""
    classes = f", {len(labels)} classes" if labels else ""
    print(f"{len(data):,} images to learn from{without}{classes}; {len(validation):,} to measure on", file=sys.stderr)


@guarded
def _work(config: VisionConfig, paths: Paths) -> int:
    """What each process does."""
    strict = config.model.preset in VITS  # the backward of a ResNet's largest-of-a-window has no such kernel
    return train(config, paths, connect(config.run.threads, config.run.mode, strict=strict), ImageJob)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Train or evaluate from the command line."""
    parser = arguments("trainer.vision", __doc__, VisionConfig, SECTION, "image shards")
    parser.add_argument("--evaluate", type=Path, metavar="RUN", help="train nothing, report on this checkpoint or run")
    parser.add_argument("--table", default="test", help="table to report on (default: %(default)s)")
    parser.add_argument("--group", action="append", default=[], metavar="FIELD", help="report by it; repeatable")
    parser.add_argument("--losses", type=Path, help="Arrow file to write each image's loss to, with --evaluate")
    given = parser.parse_args(argv)
    config = load(VisionConfig, SECTION, given.config, given.set)
    if given.evaluate:
        return evaluate(given, config)
    if config.epochs:
        paths = Paths(tuple(given.data), given.output, given.output)
        size, run = schedule(tables(config, paths)[0], config).size, config.run
        if run.ramp_from:
            raise ConfigError("epochs counts steps of one width: leave out run.ramp_from, or give run.steps")
        steps = max(1, round(config.epochs * size / (run.rows * run.micro_batches)))
        config = replace(config, run=replace(run, steps=steps))
    return start(config, given, _check, _work)


if __name__ == "__main__":
    sys.exit(main())
