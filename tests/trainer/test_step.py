from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainer import optim
from trainer.config import Config, load
from trainer.data import PackedDataset
from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import OptimConfig
from trainer.step import TAIL, MicroBatch, autocast, gradient, tree_sum, update
from trainer.train import micro_batches
from trainer.world import World

CONFIG: Config = load(None, ["run.micro_batches=4", "run.rows=2"])


@pytest.fixture
def model() -> MaskedLM:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 128, 64))
    model.initialise(0)
    return model


@pytest.fixture
def batches(packed: Path) -> list[MicroBatch]:
    return list(micro_batches(PackedDataset(packed, "train"), CONFIG, 0, World()))


def test_tree_sum_adds_as_a_balanced_tree() -> None:
    leaves = [torch.tensor([x], dtype=torch.float32) for x in (1e8, 1.0, -1e8, 1.0, 3.0, 1e-9, 7.0, 2.0)]
    a, b, c, d, e, f, g, h = (leaf.clone() for leaf in leaves)
    expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert torch.equal(tree_sum(iter(leaves)), expected)
    assert float(expected) != float(sum(float(leaf) for leaf in leaves))  # another order would show


def test_the_summed_gradient_is_that_of_the_sum_of_all_losses(model: MaskedLM, batches: list[MicroBatch]) -> None:
    parameters = list(model.parameters())
    total = tree_sum(gradient(model, parameters, batch, "float32", False) for batch in batches)
    loss = torch.stack([
        F.cross_entropy(model(b.input_ids, b.segments, b.slots), b.labels, ignore_index=-100, reduction="sum")
        for b in batches
    ]).sum()  # fmt: skip
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(total[: -len(TAIL)], expected, atol=1e-4, rtol=1e-4)
    tail = dict(zip(TAIL, total[-len(TAIL) :].tolist(), strict=True))
    assert tail["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert tail["masked"] == sum(int((b.labels != -100).sum()) for b in batches)
    assert tail["stop"] == 0


def test_update_clips_and_reports_means_over_the_masked_tokens(model: MaskedLM, batches: list[MicroBatch]) -> None:
    rate = OptimConfig(lr=0.0)
    result = update(model, optim.build(model, rate), batches, World(), clip=1e9)
    assert result.loss == pytest.approx(np.log(128), rel=0.02)  # an untrained model guesses evenly
    assert result.norm > 0 and not result.stop
    seen = {}
    optimizer = optim.build(model, rate)
    optimizer.register_step_pre_hook(
        lambda *_: seen.update(norm=torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    )
    clipped = update(model, optimizer, batches, World(), clip=result.norm / 3, stop=True)
    assert (clipped.norm, clipped.stop) == (result.norm, True)
    assert float(seen["norm"]) == pytest.approx(result.norm / 3, rel=1e-4)


def test_a_loss_that_is_not_finite_changes_no_weight(model: MaskedLM, batches: list[MicroBatch]) -> None:
    with torch.no_grad():
        model.head.norm.weight[0] = float("nan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="loss is nan"):
        update(model, optim.build(model, OptimConfig()), batches, World(), clip=1.0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, equal_nan=True)


def test_bf16_stays_within_its_rounding_of_float32(model: MaskedLM, batches: list[MicroBatch]) -> None:
    batch = batches[0]
    with torch.no_grad(), autocast("bf16", torch.device("cpu")):
        half = model(batch.input_ids, batch.segments, batch.slots)
    with torch.no_grad(), autocast("auto", torch.device("cpu")):
        full = model(batch.input_ids, batch.segments, batch.slots)
    assert (half.dtype, full.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(half.float(), full, atol=float(full.abs().max()) / 64, rtol=0)


def test_micro_batches_of_a_step_do_not_depend_on_who_computes_them(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    alone = list(micro_batches(dataset, CONFIG, 3, World()))
    shared = [batch for rank in range(4) for batch in micro_batches(dataset, CONFIG, 3, World(rank, 4))]
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)
        assert torch.equal(a.segments.document, b.segments.document)
