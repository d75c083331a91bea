"""Samples of tar archives: every image is one record with what stands beside it, and with nothing else."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers import samples
from pipelines.readers.base import Image, ImageReadConfig, Item, Reject

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of archives
from image_files import Entry, config, images, input_file, rejects, tar_bytes


def read(tmp_path: Path, *entries: Entry, **settings: Any) -> list[Item]:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(entries))
    return list(samples.read(input_file(path, "tar", "shards/x.tar"), config(**settings)))


def labels(found: list[Item]) -> list[tuple[str, str | None, str | None]]:
    return [(item.name, item.label, item.caption) for item in images(found)]


def test_a_sample_takes_its_fields_from_the_files_beside_its_image(tmp_path: Path) -> None:
    record = {"caption": "一只猫", "label": 7, "width": 5, "url": "http://a/b"}
    found = read(
        tmp_path,
        ("000.jpg", b"one"), ("000.json", json.dumps(record).encode()),
        ("001.cls", b"3\n"), ("001.png", b"two"), ("001.txt", "a dog 狗\n".encode()),
        ("002.webp", b"three"),
    )  # fmt: skip
    assert found == [
        Image(b"one", "000.jpg", "shards/x.tar#000.jpg", "7", "一只猫", b'{"url":"http://a/b","width":5}'),
        Image(b"two", "001.png", "shards/x.tar#001.png", "3", "a dog 狗", None),
        Image(b"three", "002.webp", "shards/x.tar#002.webp", None, None, None),
    ]


def test_a_plain_tree_gives_the_folder_as_label(tmp_path: Path) -> None:
    tree = [("./set/猫/1.jpg", b"1"), ("./set/狗/1.jpg", b"2"), ("top.jpg", b"3")]
    assert labels(read(tmp_path, *tree)) == [("1.jpg", "猫", None), ("1.jpg", "狗", None), ("top.jpg", None, None)]
    for label_from, expected in (("top", ["set", "set", None]), ("none", [None] * 3)):
        found = read(tmp_path, *tree, images=ImageReadConfig(label_from=label_from))
        assert [item.label for item in images(found)] == expected
    assert images(found)[0].key == "shards/x.tar#set/猫/1.jpg"


def test_the_files_of_a_sample_outweigh_the_fields_of_its_json(tmp_path: Path) -> None:
    record = json.dumps({"caption": "same", "cls": 4}).encode()
    found = read(tmp_path, ("d/a.jpg", b"1"), ("d/a.txt", b"same"), ("d/a.cls", b"5"), ("d/a.json", record))
    assert [(item.label, item.caption, item.metadata) for item in images(found)] == [("5", "same", b'{"cls":4}')]
    other = json.dumps({"caption": "from json"}).encode()
    found = read(tmp_path, ("a.jpg", b"1"), ("a.txt", b"from txt"), ("a.json", other))
    assert images(found) == [Image(b"1", "a.jpg", "shards/x.tar#a.jpg", None, "from txt", other.replace(b": ", b":"))]


def test_numbers_become_the_names_of_classes(tmp_path: Path) -> None:
    names = ImageReadConfig(class_names=("猫", "狗"))
    found = read(tmp_path, ("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"2"), ("b.cls", b"2"), images=names)
    assert labels(found) == [("a.jpg", "狗", None)]
    assert [reason for _, reason, _ in rejects(found)] == ["unknown_label"]


def test_the_fields_that_the_configuration_names(tmp_path: Path) -> None:
    record = json.dumps({"caption": "c", "alt": "d", "kind": "k", "label": "l", "uid": "u1"}).encode()
    named = ImageReadConfig(label_field="kind", caption_field="alt")
    found = read(tmp_path, ("a.jpg", b"1"), ("a.json", record), images=named, id_field="uid")
    assert found == [Image(b"1", "a.jpg", "u1", "k", "d", b'{"caption":"c","label":"l"}')]
    none = ImageReadConfig(label_field="", caption_field="", label_from="none")
    found = read(tmp_path, ("a.jpg", b"1"), ("a.json", b'{"caption":"c","label":"l"}'), images=none)
    assert found == [Image(b"1", "a.jpg", "shards/x.tar#a.jpg", None, None, b'{"caption":"c","label":"l"}')]


def test_two_images_of_one_key_are_two_records_that_share_what_is_said(tmp_path: Path) -> None:
    entries = [("a.left.jpg", b"1"), ("a.right.png", b"2"), ("a.txt", b"both")]
    found = images(read(tmp_path, *entries))
    assert [(item.key, item.caption) for item in found] == [
        ("shards/x.tar#a.left.jpg", "both"),
        ("shards/x.tar#a.right.png", "both"),
    ]
    found = images(read(tmp_path, *entries, id_field="__key__"))
    assert [item.key for item in found] == ["a.left.jpg", "a.right.png"]
    only = read(tmp_path, *entries, images=ImageReadConfig(image_field="left.jpg"), id_field="__key__")
    assert [item.key for item in images(only)] == ["a"] and rejects(only) == [(1024, "not_an_image", "removed")]


def test_a_key_that_comes_again_behind_others_is_never_joined_with_the_wrong_half(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"late"), ("b.txt", b"late"))
    assert labels(found) == [("a.jpg", None, None), ("b.jpg", None, None)]
    assert [reason for _, reason, _ in rejects(found)] == ["split_sample"] * 2
    found = read(tmp_path, ("a.jpg", b"1"), ("a.txt", b"t"), ("b.jpg", b"2"), ("a.png", b"3"))
    assert len(images(found)) == 2 and [reason for _, reason, _ in rejects(found)] == ["split_sample"]
    plain = read(tmp_path, ("p.1.jpg", b"1"), ("b.jpg", b"2"), ("p.2.jpg", b"3"))
    assert len(images(plain)) == 3, "of images alone there is nothing to be confused"


def test_a_path_that_comes_again_is_refused(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.jpg", b"1"), ("a.jpg", b"2"), ("b.jpg", b"3"), ("a.jpg", b"4"))
    assert [item.data for item in images(found)] == [b"1", b"3"]
    assert rejects(found) == [(1024, "repeated_member", "rejected"), (3072, "repeated_member", "rejected")]


def test_pickles_and_hidden_files_are_counted_and_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "loaded",))

    evil = pickle.dumps(Evil())
    found = read(
        tmp_path, ("a.pkl", evil), ("a.pth", evil), ("a.jpg", b"1"), ("._a.jpg", b"x"), ("__MACOSX/a.jpg", b"")
    )
    assert labels(found) == [("a.jpg", None, None)] and not (tmp_path / "loaded").exists()
    assert [(reason, action) for _, reason, action in rejects(found)] == [
        (reason, "removed") for reason in ("not_an_image", "not_an_image", "hidden_file", "hidden_file")
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json", b"{", "invalid_json"),
        ("a.json", b"[1]", "not_an_object"),
        ("a.json", b'{"label": 1.5}', None),
        ("a.txt", b"\xff", "invalid_utf8"),
        ("a.cls", b"\xff", "invalid_utf8"),
    ],
)
def test_what_cannot_be_read_beside_an_image_costs_the_sample(
    tmp_path: Path, name: str, data: bytes, reason: str | None
) -> None:
    found = read(tmp_path, ("a.jpg", b"1"), (name, data), ("b.jpg", b"2"))
    assert [item.name for item in images(found)] == (["b.jpg"] if reason else ["a.jpg", "b.jpg"])
    assert rejects(found) == ([(0, reason, "rejected")] if reason else [])


def test_a_sample_without_an_image_is_a_dead_letter(tmp_path: Path) -> None:
    found = read(tmp_path, ("a.json", b"{}"), ("a.txt", b"x"), ("b.jpg", b"2"))
    assert len(images(found)) == 1 and rejects(found) == [(0, "missing_image", "rejected")]


def test_a_long_run_of_one_key_is_given_out_as_it_comes(tmp_path: Path) -> None:
    dated = [(f"IMG_2026.{i:03}.jpg", b"x" * 60) for i in range(20)]
    found = read(tmp_path, *dated, ("IMG_2026.txt", b"too late"), ("a.jpg", b"1"), max_record_bytes=100)
    assert [item.name for item in images(found)] == [name for name, _ in dated] + ["a.jpg"]
    assert [reason for _, reason, _ in rejects(found)] == ["split_sample"]
    first = read(tmp_path, ("IMG_2026.txt", b"of all"), *dated, max_record_bytes=100)
    assert [item.caption for item in images(first)] == ["of all"] * 20 and not rejects(first)


def test_fields_under_other_names_that_say_the_same_are_kept_once(tmp_path: Path) -> None:
    record = json.dumps({"text": "t", "caption": "t", "label": 7, "alt": "t"}).encode()
    found = read(tmp_path, ("a.jpg", b"1"), ("a.txt", b"t"), ("a.cls", b"7"), ("a.json", record))
    assert [(item.label, item.caption, item.metadata) for item in images(found)] == [("7", "t", b'{"alt":"t"}')]


@given(st.data(), st.integers(1, 4000))
@settings(max_examples=80, deadline=None)
def test_damage_anywhere_neither_raises_nor_gives_two_rows_one_place(data: st.DataObject, piece: int) -> None:
    entries: list[Entry] = [(f"d/{i}.{kind}", b"%d" % i * 300) for i in range(4) for kind in ("jpg", "cls", "json")]
    raw = bytearray(tar_bytes([*entries, ("汉" * 120 + ".png", b"1")], data.draw(st.sampled_from([1, 2]))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    chunks = (bytes(raw[i : i + piece]) for i in range(0, len(raw), piece))
    found = list(samples.read_members(chunks, "x.tar", config(max_record_bytes=2000)))
    places = [item.position for item in found if isinstance(item, Reject)]
    keys = [item.key for item in images(found)]
    assert len(set(places)) == len(places) and len(set(keys)) == len(keys)
