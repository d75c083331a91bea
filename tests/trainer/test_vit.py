import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.checkpoint import CheckpointError
from trainer.export import export_images
from trainer.images import ImagesConfig, middle
from trainer.resnet import ResNetArchitecture
from trainer.vit import VitArchitecture, positions

ARCH = VitArchitecture(8, 2, 1, 2, 16, 2, 32, "mean", ("猫", "狗", "bird"), (0.4,), (0.3,))


def filled(arch: VitArchitecture) -> torch.nn.Module:
    """A model none of whose weights are zeros."""
    model = arch.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transformers_computes_the_same_pixels_and_logits(tmp_path: Path, pooling: str, channels: int) -> None:
    transformers = pytest.importorskip("transformers")
    model = filled(replace(ARCH, pooling=pooling, channels=channels))
    export_images(model, tmp_path / "out")
    theirs, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert type(theirs).__name__ == "ViTForImageClassification"
    assert not any(info.values())  # no weight is missing or left over
    assert theirs.config.id2label == {0: "猫", 1: "狗", 2: "bird"} and theirs.config.label2id["狗"] == 1
    rng = np.random.default_rng(0)
    sizes = [(8, 8), (9, 21), (30, 17), (5, 6)]
    images = [Image.fromarray(rng.integers(0, 256, (*each, channels)[: 1 + channels], np.uint8)) for each in sizes]
    pixels = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")(images, return_tensors="pt").pixel_values
    own = np.stack([np.asarray(middle(each, 8)).reshape(8, 8, channels).transpose(2, 0, 1) for each in images])
    normal = (torch.from_numpy(own).float() / 255 - 0.4) / 0.3
    torch.testing.assert_close(pixels, normal, atol=1e-6, rtol=0)
    with torch.no_grad():
        expected = model(normal)
        torch.testing.assert_close(theirs(pixels).logits, expected, atol=1e-5, rtol=0)
    assert float(expected.std()) > 0.1  # else any model would agree


def test_what_transformers_cannot_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(CheckpointError, match="is not empty"):
        export_images(filled(ARCH), tmp_path / "full")
    for arch in (
        replace(ARCH, decoder_layers=1, decoder_hidden=16),
        ResNetArchitecture(8, 1, (1,), 16, False, ("a", "b"), (0.5,), (0.5,)),
    ):
        with pytest.raises(CheckpointError, match="only a ViT classifier"):
            export_images(arch.build(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_exported_preprocessor_states_one_mean_for_each_channel(tmp_path: Path) -> None:
    export_images(filled(replace(ARCH, channels=3)), tmp_path / "out")
    found = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert found["image_mean"] == [0.4] * 3 and found["do_convert_rgb"] is True


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    found = positions(2, 8)
    one = 1e-4  # the lower of the two frequencies
    s, c = np.sin([1, one]), np.cos([1, one])
    expected = [[0, 0, 1, 1, 0, 0, 1, 1], [*s, *c, 0, 0, 1, 1], [0, 0, 1, 1, *s, *c], [*s, *c, *s, *c]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


def autoencoder() -> torch.nn.Module:
    return filled(replace(ARCH, labels=(), decoder_layers=1, decoder_hidden=8))


def test_an_autoencoder_learns_from_hidden_patches_and_sees_only_the_others() -> None:
    model = autoencoder()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 1, 8, 8, generator=generator)
    order = torch.stack([torch.randperm(16, generator=generator)] * 2)
    patches = torch.nn.functional.unfold(pixels, 2, stride=2).transpose(1, 2)  # [2, 16, 4]

    def cost(changed: Callable[[torch.Tensor], torch.Tensor], which: torch.Tensor) -> torch.Tensor:
        other = patches.clone()
        other[:, which] = changed(other[:, which])
        image = torch.nn.functional.fold(other.transpose(1, 2), 8, 2, stride=2)
        with torch.no_grad():
            return model(image, order, 4)

    plain = cost(lambda x: x, order[0])
    # a hidden patch counts relative to its own mean and deviation, and nothing else of it enters
    torch.testing.assert_close(cost(lambda x: 3 * x + 7, order[0, 4:]), plain, atol=2e-2, rtol=0)
    assert (cost(lambda x: -x, order[0, 4:]) - plain).abs().max() > 0.05
    assert (cost(lambda x: 3 * x + 7, order[0, :4]) - plain).abs().max() > 1e-4


def test_the_cost_of_an_autoencoder_that_paints_grey_is_the_patches_own_variance() -> None:
    model = autoencoder()
    torch.nn.init.zeros_(model.pixels.weight)
    torch.nn.init.zeros_(model.pixels.bias)
    pixels = 10 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = model(pixels, torch.arange(16).expand(3, -1), 4)
    assert found.detach().numpy() == pytest.approx(1.0, abs=1e-3)  # normalised: mean 0, variance 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"patch": 3}, "multiple of patch 3"), ({"hidden": 18}, "model.hidden is 18"), ({"pooling": "max"}, "mean, cls"),
     ({"decoder_hidden": 10}, "decoder_hidden is 10"), ({"layers": 0}, "no size may be below 1")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ARCH, **change)


def test_operations_are_counted_as_multiplied_by_hand() -> None:
    arch = VitArchitecture(8, 4, 1, 1, 8, 2, 32, "cls", ("a", "b"), *(ImagesConfig().mean, ImagesConfig().std))
    matrices = 4 * 16 * 8 + 5 * (8 * 24 + 8 * 8 + 2 * 8 * 32)  # 4 patches of 16 pixels, then 5 tokens
    assert arch.flops() == 6 * (matrices + 2 * 5 * 5 * 8)
    narrow = replace(arch, decoder_layers=1, decoder_hidden=4)  # one patch seen, three painted
    encoder = 4 * 16 * 8 + 2 * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 2 * 2 * 2 * 8
    decoder = 2 * 8 * 4 + 5 * (4 * 12 + 4 * 4 + 2 * 4 * 16) + 2 * 5 * 5 * 4 + 3 * 4 * 16
    assert narrow.flops(1) == 6 * (encoder + decoder)
