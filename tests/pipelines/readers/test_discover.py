"""Discovery: the same files give the same tasks in the same order, and nothing is left out in silence."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.files import FileError
from pipelines.readers.base import InputFile, ReadConfig, ReadError
from pipelines.readers.discover import discover, file_format, find_files, plan
from schemas.manifest import Manifest, Shard


def write(root: Path, *names: str, size: int = 4) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)


def relatives(inputs: list[str], **config: Any) -> list[str]:
    return [file.relative for file in find_files(inputs, ReadConfig(**config)).files]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSON.GZ", "jsonl"),
        ("a.ndjson.zst", "jsonl"),
        ("a.parquet", "parquet"),
        ("a.tsv.xz", "delimited"),
        ("a.b.md", "plain"),
        ("a.txt.bz2", "plain"),
        ("a.warc", "warc"),
        ("a.WARC.gz", "warc"),
        ("a.warc.wet.gz", "warc"),
        ("a.arc.gz", "warc"),
        ("a.warc.zst", "warc"),
        ("a.warc.wat.gz", None),
        ("a.htm", "html"),
        ("a.html.gz", "html"),
        ("zhwiki-latest-pages-articles-multistream.xml.bz2", "wikidump"),
        ("zhwiki-latest-pages-articles-multistream-index.txt.bz2", "plain"),
        ("a.arrow", "arrow"),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("a.png", None),
        ("README", None),
        ("dir.txt/README", None),
        (".txt", "plain"),
    ],
)
def test_file_format(name: str, expected: str | None) -> None:
    assert file_format(name) == expected


def test_a_directory_is_all_its_files_but_hidden_ones_sorted_by_relative_path(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", "a/z.jsonl", "a.jsonl", "汉/文.jsonl", ".hidden.jsonl", ".git/x.jsonl", "_SUCCESS")
    write(tmp_path, "sub/_meta/manifest.jsonl", "_posts/p.jsonl")
    expected = ["_posts/p.jsonl", "a.jsonl", "a/z.jsonl", "b.jsonl", "汉/文.jsonl"]
    assert relatives([str(tmp_path)]) == expected
    assert relatives([f"{tmp_path}/"]) == expected


def test_the_order_of_inputs_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "one/a.jsonl", "one/c.jsonl", "two/b.jsonl", "three/d.jsonl")
    inputs = [f"{tmp_path}/one", f"{tmp_path}/two/*.jsonl", f"{tmp_path}/three/d.jsonl"]
    assert relatives(inputs) == relatives(inputs[::-1]) == ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"]
    assert discover(inputs, ReadConfig()) == discover(inputs[::-1], ReadConfig())


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i:02}.txt" for i in range(20)]
    write(tmp_path, *names)
    before = discover([str(tmp_path)], ReadConfig())
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert discover([str(tmp_path)], ReadConfig()) == before


def test_patterns_are_relative_to_their_first_wildcard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "data/en/a.jsonl", "data/zh/a.jsonl", "data/zh/b.txt")
    assert relatives([f"{tmp_path}/data/*/a.jsonl"]) == ["en/a.jsonl", "zh/a.jsonl"]
    monkeypatch.chdir(tmp_path / "data" / "zh")
    assert relatives(["*"]) == ["a.jsonl", "b.txt"]
    assert relatives(["b.txt"]) == ["b.txt"]
    assert relatives(["."]) == ["a.jsonl", "b.txt"]


def test_what_matches_nothing_stops_the_run(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    (tmp_path / "empty").mkdir()
    for given in (f"{tmp_path}/absent", f"{tmp_path}/*.csv", f"{tmp_path}/empty", ""):
        with pytest.raises(ReadError, match="no file matches"):
            discover([f"{tmp_path}/a.jsonl", given], ReadConfig())
    with pytest.raises(ReadError, match="no input"):
        discover([], ReadConfig())


def test_a_suffix_without_a_reader_is_an_error_or_is_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "b.tar", "c.png")
    with pytest.raises(ReadError, match=r"b\.tar, .*c\.png may be images: add --images"):
        discover([str(tmp_path)], ReadConfig())
    write(tmp_path, "d.bin")
    with pytest.raises(ReadError, match=r"no reader for .*b\.tar, .*c\.png, .*d\.bin; known suffixes"):
        discover([str(tmp_path)], ReadConfig())
    (tmp_path / "d.bin").unlink()
    found = find_files([str(tmp_path)], ReadConfig(on_unknown="skip"))
    assert [file.relative for file in found.files] == ["a.jsonl"]
    assert [Path(path).name for path in found.skipped] == ["b.tar", "c.png"]
    with pytest.raises(ReadError, match="holds no file that a reader knows"):
        discover([f"{tmp_path}/*.png"], ReadConfig(on_unknown="skip"))


def test_the_same_file_or_the_same_relative_path_twice_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "en/a.jsonl", "zh/a.jsonl")
    with pytest.raises(ReadError, match="two inputs give the same file"):
        discover([f"{tmp_path}/en", f"{tmp_path}/zh/../en/a.jsonl"], ReadConfig())
    with pytest.raises(ReadError, match=r"both 'a\.jsonl'"):
        discover([f"{tmp_path}/en", f"{tmp_path}/zh"], ReadConfig())
    assert relatives([str(tmp_path)]) == ["en/a.jsonl", "zh/a.jsonl"]


def test_a_dataset_card_beside_data_is_passed_over_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "README.md", "data/a.parquet")
    found = find_files([str(tmp_path)], ReadConfig())
    assert [file.relative for file in found.files] == ["data/a.parquet"]
    assert [Path(path).name for path in found.skipped] == ["README.md"]
    write(tmp_path, "docs/README.md", "docs/b.md")
    assert relatives([f"{tmp_path}/docs"]) == ["README.md", "b.md"]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises((ReadError, FileError), match="not a regular file"):
        discover([f"{tmp_path}/x.jsonl"], ReadConfig())


def test_credentials_of_an_input_stay_out_of_the_error() -> None:
    with pytest.raises((ReadError, FileError)) as caught:
        discover(["nope://user:hunter2@host/*.jsonl"], ReadConfig())
    assert "hunter2" not in str(caught.value)


def test_save_to_disk_directories_are_read_by_their_own_lists(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="writes the directories that this reads")
    data = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(10)]})
    data.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "dict")
    data.save_to_disk(tmp_path / "dict" / ".cache" / "old")
    write(tmp_path, "one/cache-abc.arrow", "dict/train/cache-abc.arrow", "dict/README.md", "dict/notes.bin")
    one = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    both = ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert relatives([f"{tmp_path}/one"]) == one
    assert relatives([f"{tmp_path}/dict"]) == both
    assert relatives([str(tmp_path)]) == [*[f"dict/{name}" for name in both], *[f"one/{name}" for name in one]]


def test_a_listed_file_that_is_missing_stops_the_run(tmp_path: Path) -> None:
    write(tmp_path, "a.arrow")
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "a.arrow"}, {"filename": "b.arrow"}]})
    )
    with pytest.raises(ReadError, match=r"b\.arrow, which does not exist"):
        discover([str(tmp_path)], ReadConfig())
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ReadError, match=r"split 'train', which has no state\.json"):
        discover([f"{tmp_path}/d"], ReadConfig())


def test_another_state_json_is_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"text": "a state"}')
    assert relatives([str(tmp_path)]) == ["state.json"]


def test_of_our_own_directories_only_what_the_manifest_names_is_read(tmp_path: Path) -> None:
    write(tmp_path, "documents/shard-00000.arrow", "documents/shard-00001.arrow", "ledger/shard-00000.arrow")
    shards = [
        Shard(path, path.split("/")[0], 1, 4, "", "")
        for path in ("documents/shard-00000.arrow", "ledger/shard-00000.arrow")
    ]
    (tmp_path / "_meta").mkdir()
    (tmp_path / "_meta" / "manifest.json").write_bytes(Manifest("ingest", {}, {}, [], shards, {}).to_json())
    assert relatives([str(tmp_path)]) == ["documents/shard-00000.arrow"]


def file(name: str, size: int) -> InputFile:
    return InputFile(name, name, size, "jsonl")


def test_small_files_share_a_task_up_to_the_limit() -> None:
    tasks = plan(
        [file("a", 40), file("b", 60), file("c", 1), file("d", 500), file("e", 0), file("f", 99)],
        ReadConfig(task_bytes=100),
    )
    assert [[f.path for f in task.files] for task in tasks] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert [task.index for task in tasks] == [0, 1, 2, 3]
    assert [task.size for task in tasks] == [100, 1, 500, 99]


def test_large_plain_json_lines_are_cut_only_where_ids_tell_records_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id":"1","text":"a"}\n' * 100)
    size = path.stat().st_size
    (whole,) = discover([str(path)], ReadConfig(task_bytes=500))
    assert whole.files[0].end is None
    cut = discover([str(path)], ReadConfig(task_bytes=500, id_field="id"))
    assert [(task.files[0].start, task.files[0].end) for task in cut] == [
        (start, min(start + 500, size)) for start in range(0, size, 500)
    ]
    assert sum(task.size for task in cut) == size
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))
    assert len(discover([str(path)], ReadConfig(task_bytes=500, id_field="id"))) == 1


def test_parquet_and_compressed_files_are_never_cut(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl.gz", "b.parquet", size=5000)
    assert len(discover([str(tmp_path)], ReadConfig(task_bytes=500, id_field="id"))) == 2
