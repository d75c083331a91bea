"""Configuration is strict: an unknown key, a wrong type or a misspelt section stops the run and is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.core.config import ConfigError, describe, known_keys, load, parse, to_dict


@dataclass(frozen=True)
class Inner:
    bands: int = 14
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise ValueError("bands is at least 1")


@dataclass(frozen=True)
class Outer:
    threshold: float = 0.7
    near: bool = True
    names: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    title: str = "t"


def write(path: Path, text: str) -> str:
    (path / "params.yaml").write_text(text, encoding="utf-8")
    return str(path / "params.yaml")


def test_defaults_hold_where_nothing_is_given() -> None:
    assert load(Outer, "dedupe") == Outer()


def test_a_section_fills_the_dataclass_and_settings_override_it(tmp_path: Path) -> None:
    path = write(tmp_path, "dedupe:\n  threshold: 0.8\n  inner: {bands: 3}\n  names: [维基, b]\nother: {x: 1}\n")
    found = load(Outer, "dedupe", path, ["inner.seed=5", "threshold=1e-1", "weights.wiki=2"])
    assert found == Outer(0.1, True, ("维基", "b"), {"wiki": 2.0}, Inner(3, 5))


def test_settings_reach_nested_keys_without_a_file() -> None:
    found = load(Outer, "dedupe", None, ["inner.bands=2", "names=[a]", "near=false", "title=a=b", "inner.seed=null"])
    assert found == Outer(near=False, names=("a",), inner=Inner(2, None), title="a=b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dedupe: {treshold: 0.8}", r"unknown key 'treshold'; known keys: threshold, near"),
        ("dedupe: {treshold: 0.8}", r"did you mean 'threshold'\?"),
        ("dedupe: {bands: 3}", r"did you mean 'inner\.bands'\?"),
        ("dedupe: {xyzzy: 3}", r"known keys: .*title$"),
        ("dedupe: {inner: {band: 1}}", r"unknown key 'inner\.band'; known keys: .*inner\.bands"),
        ("dedupe: {threshold: high}", "threshold: .*number"),
        ("dedupe: {threshold: true}", "threshold: .*number"),
        ("dedupe: {threshold: '0.5'}", "threshold: .*number"),
        ("dedupe: {near: 1}", "near: .*boolean"),
        ("dedupe: {inner: {bands: 2.5}}", r"inner\.bands: .*integer"),
        ("dedupe: {inner: {bands: 0}}", "inner: bands is at least 1"),
        ("dedupe: {inner: 3}", "inner: "),
        ("dedupe: {names: 5}", "names: "),
        ("dedupe: {title: 5}", "title: .*string"),
        ("dedupe: {title: 2020-01-01}", "write it in quotes"),
        ("dedupe: [1]", "section 'dedupe' must be a mapping"),
        ("dedup: {threshold: 0.8}", "has no section 'dedupe'; it has: dedup"),
        ("", "has no section 'dedupe'"),
        ("- dedupe", "must be a mapping of sections"),
        ("dedupe: {threshold: 0.8, threshold: 0.9}", "'threshold' stands twice"),
        ("dedupe: {threshold: 0.8\n", "is not valid YAML"),
        ("dedupe: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(Outer, "dedupe", path)
    assert "params.yaml" in str(caught.value)


def test_an_empty_section_means_the_defaults(tmp_path: Path) -> None:
    assert load(Outer, "dedupe", write(tmp_path, "dedupe:\n")) == Outer()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("threshold", "--set threshold: expected key=value"),
        ("nope=1", "unknown key 'nope'"),
        ("inner.nope=1", r"unknown key 'inner\.nope'"),
        ("threshold.deep=1", "threshold: "),
        ("names=[a", "not valid YAML"),
        ("threshold=", "threshold: "),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Outer, "dedupe", None, [setting])


def test_a_value_cannot_have_keys_of_its_own() -> None:
    with pytest.raises(ConfigError, match="inner is a value"):
        load(Outer, "dedupe", None, ["inner=3", "inner.bands=2"])


def test_a_file_that_is_absent_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        load(Outer, "dedupe", tmp_path / "absent.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"params\.yaml is not UTF-8"):
        load(Outer, "dedupe", tmp_path / "params.yaml")


def test_what_goes_into_the_manifest_can_be_read_again() -> None:
    config = Outer(0.5, False, ("a",), {"w": 1.5}, Inner(2, 3))
    values = to_dict(config) | {"names": list(config.names)}
    assert parse(Outer, values, "manifest") == config


def test_help_lists_every_key_with_its_default() -> None:
    keys = ["threshold", "near", "names", "weights", "inner.bands", "inner.seed", "title"]
    assert known_keys(Outer) == keys
    assert [line.split(" = ")[0].strip() for line in describe(Outer)] == keys
    assert "  inner.bands = 14" in describe(Outer)


def test_a_single_word_is_a_list_of_one_where_words_are_asked_for() -> None:
    from pipelines.text.prepare import CleanConfig

    config = load(CleanConfig, "clean", None, ["profile=gopher", "language.keep=zh", "edits=c4_lines"])
    assert (config.profile, config.language.keep, config.edits) == (("gopher",), ("zh",), ("c4_lines",))
