import math

import pytest
import torch

from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import OptimConfig, build, learning_rate


def test_learning_rate_by_hand() -> None:
    config = OptimConfig(lr=1.0, warmup=0.2, decay=0.4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    tail = [1 - math.sqrt(i / 4) for i in range(4)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, *tail])


def test_without_warmup_and_decay_the_rate_is_constant() -> None:
    config = OptimConfig(lr=0.1, warmup=0, decay=0)
    assert {learning_rate(config, step, 5) for step in range(5)} == {0.1}


def test_only_matrices_decay() -> None:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 64, 32))
    decaying, others = build(model, OptimConfig(weight_decay=0.5)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decaying["params"]} == {2} and {p.ndim for p in others["params"]} == {1}
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))
    assert any(p is model.decoder.bias for p in others["params"])


def test_a_step_is_adamw_by_hand() -> None:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 64, 32))
    model.initialise(0)
    config = OptimConfig(lr=0.01, weight_decay=0.1)
    optimizer = build(model, config)
    weight = model.head.dense.weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # in the first step the bias-corrected moments are the gradient and its square
    expected = before * (1 - 0.01 * 0.1) - 0.01 / (1 + config.eps)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-7, rtol=0)


def test_shares_that_exceed_the_run_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        OptimConfig(warmup=0.6, decay=0.6)
