"""Vision transformers: a classifier that `transformers.ViTForImageClassification` can hold, and masked autoencoders.

Pre-norm blocks (Dosovitskiy et al. 2021) over patches with fixed sine-cosine positions and global average pooling, as
in "Better plain ViT baselines" (Beyer et al. 2022, arXiv:2205.01580); He et al. 2021 (arXiv:2111.06377) for the masked
autoencoder. `transformers` classifies by its [CLS] token alone, so pooling is written as a last layer in which that
token attends evenly to all: the mean of the normalised tokens, times a matrix, and a feed-forward unit. There it is an
ordinary layer whose queries are 0: the same function, not an approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
POOLINGS = ("mean", "cls")


@dataclass(frozen=True)
class VitArchitecture:
    """Everything that fixes the shapes and the function of a model; saved with its weights.

    image_size, patch: sides in pixels. channels: 1 (grey) or 3. pooling: 'mean' (a pooling layer above `layers`) or
    'cls'. labels: names of the classes; of a masked autoencoder none. mean, std: of pixels in 0…1, one or by channel.
    decoder_layers, decoder_hidden: of a masked autoencoder, else 0.
    """

    image_size: int
    patch: int
    channels: int
    layers: int
    hidden: int
    heads: int
    intermediate: int
    pooling: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder_layers: int = 0
    decoder_hidden: int = 0
    kind: str = "vit"

    def __post_init__(self) -> None:
        if min(self.image_size, self.patch, self.layers, self.hidden, self.heads, self.intermediate) < 1:
            raise ValueError("model: no size may be below 1")
        if self.image_size % self.patch:
            raise ValueError(f"model.image_size is {self.image_size}; it must be a multiple of patch {self.patch}")
        for name, hidden in (("hidden", self.hidden), ("decoder_hidden", self.decoder_hidden)):
            if hidden % 4 or hidden % self.heads:
                raise ValueError(f"model.{name} is {hidden}; it must be a multiple of 4 and of heads {self.heads}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"model.pooling is {self.pooling!r}; it must be one of {', '.join(POOLINGS)}")

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch) ** 2

    def flops(self, visible: int = 0) -> float:
        """Multiplications and additions of one image, forward and backward. visible: patches that an encoder sees."""

        def stack(layers: int, tokens: int, hidden: int, intermediate: int) -> int:
            return layers * tokens * hidden * (4 * hidden + 2 * intermediate + 2 * tokens)

        pixels, seen, width = self.channels * self.patch**2, visible or self.patches, self.decoder_hidden
        decoder = stack(self.decoder_layers, 1 + self.patches, width, 4 * width)
        decoder += width * (self.hidden * (1 + seen) + pixels * (self.patches - seen))
        encoder = pixels * self.hidden * self.patches + stack(self.layers, 1 + seen, self.hidden, self.intermediate)
        return 6.0 * (encoder + decoder)

    def build(self) -> nn.Module:
        """Make the model, its weights not filled."""
        return MaskedAutoencoder(self) if self.decoder_layers else Vit(self)


def positions(side: int, size: int) -> Tensor:
    """Sines and cosines of the places on a grid: float32 [side², size], as MoCo v3 and big_vision have them."""
    omega = 1.0 / 10_000 ** (np.arange(size // 4) / max(size // 4 - 1, 1))
    y, x = np.mgrid[:side, :side].reshape(2, -1, 1) * omega
    return torch.from_numpy(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)).float()


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv, self.Wo = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.Wqkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.Wo(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Feed(nn.Module):
    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.Wi, self.Wo = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.Wo(F.gelu(self.Wi(x)))


class Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.attn_norm, self.attn = nn.LayerNorm(hidden, NORM_EPS), Attention(hidden, heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(hidden, NORM_EPS), Feed(hidden, intermediate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Embeddings(nn.Module):
    positions: Tensor

    def __init__(self, arch: VitArchitecture) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(arch.hidden))
        self.patches = nn.Conv2d(arch.channels, arch.hidden, arch.patch, arch.patch)
        self.register_buffer("positions", positions(arch.image_size // arch.patch, arch.hidden), persistent=False)

    def forward(self, pixels: Tensor, kept: Tensor | None) -> Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        if kept is not None:
            x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        return torch.cat((self.cls.to(x.dtype).expand(len(x), 1, -1), x), dim=1)


class Encoder(nn.Module):
    """Pixels to tokens; the first is [CLS]."""

    def __init__(self, arch: VitArchitecture) -> None:
        super().__init__()
        self.embeddings = Embeddings(arch)
        self.layers = nn.ModuleList(Layer(arch.hidden, arch.heads, arch.intermediate) for _ in range(arch.layers))
        self.norm = nn.LayerNorm(arch.hidden, NORM_EPS)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """Encode float [n, channels, side, side] into [n, 1 + patches, hidden], or the patches `kept` (int64 [n, k]).

        The last normalisation is left to those who use the tokens.
        """
        x = self.embeddings(pixels, kept)
        for layer in self.layers:
            x = layer(x)
        return x


class Pool(nn.Module):
    """The mean of the normalised tokens through a matrix, added to [CLS], then a feed-forward unit."""

    def __init__(self, arch: VitArchitecture) -> None:
        super().__init__()
        self.value, self.Wo = nn.Linear(arch.hidden, arch.hidden), nn.Linear(arch.hidden, arch.hidden)
        self.mlp_norm, self.mlp = nn.LayerNorm(arch.hidden, NORM_EPS), Feed(arch.hidden, arch.intermediate)
        self.norm = nn.LayerNorm(arch.hidden, NORM_EPS)

    def forward(self, cls: Tensor, mean: Tensor) -> Tensor:
        x = cls + self.Wo(self.value(mean))
        return self.norm(x + self.mlp(self.mlp_norm(x)))


class Vit(nn.Module):
    """Encoder, pooling and a linear layer: one logit for each class."""

    def __init__(self, arch: VitArchitecture) -> None:
        super().__init__()
        self.arch = arch
        self.model = Encoder(arch)
        self.pool = Pool(arch) if arch.pooling == "mean" else None
        self.classifier = nn.Linear(arch.hidden, len(arch.labels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float [n, classes], of normalised pixels, float [n, channels, side, side]."""
        tokens = self.model(pixels)
        if self.pool is None:
            return self.classifier(self.model.norm(tokens[:, 0]))
        return self.classifier(self.pool(tokens[:, 0], self.model.norm(tokens).mean(1)))

    def initialise(self, seed: int) -> None:
        """Fill the weights; the last layer with zeros, so that every class is as likely."""
        initialise(self, seed)
        nn.init.zeros_(self.classifier.weight)


class MaskedAutoencoder(nn.Module):
    """An encoder of some patches, and a small decoder that paints the others."""

    positions: Tensor

    def __init__(self, arch: VitArchitecture) -> None:
        super().__init__()
        self.arch, width = arch, arch.decoder_hidden
        self.model = Encoder(arch)
        self.narrow, self.mask = nn.Linear(arch.hidden, width), nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(Layer(width, arch.heads, 4 * width) for _ in range(arch.decoder_layers))
        self.norm, self.pixels = nn.LayerNorm(width, NORM_EPS), nn.Linear(width, arch.patch**2 * arch.channels)
        self.register_buffer("positions", positions(arch.image_size // arch.patch, width), persistent=False)

    def forward(self, pixels: Tensor, order: Tensor, visible: int) -> Tensor:
        """Mean squared error over the hidden patches, float32 [n]; int64 [n, patches]: the first `visible` are shown.

        Each patch is painted relative to its own mean and deviation, as He et al. found best.
        """
        seen, hidden = order[:, :visible], order[:, visible:]
        x = self.narrow(self.model.norm(self.model(pixels, seen)))
        places = self.positions[order]
        x = torch.cat((x[:, :1], x[:, 1:] + places[:, :visible], self.mask + places[:, visible:]), dim=1)
        for layer in self.layers:
            x = layer(x)
        painted = self.pixels(self.norm(x[:, 1 + visible :])).float()
        patches = F.unfold(pixels.float(), self.arch.patch, stride=self.arch.patch).transpose(1, 2)
        wanted = patches.gather(1, hidden[:, :, None].expand(-1, -1, patches.shape[2]))
        deviation, mean = torch.std_mean(wanted, dim=-1, keepdim=True, correction=0)
        return F.mse_loss(painted, (wanted - mean) / (deviation + 1e-3), reduction="none").mean((1, 2))

    def initialise(self, seed: int) -> None:
        """Fill the weights."""
        initialise(self, seed)
        nn.init.normal_(self.mask, std=0.02, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Fill matrices evenly after Glorot and Bengio (2010), norms with ones, all else with zeros, as big_vision does."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            rows, fan = len(parameter), parameter[0].numel()
            rows //= 3 if name.endswith("Wqkv.weight") else 1  # three matrices in one
            bound = math.sqrt(6 / (rows + fan))
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        else:
            parameter.fill_(float("norm" in name and name.endswith("weight")))
