"""One training step: gradients of micro-batches, their sum, clipping, update.

A step has a fixed number of micro-batches, whatever the number of processes. In elastic mode their gradients are added
as the leaves of one balanced binary tree: inside a process by a binary counter, across processes by a butterfly. So 1,
2, 4, … processes compute the same bits, where each computes a micro-batch the same way (same device, same number of
threads). The other modes leave the addition to DistributedDataParallel or FSDP2, which is faster and gives other bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from schemas.packed import IGNORE_INDEX, RANDOM_NEXT, REAL_NEXT, SECOND
from trainer.attention import Segments, move
from trainer.data import PackedDataset, Rows
from trainer.masking import ORDINARY, MaskConfig, mask_rows
from trainer.model import MaskedLM
from trainer.world import World


@dataclass(frozen=True)
class MicroBatch:
    """What the model reads, and what is known of it without the model.

    input_ids: int64 [rows, length]. slots, labels: int64 [rows · most], of the masked tokens. first, follows: int64
    [pairs], slots of the pairs' [CLS] and whether the real next sentence follows; IGNORE_INDEX pads the labels. rows:
    int64 [rows], global numbers. pieces: int64 [rows · most], the document piece of each masked slot, in the order of
    PackedDataset.documents(rows). paired: int64 [real pairs], the piece that each begins with. ordinary: int64
    [pieces], their maskable tokens. counts: masked tokens, pairs, tokens, Σ segment length².
    """

    input_ids: Tensor
    segments: Segments
    slots: Tensor
    labels: Tensor
    first: Tensor
    follows: Tensor
    rows: np.ndarray
    pieces: np.ndarray
    paired: np.ndarray
    ordinary: np.ndarray
    counts: tuple[int, int, int, int]

    @staticmethod
    def of(dataset: PackedDataset, numbers: np.ndarray, draws: np.ndarray, mask: MaskConfig, seed: int,
           rows: Rows | None = None) -> MicroBatch:  # fmt: skip
        """Read rows by their global numbers, or take them if given, and mask them: a pure function. In main memory."""
        rows = rows or dataset.rows(numbers)
        masked = mask_rows(rows.input_ids, rows.word_start, rows.row_ids, draws, mask, dataset.vocab_size, seed)
        joined = rows.next_sentence == SECOND  # a pair is one segment of attention
        starts = rows.cu_seqlens[:-1][~joined]
        lens = np.add.reduceat(rows.lens, np.flatnonzero(~joined))
        kinds, padding = rows.next_sentence[~joined], rows.padding[~joined]
        paired = np.flatnonzero((kinds == REAL_NEXT) | (kinds == RANDOM_NEXT))
        first, follows = np.zeros((2, len(numbers) * (dataset.most_segments // 2) * dataset.has_pairs), np.int64)
        follows[:] = IGNORE_INDEX
        first[: len(paired)], follows[: len(paired)] = starts[paired], kinds[paired] == REAL_NEXT
        number = np.repeat(np.cumsum(~rows.padding) - 1, rows.lens)
        ordinary = np.add.reduceat(rows.input_ids.ravel() >= ORDINARY, rows.cu_seqlens[:-1], dtype=np.int64)
        real = lens[~padding]
        counts = (int((masked.labels != IGNORE_INDEX).sum()), len(paired), int(real.sum()), int((real**2).sum()))
        segments = Segments.lay_out(lens, dataset.seq_len, entries=len(numbers) * dataset.most_segments + 1)
        arrays = (masked.input_ids, masked.slots.ravel(), masked.labels.ravel(), first, follows)
        ids, slots, labels, *pairs = (torch.from_numpy(array) for array in arrays)
        return MicroBatch(
            ids, segments, slots, labels, pairs[0], pairs[1],
            numbers, number[masked.slots.ravel()], number[starts[paired]], ordinary[~rows.padding], counts,
        )  # fmt: skip

    def pinned(self) -> MicroBatch:
        """Copy into pinned memory, from where a device reads without the processor."""
        cut = self.segments
        cut = replace(cut, **{name: getattr(cut, name).pin_memory() for name in ("document", "position", "cu_seqlens")})
        ids, slots, labels, first, follows = (tensor.pin_memory() for tensor in self._tensors())
        return replace(self, segments=cut, input_ids=ids, slots=slots, labels=labels, first=first, follows=follows)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.input_ids, self.slots, self.labels, self.first, self.follows

    def arguments(self, device: torch.device, *, dense: bool) -> tuple[Any, ...]:
        """What Objective.forward takes, on a device. dense: with the mask that attention in float32 needs there."""
        ids, *others = move(self._tensors(), device)
        return ids, self.segments.to(device, dense=dense), *others


def half(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: where asked for, or by 'auto' on a CUDA device that has units for it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


class Objective(nn.Module):
    """The model and its losses, as one function that can be compiled and wrapped."""

    def __init__(self, model: MaskedLM, precision: str, device: torch.device) -> None:
        super().__init__()
        self.model, self.device, self.halved = model, device, half(precision, device)

    def forward(self, ids: Tensor, segments: Segments, slots: Tensor, labels: Tensor, first: Tensor,
                follows: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Loss of each slot and of each pair in nats (float32, 0 where there is no label), each slot's best guess.

        With gradients, the labels stand in for the guesses, which cost a pass over the logits.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halved):
            hidden = self.model.model(ids, segments).flatten(0, 1)
            logits = self.model.logits(hidden[slots]).float()
            tokens = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
            pairs = torch.zeros(0, device=ids.device)
            if len(first) and self.model.arch.next_sentence:
                choice = self.model.next_sentence(hidden[first]).float()
                pairs = F.cross_entropy(choice, follows, ignore_index=IGNORE_INDEX, reduction="none")
            return tokens, pairs, labels if torch.is_grad_enabled() else logits.argmax(-1)

    def on(self, batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The same, of a micro-batch wherever it is."""
        return self(*batch.arguments(self.device, dense=not self.halved))


class Batch(Protocol):
    """What a step needs of a micro-batch, of text or of images. counts: how many of what `forward` gives losses for,
    and three numbers that are only added up."""

    @property
    def counts(self) -> tuple[int, int, int, int]: ...

    def arguments(self, device: torch.device, *, dense: bool) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class StepResult:
    """What a step did. loss, pair_loss: mean nats over its masked tokens and over its pairs (nan without pairs).

    norm: of the gradient, before clipping. masked, tokens, squares: as MicroBatch.counts, over all processes. slots:
    losses of this process's micro-batches, float32 [slots] each.
    """

    loss: float
    pair_loss: float
    norm: float
    masked: int
    tokens: int
    squares: int
    stop: bool
    slots: list[Tensor]


class Stepper:
    """Takes steps: the one place that knows how gradients are added."""

    def __init__(self, objective: Any, optimizers: Sequence[torch.optim.Optimizer], world: World, *, clip: float,
                 mode: str = "elastic", compiled: bool = False) -> None:  # fmt: skip
        """Take steps with a model that stands on the world's device (and for 'fsdp' has been sharded)."""
        self.objective, self.optimizers, self.world, self.clip, self.mode = objective, optimizers, world, clip, mode
        self.parameters = list(objective.parameters())
        self.forward = objective
        if mode == "ddp" and world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self.forward = nn.parallel.DistributedDataParallel(objective, devices, gradient_as_bucket_view=True)
        if compiled:  # around DDP, so that the compiler cuts where buckets end and their sums overlap with the backward
            self.forward = torch.compile(self.forward, dynamic=False)

    def __call__(self, batches: Sequence[Batch], stop: bool = False) -> StepResult:
        """Take one step over this process's share. Means are over all masked tokens and pairs of the step.

        FloatingPointError, before any weight changes, where the loss or the gradient is not finite.
        """
        counts = np.array([batch.counts for batch in batches], np.int64).sum(axis=0)
        known = torch.tensor([*counts.tolist(), int(stop)], device=self.world.device)
        masked, pairs, tokens, squares, stops = self.world.all_reduce(known).tolist()  # integers: in any order
        slots: list[Tensor] = []
        add = self._elastic if self.mode == "elastic" else self._synchronised
        total, pair_total, norm = add(batches, (max(masked, 1), max(pairs, 1)), slots)
        loss, pair_loss = total / max(masked, 1), pair_total / pairs if pairs else float("nan")
        if not (np.isfinite(total) and np.isfinite(pair_total) and np.isfinite(norm)):
            for parameter in self.parameters:
                parameter.grad = None
            raise FloatingPointError(f"the loss is {loss} and the gradient's norm {norm}")
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, pair_loss, norm, masked, tokens, squares, stops > 0, slots)

    def _loss(self, batch: Batch, sizes: tuple[int, int], slots: list[Tensor]) -> tuple[Tensor, Tensor]:
        """A micro-batch's share of the step's loss, and float32 [2]: its sums over tokens and pairs."""
        tokens, pairs, _ = self.forward(*batch.arguments(self.world.device, dense=not self.objective.halved))
        slots.append(tokens.detach())
        sums = torch.stack([tokens.sum(), pairs.sum()])
        return sums[0] / sizes[0] + sums[1] / sizes[1], sums.detach()

    def _elastic(self, batches: Sequence[Batch], sizes: tuple[int, int],
                 slots: list[Tensor]) -> tuple[float, float, float]:  # fmt: skip
        def leaf(batch: Batch) -> Tensor:
            loss, sums = self._loss(batch, sizes, slots)
            parts = torch.autograd.grad(loss, self.parameters)
            return torch.cat([*(part.reshape(-1) for part in parts), sums])  # the sums travel behind the gradient

        total = self.world.sum(tree_sum(leaf(batch) for batch in batches))
        flat, sums = total[:-2], total[-2:].tolist()
        norm = float(torch.linalg.vector_norm(flat))
        if self.clip:
            flat *= min(1.0, self.clip / (norm + 1e-6))
        for parameter, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        return sums[0], sums[1], norm

    def _synchronised(self, batches: Sequence[Batch], sizes: tuple[int, int],
                      slots: list[Tensor]) -> tuple[float, float, float]:  # fmt: skip
        total = torch.zeros(2, device=self.world.device)
        for number, batch in enumerate(batches, 1):
            with self._synchronise(number == len(batches)):
                loss, sums = self._loss(batch, sizes, slots)
                (loss * self.world.size).backward()  # the wrappers divide by the number of processes
            total += sums
        both = self.world.all_reduce(total).tolist()
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        return both[0], both[1], float(norm)

    def _synchronise(self, last: bool) -> AbstractContextManager[None]:
        """Add gradients over the processes in the last micro-batch only."""
        if self.mode == "fsdp":
            self.objective.set_requires_gradient_sync(last)  # type: ignore[operator]
        elif self.world.size > 1 and not last:
            return self.forward.no_sync()
        return nullcontext()


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


def shard(objective: Any) -> None:
    """Split weights over the processes (FSDP2): each layer by itself, then what is left. Before optimizers are made.

    From main memory, layer by layer: a device never holds the whole model.
    """
    for layer in objective.model.model.layers:
        fully_shard(layer)
    fully_shard(objective)
