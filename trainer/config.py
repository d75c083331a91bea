"""The trainer's options: a frozen tree of dataclasses, read strictly from params.yaml and `--set`."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from trainer.data import DataConfig
from trainer.masking import MaskConfig
from trainer.model import ModelConfig
from trainer.optim import OptimConfig

SECTION = "train"


class ConfigError(ValueError):
    """An option that does not exist, or a value that does not fit it."""


@dataclass(frozen=True)
class RunConfig:
    """How long, how wide, how often.

    steps: optimizer steps. rows: packed rows in a micro-batch. micro_batches: micro-batches of a step, a power of
    two; so many processes can share a step at most. seed: of weights, order and masks. precision: 'auto' (bfloat16
    on CUDA devices that have it, else float32), 'float32' or 'bf16'. processes: to start on this machine, a power
    of two; 0: one for each core or GPU; without meaning under torchrun. threads: in each process, 0: its share of
    the cores; the weights do not depend on the number of processes, but their last bits do on the number of
    threads. log_every, eval_every, save_every: steps between log lines, evaluations and checkpoints; 0: only at the
    end. eval_rows: packed rows to evaluate on, 0: all. eval_ratio: share of tokens masked there. keep: checkpoints
    to keep, 0: all.
    """

    steps: int = 300
    rows: int = 2
    micro_batches: int = 8
    seed: int = 0
    precision: str = "auto"
    processes: int = 0
    threads: int = 1
    log_every: int = 10
    eval_every: int = 100
    eval_rows: int = 256
    eval_ratio: float = 0.15
    save_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bf16"):
            raise ConfigError(f"run.precision is {self.precision!r}; it must be 'auto', 'float32' or 'bf16'")
        if min(self.steps, self.rows, self.micro_batches) < 1:
            raise ConfigError("run: steps, rows and micro_batches must be at least 1")
        if self.micro_batches & (self.micro_batches - 1):
            raise ConfigError(f"run.micro_batches is {self.micro_batches}; the gradient tree needs a power of two")


@dataclass(frozen=True)
class Config:
    """All options of a training run; each part is described beside the code that it steers."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load(path: Path | str | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read section `train` of a YAML file, then apply 'part.name=value' overrides; ConfigError names what is wrong."""
    data: dict[str, Any] = {}
    if path is not None:
        whole = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        if not isinstance(whole, dict):
            raise ConfigError(f"{path} is not a mapping")
        data = whole.get(SECTION) or {}
    for override in overrides:
        name, equals, value = override.partition("=")
        parts = name.strip().split(".")
        if not equals or len(parts) != 2:
            raise ConfigError(f"--set {override}: write it as part.name=value, for instance optim.lr=0.001")
        section = data.setdefault(parts[0], {})
        if not isinstance(section, dict):
            raise ConfigError(f"{SECTION}.{parts[0]} must be a mapping; it is {section!r}")
        section[parts[1]] = yaml.safe_load(value)
    return build(Config, data, SECTION)


def build(cls: type[Any], data: Any, where: str) -> Any:
    """Make a dataclass from nested mappings; an unknown key or a value of another type is a ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must be a mapping; it is {data!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(str(key) for key in set(data) - set(hints))
    if unknown:
        raise ConfigError(f"unknown option {where}.{unknown[0]}; {where} has: {', '.join(hints)}")
    values = {}
    for key, value in data.items():
        name = f"{where}.{key}"
        values[key] = (
            build(hints[key], value, name) if dataclasses.is_dataclass(hints[key]) else _cast(value, hints[key], name)
        )
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _cast(value: Any, hint: Any, name: str) -> Any:
    allowed = typing.get_args(hint) or (hint,)
    if value is None and NoneType in allowed:
        return None
    kind = next(t for t in allowed if t is not NoneType)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML 1.1 takes 1e-3 for a string
            return float(value)
        except ValueError:
            pass
    if type(value) is not kind:
        raise ConfigError(f"{name} must be of type {kind.__name__}; it is {value!r}")
    return value


def describe() -> str:
    """Every option with its default, and the text that explains it, for --help."""
    lines = [f"options, in section '{SECTION}' of the YAML file or as --set part.name=value:"]
    for part in dataclasses.fields(Config):
        cls = typing.get_type_hints(Config)[part.name]
        text = " ".join((cls.__doc__ or "").split())
        lines += ["", f"{part.name}: {text}"]
        lines += [f"  {part.name}.{option.name} = {option.default}" for option in dataclasses.fields(cls)]
    return "\n".join(lines)
