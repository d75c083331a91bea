"""Read stage configurations: frozen dataclasses, filled strictly from params.yaml and from --set key=value."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration names an unknown key or holds a value of the wrong kind."""


def load(kind: type[T], section: str, path: str | Path | None = None, settings: Sequence[str] = ()) -> T:
    """Fill the dataclass `kind` from a section of a YAML file, then from `key=value` settings.

    Nested dataclasses are nested mappings; in settings their keys are joined by dots. An unknown key, a value of the
    wrong type, or a section that is missing although a file was named raises ConfigError naming the key.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _section(Path(path), section)
    for setting in settings:
        key, equals, raw = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected key=value")
        _assign(values, key.strip().split("."), _read_yaml(raw, f"--set {setting}"), setting)
    return parse(kind, values, f"section {section!r} of {path}" if path else f"settings of {section}")


def _section(path: Path, section: str) -> dict[str, Any]:
    try:
        data = _read_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} must be a mapping of sections to keys and values")
    if section not in data:
        raise ConfigError(f"{path} has no section {section!r}; it has: {', '.join(map(str, data))}")
    values = {} if data[section] is None else data[section]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: section {section!r} must be a mapping of keys to values")
    return _copy(values)


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number (PyYAML wants 1.0e-3), and a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping; refuse a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: no object but YAML's own
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def corpora_of(path: str) -> list[str]:
    """The names under `corpora` in a YAML file, or SECTION of 'FILE:SECTION'; ConfigError where there are none."""
    name, _, section = path.partition(":")
    names = list(_section(Path(name), section or "corpora"))
    if not names:
        raise ConfigError(f"{path} names no corpora")
    return [str(name) for name in names]


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _assign(values: dict[str, Any], keys: list[str], value: Any, setting: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {setting}: {key} is a value, it has no keys of its own")
    values[keys[-1]] = value


def parse(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Fill the dataclass `kind` from a mapping, strictly: true is no number, and '5' neither."""
    values = _listed(kind, values)
    try:
        # As JSON: pydantic's strict rules let a list be a tuple, and a mapping a dataclass, only there.
        return _adapter(kind).validate_json(json.dumps(values), strict=True)
    except TypeError as error:  # a date, or another value that only YAML has
        raise ConfigError(f"{where}: {error}; write it in quotes") from error
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "unexpected_keyword_argument":
                known = known_keys(kind)
                lines.append(f"unknown key {key!r}; known keys: {', '.join(known)}{_meant(key, known)}")
            else:
                said = problem["msg"].removeprefix("Value error, ")  # pydantic's words for a ValueError of ours
                lines.append(f"{key}: {said}" if key else said)  # ours name their keys themselves
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def _meant(key: str, known: Sequence[str]) -> str:
    """Ask for a known key that resembles an unknown one, or that has its last name."""
    last = key.rpartition(".")[2]
    close = [one for one in known if one.rpartition(".")[2] == last] or difflib.get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(kind: Any, values: Any) -> Any:
    """The values, with a single word made a list of one where a list of words is asked for."""
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    for one in dataclasses.fields(kind):
        default = one.default_factory() if callable(one.default_factory) else one.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            found |= {one.name: _listed(type(default), found[one.name])} if one.name in found else {}
        elif isinstance(found.get(one.name), str) and str(one.type).startswith("tuple[str"):
            found[one.name] = [found[one.name]]
    return found


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    for nested in _dataclasses(kind):
        if "__pydantic_config__" not in vars(nested):
            nested.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return TypeAdapter(kind)


def _dataclasses(kind: Any) -> list[Any]:
    found = [kind]
    for field in dataclasses.fields(kind):
        default = field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            found += _dataclasses(type(default))
    return found


def known_keys(kind: Any, prefix: str = "") -> list[str]:
    """List the dotted keys that a configuration dataclass accepts."""
    keys = []
    for field in dataclasses.fields(kind):
        default = field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            keys += known_keys(type(default), f"{prefix}{field.name}.")
        else:
            keys.append(f"{prefix}{field.name}")
    return keys


def to_dict(config: Any) -> dict[str, Any]:
    """Make the plain mapping of a configuration, for the manifest and for messages."""
    return dataclasses.asdict(config)


def explain(kind: Any) -> list[str]:
    """Give the docstrings of a configuration and of those inside it, which say what each key means, for --help."""
    texts = [f"{kind.__name__}: {inspect.cleandoc(kind.__doc__)}"]
    for one in _dataclasses(kind)[1:]:
        texts.append(f"{one.__name__}: {inspect.cleandoc(one.__doc__)}")
    return texts


def describe(kind: Any, prefix: str = "") -> list[str]:
    """List `key = default` lines of a configuration, for --help."""
    lines = []
    for field in dataclasses.fields(kind):
        default = field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            lines += describe(type(default), f"{prefix}{field.name}.")
        else:
            note = field.metadata.get("doc", "")
            lines.append(f"  {prefix}{field.name} = {default!r}" + (f"  {note}" if note else ""))
    return lines
