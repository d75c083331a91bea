import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from trainer.config import Config, ConfigError, build, describe, explained
from trainer.config import load as load_section


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    return load_section(Config, "train", path, overrides)


def test_file_then_overrides_then_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("pack: {seq_len: 512}\ntrain:\n  model: {preset: tiny}\n  optim:\n    lr: 1e-3\n")
    config = load(path, ["run.steps=7", "optim.clip=2", "model.layers=5", "model.layers=null"])
    assert (config.model.preset, config.model.layers) == ("tiny", None)
    assert (config.optim.lr, config.optim.clip, config.run.steps) == (0.001, 2.0, 7)
    assert config.mask == Config().mask


def test_a_file_without_the_section_is_refused_and_an_empty_section_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("trian: {}\n")
    with pytest.raises(ConfigError, match=r"params\.yaml has no section 'train'; it has: trian"):
        load(path)
    path.write_text("train:\n")
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
        ("run.precision=fp16", "one of auto, float32, bf16"),
        ("run.mode=horovod", "one of elastic, ddp, fsdp"),
        ("run.ramp_from=3", "doubling it must lead to micro_batches 8"),
        ("data.weights=3", r"train\.data\.weights must be of type dict"),
        ("data.weights={a: much}", r"train\.data\.weights\.a must be of type float; it is 'much'"),
        ("data.weights={a", "is not YAML"),
        ("run.eval_ratio=1.5", "eval_ratio is a share"),
        ("run.prefetch=-1", "not negative"),
        ("run.keep=-1", "not negative"),
        ("optim.beta1=2", "beta1 and beta2"),
        ("data.mix=2", r"train\.data\.mix must be of type list"),
        ("data.mix=[1, -2]", "must not be negative"),
        ("run.steps", "write it as part.name=value"),
        ("run.seed=-1", r"run\.seed is -1"),
        ("optim.lr=.nan", r"train\.optim\.lr must be a number; it is nan"),
        ("optim.lr=inf", r"train\.optim\.lr must be a number; it is inf"),
        ("data.weights={a: .inf}", r"train\.data\.weights\.a must be a number"),
        ("model.init_std=0", "init_std must be above 0"),
        ("model.rope_theta=-1", "must be above 0"),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, [override])


def test_a_resolved_configuration_reads_back_equal() -> None:
    config = load(None, ["model.preset=small", "optim.lr=0.5"])
    assert build(Config, json.loads(json.dumps(dataclasses.asdict(config))), "train") == config


def test_help_explains_every_option() -> None:
    text = describe(Config, "train")
    for part in dataclasses.fields(Config):
        options = part.default_factory()  # type: ignore[misc]
        means = explained(type(options))
        for option in dataclasses.fields(options):
            assert f"  {part.name}.{option.name} = " in text
            assert len(means[option.name]) > 5, f"{part.name}.{option.name} has no explanation"


def test_weights_and_mixes_are_read_as_numbers() -> None:
    config = load(None, ["data.weights={新闻: 2, books: 0.5}", "data.mix=[1, 2]"])
    assert config.data.weights == {"新闻": 2.0, "books": 0.5} and config.data.mix == (1.0, 2.0)
    assert build(Config, json.loads(json.dumps(dataclasses.asdict(config))), "train") == config


def test_the_ramp_doubles_in_even_stretches_and_positions_add_up() -> None:
    run = load(None, ["run.ramp_from=2", "run.micro_batches=8", "run.ramp=0.6", "run.steps=10"]).run
    widths = [run.width(step) for step in range(10)]
    assert widths == [2, 2, 4, 4, 8, 8, 8, 8, 8, 8]
    assert [run.position(step) for step in range(4)] == [0, 2, 4, 8]
    assert load().run.position(7) == 56
