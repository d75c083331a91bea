import pytest
import torch

from trainer.resnet import Conv, ResNetArchitecture

SMALL = ResNetArchitecture(8, 1, (1, 1), 16, False, ("a", "b", "c"), (0.5,), (0.5,))


def test_an_image_has_the_same_logits_in_any_batch() -> None:
    model = SMALL.build()
    model.initialise(0)
    torch.nn.init.normal_(model.classifier.weight)
    pixels = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, alone = model(pixels), torch.cat([model(each[None]) for each in pixels])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)
    assert not [name for name, _ in model.named_buffers()]  # no running means, which processes would have to add up


def test_filters_have_mean_0_and_variance_1_over_their_inputs() -> None:
    conv = Conv(2, 3, 3)
    one = torch.zeros(1, 2, 3, 3)
    kernel = torch.stack([conv(one.flatten().index_fill(0, torch.tensor(i), 1.0).view_as(one))[0, :, 1, 1]
                          for i in range(18)], dim=1)  # fmt: skip
    torch.testing.assert_close(kernel.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(kernel.var(1, correction=0), torch.full((3,), 1 / 18), atol=1e-6, rtol=1e-4)


def test_resnet50_has_the_parameters_of_he_et_al() -> None:
    labels = tuple(map(str, range(1000)))
    with torch.device("meta"):
        model = ResNetArchitecture(224, 3, (3, 4, 6, 3), 64, True, labels, (0.5,), (0.5,)).build()
    norms = 4 * 2 * (256 + 512 + 1024 + 2048) // 4  # the shortcuts have none here
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - norms


def test_operations_are_counted_as_multiplied_by_hand() -> None:
    first = 64 * 16 * 9 * (1 + 16 + 16)  # the stem and a block at 8×8
    second = 16 * 32 * (16 * 9 + 32 * 9 + 16)  # a block and its shortcut at 4×4
    assert SMALL.flops() == 6 * (first + second)


def test_sizes_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="no size may be below 1"):
        ResNetArchitecture(8, 1, (1, 0), 16, False, ("a", "b"), (0.5,), (0.5,))
