import gzip
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from trainer.classify import Example, Fields, TableError, label_names, length_class, number_labels, read, score, slices

RECORDS = [
    {"id": "a", "text": 'a "quoted", text\nof two lines', "label": "1", "source": "books"},
    {"id": "b", "text": "人之初，性本善", "label": "2", "source": "书"},
    {"id": "c", "text": "", "label": "1", "source": "NA"},
]
LINES = "".join(json.dumps(each, ensure_ascii=False) + "\n\n" for each in RECORDS)
TABLE = 'id,text,label,source\r\na,"a ""quoted"", text\nof two lines",1,books\r\nb,人之初，性本善,2,书\r\nc,,1,NA\r\n'


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def make(folder: Path, kind: str) -> str:
    if kind in ("directory", "split"):
        whole = datasets.Dataset.from_list(RECORDS)
        either = datasets.DatasetDict({"train": whole, "test": whole}) if kind == "split" else whole
        either.save_to_disk(str(folder / "t"))
        return f"{folder}/t" + (":test" if kind == "split" else "")
    text = LINES if "jsonl" in kind else TABLE
    if "tsv" in kind:
        text = TABLE.replace('""quoted"", ', '""quoted""; ').replace(",", "\t").replace("; ", ", ")
    data = b"\xef\xbb\xbf" + text.encode() if kind.startswith("csv") else text.encode()  # spreadsheets write a BOM
    path = folder / f"t.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    if kind.endswith("zst"):
        with pa.output_stream(str(path), compression="zstd") as file:
            file.write(data)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.zst", "directory", "split"])
def test_every_kind_of_table_gives_the_same_examples(tmp_path: Path, kind: str) -> None:
    found = read(make(tmp_path, kind), Fields(groups=("source",)))
    assert [(x.id, x.text, x.label) for x in found] == [(x["id"], x["text"], x["label"]) for x in RECORDS]
    assert [x.groups for x in found] == [{"source": x["source"]} for x in RECORDS]
    assert [x.empty for x in found] == [False, False, True]


def test_places_name_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    assert [x.place.split(", ")[-1] for x in read(make(tmp_path, "jsonl"), Fields())] == ["line 1", "line 3", "line 5"]
    assert [x.place.split(", ")[-1] for x in read(make(tmp_path, "csv"), Fields())] == ["line 3", "line 4", "line 5"]


def test_class_names_of_hugging_face_and_fields_inside_metadata(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["诗", "词"]),
            "m": datasets.Value("string"),
        }
    )
    rows = [{"text": "x", "label": 1, "m": '{"a": {"b": 7}}'}, {"text": "y", "label": 0, "m": '{"a": {"b": "z"}}'}]
    datasets.Dataset.from_list(rows, features=kinds).save_to_disk(str(tmp_path / "d"))
    assert [x.label for x in read(str(tmp_path / "d"), Fields())] == ["词", "诗"]
    assert [x.label for x in read(str(tmp_path / "d"), Fields(label="m.a.b"))] == ["7", "z"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.jsonl",
            '{"text": "a", "label": 1}\n{"text": "a"}\n',
            "t.jsonl, line 2: there is no field 'label'; there are: text",
        ),
        ("t.jsonl", '{"text": "a", "label": 1}\n\n{"text"', "t.jsonl, line 3: no JSON"),
        ("t.jsonl", "[1]\n", "line 1: no JSON object"),
        ("t.jsonl", '{"text": 5, "label": 1}', "line 1: 5 is no text"),
        ("t.jsonl", '{"text": "a", "label": 1.5}', "line 1: label 1.5 is neither"),
        ("t.jsonl", '{"text": "a", "label": true}', "label True is neither"),
        ("t.jsonl", '{"text": "a", "label": null}', "label None is neither"),
        ("t.jsonl", "", "holds no records"),
        ("t.csv", "text,label,text\na,1,b\n", "line 1: two columns have one name"),
        ("t.csv", "text,label\na,1\nb\n", "t.csv, line 3: not as many fields as the first line"),
        ("t.csv", "text,label\na,1\nb,1,2\n", "line 3: not as many fields"),
        ("t.csv", "text,label\na,1\nb,\n", "line 3: label '' is neither"),
        ("t.csv", 'text,label\na,1\n"b,1\n', "at or after line 3: unexpected end of data"),
        ("t.csv", "body,label\na,1\n", "line 2: there is no field 'text'; there are: body, label"),
        ("t.txt", "", "neither a directory nor one of .csv"),
    ],
)
def test_a_bad_table_is_an_error_that_names_the_record(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(TableError) as error:
        read(write(tmp_path / name, text), Fields())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_utf8_and_splits_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,label\n\xff,1\n")
    with pytest.raises(TableError, match=r"t\.csv, at or after line 1: 'utf-8' codec"):
        read(str(tmp_path / "t.csv"), Fields())
    name = make(tmp_path, "split").rpartition(":")[0]
    for wrong in (name, f"{name}:dev"):
        with pytest.raises(TableError, match=r"has the splits train, test: write .*/t:train$"):
            read(wrong, Fields())


def example(label: str) -> Example:
    return Example(f"t.csv, line {label}", "x", None, label, None, {})


def test_labels_are_numbered_in_their_natural_order() -> None:
    train = [example(label) for label in ("10", "9", "b", "a", "9")]
    assert label_names(train) == ["a", "b", "9", "10"]
    assert number_labels(train, label_names(train)).tolist() == [3, 2, 1, 0, 2]
    with pytest.raises(TableError, match=r"^t\.csv, line c: label 'c' does not occur in training: a, b$"):
        number_labels([example("c")], ["a", "b"])
    with pytest.raises(TableError, match="label '9': a classifier needs two"):
        label_names([example("9"), example("9")])


@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 60))
def test_measures_are_those_of_scikit_learn(seed: int, classes: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    actual = rng.integers(classes, size=size)
    chances = rng.dirichlet(np.full(classes, 0.5), size) + 1e-9
    chances /= chances.sum(1, keepdims=True)
    names, guessed = [str(number) for number in range(classes)], chances.argmax(1)
    found = score(np.log(chances), actual, names)
    every = peer.precision_recall_fscore_support(actual, guessed, labels=range(classes), zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "examples"), every, strict=True):
        np.testing.assert_allclose([found["classes"][name][key] for name in names], values, atol=1e-12)
    for average in ("macro", "micro"):
        wanted = peer.precision_recall_fscore_support(actual, guessed, average=average, zero_division=0)[:3]
        np.testing.assert_allclose(list(found[average].values()), wanted, atol=1e-12)
    assert found["accuracy"] == pytest.approx(peer.accuracy_score(actual, guessed))
    assert found["log_loss"] == pytest.approx(peer.log_loss(actual, chances, labels=range(classes)))
    assert sum(row["examples"] for row in found["reliability"]) == found["examples"] == size


def test_calibration_error_by_hand() -> None:
    chances = np.array([[0.95, 0.05], [0.91, 0.09], [0.35, 0.65], [0.0, 1.0]])
    found = score(np.log(np.maximum(chances, 1e-300)), np.array([0, 1, 1, 1]), ["a", "b"])
    assert [(row["from"], row["to"], row["examples"], row["accuracy"]) for row in found["reliability"]] == [
        (0.6, 0.7, 1, 1.0),
        (0.9, 1.0, 3, 2 / 3),
    ]
    # bins: |0.65 − 1| of one text, |(0.95 + 0.91 + 1) / 3 − 2/3| of three
    assert found["calibration_error"] == pytest.approx((0.35 + 3 * abs(2.86 / 3 - 2 / 3)) / 4)


def test_gaps_are_between_groups_that_are_large_enough() -> None:
    actual = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0])
    guessed = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1])
    groups = ["北"] * 4 + ["south"] * 4 + [""]
    chances = np.where(np.eye(2)[guessed] > 0, 0.8, 0.2)
    found = slices({"region": groups}, np.log(chances), actual, ["a", "b"], 2)["region"]
    assert {name: (row["examples"], row["counts"], row["accuracy"]) for name, row in found["groups"].items()} == {
        "": (1, False, 0.0),
        "south": (4, True, 0.5),
        "北": (4, True, 1.0),
    }
    assert found["groups"]["south"]["accuracy_error"] == 0.25
    assert found["gaps"]["accuracy"] == {"gap": 0.5, "best": "北", "worst": "south"}
    gap = found["gaps"]["calibration_error"]  # 0.8 against 1 and against 0.5: the smaller error is the better
    assert (gap["best"], gap["worst"]) == ("北", "south")
    assert gap["gap"] == pytest.approx(0.1)
    assert slices({"region": groups}, np.log(chances), actual, ["a", "b"], 5)["region"]["gaps"] == {}


def test_length_classes_double() -> None:
    found = [length_class(tokens) for tokens in (0, 1, 15, 16, 31, 32, 255, 256)]
    assert found == ["empty", "1–15 tokens", "1–15 tokens", "16–31 tokens", "16–31 tokens", "32–63 tokens",
                     "128–255 tokens", "256–511 tokens"]  # fmt: skip
