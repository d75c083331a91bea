from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainer import optim
from trainer.config import Config, load
from trainer.data import PackedDataset
from trainer.model import Architecture, MaskedLM, ModelConfig
from trainer.optim import OptimConfig
from trainer.step import MicroBatch, Objective, Stepper, half, tree_sum
from trainer.train import micro_batches
from trainer.world import World

CONFIG: Config = load(Config, "train", None, ["run.micro_batches=4", "run.rows=2"])
CPU = torch.device("cpu")


@pytest.fixture
def model() -> MaskedLM:
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 128, 64))
    model.initialise(0)
    return model


def of_step(dataset: PackedDataset, step: int, world: World = World()) -> list[MicroBatch]:  # noqa: B008
    return next(micro_batches(dataset, CONFIG, step, world))


@pytest.fixture
def batches(packed: Path) -> list[MicroBatch]:
    return of_step(PackedDataset(packed, "train"), 0)


def stepper(model: MaskedLM, config: OptimConfig, **options: Any) -> Stepper:
    objective = Objective(model, options.pop("precision", "float32"), CPU)
    return Stepper(objective, optim.build(model, config), World(), **options)


def forward(model: MaskedLM, batch: MicroBatch) -> torch.Tensor:
    return model(batch.input_ids, batch.segments.to(CPU), batch.slots)


def test_tree_sum_adds_as_a_balanced_tree() -> None:
    leaves = [torch.tensor([x], dtype=torch.float32) for x in (1e8, 1.0, -1e8, 1.0, 3.0, 1e-9, 7.0, 2.0)]
    a, b, c, d, e, f, g, h = (leaf.clone() for leaf in leaves)
    expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert torch.equal(tree_sum(iter(leaves)), expected)
    assert float(expected) != float(sum(float(leaf) for leaf in leaves))  # another order would show


def expected_gradient(model: MaskedLM, batches: list[MicroBatch]) -> tuple[torch.Tensor, float]:
    """Gradient and value of the mean loss over all masked tokens, in one piece."""
    masked = sum(int((b.labels != -100).sum()) for b in batches)
    loss = torch.stack([
        F.cross_entropy(forward(model, b), b.labels, ignore_index=-100, reduction="sum") for b in batches
    ]).sum() / masked  # fmt: skip
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]), float(
        loss.detach()
    )


@pytest.mark.parametrize("mode", ["elastic", "ddp"])
def test_the_gradient_is_that_of_the_mean_over_all_masked_tokens(
    model: MaskedLM, batches: list[MicroBatch], mode: str
) -> None:
    expected, loss = expected_gradient(model, batches)
    seen = {}
    take = stepper(model, OptimConfig(lr=1e-9), clip=0.0, mode=mode)
    take.optimizers[0].register_step_pre_hook(
        lambda *_: seen.update(flat=torch.cat([p.grad.flatten() for p in model.parameters()]).clone())
    )
    result = take(batches)
    torch.testing.assert_close(seen["flat"], expected, atol=1e-6, rtol=1e-4)
    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert result.norm == pytest.approx(float(expected.norm()), rel=1e-5)
    assert result.masked == sum(int((b.labels != -100).sum()) for b in batches)
    assert result.tokens == sum(int((b.input_ids != 0).sum()) for b in batches)
    assert [float(each.sum()) for each in result.slots] == pytest.approx(
        [float(F.cross_entropy(forward(model, b), b.labels, reduction="sum").detach()) for b in batches], rel=1e-4
    )


@pytest.mark.parametrize("mode", ["elastic", "ddp"])
def test_a_step_clips_and_carries_the_wish_to_stop(model: MaskedLM, batches: list[MicroBatch], mode: str) -> None:
    rate = OptimConfig(lr=1e-9)
    result = stepper(model, rate, clip=1e9, mode=mode)(batches)
    assert result.loss == pytest.approx(np.log(128), rel=0.02)  # an untrained model guesses evenly
    assert result.norm > 0 and not result.stop
    seen = {}
    take = stepper(model, rate, clip=result.norm / 3, mode=mode)
    take.optimizers[0].register_step_pre_hook(
        lambda *_: seen.update(norm=torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    )
    clipped = take(batches, stop=True)
    assert clipped.norm == pytest.approx(result.norm, rel=1e-4) and clipped.stop
    assert float(seen["norm"]) == pytest.approx(result.norm / 3, rel=1e-4)


def test_a_loss_that_is_not_finite_changes_no_weight(model: MaskedLM, batches: list[MicroBatch]) -> None:
    with torch.no_grad():
        model.head.norm.weight[0] = float("nan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="loss is nan"):
        stepper(model, OptimConfig(), clip=1.0)(batches)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, equal_nan=True)


def test_bf16_stays_within_its_rounding_of_float32(model: MaskedLM, batches: list[MicroBatch]) -> None:
    half, full = (Objective(model, precision, CPU) for precision in ("bf16", "auto"))
    assert half.halved and not full.halved
    with torch.no_grad():
        a, b = half.on(batches[0])[0], full.on(batches[0])[0]
    assert a.dtype == b.dtype == torch.float32
    torch.testing.assert_close(a, b, atol=float(b.max()) / 64, rtol=0)


def test_micro_batches_of_a_step_do_not_depend_on_who_computes_them(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    alone = of_step(dataset, 3)
    shared = [batch for rank in range(4) for batch in of_step(dataset, 3, World(rank, 4))]
    later = [step for step, _ in zip(micro_batches(dataset, CONFIG, 0, World()), range(4), strict=False)][3]
    for a, b, c in zip(alone, shared, later, strict=True):
        assert torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)
        assert torch.equal(a.segments.document, b.segments.document)
        assert torch.equal(a.input_ids, c.input_ids)


def test_shapes_are_the_same_in_every_micro_batch(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    steps = [step for step, _ in zip(micro_batches(dataset, CONFIG, 0, World()), range(10), strict=False)]
    shapes = {
        (b.input_ids.shape, b.slots.shape, b.labels.shape, b.segments.cu_seqlens.shape) for step in steps for b in step
    }
    assert len(shapes) == 1


def test_masked_slots_know_their_documents(packed: Path) -> None:
    dataset = PackedDataset(packed, "train")
    batch = of_step(dataset, 0)[0]
    lens = dataset.rows(batch.rows)
    owner = np.repeat(np.arange(len(lens.lens)), lens.lens)
    real = np.flatnonzero(~lens.padding)
    valid = batch.labels.numpy() != -100
    assert real[batch.pieces[valid]].tolist() == owner[batch.slots.numpy()[valid]].tolist()
    assert batch.ordinary.tolist() == (lens.lens[~lens.padding] - 2).tolist()
    assert len(batch.ordinary) == len(dataset.documents(batch.rows))


def pairs_dataset(make_packed: Callable[..., Path]) -> PackedDataset:
    return PackedDataset(make_packed(pairs=True), "train")


def test_a_pair_is_one_segment_with_its_label_at_the_first_slot(make_packed: Callable[..., Path]) -> None:
    dataset = pairs_dataset(make_packed)
    batch = of_step(dataset, 0)[0]
    rows = dataset.rows(batch.rows)
    assert dataset.has_pairs and set(rows.next_sentence.tolist()) >= {0, 1, 2}
    starts = np.cumsum(rows.lens) - rows.lens
    firsts = [i for i, code in enumerate(rows.next_sentence.tolist()) if code in (0, 1)]
    known = batch.follows.numpy() != -100
    assert batch.first.numpy()[known].tolist() == starts[firsts].tolist()
    assert batch.follows.numpy()[known].tolist() == rows.next_sentence[firsts].tolist()
    document = batch.segments.document.flatten()
    for i in firsts:
        end = starts[i] + rows.lens[i] + rows.lens[i + 1]
        assert len(set(document[starts[i] : end].tolist())) == 1
    assert batch.counts[1] == len(firsts)


def test_next_sentence_prediction_is_learnt_with_the_masks(make_packed: Callable[..., Path]) -> None:
    dataset = pairs_dataset(make_packed)
    model = MaskedLM(Architecture.of(ModelConfig(preset="tiny"), 128, 64, next_sentence=True))
    model.initialise(0)
    take = stepper(model, OptimConfig(lr=0.01), clip=1.0)
    optim.set_rate(take.optimizers, 0.01)
    results = [take(step) for step, _ in zip(micro_batches(dataset, CONFIG, 0, World()), range(60), strict=False)]
    assert results[0].pair_loss == pytest.approx(np.log(2), rel=0.05)
    assert np.mean([r.pair_loss for r in results[-10:]]) < 0.6  # in the test data a random second starts elsewhere
    assert results[-1].loss < results[0].loss - 0.5


def test_a_step_is_one_graph_for_the_compiler(model: MaskedLM, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **given: plain(module, **given, fullgraph=True, backend=seen))
    graphs = []

    def seen(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    take, other = (
        stepper(model, OptimConfig(lr=1e-9), clip=1.0, compiled=True),
        stepper(model, OptimConfig(lr=1e-9), clip=1.0),
    )
    dataset = PackedDataset(packed, "train")
    for step in range(3):
        a, b = take(of_step(dataset, step)), other(of_step(dataset, step))
        assert a.loss == pytest.approx(b.loss, rel=1e-5) and a.norm == pytest.approx(b.norm, rel=1e-4)
    assert len(graphs) == 1  # no recompilation: all micro-batches have one shape


def test_bfloat16_is_taken_by_itself_only_where_a_device_has_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch counts emulation, which is slower than float32, as support
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [half(name, cuda) for name in ("auto", "float32", "bf16")] == [False, False, True]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert [half("auto", device) for device in (cuda, cpu)] == [True, False]
