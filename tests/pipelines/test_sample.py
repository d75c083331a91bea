"""The sample corpus: the same bytes every time, ids that say where a text is from, and nothing of this machine."""

import ast
import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines import sample
from pipelines.readers.base import ReadConfig
from pipelines.readers.discover import discover
from pipelines.readers.documents import read_task

SOURCE = '''
"""Module."""
class A:
    """Class."""
    def f(self):
        """Method."""
        def inner():
            """Inner."""
    @property
    def g(self):
        "Getter."
    @g.setter
    def g(self, value):
        "Setter."
    def bare(self): ...
if True:
    def h():
        """In a block.

        Indented.
        """
try:
    import x
except ImportError:
    async def k():
        """In a handler."""
'''


def unit(tmp_path: Path, source: str | bytes) -> sample.Unit:
    path = tmp_path / "m.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return sample.Unit("dist:pkg.m", "1.0", path)


def test_docstrings_are_found_where_they_stand_and_named_by_where_they_stand(tmp_path: Path) -> None:
    found = [(record["id"], record["text"]) for record in sample.docstrings(unit(tmp_path, SOURCE))]
    assert found == [
        ("dist:pkg.m", "Module."),
        ("dist:pkg.m.A", "Class."),
        ("dist:pkg.m.A.f", "Method."),
        ("dist:pkg.m.A.f.inner", "Inner."),
        ("dist:pkg.m.A.g", "Getter."),
        ("dist:pkg.m.A.g#2", "Setter."),
        ("dist:pkg.m.h", "In a block.\n\nIndented."),
        ("dist:pkg.m.k", "In a handler."),
    ]


@pytest.mark.parametrize("module", ["argparse", "typing", "asyncio.base_events", "json.decoder"])
def test_no_docstring_of_a_real_module_is_missed(module: str) -> None:
    path = Path(ast.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    ours = [record["text"] for record in sample.docstrings(sample.Unit(f"python:{module}", "", path))]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kinds)]
    every = [text for text in map(ast.get_docstring, nodes) if text]  # type: ignore[arg-type]
    assert len(ours) > 5 and Counter(ours) == Counter(every)


@pytest.mark.parametrize("source", ["def broken(:", b"\xff\xfe", "\0", "(" * 10_000], ids=range(4))
def test_a_file_that_does_not_parse_is_passed_over(tmp_path: Path, source: str | bytes) -> None:
    assert list(sample.docstrings(unit(tmp_path, source))) == []


def test_other_peoples_code_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f'"""Doc."""\nopen({str(marker)!r}, "w")\n'
    assert [record["text"] for record in sample.docstrings(unit(tmp_path, source))] == ["Doc."]
    assert not marker.exists()


def record(name: str, text: str) -> sample.Record:
    return {"id": name, "text": text}


def test_take_stops_at_the_budget_whatever_the_order_it_is_given() -> None:
    groups = [(f"g{i}", [record(f"g{i}", "x" * 10)]) for i in range(50)]
    part = sample.take(groups, 95)
    assert len(part) == 10 and part == sample.take(groups[::-1], 95)
    assert [item["id"] for item in part] == sorted(item["id"] for item in part)
    assert len(sample.take(groups, None)) == 50
    more = {item["id"] for item in sample.take(groups, 200)}
    assert {item["id"] for item in part} <= more


def test_take_leaves_out_what_no_file_can_hold_and_repeated_ids() -> None:
    records = [
        record("a", "\ud800"),
        record("b", " \n"),
        record("c", "first"),
        record("c", "second"),
        record("d", "汉"),
    ]
    assert sample.take([("g", records)], None) == [record("c", "first"), record("d", "汉")]


def test_take_does_not_open_groups_beyond_the_budget() -> None:
    opened = []

    def group(name: str) -> Any:
        opened.append(name)
        yield record(name, "x" * 100)

    sample.take([(f"g{i}", group(f"g{i}")) for i in range(100)], 250)
    assert len(opened) == 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "raw"
    assert sample.main(["--output", str(out), "--bytes", "1000000"]) == 0
    return out


def records(corpus: Path, source: str) -> list[dict[str, str]]:
    with gzip.open(corpus / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_source_is_there_with_complete_records_in_order_of_id(corpus: Path) -> None:
    assert sorted(path.name for path in corpus.iterdir()) == sorted(f"{s}.jsonl.gz" for s in sample.SOURCES)
    size = 0
    for source in sample.SOURCES:
        found = records(corpus, source)
        ids = [item["id"] for item in found]
        assert found and ids == sorted(set(ids)), source
        assert all(set(item) == {"id", "text", "distribution", "version", "kind"} for item in found)
        assert all(item["id"].startswith(item["distribution"] + ":") for item in found)
        size += sum(len(item["text"].encode()) for item in found)
    assert 1_000_000 <= size < 1_500_000


def test_ids_hold_no_path_of_this_machine_and_none_of_our_own_texts(corpus: Path) -> None:
    for source in sample.SOURCES:
        for item in records(corpus, source):
            assert not item["id"].partition(":")[2].startswith("/") and sys.prefix not in item["id"]
            assert item["distribution"] != sample.OWN


def test_a_second_run_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    assert sample.main(["--output", str(tmp_path), "--bytes", "1000000"]) == 0
    for path in corpus.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_our_reader_takes_every_record(corpus: Path) -> None:
    config = ReadConfig(id_field="id")
    pairs = [pair for task in discover([str(corpus)], config) for pair in read_task(task, "sample", config)]
    assert sum(rejects.num_rows for _, rejects in pairs) == 0
    assert sum(documents.num_rows for documents, _ in pairs) == sum(len(records(corpus, s)) for s in sample.SOURCES)


def test_licence_files_hold_exact_duplicates() -> None:
    units = list(sample.licence_units(sample.distributions()))
    texts = Counter(item["text"] for each in units for item in sample.licence(each))
    assert texts.most_common(1)[0][1] > 1


def test_a_failed_write_leaves_neither_a_file_nor_a_part(tmp_path: Path) -> None:
    def failing() -> Any:
        yield record("a", "text")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        sample.write(tmp_path / "x.jsonl.gz", failing())
    assert list(tmp_path.iterdir()) == []


def test_a_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        sample.main(["--output", str(tmp_path), "--bytes", "0"])
