import math

import pytest
import torch

from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import NAMES, Lamb, OptimConfig, build, learning_rate, set_rate


def test_learning_rate_by_hand() -> None:
    config = OptimConfig(lr=1.0, warmup=0.2, decay=0.4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    tail = [1 - math.sqrt(i / 4) for i in range(4)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, *tail])


def test_a_warmup_of_seven_hundredths_of_a_hundred_steps_takes_seven() -> None:
    config = OptimConfig(lr=1.0, warmup=0.07, decay=0)  # 0.07 · 100 is 7.000000000000001
    assert [learning_rate(config, step, 100) for step in (5, 6, 7)] == [6 / 7, 1.0, 1.0]


def test_without_warmup_and_decay_the_rate_is_constant() -> None:
    config = OptimConfig(lr=0.1, warmup=0, decay=0)
    assert {learning_rate(config, step, 5) for step in range(5)} == {0.1}


def test_only_matrices_decay() -> None:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 64, 32))
    (optimizer,) = build(model, OptimConfig(weight_decay=0.5))
    decaying, others = (
        {
            "weight_decay": decay,
            "params": [p for g in optimizer.param_groups if g["matrix"] == matrix for p in g["params"]],
        }
        for matrix, decay in ((True, 0.5), (False, 0.0))
    )
    assert all(g["weight_decay"] == 0.5 * g["matrix"] for g in optimizer.param_groups)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decaying["params"]} == {2} and {p.ndim for p in others["params"]} == {1}
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))
    assert any(p is model.decoder.bias for p in others["params"])


def test_a_step_is_adamw_by_hand() -> None:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 64, 32))
    model.initialise(0)
    config = OptimConfig(lr=0.01, weight_decay=0.1)
    (optimizer,) = build(model, config)
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


def tiny() -> MaskedLM:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 64, 32))
    model.initialise(0)
    return model


def test_the_other_schedules_by_hand() -> None:
    linear = [learning_rate(OptimConfig(lr=1.0, schedule="linear", warmup=0.2), step, 10) for step in range(10)]
    assert linear == pytest.approx([0.5, 1, *(1 - i / 8 for i in range(8))])
    cosine = [learning_rate(OptimConfig(lr=1.0, schedule="cosine", warmup=0.2), step, 10) for step in range(10)]
    assert cosine == pytest.approx([0.5, 1, *((1 + math.cos(math.pi * i / 8)) / 2 for i in range(8))])


def step_with(model: MaskedLM, config: OptimConfig) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizers = build(model, config)
    set_rate(optimizers, config.lr)
    for optimizer in optimizers:
        optimizer.step()


def test_a_step_of_lamb_is_as_long_as_the_rate_times_the_weights() -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step_with(model, OptimConfig(name="lamb", lr=0.01, weight_decay=0.1))
    for name, parameter in model.named_parameters():
        moved, weight = (parameter.detach() - before[name]), before[name]
        # the first step of Adam is the gradient's sign, but for eps
        plain = parameter.grad / (parameter.grad.abs() + 1e-8)
        if parameter.ndim == 2:
            update = plain + 0.1 * weight
            expected = -0.01 * weight.norm() / update.norm() * update
            torch.testing.assert_close(moved.norm(), 0.01 * weight.norm(), rtol=1e-3, atol=0)
        else:
            expected = -0.01 * plain
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=2e-6)


def test_a_step_of_lars_is_the_trust_times_the_weights() -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step_with(model, OptimConfig(name="lars", lr=0.5, trust=0.01, weight_decay=0.0))
    for name, parameter in model.named_parameters():
        ratio = 0.01 * before[name].norm() / parameter.grad.norm() if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(
            parameter.detach() - before[name], -0.5 * ratio * parameter.grad, rtol=1e-4, atol=1e-6
        )


def test_a_matrix_of_zeros_still_learns_under_lamb() -> None:
    weight = torch.zeros(4, 4, requires_grad=True)
    weight.grad = torch.ones(4, 4)
    Lamb([{"params": [weight], "matrix": True}], 0.1, (0.9, 0.99), 1e-8).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), -0.1))


def test_muon_gets_the_matrices_of_the_layers_alone() -> None:
    model = tiny()
    muon, adamw = build(model, OptimConfig(name="muon"))
    hidden = {id(p) for name, p in model.named_parameters() if name.startswith("model.layers.") and p.ndim == 2}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == hidden
    others = {id(p) for p in model.parameters()} - hidden
    assert {id(p) for group in adamw.param_groups for p in group["params"]} == others


def test_layer_decay_gives_each_layer_its_share_of_the_rate() -> None:
    model = tiny()
    (optimizer,) = build(model, OptimConfig(), layer_decay=0.5)
    set_rate([optimizer], 8.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert rate[id(names["head.dense.weight"])] == rate[id(names["decoder.bias"])] == 8.0
    assert rate[id(names["model.layers.1.mlp.Wi.weight"])] == 4.0
    assert rate[id(names["model.layers.0.attn.Wo.weight"])] == 2.0
    assert rate[id(names["model.embeddings.tok_embeddings.weight"])] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    model = tiny()
    target = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    optimizers = build(model, OptimConfig(name=name, lr=0.03, trust=0.05))
    losses = []
    for _ in range(12):
        loss = (model.head.dense.weight - target).square().mean() + model.head.norm.weight.square().mean()
        loss = loss + model.model.layers[0].attn.Wo.weight.sub(target).square().mean()
        losses.append(float(loss.detach()))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] * 0.999 and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("wrong", [{"name": "adam"}, {"schedule": "step"}, {"lr": 0.0}, {"clip": -1.0}, {"trust": 0.0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="optim"):
        OptimConfig(**wrong)  # type: ignore[arg-type]
