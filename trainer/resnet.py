"""Residual networks (He et al. 2015), with group normalisation and standardised weights instead of batch normalisation.

Batch statistics would tie an image's loss to its neighbours and leave running means, which processes would have to add
up in one order. Group normalisation (Wu and He 2018) with weight standardisation (Qiao et al. 2019) does as well, also
in small micro-batches, and has no state (BiT, Kolesnikov et al. 2020, arXiv:1912.11370).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 64  # pixels a side below which the stem keeps the resolution, as He et al. do for CIFAR


@dataclass(frozen=True)
class ResNetArchitecture:
    """Everything that fixes the shapes and the function of a model; saved with its weights.

    blocks: of each stage; a stage halves the side and doubles the width of the one before. width: channels of the
    first stage, times 4 at the end of its blocks where they are bottlenecks (1×1, 3×3, 1×1) instead of two 3×3.
    """

    image_size: int
    channels: int
    blocks: tuple[int, ...]
    width: int
    bottleneck: bool
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: str = "resnet"

    def __post_init__(self) -> None:
        if min(self.image_size, self.width, *self.blocks) < 1 or not self.blocks:
            raise ValueError("model: no size may be below 1")

    def flops(self, visible: int = 0) -> float:
        """Multiplications and additions of one image in convolutions, forward and backward. visible: of a ViT."""
        return 6.0 * sum(_multiplications(ResNet(self), self))

    def build(self) -> ResNet:
        """Make the model, its weights not filled."""
        return ResNet(self)


class Conv(nn.Conv2d):
    """A convolution without bias whose filters have mean 0 and variance 1 / fan-in."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / (deviation * math.sqrt(self.weight[0].numel()) + 1e-8)
        return F.conv2d(x, weight, None, self.stride, self.padding)


def norm(width: int) -> nn.GroupNorm:
    """Normalise by groups of 16 channels, or all in one where there are fewer or they do not divide."""
    return nn.GroupNorm(width // 16 if width % 16 == 0 else 1, width)


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        plan = plan if bottleneck else [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.convs = nn.ModuleList(Conv(*each) for each in plan)
        self.norms = nn.ModuleList(norm(each[1]) for each in plan)
        self.shortcut = Conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number, (conv, scale) in enumerate(zip(self.convs, self.norms, strict=True), 1):
            out = scale(conv(out))
            out = F.relu(out) if number < len(self.convs) else out
        return F.relu(out + self.shortcut(x))


class Encoder(nn.Module):
    """Pixels to a vector."""

    def __init__(self, arch: ResNetArchitecture) -> None:
        super().__init__()
        small = arch.image_size < SMALL
        self.embeddings = nn.Sequential(
            Conv(arch.channels, arch.width, *((3, 1) if small else (7, 2))), norm(arch.width), nn.ReLU(),
            nn.Identity() if small else nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        blocks, inputs = [], arch.width
        for stage, count in enumerate(arch.blocks):
            width = arch.width << stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(Block(inputs, width, stride, bottleneck=arch.bottleneck))
                inputs = width * (4 if arch.bottleneck else 1)
        self.layers, self.hidden = nn.ModuleList(blocks), inputs

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.layers:
            x = layer(x)
        return x.mean((2, 3))


class ResNet(nn.Module):
    """Encoder, global average pooling and a linear layer: one logit for each class."""

    def __init__(self, arch: ResNetArchitecture) -> None:
        super().__init__()
        self.arch = arch
        self.model = Encoder(arch)
        self.classifier = nn.Linear(self.model.hidden, len(arch.labels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float [n, classes], of normalised pixels, float [n, channels, side, side]."""
        return self.classifier(self.model(pixels))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill filters from a normal distribution (He et al. 2015), the last norm of each block with 0."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()), generator=generator)
            else:
                parameter.fill_(float(parameter.ndim == 1 and name.endswith("weight")))
        for block in (each for each in self.modules() if isinstance(each, Block)):
            nn.init.zeros_(block.norms[-1].weight)  # type: ignore[arg-type]


def _multiplications(model: ResNet, arch: ResNetArchitecture) -> list[int]:
    """Of each convolution, for one image."""
    found: list[int] = []

    def count(conv: nn.Module, _: object, out: Tensor) -> None:
        found.append(conv.weight.numel() * out.shape[2] * out.shape[3])  # type: ignore[union-attr, operator]

    for conv in (each for each in model.modules() if isinstance(each, Conv)):
        conv.register_forward_hook(count)
    with torch.device("meta"):
        model.to("meta")(torch.empty(1, arch.channels, arch.image_size, arch.image_size))
    return found
