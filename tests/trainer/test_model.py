import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ModernBertConfig, ModernBertForMaskedLM

from trainer.attention import Segments
from trainer.export import hugging_face_config
from trainer.model import Architecture, MaskedLM, ModelConfig

VOCAB, LENGTH = 128, 32


@pytest.fixture
def model() -> MaskedLM:
    arch = Architecture.of(ModelConfig(preset="tiny", layers=3), VOCAB, LENGTH)
    model = MaskedLM(arch)
    model.initialise(1)
    with torch.no_grad():  # norms and biases away from 1 and 0, so that a wrong one shows
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    return model.eval()


def hugging_face(model: MaskedLM) -> ModernBertForMaskedLM:
    config = ModernBertConfig(**hugging_face_config(model.arch), attn_implementation="sdpa")
    return ModernBertForMaskedLM(config).eval()


def whole(ids: torch.Tensor) -> Segments:
    """Each row one document."""
    return Segments.build(np.full(len(ids), ids.shape[1]), ids.shape[1])


def test_our_weights_load_into_transformers_and_give_equal_logits(model: MaskedLM) -> None:
    peer = hugging_face(model)
    missing, unexpected = peer.load_state_dict(model.state_dict(), strict=False)
    assert (missing, unexpected) == (["decoder.weight"], [])  # tied to the embeddings
    ids = torch.randint(5, VOCAB, (3, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(model(ids, whole(ids)).view(3, LENGTH, VOCAB), peer(ids).logits, atol=1e-6, rtol=0)


def test_weights_of_transformers_load_into_ours_and_give_equal_logits(model: MaskedLM) -> None:
    torch.manual_seed(5)
    peer = hugging_face(model)
    weights = {name: tensor for name, tensor in peer.state_dict().items() if name != "decoder.weight"}
    model.load_state_dict(weights, strict=True)
    ids = torch.randint(5, VOCAB, (2, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(model(ids, whole(ids)), peer(ids).logits.flatten(0, 1), atol=1e-6, rtol=0)


def test_documents_in_a_packed_row_get_the_logits_that_they_get_alone(model: MaskedLM) -> None:
    lens = [9, 1, 15, 7, 20, 12]  # two rows, the last segment of each as padding would be
    ids = torch.randint(5, VOCAB, (2, LENGTH))
    with torch.no_grad():
        packed = model(ids, Segments.build(np.array(lens), LENGTH))
        start = 0
        for n in lens:
            alone = ids.flatten()[start : start + n][None]
            torch.testing.assert_close(packed[start : start + n], model(alone, whole(alone)), atol=1e-5, rtol=0)
            start += n


def test_the_loss_of_gathered_slots_equals_the_dense_loss_and_so_do_its_gradients(model: MaskedLM) -> None:
    ids = torch.randint(5, VOCAB, (2, LENGTH))
    labels = torch.full((2 * LENGTH,), -100)
    slots = torch.tensor([3, 5, 30, 31, 32, 60])
    labels[slots] = torch.arange(5, 11)
    dense = F.cross_entropy(model(ids, whole(ids)), labels, reduction="sum")
    sparse = F.cross_entropy(model(ids, whole(ids), slots), labels[slots], reduction="sum")
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-6)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(sparse, parameters), torch.autograd.grad(dense, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_initial_weights_are_seeded_truncated_normals_and_the_bias_is_the_unigram_model() -> None:
    arch = Architecture.of(ModelConfig(preset="tiny", init_std=0.02), VOCAB, LENGTH)
    unigram = torch.log_softmax(torch.randn(VOCAB), -1)
    one, two, other = (MaskedLM(arch) for _ in range(3))
    one.initialise(7, unigram)
    two.initialise(7, unigram)
    other.initialise(8, unigram)
    state = one.state_dict()
    assert all(torch.equal(state[name], value) for name, value in two.state_dict().items())
    assert not torch.equal(state["head.dense.weight"], other.state_dict()["head.dense.weight"])
    assert torch.equal(state["decoder.bias"], unigram)
    truncated = 0.8796  # standard deviation of a unit normal cut at 2
    for name, std in {"model.layers.0.attn.Wqkv.weight": 0.02, "model.layers.1.mlp.Wo.weight": 0.01}.items():
        assert float(state[name].std()) == pytest.approx(std * truncated, rel=0.03)
        assert float(state[name].abs().max()) <= 2 * std


def test_presets_resolve_and_single_sizes_replace_them() -> None:
    base = Architecture.of(ModelConfig(preset="base"), 32_768, 512)
    assert sum(p.numel() for p in MaskedLM(base).parameters()) == 110_743_040  # the 110.7 M of BERT's size
    mixed = Architecture.of(ModelConfig(preset="small", layers=2), VOCAB, LENGTH)
    assert (mixed.layers, mixed.hidden) == (2, 384)
    assert (base.init_std, mixed.init_std) == (0.02, pytest.approx(0.02 * 2**0.5))
    with pytest.raises(ValueError, match="tiny, mini, small, base"):
        Architecture.of(ModelConfig(preset="huge"), VOCAB, LENGTH)
    with pytest.raises(ValueError, match="hidden 64 must be 3 heads"):
        Architecture.of(ModelConfig(preset="tiny", heads=3), VOCAB, LENGTH)
