import dataclasses
import json
from pathlib import Path

import pytest

from trainer.config import Config, ConfigError, build, describe, load


def test_file_then_overrides_then_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("pack: {seq_len: 512}\ntrain:\n  model: {preset: tiny}\n  optim:\n    lr: 1e-3\n")
    config = load(path, ["run.steps=7", "optim.clip=2", "model.layers=5", "model.layers=null"])
    assert (config.model.preset, config.model.layers) == ("tiny", None)
    assert (config.optim.lr, config.optim.clip, config.run.steps) == (0.001, 2.0, 7)
    assert config.mask == Config().mask


def test_a_file_without_the_section_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("pack: {}\n")
    assert load(path) == load() == Config()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.step=7", r"unknown option train\.run\.step; train\.run has: steps, rows"),
        ("loop.steps=7", r"unknown option train\.loop; train has: model, data"),
        ("run.steps=many", r"train\.run\.steps must be of type int; it is 'many'"),
        ("run.steps=1.5", r"train\.run\.steps must be of type int; it is 1\.5"),
        ("run.steps=true", r"train\.run\.steps must be of type int; it is True"),
        ("model.unigram_bias=1", r"train\.model\.unigram_bias must be of type bool"),
        ("optim.lr=fast", r"train\.optim\.lr must be of type float; it is 'fast'"),
        ("optim.warmup=2", "shares of at most 1"),
        ("run.micro_batches=6", "power of two"),
        ("run.precision=fp16", "'auto', 'float32' or 'bf16'"),
        ("run.steps", "write it as part.name=value"),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, [override])


def test_a_resolved_configuration_reads_back_equal() -> None:
    config = load(None, ["model.preset=small", "optim.lr=0.5"])
    assert build(Config, json.loads(json.dumps(dataclasses.asdict(config))), "train") == config


def test_help_explains_every_option() -> None:
    text = describe()
    for part in dataclasses.fields(Config):
        for option in dataclasses.fields(part.default_factory()):  # type: ignore[misc]
            assert f"  {part.name}.{option.name} = " in text
            assert f"{option.name}" in text.split(f"{part.name}: ", 1)[1].split("\n", 1)[0]
