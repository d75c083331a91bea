"""AdamW, its parameter groups and the learning rate's schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter 2019) with warm-up, a constant rate and a 1−√ decay (Hägele et al. 2024).

    lr: peak rate. beta1, beta2, eps: of Adam's moments. weight_decay: of matrices only. clip: largest norm of a step's
    gradient. warmup, decay: shares of the run's steps.
    """

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    decay: float = 0.3

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.decay < 0 or self.warmup + self.decay > 1:
            raise ValueError(f"optim: warmup {self.warmup} and decay {self.decay} must be shares of at most 1 together")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Rate of a step, from 0: linear up to `lr`, constant, then lr · (1 − √progress) down to almost 0."""
    warmup, decay = math.ceil(config.warmup * steps), math.ceil(config.decay * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if step >= steps - decay:
        return config.lr * (1 - math.sqrt((step - (steps - decay)) / decay))
    return config.lr


def build(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Make the optimizer; only matrices decay (norms and biases have no direction in which 0 is simpler)."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
