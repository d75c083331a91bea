"""Collect real text that every Python machine holds: the corpus of a first run, without a download.

    python -m pipelines.sample --output data/raw

Four sources: the language reference in `pydoc_data`, docstrings of the standard library and of the installed
distributions (parsed, never imported), the README texts in their metadata, and their licence files, which give natural
exact and near duplicates. The same environment and options give the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import importlib.metadata
import json
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.identity import hash64
from pipelines.core.start import imported

DEFAULT_BYTES = 10_000_000
# Shares of the default part; what a source leaves over goes to the docstrings, of which there are plenty.
QUOTAS = {"python_topics": 0.05, "readmes": 0.15, "licences": 0.15}
SOURCES = (*QUOTAS, "docstrings")
OWN = "gristmill"  # its docstrings would change the corpus with every commit
PYTHON = "python"
_LICENCE = re.compile(r"(?i)^(?:licen[cs]e|copying|notice|copyright|authors)[^/]*$")
_NO_TEXT = re.compile(r"(?i)\.(?:py|pyc|pyi|json|html?|xml|toml|cfg|svg|png|spdx)$")
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class SampleConfig:
    """What to collect. text_bytes: about the UTF-8 bytes of text to keep; None keeps everything."""

    output: Path
    text_bytes: int | None = DEFAULT_BYTES


@dataclass(frozen=True)
class Distribution:
    """An installed distribution: name, version, and its files as (path inside it, path on disk), sorted."""

    name: str
    version: str
    files: tuple[tuple[str, Path], ...]
    readme: str


@dataclass(frozen=True)
class Unit:
    """What is taken or left as a whole: one module, or one file. `name` is 'distribution:path', `path` holds it."""

    name: str
    version: str
    path: Path


Record = dict[str, str]


def distributions() -> list[Distribution]:
    """List the installed distributions by name, and the standard library as 'python'; the first of a name counts."""
    found: dict[str, Distribution] = {}
    for installed in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", installed.metadata["Name"] or "").lower()
        if not name or name == OWN or name in found:
            continue
        files = sorted(
            (file.as_posix(), Path(str(file.locate())))
            for file in installed.files or ()
            if not file.as_posix().startswith(("../", "/")) and "__pycache__" not in file.parts
        )
        readme = installed.metadata.get("Description") or installed.metadata.get_payload() or ""  # type: ignore[attr-defined]
        found[name] = Distribution(name, installed.version, tuple(files), readme)
    found[PYTHON] = Distribution(PYTHON, platform.python_version(), tuple(_standard_library()), "")
    return [found[name] for name in sorted(found)]


def _standard_library() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") or (folder == str(root) and _LICENCE.match(name)):
                yield path.relative_to(root).as_posix(), path


def topics() -> Iterator[Record]:
    """Yield the chapters of the language reference that `help()` shows."""
    from pydoc_data.topics import topics as chapters

    for name in sorted(chapters):
        yield _record(f"{PYTHON}:topics.{name}", chapters[name], platform.python_version(), "topic")


def readmes(found: Iterable[Distribution]) -> Iterator[Record]:
    """Yield the long descriptions of the distributions."""
    for item in found:
        yield _record(f"{item.name}:README", item.readme, item.version, "readme")


def licence_units(found: Iterable[Distribution]) -> Iterator[Unit]:
    """Yield the licence files of the distributions; names lose the folder that holds the version."""
    for item in found:
        for inner, path in item.files:
            if _LICENCE.match(path.name) and not _NO_TEXT.search(path.name):
                yield Unit(f"{item.name}:{re.sub(r'^[^/]*[.]dist-info/', '', inner)}", item.version, path)


def licence(unit: Unit) -> Iterator[Record]:
    """Yield the one record of a licence file; none where it is gone or is not UTF-8."""
    try:
        text = unit.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    yield _record(unit.name, text, unit.version, "licence")


def module_units(found: Iterable[Distribution]) -> Iterator[Unit]:
    """Yield the Python files of the distributions, named by their dotted path."""
    for item in found:
        for inner, path in item.files:
            if inner.endswith(".py"):
                module = re.sub(r"(?:^|/)__init__$", "", inner[:-3]).replace("/", ".")
                yield Unit(f"{item.name}:{module}", item.version, path)


def docstrings(unit: Unit) -> Iterator[Record]:
    """Yield the docstrings of a module, its classes and its functions; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(unit.path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    seen: Counter[str] = Counter()
    for name, node in _documented(tree, unit.name):
        text = ast.get_docstring(node)
        if text:
            seen[name] += 1
            again = f"#{seen[name]}" if seen[name] > 1 else ""
            yield _record(name + again, text, unit.version, "docstring")


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """The nodes that may have a docstring, in the order of the source. Expressions are not entered: it saves half."""
    yield name, node
    blocks: list[ast.stmt] = list(reversed(node.body))
    while blocks:
        inner = blocks.pop()
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(inner, f"{name}.{inner.name}")
        elif isinstance(inner, ast.If | ast.Try | ast.With | ast.For | ast.While):
            handlers = [stmt for handler in getattr(inner, "handlers", ()) for stmt in handler.body]
            nested = [*inner.body, *handlers, *getattr(inner, "orelse", ()), *getattr(inner, "finalbody", ())]
            blocks += reversed(nested)


def _record(name: str, text: str, version: str, kind: str) -> Record:
    return {"id": name, "text": text, "distribution": name.partition(":")[0], "version": version, "kind": kind}


def text_bytes(record: Record) -> int:
    """UTF-8 bytes of a record's text; 0 for a text with lone surrogates, which no UTF-8 file can hold."""
    try:
        return len(record["text"].encode())
    except UnicodeEncodeError:
        return 0


def take(groups: Iterable[tuple[str, Iterable[Record]]], budget: int | None) -> list[Record]:
    """Take whole groups in the order of the hash of their names until the budget of text bytes is reached.

    Records without text are left out, and so are all but the first of one id. Sorted by id.
    """
    taken: dict[str, Record] = {}
    size = 0
    # Groups are lazy: a module that is not reached is not parsed.
    for _, group in sorted(groups, key=lambda item: (hash64(item[0].encode(), "sample"), item[0])):
        if budget is not None and size >= budget:
            break
        for record in group:
            bytes_ = text_bytes(record)
            if bytes_ and record["text"].strip() and record["id"] not in taken:
                taken[record["id"]] = record
                size += bytes_
    return [taken[name] for name in sorted(taken)]


def collect(config: SampleConfig) -> dict[str, list[Record]]:
    """Collect the records of every source, each sorted by id; about config.text_bytes of text in all."""
    found = distributions()
    groups: dict[str, list[tuple[str, Iterable[Record]]]] = {
        "python_topics": [(record["id"], [record]) for record in topics()],
        "readmes": [(record["id"], [record]) for record in readmes(found)],
        "licences": [(unit.name, licence(unit)) for unit in licence_units(found)],
        "docstrings": [(unit.name, docstrings(unit)) for unit in module_units(found)],
    }
    total = config.text_bytes
    corpora = {
        source: take(groups[source], None if total is None else int(total * share)) for source, share in QUOTAS.items()
    }
    used = sum(text_bytes(record) for records in corpora.values() for record in records)
    corpora["docstrings"] = take(groups["docstrings"], None if total is None else max(0, total - used))
    return corpora


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as gzipped JSON Lines, the same bytes every time; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
                for record in records:
                    packed.write(json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Write SOURCE.jsonl.gz of every source into the output directory and print what is in them."""
    imported()
    parser = argparse.ArgumentParser(prog="python -m pipelines.sample", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="directory for the JSON Lines files")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--all", action="store_true", help="keep everything, not a part by hash")
    size.add_argument("--bytes", type=int, default=DEFAULT_BYTES, help="about the bytes of text to keep (%(default)s)")
    options = parser.parse_args(argv)
    if options.bytes < 1:
        parser.error("--bytes must be at least 1")
    corpora = collect(SampleConfig(options.output, None if options.all else options.bytes))
    for source in SOURCES:
        write(options.output / f"{source}.jsonl.gz", corpora[source])
    print(f"{'source':<16}{'documents':>10}{'text MB':>9}")
    for source in SOURCES:
        mb = sum(text_bytes(record) for record in corpora[source]) / 1e6
        print(f"{source:<16}{len(corpora[source]):>10}{mb:>9.2f}")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
