"""Checkpoints: safetensors and JSON in a directory that appears whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainer.model import Architecture, MaskedLM

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
NAME = re.compile(r"step-(\d{8})")
FIXED = ("model", "data", "mask", "run.seed", "run.rows", "run.micro_batches")  # on them stands what `step` means


class CheckpointError(ValueError):
    """A checkpoint that is absent, or does not belong to this run."""


@dataclass(frozen=True)
class State:
    """What a checkpoint says beside its tensors.

    step: steps taken; together with the configuration it is the whole state of the data. manifest: sha256 of the
    dataset's manifest. config: the run's options, resolved.
    """

    step: int
    manifest: str
    architecture: Architecture
    config: dict[str, Any]
    torch: str = torch.__version__


def save(folder: Path, state: State, model: MaskedLM, optimizer: torch.optim.Optimizer, keep: int) -> Path:
    """Write checkpoint `step-00000123` under `folder`, then remove all but the newest `keep` (0: none).

    Everything is written and synced under another name first and the directory renamed, so a crash leaves the old
    checkpoints or the new one beside them.
    """
    target = folder / f"step-{state.step:08d}"
    if target.exists():
        return target  # the same options and data led to the same bytes
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, partial / WEIGHTS)
    share(partial / WEIGHTS)
    moments = {
        f"{key}:{name}": value.detach().cpu()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(moments, partial / OPTIMIZER)
    share(partial / OPTIMIZER)
    (partial / STATE).write_text(json.dumps(asdict(state), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        sync(path)
    partial.rename(target)
    sync(folder)
    if keep:
        for old in _all(folder)[:-keep]:
            shutil.rmtree(old)
    return target


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


def find(path: Path) -> Path:
    """Resolve a checkpoint, or a run's directory to its newest one; CheckpointError where there is none."""
    if (path / STATE).exists():
        return path
    found = latest(path / "checkpoints")
    if found is None:
        raise CheckpointError(f"{path} is neither a checkpoint nor the output directory of a run that has one")
    return found


def read_state(checkpoint: Path) -> State:
    """Read a checkpoint's state; CheckpointError where it is not one of ours."""
    try:
        data = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return State(**{**data, "architecture": Architecture(**data["architecture"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{checkpoint / STATE} is not the state of a checkpoint: {error}") from error


def load_model(checkpoint: Path, device: torch.device | str = "cpu") -> tuple[MaskedLM, State]:
    """Rebuild the model that a checkpoint holds."""
    state = read_state(checkpoint)
    model = MaskedLM(state.architecture)
    model.load_state_dict(load_file(checkpoint / WEIGHTS))
    return model.to(device), state


def restore(checkpoint: Path, model: MaskedLM, optimizer: torch.optim.Optimizer, manifest: str,
            config: dict[str, Any]) -> int:  # fmt: skip
    """Load weights and moments, and return the steps taken.

    CheckpointError where the data or an option in FIXED is not what the checkpoint was made with. Others, such as the
    rate or the number of steps, may change: the run goes on under the new ones.
    """
    state = read_state(checkpoint)
    if state.manifest != manifest:
        raise CheckpointError(
            f"{checkpoint} was trained on a dataset whose manifest has sha256 {state.manifest[:16]}…; this one has "
            f"{manifest[:16]}…: give the same --data, or start a new run in another --output"
        )
    for path in FIXED:
        before, now = _at(state.config, path), _at(config, path)
        if before != now:
            raise CheckpointError(
                f"{checkpoint} was made with train.{path} = {before}; this run has {now}: resume with the same options"
            )
    model.load_state_dict(load_file(checkpoint / WEIGHTS))
    parameters = dict(model.named_parameters())
    for full, tensor in load_file(checkpoint / OPTIMIZER).items():
        key, name = full.split(":", 1)
        # AdamW's own count of steps stays where the optimizer would have made it: on the device where it is fused
        optimizer.state[parameters[name]][key] = tensor.to(parameters[name].device)
    return state.step


def _at(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
