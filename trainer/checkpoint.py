"""Checkpoints: safetensors and JSON in a directory that appears whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, TypeGuard, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.model import Architecture, MaskedLM
from trainer.resnet import ResNetArchitecture
from trainer.vit import VitArchitecture

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
NAME = re.compile(r"step-(\d{8})")
#: on them stands what `step` means, and what the moments are
FIXED = (
    "task", "hidden", "model", "data", "mask", "optim.name", "run.seed", "run.rows", "run.micro_batches",
    "run.ramp_from",
    *(f"images.{name}" for name in ("crop", "flip", "operations", "magnitude", "mixup", "mean", "std")),
)  # fmt: skip
#: architectures of images say which they are
KINDS: dict[str | None, Any] = {None: Architecture, "vit": VitArchitecture, "resnet": ResNetArchitecture}


class CheckpointError(ValueError):
    """A checkpoint that is absent, or does not belong to this run."""


@dataclass(frozen=True)
class State:
    """What a checkpoint says beside its tensors.

    step: steps taken; together with the configuration it is the whole state of the data: epoch and rows are here for
    people. manifest: sha256 of the dataset's manifest. config: the run's options, resolved. validation_loss: where it
    was measured at this step. tokenizer: sha256 of the model file of the tokenizer that the rows were packed with.
    """

    step: int
    manifest: str
    architecture: Any
    config: dict[str, Any]
    torch: str = torch.__version__
    epoch: int = 0
    rows: int = 0
    validation_loss: float | None = None
    tokenizer: str | None = None

    @property
    def goodness(self) -> tuple[float, ...] | None:
        """What makes a checkpoint the best one, larger being better; None where nothing was measured."""
        return goodness(self.validation_loss) if is_finite(self.validation_loss) else None


@dataclass(frozen=True)
class ImageState(State):
    """The same of a model of images. validation_accuracy: measured beside the loss, where there are classes."""

    validation_accuracy: float | None = None

    @property
    def goodness(self) -> tuple[float, ...] | None:
        """Accuracy first, then the loss."""
        return goodness(self.validation_loss, self.validation_accuracy) if is_finite(self.validation_loss) else None


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to compare."""
    return value is not None and math.isfinite(value)


def goodness(loss: float, accuracy: float | None = None) -> tuple[float, ...]:
    """Order evaluations: by accuracy where it is given, then by loss; larger is better."""
    return (-loss,) if accuracy is None else (accuracy, -loss)


class Writer:
    """Write checkpoints in a thread, one at a time; what goes wrong there is raised at the next call."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[Path] | None = None

    def save(self, state: State, tensors: Tensors) -> None:
        """Begin to write a checkpoint of tensors that nobody changes any more."""
        self.wait()
        self._last = self._pool.submit(save, self.folder, state, tensors, self.keep)

    def wait(self) -> None:
        """Return when everything is on the disk."""
        if self._last:
            self._last.result()


@dataclass(frozen=True)
class Tensors:
    """Copies in main memory: the model's state dict, and the optimizers' under `key:parameter`."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    @staticmethod
    def of(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Tensors:
        """Copy weights and moments; of shards in several processes (FSDP2) the whole, where all must take part."""
        moments = {
            f"{key}:{name}": _whole(value)
            for name, parameter in model.named_parameters()
            for optimizer in optimizers
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        return Tensors({name: _whole(tensor) for name, tensor in model.state_dict().items()}, moments)


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).to("cpu", copy=True)


def save(folder: Path, state: State, tensors: Tensors, keep: int) -> Path:
    """Write checkpoint `step-00000123` under `folder`, then remove all but the newest `keep` and the best (0: none).

    Everything is written and synced under another name first and the directory renamed, so a crash leaves the old
    checkpoints or the new one beside them.
    """
    target = folder / f"step-{state.step:08d}"
    if (target / STATE).exists():
        return target  # the same options and data led to the same bytes
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in ((WEIGHTS, tensors.model), (OPTIMIZER, tensors.optimizer)):
        try:
            save_file(content, partial / name)
        except SafetensorError as error:  # its name for a full disk, too
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"{partial / name} could not be written: {error}") from error
        share(partial / name)
    (partial / STATE).write_text(_text(state), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        sync(path)
    shutil.rmtree(target, ignore_errors=True)  # one that has lost its state, and so is none
    partial.rename(target)
    sync(folder)
    _prune(folder, keep)
    return target


def _prune(folder: Path, keep: int) -> None:
    kept = best(folder) if keep else None
    for old in _all(folder)[:-keep] if keep else ():
        if old != kept:
            shutil.rmtree(old)


def _text(state: State) -> str:
    return json.dumps(asdict(state), indent=1, sort_keys=True) + "\n"


def amend(checkpoint: Path, state: State, keep: int) -> None:
    """Replace what a checkpoint says beside its tensors, at once; remove others as `save` does."""
    partial = checkpoint / f".{STATE}.partial"
    partial.write_text(_text(state), encoding="utf-8")
    sync(partial)
    partial.rename(checkpoint / STATE)
    sync(checkpoint)
    _prune(checkpoint.parent, keep)


def sweep(folder: Path) -> None:
    """Remove what a killed process left of checkpoints; for who holds the run's lock."""
    for left in folder.glob(".step-*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def lock(folder: Path) -> IO[bytes]:
    """Claim a run's directory for this process, until the file that is returned is closed or the process ends."""
    file = (folder / ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise CheckpointError(f"another process trains in {folder}: wait for it, or stop it") from error
    return file


def share(path: Path) -> None:
    """Give a file the permissions that a new file has: safetensors makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def sync(path: Path) -> None:
    """Ask the system to put a file or a directory on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and (path / STATE).exists())


def latest(folder: Path) -> Path | None:
    """The newest checkpoint under `folder`, or None."""
    return max(_all(folder), default=None)


def best(folder: Path) -> Path | None:
    """The checkpoint of the best evaluation under `folder`, the earlier one of two; None where none has one."""
    found = [(read_state(path).goodness, path) for path in _all(folder)]
    measured = [(good, path) for good, path in found if good is not None]
    return max(measured, key=lambda one: one[0])[1] if measured else None


def find(path: Path) -> Path:
    """Resolve a checkpoint, a run's directory to its newest one, or RUN/best to that of the best evaluation.

    CheckpointError where there is none.
    """
    if (path / STATE).exists():
        return path
    found = best(path.parent / "checkpoints") if path.name == "best" else latest(path / "checkpoints")
    if found is None:
        raise CheckpointError(f"{path} is neither a checkpoint nor the output directory of a run that has one")
    return found


def read_state(checkpoint: Path) -> State:
    """Read a checkpoint's state; CheckpointError where it is not one of ours."""
    try:
        data = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        parts: dict[str, Any] = {
            name: tuple(part) if isinstance(part, list) else part for name, part in data["architecture"].items()
        }
        kind = ImageState if "validation_accuracy" in data else State
        return kind(**{**data, "architecture": KINDS[parts.get("kind")](**parts)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{checkpoint / STATE} is not the state of a checkpoint ({error}): remove {checkpoint}"
        ) from error


def load_model(checkpoint: Path, device: torch.device | str = "cpu") -> tuple[MaskedLM, State]:
    """Rebuild the language model that a checkpoint holds."""
    state = read_state(checkpoint)
    if isinstance(state, ImageState):
        raise CheckpointError(f"{checkpoint} holds a model of images: this is for text; see python -m trainer.vision")
    model = MaskedLM(state.architecture)
    _fill(model, _load(checkpoint / WEIGHTS), checkpoint)
    return model.to(device), state


def load_image_model(checkpoint: Path, device: torch.device | str = "cpu") -> tuple[Any, ImageState]:
    """Rebuild the model of images that a checkpoint holds."""
    state = read_state(checkpoint)
    if not isinstance(state, ImageState):
        raise CheckpointError(f"{checkpoint} holds a model of text: give a run of python -m trainer.vision")
    model = state.architecture.build()
    _fill(model, _load(checkpoint / WEIGHTS), checkpoint)
    return model.to(device), state


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): remove the checkpoint, and --resume takes the one before it"
        ) from error


def _fill(model: nn.Module, weights: dict[str, Tensor], checkpoint: Path) -> None:
    expected = model.state_dict()
    if wrong := sorted(set(expected) ^ set(weights)) or [n for n, t in expected.items() if t.shape != weights[n].shape]:
        raise CheckpointError(f"{checkpoint} is of another model than its state says: {wrong[0]}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(_like(weights[name], tensor))


def start_from(checkpoint: Path, model: nn.Module, tokenizer: str | None) -> None:
    """Load weights alone, to go on with other data; CheckpointError where models or tokenizers differ.

    The next-sentence head is left out where there is none, and keeps its first values where the other has none.
    """
    state = read_state(checkpoint)
    if isinstance(state, ImageState):
        raise CheckpointError(f"{checkpoint} holds a model of images: this is for text; see python -m trainer.vision")
    check_tokenizer("the rows of --data", tokenizer, state)
    ours = cast(Any, model).arch
    for name in (each.name for each in fields(ours) if each.name not in ("max_length", "init_std", "next_sentence")):
        was, now = getattr(state.architecture, name), getattr(ours, name)
        if was != now:  # among them weights of the same shapes that mean something else
            raise CheckpointError(f"{checkpoint} was trained with {name} {was}, not {now}: give the same model options")
    weights, expected = _load(checkpoint / WEIGHTS), model.state_dict()
    head = {name: tensor for name, tensor in expected.items() if _is_head(name)}
    _fill(model, {**head, **{name: each for name, each in weights.items() if name in expected or not _is_head(name)}},
          checkpoint)  # fmt: skip


def _is_head(name: str) -> bool:
    return name.startswith("next_sentence.")


def start_from_images(checkpoint: Path, model: nn.Module) -> list[str]:
    """Load what fits of another model of images: its encoder, and heads of the same name, shape and classes.

    Returns the names of the model's tensors that keep their first values. CheckpointError where the encoders differ.
    """
    state = read_state(checkpoint)
    if not isinstance(state, ImageState):
        raise CheckpointError(f"{checkpoint} holds a model of text: give a run of python -m trainer.vision")
    theirs, ours = state.architecture, cast(Any, model).arch
    for option, name in (("model.heads", "heads"), ("images.mean", "mean"), ("images.std", "std")):
        was, now = (_spread(getattr(each, name, 1), each.channels) for each in (theirs, ours))
        if was != now:  # weights of the same shapes that mean something else
            raise CheckpointError(f"{checkpoint} was trained with {option} {was}, not {now}: give the same options")
    weights, expected = _load(checkpoint / WEIGHTS), model.state_dict()
    fits = {name for name, tensor in weights.items() if name in expected and expected[name].shape == tensor.shape}
    if theirs.labels != ours.labels:
        fits = {name for name in fits if not name.startswith("classifier.")}
    if wrong := sorted(name for name in {*weights, *expected} - fits if name.startswith("model.")):
        raise CheckpointError(f"{checkpoint} has another encoder: {wrong[0]}; give the same model options")
    with torch.no_grad():
        for name in fits:
            expected[name].copy_(_like(weights[name], expected[name]))
    return sorted(set(expected) - fits)


def _spread(value: Any, channels: int) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * channels if len(values) == 1 else values


def tokenizer_sha256(directory: Path) -> str | None:
    """Name the tokenizer in a directory as `pack` does, by its model file; None where that is not there."""
    path = directory / "tokenizer.model"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def check_tokenizer(where: object, found: str | None, state: State) -> None:
    """Raise CheckpointError where `found`, the sha256 of a tokenizer, is known and is not that of the model's rows."""
    if None not in (found, state.tokenizer) and found != state.tokenizer:
        raise CheckpointError(
            f"{where}: another tokenizer than the model was trained with (sha256 {str(found)[:12]}…, not "
            f"{str(state.tokenizer)[:12]}…), though it may have as many ids: use the one that its rows were packed with"
        )


def check(checkpoint: Path, manifest: str, config: dict[str, Any]) -> State:
    """Read the state of a checkpoint that a run goes on from.

    CheckpointError where the data or an option in FIXED is not what the checkpoint was made with. Others, such as the
    rate or the number of steps, may change: the run goes on under the new ones.
    """
    state = read_state(checkpoint)
    if state.manifest != manifest:
        raise CheckpointError(
            f"{checkpoint} was trained on a dataset whose manifest has sha256 {state.manifest[:16]}…; this one has "
            f"{manifest[:16]}…: give the same --data, or start a new run in another --output"
        )
    config = json.loads(json.dumps(config))  # as the state was written
    for path in FIXED + (("run.ramp", "run.steps") if _at(config, "run.ramp_from") else ()):
        before, now = _at(state.config, path), _at(config, path)
        if before != now:
            raise CheckpointError(
                f"{checkpoint} was made with train.{path} = {before}; this run has {now}: resume with the same options"
            )
    return state


def restore(checkpoint: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Load weights and moments into a model and optimizers of the same kind; CheckpointError where they are not."""
    _fill(model, _load(checkpoint / WEIGHTS), checkpoint)
    parameters = dict(model.named_parameters())
    owner = {id(p): each for each in optimizers for group in each.param_groups for p in group["params"]}
    moments = _load(checkpoint / OPTIMIZER)
    if moments and {full.split(":", 1)[1] for full in moments} != set(parameters):
        raise CheckpointError(f"{checkpoint / OPTIMIZER} lacks moments, or has others: remove the checkpoint")
    for full, tensor in moments.items():
        key, name = full.split(":", 1)
        parameter = parameters[name]
        # the count of steps stays where the optimizer would have made it: on the device where it is fused
        owner[id(parameter)].state[parameter][key] = (
            _like(tensor, parameter) if tensor.shape == parameter.shape else tensor.to(parameter.device)
        )


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """Bring a tensor to where another is: its device, and its shards."""
    tensor = tensor.to(other.device)
    return distribute_tensor(tensor, other.device_mesh, other.placements) if isinstance(other, DTensor) else tensor


def _at(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
