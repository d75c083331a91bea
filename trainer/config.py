"""The trainer's options: frozen dataclasses, read strictly from a section of params.yaml and from `--set`."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
import typing
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import yaml

from trainer.data import DataConfig
from trainer.masking import MaskConfig
from trainer.model import ModelConfig
from trainer.optim import OptimConfig

SECTION = "train"
MODES = ("elastic", "ddp", "fsdp")
PRECISIONS = ("auto", "float32", "bf16")
T = TypeVar("T")


class ConfigError(ValueError):
    """An option that does not exist, or a value that does not fit it."""


@dataclass(frozen=True)
class RunConfig:
    """How long, how wide, how often.

    steps: optimizer steps. rows: packed rows or images in a micro-batch. micro_batches: micro-batches of a step,
    whatever the number of processes, which share them evenly. ramp: share of the steps over which the micro-batches of
    a step double, again and again, from ramp_from to micro_batches. ramp_from: micro-batches of the first steps; 0: no
    ramp. seed: of weights, order and masks. mode: how processes add gradients: 'elastic' (one binary tree: the same
    bits for 1, 2, 4, … processes; micro_batches and processes are powers of two), 'ddp' (bucketed all-reduce, for
    speed) or 'fsdp' (weights, gradients and moments in shards, for models that do not fit a device). precision: 'auto'
    (bfloat16 on CUDA devices that have it, else float32), 'float32' or 'bf16'. compile: use torch.compile. processes:
    to start on this machine; 0: one for each core or GPU; torchrun starts its own and ignores this. threads: in each
    process, 0: its share of the cores; the weights do not depend on the number of processes, but their last bits do on
    the number of threads. prefetch: steps whose rows are read and masked ahead by a thread. log_every: steps between
    lines of metrics.jsonl and of the log, each of that step alone; 0: only at the end. eval_every: steps between
    evaluations; 0: only at the end. eval_rows: rows to evaluate on, 0: all. eval_ratio: share of tokens masked there.
    save_every: steps between checkpoints; 0: only at the end. keep: newest checkpoints to keep, beside the one of the
    best evaluation, which is saved when it is found; 0: all. losses: write the loss of every document of every step to
    losses/. tensorboard: write tensorboard/. dvclive: write dvclive/. peak_tflops: of one device, for the MFU; 0: as
    its maker states, where the device is a known GPU.
    """

    steps: int = 300
    rows: int = 2
    micro_batches: int = 8
    ramp: float = 0.5
    ramp_from: int = 0
    seed: int = 0
    mode: str = "elastic"
    precision: str = "auto"
    compile: bool = False
    processes: int = 0
    threads: int = 1
    prefetch: int = 2
    log_every: int = 10
    eval_every: int = 100
    eval_rows: int = 256
    eval_ratio: float = 0.15
    save_every: int = 100
    keep: int = 2
    losses: bool = False
    tensorboard: bool = True
    dvclive: bool = False
    peak_tflops: float = 0.0

    def __post_init__(self) -> None:
        one_of("run.mode", self.mode, MODES)
        one_of("run.precision", self.precision, PRECISIONS)
        if min(self.steps, self.rows, self.micro_batches) < 1:
            raise ConfigError("run: steps, rows and micro_batches must be at least 1")
        if self.mode == "elastic" and self.micro_batches & (self.micro_batches - 1):
            raise ConfigError(f"run.micro_batches is {self.micro_batches}; the gradient tree needs a power of two")
        if not (0 < self.eval_ratio < 1 and min(self.prefetch, self.processes, self.threads, self.keep) >= 0):
            raise ConfigError("run: eval_ratio is a share; prefetch, processes, threads and keep are not negative")
        if min(self.log_every, self.eval_every, self.eval_rows, self.save_every, self.peak_tflops) < 0:
            raise ConfigError("run: log_every, eval_every, eval_rows, save_every and peak_tflops are not negative")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"run.seed is {self.seed}; it must be at least 0 and below 2⁶³")
        if not 0 < self.ramp <= 1:
            raise ConfigError(f"run.ramp is {self.ramp}; it must be a share above 0 and at most 1")
        if self.ramp_from:
            doublings = self.micro_batches // self.ramp_from
            if self.ramp_from < 0 or self.ramp_from * doublings != self.micro_batches or doublings & (doublings - 1):
                raise ConfigError(
                    f"run.ramp_from is {self.ramp_from}; doubling it must lead to micro_batches {self.micro_batches}"
                )

    def width(self, step: int) -> int:
        """Micro-batches of a step, from 0."""
        if not self.ramp_from:
            return self.micro_batches
        doublings = (self.micro_batches // self.ramp_from).bit_length() - 1
        done = int(step / (self.ramp * self.steps) * (doublings + 1)) if step < self.ramp * self.steps else doublings
        return self.ramp_from << min(done, doublings)

    def position(self, step: int) -> int:
        """Micro-batches of all steps before this one: with the seed, the whole state of the data."""
        if not self.ramp_from:
            return step * self.micro_batches
        return sum(map(self.width, range(step)))


def one_of(name: str, value: str, allowed: typing.Sequence[str]) -> None:
    """Raise ConfigError where a value is none of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Config:
    """All options of a training run; each part is described beside the code that it steers."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load(cls: type[T], section: str, path: Path | str | None = None, overrides: typing.Sequence[str] = ()) -> T:
    """Read a section of a YAML file into `cls`, then apply 'part.name=value' overrides; ConfigError says what is wrong.

    Names may be nested as deeply as the dataclasses are.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            whole = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(whole, dict):
            raise ConfigError(f"{path} is not a mapping")
        if section not in whole:
            raise ConfigError(f"{path} has no section {section!r}; it has: {', '.join(map(str, whole)) or 'none'}")
        data = whole[section] or {}
    for override in overrides:
        name, equals, value = override.partition("=")
        *parts, last = name.strip().split(".")
        if not equals or not last or not all(parts):
            raise ConfigError(f"--set {override}: write it as part.name=value, for instance optim.lr=0.001")
        inner: Any = data
        for part in parts:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {section}.{'.'.join(parts)} is no section")
        try:
            inner[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: {value!r} is not YAML") from error
    return build(cls, data, section)


def build(cls: type[T], data: Any, where: str) -> T:
    """Make a dataclass from nested mappings; an unknown key or a value of another type is a ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must be a mapping; it is {data!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(str(key) for key in set(data) - set(hints))
    if unknown:
        raise ConfigError(f"unknown option {where}.{unknown[0]}; {where} has: {', '.join(hints)}")
    values = {}
    for key, value in data.items():
        nested = dataclasses.is_dataclass(hints[key])
        values[key] = (
            build(hints[key], value, f"{where}.{key}") if nested else _cast(value, hints[key], f"{where}.{key}")
        )
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _cast(value: Any, hint: Any, name: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and isinstance(value, dict):
        return {_cast(key, inner[0], name): _cast(each, inner[1], f"{name}.{key}") for key, each in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_cast(each, inner[0], name) for each in value)
    if value is None and NoneType in inner:
        return None
    kind = origin if origin in (dict, tuple) else next((t for t in inner if t is not NoneType), hint)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with suppress(ValueError):  # YAML 1.1 takes 1e-3 for a string
            value = float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a number; it is {value}")
    if type(value) is not kind:
        wanted = "list" if kind is tuple else kind.__name__
        raise ConfigError(f"{name} must be of type {wanted}; it is {value!r}")
    return value


def describe(cls: type[Any], section: str) -> str:
    """Every option with its default and what it means, for --help; the texts are those of the classes' docstrings."""
    lines = [f"options, in section '{section}' of the YAML file or as --set part.name=value:"]
    return "\n".join(lines + _describe(cls, ""))


def _describe(cls: type[Any], prefix: str) -> list[str]:
    hints, means = typing.get_type_hints(cls), explained(cls)
    lines: list[str] = []
    for option in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[option.name]):
            inner: Any = hints[option.name]
            title = " ".join((inner.__doc__ or "").split("\n\n")[0].split())
            lines += ["", f"{prefix}{option.name}: {title}", *_describe(inner, f"{prefix}{option.name}.")]
        else:
            default = option.default_factory() if callable(option.default_factory) else option.default
            text = textwrap.wrap(means.get(option.name, ""), 96)
            lines += [f"  {prefix}{option.name} = {default}", *(f"      {line}" for line in text)]
    return lines


def explained(cls: type[Any]) -> dict[str, str]:
    """What a class's docstring says of each field, written as 'name: meaning.' or 'one, two: meaning.'."""
    names = "|".join(each.name for each in dataclasses.fields(cls))
    parts = re.split(rf"(?:^|(?<=[.;]) )((?:{names})(?:, (?:{names}))*): ", " ".join((cls.__doc__ or "").split()))
    return {name: text for group, text in zip(parts[1::2], parts[2::2], strict=True) for name in group.split(", ")}
