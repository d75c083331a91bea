"""One training step: gradients of micro-batches, their sum in one fixed tree, clipping, update.

A step has a fixed number of micro-batches, whatever the number of processes. Their gradients are added as the leaves of
one balanced binary tree: inside a process by a binary counter, across processes by a butterfly. So 1, 2, 4, … processes
compute the same bits, where each computes a micro-batch the same way (same device, same number of threads).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.packed import IGNORE_INDEX
from trainer.attention import Segments
from trainer.data import PackedDataset, Rows
from trainer.masking import MaskConfig, mask_rows
from trainer.model import MaskedLM
from trainer.world import World

TAIL = ("loss", "masked", "stop")  # sums that travel behind the gradient


@dataclass(frozen=True)
class MicroBatch:
    """What the model reads. input_ids: int64 [rows, length]; slots, labels: int64 [rows · most]."""

    input_ids: Tensor
    segments: Segments
    slots: Tensor
    labels: Tensor

    @staticmethod
    def of(rows: Rows, epochs: np.ndarray, mask: MaskConfig, dataset: PackedDataset, seed: int,
           device: torch.device) -> MicroBatch:  # fmt: skip
        """Mask rows and bring them to the device."""
        masked = mask_rows(rows.input_ids, rows.word_start, rows.row_ids, epochs, mask, dataset.vocab_size, seed)
        arrays = (masked.input_ids, masked.slots.ravel(), masked.labels.ravel())
        ids, slots, labels = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
        return MicroBatch(ids, Segments.build(rows.lens, dataset.seq_len, device), slots, labels)


@dataclass(frozen=True)
class StepResult:
    """loss: mean nats over the step's masked tokens. masked: their number. norm: of the gradient, before clipping."""

    loss: float
    masked: int
    norm: float
    stop: bool


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where asked for, or by 'auto' on a CUDA device that has it; float32 elsewhere."""
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def token_losses(model: MaskedLM, batch: MicroBatch, precision: str) -> tuple[Tensor, Tensor]:
    """Loss of each slot in nats (float32 [slots], 0 where there is no label), and the logits [slots, vocabulary]."""
    with autocast(precision, batch.input_ids.device):
        logits = model(batch.input_ids, batch.segments, batch.slots).float()
        return F.cross_entropy(logits, batch.labels, ignore_index=IGNORE_INDEX, reduction="none"), logits


def gradient(model: MaskedLM, parameters: Sequence[Tensor], batch: MicroBatch, precision: str, stop: bool) -> Tensor:
    """Gradient of the summed (not mean) loss, flat float32, and behind it the sums that TAIL names."""
    loss = token_losses(model, batch, precision)[0].sum()
    parts = [part.reshape(-1) for part in torch.autograd.grad(loss, parameters)]
    masked = (batch.labels != IGNORE_INDEX).sum()
    tail = torch.stack([loss.detach(), masked, torch.full_like(masked, int(stop))]).float()
    return torch.cat([*parts, tail])


def tree_sum(leaves: Iterable[Tensor]) -> Tensor:
    """Add a power-of-two number of tensors as a balanced binary tree, holding log₂(n) + 1 of them at a time."""
    stack: list[tuple[int, Tensor]] = []
    for leaf in leaves:
        level = 0
        while stack and stack[-1][0] == level:
            leaf, level = stack.pop()[1].add_(leaf), level + 1
        stack.append((level, leaf))
    ((_, total),) = stack
    return total


def update(model: MaskedLM, optimizer: torch.optim.Optimizer, batches: Iterable[MicroBatch], world: World, *,
           clip: float, precision: str = "float32", stop: bool = False) -> StepResult:  # fmt: skip
    """Take one step. `batches`: this process's share. The mean is over all masked tokens of the step.

    FloatingPointError, before any weight changes, where the loss or the gradient is not finite.
    """
    parameters = list(model.parameters())
    total = world.sum(tree_sum(gradient(model, parameters, batch, precision, stop) for batch in batches))
    flat, tail = total[: -len(TAIL)], dict(zip(TAIL, total[-len(TAIL) :].tolist(), strict=True))
    flat /= max(tail["masked"], 1.0)
    norm = float(torch.linalg.vector_norm(flat))
    loss = tail["loss"] / max(tail["masked"], 1.0)
    if not (np.isfinite(loss) and np.isfinite(norm)):
        raise FloatingPointError(f"the loss is {loss} and the gradient's norm {norm}")
    flat *= min(1.0, clip / (norm + 1e-6))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(loss, int(tail["masked"]), norm, tail["stop"] > 0)
