"""`gristmill losses`: what it shows is what the files say, and what it drops is what shard leaves out."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from pipelines import clean, dedupe, ingest, losses, shard
from pipelines.core.dataset import Dataset
from pipelines.core.history import datasets_under
from pipelines.core.identity import record_id
from pipelines.core.shards import verify_shard
from pipelines.why import history
from schemas.ledger import LEDGER
from schemas.losses import LOSSES

ONE = ["--workers", "1"]
ENGLISH = "The committee met on Tuesday to discuss the new proposal, and most of its members were in favour of it. "
CHINESE = "委员会星期二开会讨论了新提案，大多数成员表示赞成，但也有人提出了不同意见，会议决定下周继续讨论。"
TEXTS = {
    "en": [ENGLISH + str(i) * 5 for i in range(4)] + ["tiny", ENGLISH * 4],
    "诗": [CHINESE + "天地玄黃"[i] * 5 for i in range(3)] + [CHINESE * 3],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean/en, clean/诗 (one document of `en` is removed there) and dedupe/, where each source is one cluster."""
    root = tmp_path_factory.mktemp("losses")
    for source, texts in TEXTS.items():
        lines = [
            {"id": i, "text": t, "topic": "odd" if i % 2 else "even", "year": 1900 + i} for i, t in enumerate(texts)
        ]
        path = root / f"{source}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        raw = ["--input", str(path), "--source", source, "--id-field", "id", "--output", str(root / "ingest" / source)]
        assert ingest.main([*raw, "--set", "shard_bytes=300", "--set", "read.batch_bytes=300", *ONE]) == 0
        options = ["--set", "measure=language", "--set", "profile=none", "--set", "filters.min_chars=6", *ONE]
        cleaned = ["--output", str(root / "clean" / source)]
        assert clean.main(["--input", str(root / "ingest" / source), *cleaned, *options]) == 0
    argv = ["--input", str(root / "clean/*"), "--output", str(root / "dedupe"), "--set", "threshold=0.7", *ONE]
    assert dedupe.main(argv) == 0
    return root


def written(path: Path, *lines: tuple[str, int, float, int], step: int = 10) -> Path:
    rows = [
        {"id": record_id(source, str(name)), "source": source, "step": step, "loss": loss, "tokens": tokens}
        for source, name, loss, tokens in lines
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), LOSSES.schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema=LOSSES.schema))
    return path


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A losses/ folder: two steps; en/0 stands in both."""
    first = [("en", 0, 2.0, 10), ("en", 1, 3.0, 20), ("诗", 0, 6.0, 10), ("en", 3, 9.0, 1)]
    second = [("en", 0, 4.0, 30), ("诗", 1, 5.0, 40), ("诗", 3, 4.0, 9), ("en", 5, 1.0, 80)]
    written(data / "run/losses/step-00000010.arrow", *first)
    written(data / "run/losses/step-00000020.arrow", *second, step=20)
    return data / "run/losses"


def call(data: Path, run: Path, *options: str) -> int:
    return losses.main([str(run), "--documents", str(data / "clean/*"), *options])


def told(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def head(by: str) -> list[str]:
    return [*by.split(), "documents", "tokens", "loss", "p10", "p50", "p90"]


def test_it_shows_sources_lengths_languages_clusters_and_columns(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    options = ["--clusters", str(data / "dedupe"), "--by", "metadata.topic", "--by", "metadata.year", "--by", "chars"]
    assert call(data, run, *options) == 0
    lines = told(capsys)
    assert " ".join(lines[0]) == "7 documents, 200 guessed tokens, mean loss 2.9250 nats"
    at = lines.index(head("source"))
    assert lines[at + 1] == ["en", "4", "141", f"{(140 + 60 + 9 + 80) / 141:.4f}", "1.6000", "3.2500", "7.3500"]
    assert lines[at + 2] == ["诗", "3", "59", f"{296 / 59:.4f}", "4.2000", "5.0000", "5.8000"]
    at = lines.index(head("cluster size"))
    assert [line[:2] for line in lines[at + 1 : at + 3]] == [["5-8", "4"], ["3-4", "3"]]
    at = lines.index(head("language"))
    assert {lines[at + 1][0]: lines[at + 1][1], lines[at + 2][0]: lines[at + 2][1]} == {"en": "4", "zh": "3"}
    at = lines.index(head("characters"))
    assert {line[0]: line[1] for line in lines[at + 1 : at + 4]} == {"64-255": "4", "256-1023": "1", "0-63": "2"}
    at = lines.index(head("metadata.topic"))
    assert {line[0]: line[1] for line in lines[at + 1 : at + 3]} == {"even": "2", "odd": "5"}
    assert any(line[:1] == ["1905"] for line in lines)
    at = lines.index(head("chars"))
    assert lines[at + 1][1] == "to"


def test_it_lists_the_hardest_and_easiest_with_excerpts_on_one_line(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call(data, run, "--top", "2", "--min-tokens", "10") == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("hardest 2 of the 5 documents with enough guessed tokens, by cost a token")
    assert lines[at + 2].split() == ["6.0000", "10", record_id("诗", "0").hex(), "诗"]
    assert lines[at + 3].strip() == CHINESE + "天天天天天"
    assert lines[at + 4].split() == ["5.0000", "40", record_id("诗", "1").hex(), "诗"]
    at = lines.index("easiest 2 of the 5 documents with enough guessed tokens, by cost a token")
    assert [lines[at + i].split()[:2] for i in (2, 4)] == [["1.0000", "80"], ["3.0000", "20"]]
    assert call(data, run, "--last", "--top", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("7 documents, 190 guessed tokens")


def test_tables_are_aligned_where_names_are_chinese(data: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call(data, run) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("source "))
    english, chinese = lines[at + 1], lines[at + 2]
    assert (len(english), len(chinese)) == (len(lines[at]), len(lines[at]) - 1)  # 诗 takes two places


def decisions(data: Path, run: Path, output: Path, *options: str) -> Dataset:
    assert call(data, run, "--output", str(output), *options) == 0
    dataset = Dataset.open(str(output))
    for one in dataset.manifests[0].shards:
        verify_shard(str(output), one)
    LEDGER.validate(dataset.table("ledger"))
    return dataset


def rows_of(dataset: Dataset) -> dict[str, tuple[Any, ...]]:
    columns = ("stage", "reason", "score", "threshold")
    rows = dataset.table("ledger").to_pylist()
    return {f"{row['source']}/{row['locator']}": tuple(row[name] for name in columns) for row in rows}


def test_what_is_dropped_is_in_the_ledger_and_shard_leaves_it_out(data: Path, run: Path, tmp_path: Path) -> None:
    options = ["--drop", "hardest=0.34", "--drop-below", "en:1.5", "--min-tokens", "9"]
    dataset = decisions(data, run, tmp_path / "losses", *options)
    assert rows_of(dataset) == {
        "诗/0": ("losses", "hard_for_model", 6.0, 5.0),
        "诗/1": ("losses", "hard_for_model", 5.0, 5.0),
        "en/5": ("losses", "easy_for_model", 1.0, 1.5),
    }
    assert {source: (b.records_in, b.kept, b.removed) for source, b in dataset.books.items()} == {
        "en": (5, 4, {"easy_for_model": 1}),
        "诗": (4, 2, {"hard_for_model": 2}),
    }
    argv = ["--input", str(data / "clean/*"), "--decisions", str(tmp_path / "losses"), str(data / "dedupe")]
    assert shard.main([*argv, "--set", "splits={train: 1.0}", "--output", str(tmp_path / "shards"), *ONE]) == 0
    kept = set(Dataset.open(str(tmp_path / "shards")).table("train")["id"].to_pylist())
    assert not kept & {record_id("诗", "0"), record_id("诗", "1"), record_id("en", "5")}
    told_of_it = "\n".join(history(record_id("诗", "0").hex(), str(tmp_path)))
    assert "losses" in told_of_it and "hard_for_model" in told_of_it
    assert len(datasets_under(str(tmp_path))) == 2


def test_a_document_is_also_scored_by_its_bytes(data: Path, run: Path, tmp_path: Path) -> None:
    """Two texts of one loss a token: the one of half the bytes costs twice as much a byte."""
    short, long = len((ENGLISH + "00000").encode()), len((CHINESE * 3).encode())
    both = written(tmp_path / "both.arrow", ("en", 0, 3.0, 20), ("诗", 3, 3.0, 20))
    found = rows_of(decisions(data, both, tmp_path / "losses", "--per", "byte", "--drop-above", "1"))
    assert list(found) == ["en/0"] and found["en/0"][:2] == ("losses", "hard_for_model")
    assert found["en/0"][2] == pytest.approx((60 / short) / (120 / (short + long)))


def test_the_tables_are_files_and_the_same_bytes_each_time(data: Path, run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        decisions(data, run, tmp_path / name, "--drop", "easiest=0.2", "--each-source")
    names = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {Path("by-source.csv"), Path("by-characters.csv"), Path("by-language.csv"), Path("tables.json")} < names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    rows = list(csv.DictReader((tmp_path / "a/by-source.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["group"], row["documents"], row["p50"]) for row in rows] == [("en", "4", "3.25"), ("诗", "3", "5.0")]
    assert json.loads((tmp_path / "a/tables.json").read_text(encoding="utf-8"))["source"][1]["group"] == "诗"


def test_without_an_order_nothing_is_dropped_and_what_clean_removed_is_not_removed_again(
    data: Path, run: Path, tmp_path: Path
) -> None:
    assert rows_of(decisions(data, run, tmp_path / "none")) == {}
    more = written(tmp_path / "more.arrow", ("en", 4, 50.0, 99), ("en", 0, 3.0, 9))  # en/4 is too short for clean
    assert set(rows_of(decisions(data, more, tmp_path / "more", "--drop-above", "0"))) == {"en/0"}


def test_weights_are_a_configuration_of_shard(data: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    assert call(data, run, "--weights", str(path), "--weight-rate", "0.1") == 0
    expected = {"en": math.exp(0.1 * (289 / 141 - 585 / 200)), "诗": math.exp(0.1 * (296 / 59 - 585 / 200))}
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["shard"]["weights"]
    assert found == pytest.approx(expected, abs=1e-4)
    argv = ["--input", str(data / "clean/*"), "--config", str(path), "--output", str(tmp_path / "shards"), *ONE]
    assert shard.main(argv) == 0
    assert Dataset.open(str(tmp_path / "shards")).manifests[0].config["weights"] == found


def test_what_cannot_be_read_is_a_clear_error(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.arrow"
    empty.write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.arrow").write_text("no Arrow")
    cases = [
        (
            written(tmp_path / "nan.arrow", ("en", 0, 1.0, 1), ("en", 1, math.nan, 1)),
            [],
            r"nan.arrow: field 'loss', row 1",
        ),
        (written(tmp_path / "other.arrow", ("fr", 0, 1.0, 1), ("en", 0, 1.0, 1)), [], "1 of 2 documents in the losses"),
        (written(tmp_path / "none.arrow"), [], "no losses in it"),
        (empty, [], "empty.arrow is empty"),
        (tmp_path / "folder", [], "no *.arrow file there"),
        (tmp_path / "words.arrow", [], "is not a complete shard"),
        (tmp_path / "absent.arrow", [], "absent.arrow"),
        (run, ["--by", "colour"], "--by colour: the documents have no such column; they have source, locator"),
        (run, ["--drop", "hardest=0.1"], "name an --output"),
        (
            run,
            ["--drop", "fr:hardest=0.1", "--output", str(tmp_path / "o")],
            "no losses of a source 'fr'; there are: en, 诗",
        ),
        (run, ["--clusters", str(data / "clean/en")], "has no clusters/"),
        (run, ["--output", str(data / "clean")], "is also read by this stage"),
    ]
    for path, options, message in cases:
        capsys.readouterr()
        assert call(data, path, *options) == 1, message
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "wrong", [["--drop", "hardest=1.5"], ["--drop", "worst=0.1"], ["--drop-above", "x"], ["--drop-below", "-1"]]
)
def test_a_wrong_command_line_ends_with_2(data: Path, run: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(data, run, *wrong)
    assert stop.value.code == 2
