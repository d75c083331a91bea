"""Images and dead letters: what a record is known by, what a list may name, what a folder says."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.core.identity import content_hash, record_id
from pipelines.readers.base import ImageReadConfig, ReadError
from pipelines.readers.discover import discover, file_format, find_files
from pipelines.readers.images import read_task
from schemas.image import IMAGE
from schemas.ledger import LEDGER
from schemas.manifest import Manifest, Shard

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of archives
from image_files import config, tar_bytes


def read(*inputs: Path | str, **settings: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    read_config = config(**settings)
    tasks = discover([str(path) for path in inputs], read_config)
    pairs = [pair for task in tasks for pair in read_task(task, "src", read_config)]
    found = pa.Table.from_batches([images for images, _ in pairs], IMAGE.schema)
    ledger = pa.Table.from_batches([rejects for _, rejects in pairs], LEDGER.schema)
    IMAGE.validate(found)
    LEDGER.validate(ledger)
    ids = found["id"].to_pylist() + ledger["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return found.to_pylist(), sorted(zip(ledger["locator"].to_pylist(), ledger["reason"].to_pylist(), strict=True))


def write(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def told(rows: list[dict[str, Any]]) -> list[tuple[str, str | None, str | None]]:
    return [(row["path"], row["label"], row["caption"]) for row in rows]


def test_all_columns_of_an_image_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, **{"猫/1.JPG": b"bytes"})
    digest = content_hash(b"bytes")
    locator = f"猫/1.JPG#{digest.hex()}#0"
    assert read(tmp_path) == (
        [
            {
                "id": record_id("src", locator), "source": "src", "locator": locator, "path": "猫/1.JPG",
                "image": {"bytes": b"bytes", "path": "1.JPG"}, "width": None, "height": None, "label": "猫",
                "caption": None, "content_hash": digest, "sha256": hashlib.sha256(b"bytes").digest(), "metadata": None,
            }
        ],
        [],
    )  # fmt: skip


def test_labels_come_from_folders_below_the_input_alone(tmp_path: Path) -> None:
    write(tmp_path, **{"train/cat/1.png": b"1", "train/cat/2026/2.png": b"2", "3.png": b"3"})
    assert [label for _, label, _ in told(read(tmp_path)[0])] == [None, "cat", "2026"]
    for label_from, expected in (("top", [None, "train", "train"]), ("none", [None] * 3)):
        rows, _ = read(tmp_path, images=ImageReadConfig(label_from=label_from))
        assert [row["label"] for row in rows] == expected
    assert told(read(tmp_path / "train/cat/1.png")[0]) == [("1.png", None, None)]


def test_what_is_no_image_is_read_as_it_is_and_what_is_too_long_is_not(tmp_path: Path) -> None:
    write(tmp_path, **{"a.jpg": b"", "b.jpg": b"<svg/>", "c.jpg": b"x" * 30})
    rows, dead = read(tmp_path, max_record_bytes=29)
    assert [row["image"]["bytes"] for row in rows] == [b"", b"<svg/>"] and dead == [("c.jpg@0", "too_large")]


def test_the_bounds_of_batches_and_tasks_change_no_row(tmp_path: Path) -> None:
    write(tmp_path, **{f"{i % 3}/{i:02}.png": b"x" * (i * 37 % 91) for i in range(30)})
    (tmp_path / "m.tar").write_bytes(tar_bytes([(f"t/{i}.jpg", b"y" * i) for i in range(20)] + [("x.pkl", b"")]))
    whole = read(tmp_path)
    assert (len(whole[0]), len(whole[1])) == (50, 1)
    for settings in ({"batch_bytes": 1}, {"batch_bytes": 300, "task_bytes": 200}, {"task_bytes": 1}):
        assert read(tmp_path, **settings) == whole


def test_files_beside_an_image_say_what_it_is(tmp_path: Path) -> None:
    record = json.dumps({"caption": "same", "label": 1, "url": "u"}).encode()
    write(
        tmp_path,
        **{
            "d/a.b.png": b"a",
            "d/a.b.TXT": "同 same\n".encode(),
            "d/a.b.json": record,
            "d/c.jpg": b"c",
            "d/c.cls": b"0",
        },
        **{"d/e.jpg": b"e", "d/e.json": b"[]", "d/f.jpg": b"f", "d/f.gif": b"g", "d/f.txt": b"of both"},
    )
    rows, dead = read(tmp_path, images=ImageReadConfig(class_names=("猫", "狗")))
    assert told(rows) == [
        ("d/a.b.png", "狗", "同 same"), ("d/c.jpg", "猫", None), ("d/f.gif", "d", "of both"),
        ("d/f.jpg", "d", "of both"),
    ]  # fmt: skip
    assert rows[0]["metadata"] == '{"caption":"same","url":"u"}' and dead == [("d/e.jpg@0", "not_an_object")]
    write(tmp_path, **{"d/lonely.txt": b"x"})
    with pytest.raises(ReadError, match=r"no reader for .*d/lonely\.txt"):
        read(tmp_path)


# --- lists ------------------------------------------------------------------------------------------------------------

LISTS = [
    ("metadata.csv", "file_name,caption,label,extra\na.jpg,一只猫,猫,1\nsub/b.jpg,,,\n"),
    ("metadata.tsv", "path\tcaption\tlabel\textra\na.jpg\t一只猫\t猫\t1\nsub/b.jpg\t\t\t\n"),
    (
        "metadata.jsonl",
        '{"image": "a.jpg", "text": "一只猫", "label": "猫", "extra": "1"}\n'
        '{"image": "./sub/../sub/b.jpg", "extra": ""}\n',
    ),
]


@pytest.mark.parametrize(("name", "content"), LISTS, ids=[name for name, _ in LISTS])
@pytest.mark.parametrize("packed", [False, True])
def test_a_list_says_what_its_images_are_and_none_is_read_twice(
    tmp_path: Path, name: str, content: str, packed: bool
) -> None:
    write(tmp_path, **{"d/a.jpg": b"a", "d/sub/b.jpg": b"b", "d/sub/c.jpg": b"c"})
    before = {row["path"]: row["id"] for row in read(tmp_path)[0]}
    data = content.encode()
    (tmp_path / "d" / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    rows, dead = read(tmp_path)
    assert told(rows) == [("d/a.jpg", "猫", "一只猫"), ("d/sub/b.jpg", None, None), ("d/sub/c.jpg", "sub", None)]
    assert [row["metadata"] for row in rows] == ['{"extra":"1"}', '{"extra":""}', None] and dead == []
    assert {row["path"]: row["id"] for row in rows} == before, "a caption changes no id"
    (alone,) = (tmp_path / "d").glob("metadata*")
    assert told(read(alone)[0]) == [("a.jpg", "猫", "一只猫"), ("sub/b.jpg", None, None)]


def test_a_list_opens_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    root = write(tmp_path / "d", **{"in.jpg": b"in"})
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "up").symlink_to(tmp_path)
    names = [
        "file:///etc/passwd", "/etc/passwd", "../secret.jpg", "x/../../secret.jpg", "http://host/a.jpg", "link.jpg",
        "up/secret.jpg", "data:image/png;base64,AA", "C:\\x.jpg", "a\0.jpg", "gone.jpg", "", "x/", "in.jpg",
    ]  # fmt: skip
    (root / "l.jsonl").write_text("".join(json.dumps({"file_name": name}) + "\n" for name in names))
    rows, dead = read(root / "l.jsonl")
    assert [row["image"]["bytes"] for row in rows] == [b"in"]
    assert sorted(reason for _, reason in dead) == ["missing_file"] + ["missing_path"] * 2 + ["path_outside"] * 10
    assert ("l.jsonl@0", "path_outside") in dead and ("gone.jpg@0", "missing_file") in dead


def test_rows_that_a_list_repeats_or_garbles_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, **{"a.jpg": b"a"})
    lines = ['{"file_name": "a.jpg", "text": "one"}', "{", '{"file_name": 3}', '{"text": "x"}', "",
             '{"file_name": "a.jpg", "text": "two"}', '{"file_name": "a.jpg", "label": 7}']  # fmt: skip
    (root / "l.jsonl").write_text("\n".join(lines))
    names = ImageReadConfig(class_names=("x",))
    rows, dead = read(root, images=names)
    assert [(row["locator"][-2:], row["caption"]) for row in rows] == [("#0", "one"), ("#1", "two")]
    assert dead == [
        ("l.jsonl@1", "invalid_json"), ("l.jsonl@2", "invalid_path"), ("l.jsonl@3", "missing_path"),
        ("l.jsonl@5", "unknown_label"),
    ]  # fmt: skip
    (root / "z.csv").write_text("path,caption\na.jpg,three\n")
    assert [row["caption"] for row in read(root)[0]] == ["one", "two", None, "three"]


def test_ids_of_a_list(tmp_path: Path) -> None:
    root = write(tmp_path, **{"a.jpg": b"a"})
    (root / "l.csv").write_text("uid,path\nu7,a.jpg\n")
    rows, _ = read(root, id_field="uid")
    assert [row["locator"] for row in rows] == ["u7"]


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("l.csv", "foto,caption\na.jpg,x\n", {}, r"l\.csv: no field .* for paths .*read\.images\.file_field"),
        ("l.csv", "url,caption\nhttp://a/b.jpg,x\n", {}, "URLs are not downloaded: fetch them first.* img2dataset"),
        ("l.jsonl", '{"foto": "a.jpg"}\n', {}, "no field has a usual name for paths"),
        ("l.csv", "path\na.jpg\n", {"caption_field": "alt"}, "no column 'alt' for the caption"),
        ("l.csv", "path\na.jpg\n", {"file_field": "foto"}, "no column 'foto' for the path"),
    ],
)
def test_a_list_that_cannot_be_meant_stops_the_run(
    tmp_path: Path, name: str, content: str, settings: dict[str, str], message: str
) -> None:
    write(tmp_path, **{"a.jpg": b"a", name: content.encode()})
    with pytest.raises(ReadError, match=message):
        read(tmp_path, images=ImageReadConfig(**settings))


def test_an_empty_list_names_nothing(tmp_path: Path) -> None:
    write(tmp_path, **{"a.jpg": b"a", "l.csv": b"", "m.jsonl": b""})
    assert len(read(tmp_path)[0]) == 1


# --- links ------------------------------------------------------------------------------------------------------------


def linked(tmp_path: Path) -> Path:
    write(tmp_path / "outside", **{"secret.jpg": b"secret", "secret.txt": b"secret", "猫/1.jpg": b"secret"})
    root = write(tmp_path / "in", **{"a.jpg": b"a", "b/c.jpg": b"c"})
    for name, target in (
        ("x.jpg", "../outside/secret.jpg"), ("a.txt", "../outside/secret.txt"), ("猫", "../outside/猫"),
        ("chain.jpg", "x.jpg"), ("gone.jpg", "nowhere"), ("a.json", "nowhere"), ("loop.jpg", "loop.jpg"),
        (".hidden.jpg", "../outside/secret.jpg"), ("README.md", "../outside/secret.txt"),
        ("b/again.jpg", "../a.jpg"), ("d", "b"), ("b/up", ".."),
    ):  # fmt: skip
        (root / name).symlink_to(target)
    return root


def test_links_of_a_folder_show_nothing_outside_and_stop_nothing(tmp_path: Path) -> None:
    root = linked(tmp_path)
    expected = [("a.jpg", None, None), ("b/again.jpg", "b", None), ("b/c.jpg", "b", None),
                ("d/again.jpg", "d", None), ("d/c.jpg", "d", None)]  # fmt: skip
    dead = [("chain.jpg@0", "path_outside"), ("gone.jpg@0", "missing_file"), ("loop.jpg@0", "missing_file"),
            ("x.jpg@0", "path_outside"), ("猫@0", "path_outside")]  # fmt: skip
    rows, refused = read(root)
    assert (told(rows), refused) == (expected, dead)
    skipped = find_files([str(root)], config()).skipped
    assert [Path(path).name for path in skipped] == ["README.md", "a.json", "a.txt"]
    (tmp_path / "the input").symlink_to(root)
    assert told(read(tmp_path / "the input")[0]) == expected
    assert told(read(root / "x.jpg")[0]) == [("x.jpg", None, None)], "a link that the user names is meant"
    rows, refused = read(f"{root}/*.jpg")
    assert [row["path"] for row in rows] == ["a.jpg"]
    assert refused == [(f"{name}.jpg@0", "path_outside") for name in (".hidden", "chain", "x")]


def test_links_are_followed_where_the_folder_is_trusted(tmp_path: Path) -> None:
    rows, dead = read(linked(tmp_path), images=ImageReadConfig(follow_links=True))
    assert dead == [("gone.jpg@0", "missing_file"), ("loop.jpg@0", "missing_file")]
    assert [row["path"] for row in rows if row["image"]["bytes"] == b"secret"] == ["chain.jpg", "x.jpg", "猫/1.jpg"]
    assert rows[0]["caption"] == "secret"


def test_a_list_that_names_links_gets_one_row_for_each(tmp_path: Path) -> None:
    root = linked(tmp_path)
    (root / "l.csv").write_text("path\nx.jpg\nloop.jpg\n猫/1.jpg\na.jpg\n", encoding="utf-8")
    rows, dead = read(root)
    assert ("x.jpg@0", "path_outside") in dead and ("猫/1.jpg@0", "path_outside") in dead
    assert ("loop.jpg@0", "missing_file") in dead and len(dead) == 6 and len(rows) == 5


def test_a_folder_of_nothing_but_links_out_of_it_stops_the_run(tmp_path: Path) -> None:
    target = write(tmp_path / "blobs", **{"1": b"1"}) / "1"
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.jpg").symlink_to(target)
    with pytest.raises(ReadError, match=r"1 links lead out of it \(read\.images\.follow_links\) or nowhere"):
        read(tmp_path / "snapshot")
    assert len(read(tmp_path / "snapshot", images=ImageReadConfig(follow_links=True))[0]) == 1


# --- discovery --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPEG", "image"), ("a.tif", "image"), ("a.jpg.gz", None), ("a.tar", "tar"), ("a.tar.zst", "tar"),
        ("a.tgz", "tar"), ("a.csv.gz", "list"), ("a.jsonl", "list"), ("a.json", None), ("a.parquet", "parquet"),
        ("train-images-idx3-ubyte.gz", "idx"), ("t10k-images.idx3-ubyte", "idx"), ("x-labels-idx1-ubyte", "idx_labels"),
        ("a.html", None), ("a.warc.gz", None), ("a.md", None), ("a.txt", None), ("a.xml", None), ("a.svg", None),
    ],
)  # fmt: skip
def test_formats_of_images(name: str, expected: str | None) -> None:
    assert file_format(name, "images") == expected


def test_files_of_text_are_unknown_and_cards_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, **{"README.md": b"# card", "a.jpg": b"a", "x/readme.txt": b"", "._a.jpg": b"", ".git/b.jpg": b""})
    found = find_files([str(tmp_path)], config())
    assert [file.relative for file in found.files] == ["a.jpg"] and len(found.skipped) == 2
    write(tmp_path, **{"notes.txt": b"x"})
    with pytest.raises(
        ReadError, match=r"no reader for .*notes\.txt; known suffixes of images: \.jpg.* read\.on_unknown: skip"
    ):
        find_files([str(tmp_path)], config())
    assert len(find_files([str(tmp_path)], config(on_unknown="skip")).skipped) == 3


def test_labels_of_idx_go_with_their_images(tmp_path: Path) -> None:
    write(tmp_path, **{"t-images-idx3-ubyte": b"", "t-labels-idx1-ubyte": b""})
    assert [file.relative for file in find_files([str(tmp_path)], config()).files] == ["t-images-idx3-ubyte"]


def test_of_our_own_directories_only_the_images_are_read(tmp_path: Path) -> None:
    names = ("images/shard-a.arrow", "ledger/shard-a.arrow", "thumbnails/shard-a.arrow")
    write(tmp_path, **{name: b"" for name in names})
    shards = [Shard(name, name.split("/")[0], 1, 4, "", "") for name in names]
    write(tmp_path, **{"_meta/manifest.json": Manifest("clean", {}, {}, [], shards, {}).to_json()})
    assert [file.relative for file in find_files([str(tmp_path)], config()).files] == ["images/shard-a.arrow"]
