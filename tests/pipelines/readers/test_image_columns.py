"""Images in tables: the right column, the names of the classes, and never a byte of it in the metadata."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers import image_columns
from pipelines.readers.base import Image, ImageReadConfig, Item, ReadError

sys.path.append(str(Path(__file__).resolve().parent))  # the writer of archives
from image_files import config, images, input_file, rejects

PNG, JPEG = b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff..."
STRUCT = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def read(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, **settings: Any
) -> list[Item]:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "x.parquet")
    return list(image_columns.read_parquet(input_file(tmp_path / "x.parquet", "parquet"), config(**settings)))


def structs(*values: tuple[bytes | None, str | None] | None) -> pa.Array:
    return pa.array([v and {"bytes": v[0], "path": v[1]} for v in values], STRUCT)


def test_hugging_face_images_with_class_names_and_captions(tmp_path: Path) -> None:
    label = {"_type": "ClassLabel", "names": ["猫", "dog"]}
    columns = {
        "photo": structs((JPEG, "dir/a.jpg"), (PNG, None), (b"", "c:\\x\\y.jpg")),
        "label": [1, 0, -1],
        "text": ["一", None, ""],
        "n": [1, 2, 3],
    }
    found = read(tmp_path, columns, {"photo": {"_type": "Image"}, "label": label})
    assert found == [
        Image(JPEG, "a.jpg", None, "dog", "一", b'{"n":1}'),
        Image(PNG, "00000001.png", None, "猫", None, b'{"n":2,"text":null}'),
        Image(b"", "y.jpg", None, None, None, b'{"n":3}'),
    ]
    other = read(
        tmp_path, columns, {"photo": {"_type": "Image"}, "label": label}, images=ImageReadConfig(class_names=("a", "b"))
    )
    assert [item.label for item in images(other)] == ["b", "a", None]


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), STRUCT], ids=["binary", "large", "struct"])
@pytest.mark.parametrize("name", image_columns.IMAGE_FIELDS)
def test_a_usual_name_is_found_where_it_holds_bytes(tmp_path: Path, name: str, type_: pa.DataType) -> None:
    column = structs((JPEG, "a.jpg")) if type_ == STRUCT else pa.array([JPEG], type_)
    (found,) = read(tmp_path, {name: column, "x": pa.array([b"\x00"])})
    assert isinstance(found, Image) and found.data == JPEG and found.name in ("a.jpg", "00000000.jpg")


def test_an_img2dataset_table(tmp_path: Path) -> None:
    columns = {
        "jpg": [JPEG, None], "key": ["000000", "000001"], "caption": ["一只猫", "gone"], "url": ["http://a", "http://b"],
        "status": ["success", "failed_to_download"], "error_message": [None, "404"], "width": [256, None],
    }  # fmt: skip
    found = read(tmp_path, columns, id_field="key")
    (image,) = images(found)
    assert (image.key, image.caption, image.name, image.label) == ("000000", "一只猫", "00000000.jpg", None)
    assert json.loads(image.metadata or b"") == {
        "url": "http://a", "status": "success", "error_message": None, "width": 256,
    }  # fmt: skip
    assert rejects(found) == [(1, "missing_image", "rejected")]


def test_bytes_are_never_metadata(tmp_path: Path) -> None:
    columns = {
        "image": [JPEG],
        "mask": structs((PNG, "m.png")),
        "thumbs": pa.array([[PNG]]),
        "hash": pa.array([b"x" * 16], pa.binary(16)),
        "tags": pa.array([["a", "汉"]]),
        "map": pa.array([[("k", b"v")]], pa.map_(pa.string(), pa.binary())),
    }
    (found,) = read(tmp_path, columns)
    assert isinstance(found, Image) and found.metadata == '{"tags":["a","汉"]}'.encode()


def test_rows_that_cannot_be_used_cost_themselves_alone(tmp_path: Path) -> None:
    columns = {
        "image": structs(
            (JPEG, "a.jpg"), None, (None, "/etc/passwd"), (b"x" * 11, "big.jpg"), (PNG, "b.png"), (PNG, "c")
        ),
        "label": ["a", "b", "c", "d", "", "f"],
        "id": ["1", "2", "3", "4", "5", ""],
    }
    found = read(tmp_path, columns, id_field="id", max_record_bytes=20)
    assert [(item.name, item.label, item.key) for item in images(found)] == [
        ("a.jpg", "a", "1"), ("big.jpg", "d", "4"), ("b.png", None, "5"),
    ]  # fmt: skip
    assert [reason for _, reason, _ in rejects(found)] == ["missing_image", "missing_image", "missing_id"]
    small = read(tmp_path, columns, max_record_bytes=10)
    assert [position for position, reason, _ in rejects(small) if reason == "too_large"] == [3, 4, 5]


@pytest.mark.parametrize(
    ("columns", "images_config", "message"),
    [
        ({"text": ["a"]}, {}, r"no column of image bytes .*images\.image_field.* it holds text"),
        ({"image": ["a.jpg"]}, {}, "no column of image bytes"),
        ({"image": [PNG]}, {"image_field": "foto"}, "no column 'foto' for the image"),
        ({"image": [PNG], "foto": ["x"]}, {"image_field": "foto"}, "column 'foto' holds no bytes"),
        ({"image": [PNG]}, {"label_field": "kind"}, "no column 'kind' for the label"),
        ({"image": [PNG]}, {"caption_field": "alt"}, "no column 'alt' for the caption"),
    ],
)
def test_a_table_that_cannot_be_meant_stops_the_run(
    tmp_path: Path, columns: dict[str, Any], images_config: dict[str, str], message: str
) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, columns, images=ImageReadConfig(**images_config))


def test_labels_of_several_kinds(tmp_path: Path) -> None:
    dictionary = pa.array(["猫", "狗", None]).dictionary_encode()
    found = read(tmp_path, {"image": [PNG] * 3, "label": dictionary})
    assert [item.label for item in images(found)] == ["猫", "狗", None]
    found = read(tmp_path, {"image": [PNG] * 3, "score": [0.5, None, 1.0]}, images=ImageReadConfig(label_field="score"))
    assert [reason for _, reason, _ in rejects(found)] == ["invalid_label"] * 2 and len(images(found)) == 1
    found = read(tmp_path, {"image": [PNG], "label": [True], "class": [4]})
    assert [(item.label, item.metadata) for item in images(found)] == [("4", b'{"label":true}')]


def test_arrow_directories_of_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="writes the directory that this reads")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["猫", "dog"]), caption=datasets.Value("string")
    )
    rows = {"image": [{"bytes": PNG, "path": "a.png"}] * 5, "label": [0, 1, 0, 1, 1], "caption": list("abcde")}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    (path,) = (tmp_path / "d").glob("*.arrow")
    for batch_bytes in (1, 1 << 20):
        found = list(image_columns.read_arrow(input_file(path, "arrow"), config(batch_bytes=batch_bytes)))
        assert [(item.name, item.label, item.caption) for item in images(found)] == [
            ("a.png", label, caption) for label, caption in zip(["猫", "dog", "猫", "dog", "dog"], "abcde", strict=True)
        ]
