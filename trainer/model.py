"""The encoder: `transformers.ModernBertForMaskedLM` weight for weight, with global attention in every layer.

Pre-norm blocks without biases or dropout, rotary positions, gated GELU (Warner et al. 2024, arXiv:2412.13663). The
state dict has the names of `transformers` 4.48 and later, without the tied `decoder.weight`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.attention import Segments, attend

#: layers, hidden, heads, intermediate. `tiny` is for tests, `mini` for the sample run on a laptop's CPU,
#: `small` and `base` as MiniLM and BERT have them; intermediate ≈ 8/3 hidden, as usual for gated units.
PRESETS = {
    "tiny": (2, 64, 2, 192),
    "mini": (3, 128, 2, 384),
    "small": (6, 384, 6, 1024),
    "base": (12, 768, 12, 2048),
}


@dataclass(frozen=True)
class ModelConfig:
    """Size of the model.

    preset: 'tiny' (2 layers of 64), 'mini' (3 of 128), 'small' (6 of 384) or 'base' (12 of 768). layers: replaces the
    preset's number. hidden: replaces the preset's number. heads: replaces the preset's number. intermediate: replaces
    the preset's number.
    rope_theta: base of the rotary wavelengths (Su et al. 2021). norm_eps: added to variances. init_std: of the
    truncated normal that fills matrices; by default BERT's 0.02 at 768 hidden, and more where fewer terms are added:
    0.02 · √(768 / hidden) (measured at 128, 150 steps on docstrings: validation loss 6.10 instead of 6.30).
    unigram_bias: start the decoder's bias at the log frequency of each token, so that step 0 is the unigram model.
    """

    preset: str = "mini"
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    intermediate: int | None = None
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    init_std: float | None = None
    unigram_bias: bool = True

    def __post_init__(self) -> None:
        if min(self.rope_theta, self.norm_eps, 1 if self.init_std is None else self.init_std) <= 0:
            raise ValueError("model: rope_theta, norm_eps and init_std must be above 0")


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the shapes and the function of a model; saved with its weights."""

    vocab_size: int
    max_length: int
    layers: int
    hidden: int
    heads: int
    intermediate: int
    rope_theta: float
    norm_eps: float
    init_std: float
    next_sentence: bool = False

    @staticmethod
    def of(config: ModelConfig, vocab_size: int, max_length: int, *, next_sentence: bool = False) -> Architecture:
        """Resolve a preset and its replacements; ValueError where the sizes do not fit each other."""
        if config.preset not in PRESETS:
            raise ValueError(f"model.preset is {config.preset!r}; it must be one of {', '.join(PRESETS)}")
        given = (config.layers, config.hidden, config.heads, config.intermediate)
        layers, hidden, heads, inner = (
            default if value is None else value for value, default in zip(given, PRESETS[config.preset], strict=True)
        )
        if min(layers, hidden, heads, inner) < 1 or hidden % heads or hidden // heads % 2:
            raise ValueError(f"model: hidden {hidden} must be {heads} heads times an even size, and no size below 1")
        std = 0.02 * math.sqrt(768 / hidden) if config.init_std is None else config.init_std
        return Architecture(
            vocab_size, max_length, layers, hidden, heads, inner, config.rope_theta, config.norm_eps, std, next_sentence
        )


def rotary(position: Tensor, size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions [rows, length]: float32 [rows, length, 1, size], the halves repeated."""
    exponent = torch.arange(0, size, 2, dtype=torch.float, device=position.device) / size
    angle = position[..., None].float() * (1.0 / theta**exponent)
    angle = torch.cat((angle, angle), dim=-1)[:, :, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + size/2) of the last dimension by their angle, in float32."""
    left, right = x.float().chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)


class Embeddings(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(arch.vocab_size, arch.hidden)
        self.norm = nn.LayerNorm(arch.hidden, arch.norm_eps, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.norm(self.tok_embeddings(input_ids))


class Attention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.heads = arch.heads
        self.Wqkv = nn.Linear(arch.hidden, 3 * arch.hidden, bias=False)
        self.Wo = nn.Linear(arch.hidden, arch.hidden, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        rows, length, hidden = x.shape
        query, key, value = self.Wqkv(x).view(rows, length, 3, self.heads, -1).unbind(2)
        out = attend(rotate(query, *turn), rotate(key, *turn), value, segments)
        return self.Wo(out.reshape(rows, length, hidden))


class GatedUnit(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.Wi = nn.Linear(arch.hidden, 2 * arch.intermediate, bias=False)
        self.Wo = nn.Linear(arch.intermediate, arch.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        signal, gate = self.Wi(x).chunk(2, dim=-1)
        return self.Wo(F.gelu(signal) * gate)


class Layer(nn.Module):
    def __init__(self, arch: Architecture, number: int) -> None:
        super().__init__()
        # the embeddings end in a norm already
        self.attn_norm = nn.LayerNorm(arch.hidden, arch.norm_eps, bias=False) if number else nn.Identity()
        self.attn = Attention(arch)
        self.mlp_norm = nn.LayerNorm(arch.hidden, arch.norm_eps, bias=False)
        self.mlp = GatedUnit(arch)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        x = x + self.attn(self.attn_norm(x), turn, segments)
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.embeddings = Embeddings(arch)
        self.layers = nn.ModuleList(Layer(arch, number) for number in range(arch.layers))
        self.final_norm = nn.LayerNorm(arch.hidden, arch.norm_eps, bias=False)

    def forward(self, input_ids: Tensor, segments: Segments) -> Tensor:
        """Encode int64 [rows, length] into float [rows, length, hidden]."""
        turn = rotary(segments.position, self.arch.hidden // self.arch.heads, self.arch.rope_theta)
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x, turn, segments)
        return self.final_norm(x)


class Head(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.dense = nn.Linear(arch.hidden, arch.hidden, bias=False)
        self.norm = nn.LayerNorm(arch.hidden, arch.norm_eps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x)))


class Decoder(nn.Module):
    """Hidden states to logits with the embedding matrix, which it shares and so does not own."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(arch.vocab_size))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return F.linear(x, embedding, self.bias)


class MaskedLM(nn.Module):
    """Encoder, prediction head and tied decoder; for rows of pairs a second head, for the next sentence."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.model = Encoder(arch)
        self.head = Head(arch)
        self.decoder = Decoder(arch)
        if arch.next_sentence:
            self.next_sentence = nn.Linear(arch.hidden, 2)

    def forward(self, input_ids: Tensor, segments: Segments, slots: Tensor | None = None) -> Tensor:
        """Logits, float [n, vocabulary]: of the slots (int64 [n], into the flattened batch), or of all."""
        hidden = self.model(input_ids, segments).flatten(0, 1)
        return self.logits(hidden if slots is None else hidden[slots])

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits, float [n, vocabulary], of hidden states [n, hidden]."""
        return self.decoder(self.head(hidden), self.model.embeddings.tok_embeddings.weight)

    @torch.no_grad()
    def initialise(self, seed: int, log_unigram: Tensor | None = None) -> None:
        """Fill the weights: truncated normal cut at 2σ; matrices that write to the residual stream 1/√(2·layers) of it.

        As `transformers` does for ModernBERT (after GPT-2's scaling). `log_unigram`: [vocabulary], for the bias.
        """
        generator = torch.Generator().manual_seed(seed)
        residual = ("Wo.weight", "head.dense.weight")
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = self.arch.init_std / (math.sqrt(2 * self.arch.layers) if name.endswith(residual) else 1)
                nn.init.trunc_normal_(parameter, 0.0, std, -2 * std, 2 * std, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
        if log_unigram is not None:
            self.decoder.bias.copy_(log_unigram)


class Classifier(nn.Module):
    """Encoder, mean over each text's tokens, prediction head and a linear layer: one logit for each class.

    The state dict of `transformers.ModernBertForSequenceClassification` with classifier_pooling "mean".
    """

    def __init__(self, arch: Architecture, classes: int) -> None:
        super().__init__()
        self.arch = arch
        self.model = Encoder(arch)
        self.head = Head(arch)
        self.classifier = nn.Linear(arch.hidden, classes)

    @staticmethod
    def of(pretrained: MaskedLM, classes: int) -> Classifier:
        """Share the encoder and copy the head, below a linear layer of zeros: every class is as likely."""
        model = Classifier(pretrained.arch, classes)
        model.model, model.head = pretrained.model, copy.deepcopy(pretrained.head)
        nn.init.zeros_(model.classifier.weight)
        nn.init.zeros_(model.classifier.bias)
        return model

    def forward(self, input_ids: Tensor, segments: Segments, texts: Tensor) -> Tensor:
        """Logits, float [n, classes], of the segments that `texts` numbers (int64 [n]; padding is a segment too)."""
        return self.logits(self.model(input_ids, segments).flatten(0, 1), segments, texts)

    def logits(self, hidden: Tensor, segments: Segments, texts: Tensor) -> Tensor:
        """The same from hidden states [slots, hidden]."""
        # a sum over each segment in a fixed order, unlike index_add, which adds in varying order on CUDA
        starts = segments.cu_seqlens
        sums = torch.segment_reduce(hidden, "sum", offsets=starts.long(), initial=0)
        pooled = sums[texts] / starts.diff()[texts, None]
        return self.classifier(self.head(pooled))
