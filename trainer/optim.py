"""Optimizers, their parameter groups, and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

NAMES = ("adamw", "sgd", "lars", "lamb", "muon")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become steps.

    name: 'adamw' (Loshchilov and Hutter 2019), 'sgd' (with momentum), 'lars' (after You et al. 2017), 'lamb' (You et
    al. 2020), or 'muon' (Jordan 2024) for the matrices of the layers with AdamW for the rest, both at AdamW's scale of
    rates. lr: peak rate. momentum: of sgd, lars and muon. beta1: of Adam's first moment. beta2: of Adam's second
    moment. eps: added to the root of Adam's second moment. trust: LARS's coefficient. weight_decay: of matrices only.
    clip: largest norm of a step's gradient; 0: none. schedule: after the linear warm-up 'constant' with a final 1−√
    decay (Hägele et al. 2024), 'linear' or 'cosine' down to 0. warmup: share of the steps in which the rate rises.
    decay: share of the steps in which the constant schedule falls.
    """

    name: str = "adamw"
    lr: float = 3e-3
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    trust: float = 0.001
    weight_decay: float = 0.01
    clip: float = 1.0
    schedule: str = "constant"
    warmup: float = 0.05
    decay: float = 0.3

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"optim.name is {self.name!r}; it must be one of {', '.join(NAMES)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optim.schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        decay = self.decay if self.schedule == "constant" else 0.0
        if self.warmup < 0 or decay < 0 or self.warmup + decay > 1:
            raise ValueError(f"optim: warmup {self.warmup} and decay {self.decay} must be shares of at most 1 together")
        if not (self.lr > 0 and self.trust > 0 and min(self.clip, self.weight_decay, self.momentum) >= 0):
            raise ValueError(
                "optim: lr and trust must be above 0; clip, weight_decay and momentum must not be negative"
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise ValueError("optim: beta1 and beta2 must be at least 0 and below 1, eps above 0")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Rate of a step, from 0: linear up to `lr`, then as the schedule says, down to almost 0."""
    # 0.07 · 100 is a little more than 7
    warmup, decay = (math.ceil(round(share * steps, 6)) for share in (config.warmup, config.decay))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    if config.schedule == "linear":
        return config.lr * (1 - progress)
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * progress)) / 2
    if step >= steps - decay:
        return config.lr * (1 - math.sqrt((step - (steps - decay)) / decay))
    return config.lr


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Give every parameter group its share of the rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]


def groups(named: Iterable[tuple[str, Tensor]], weight_decay: float, depth: Callable[[str], int],
           layer_decay: float) -> list[dict[str, Any]]:  # fmt: skip
    """Group parameters by whether they decay and by rate: layer_decay ** depth of the peak.

    Only matrices decay: norms and biases have no direction in which 0 is simpler.
    """
    found: dict[tuple[bool, int], list[Tensor]] = {}
    for name, parameter in named:
        found.setdefault((parameter.ndim >= 2, depth(name)), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay * matrix, "scale": layer_decay**below, "matrix": matrix}
        for (matrix, below), members in found.items()
    ]


def build(model: nn.Module, config: OptimConfig, layer_decay: float = 1.0) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a model whose encoder is `model.model`: one, or two for Muon.

    layer_decay: the rate of each layer over that of the layer above it (Clark et al. 2020); the embeddings stand below
    the first layer, the heads above the last.
    """
    layers = len(model.model.layers)  # type: ignore[union-attr, arg-type]

    def depth(name: str) -> int:
        if name.startswith("model.layers."):
            return layers - int(name.split(".")[2])
        return layers + 1 if name.startswith("model.embeddings.") else 0

    def grouped(chosen: Callable[[str, Tensor], bool]) -> list[dict[str, Any]]:
        named = ((name, parameter) for name, parameter in model.named_parameters() if chosen(name, parameter))
        return groups(named, config.weight_decay, depth, layer_decay)

    def adamw(parts: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parts, config.lr, (config.beta1, config.beta2), config.eps, fused=True)

    if config.name == "muon":

        def hidden(name: str, parameter: Tensor) -> bool:
            return parameter.ndim == 2 and name.startswith("model.layers.")

        matrices = grouped(hidden)
        muon = torch.optim.Muon(matrices, config.lr, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
        return [muon, adamw(grouped(lambda name, parameter: not hidden(name, parameter)))]
    parts = grouped(lambda name, parameter: True)
    if config.name == "adamw":
        return [adamw(parts)]
    if config.name == "sgd":
        sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        return [torch.optim.SGD(parts, config.lr, config.momentum, fused=not sharded)]  # of shards torch has no kernel
    if config.name == "lars":
        return [Lars(parts, config.lr, config.momentum, config.trust)]
    return [Lamb(parts, config.lr, (config.beta1, config.beta2), config.eps)]


def _ratio(weights: Tensor, step: Tensor) -> Tensor:
    """‖weights‖ / ‖step‖, or 1 where either is 0: a tensor, so that no device has to wait for it."""
    above, below = torch.linalg.vector_norm(weights), torch.linalg.vector_norm(step)
    return torch.where((above > 0) & (below > 0), above / below, torch.ones_like(above))


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose rate is, for each matrix, `trust` · ‖weights‖ / ‖gradient + decay · weights‖.

    (You et al. divide by ‖gradient‖ + decay · ‖weights‖, which is never less.)
    """

    def __init__(self, params: Any, lr: float, momentum: float, trust: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0, "matrix": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                update = p.grad + group["weight_decay"] * p
                if group["matrix"]:
                    update *= group["trust"] * _ratio(p, update)
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                p.sub_(state["momentum_buffer"].mul_(group["momentum"]).add_(group["lr"] * update))


class Lamb(torch.optim.Optimizer):
    """Adam whose step is, for each matrix, as long as `lr` · ‖weights‖."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "matrix": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                taken = state["step"].item()
                mean = state["exp_avg"].lerp_(p.grad, 1 - beta1)
                square = state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                spread = (square / (1 - beta2**taken)).sqrt_().add_(group["eps"])
                update = mean / (1 - beta1**taken) / spread + group["weight_decay"] * p
                if group["matrix"]:
                    update *= _ratio(p, update)
                p.sub_(group["lr"] * update)
