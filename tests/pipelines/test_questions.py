"""`gristmill why`, `verify`, `report` and the command itself, over a small dataset whose every decision is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines import __main__ as command
from pipelines import clean, dedupe, ingest, report, shard, verify, why
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from schemas.base import SchemaError

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "near",
    "quiet",
    "river",
    "bank",
    "while",
    "birds",
]


def sentence(start: int, length: int = 60) -> str:
    return " ".join(f"{WORDS[(start * 7 + i) % len(WORDS)]}{(start * 31 + i * i) % 97}x" for i in range(length))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good-N are kept, twin is a copy of good-0, short fails a rule, 'broken' is no JSON."""
    work = tmp_path_factory.mktemp("data")
    records = [{"id": f"good-{i}", "text": sentence(i), "url": f"u{i}"} for i in range(6)]
    records += [{"id": "twin", "text": sentence(0)}, {"id": "short", "text": "too short"}]
    lines = [json.dumps(record) for record in records] + ["{broken"]
    (work / "raw.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = work / "data"
    common = ["--workers", "1"]
    raw, ingested, cleaned, decided = (str(path) for path in (work / "raw.jsonl", out / "i", out / "c", out / "d"))
    assert ingest.main(["--input", raw, "--source", "s", "--id-field", "id", "--output", ingested, *common]) == 0
    assert clean.main(["--input", ingested, "--output", cleaned, "--set", "filters.max_digit_ratio=1", *common]) == 0
    assert dedupe.main(["--input", cleaned, "--output", decided, *common]) == 0
    arguments = ["--input", cleaned, "--decisions", decided, "--output", str(out / "s"), *common]
    assert shard.main(arguments) == 0
    return out


def test_why_follows_a_kept_document_from_its_file_to_its_shard(data: Path) -> None:
    story = "\n".join(why.history("good-3", str(data)))
    assert record_id("s", "good-3").hex() in story
    assert "locator 'good-3', file 'raw.jsonl'" in story and '"url\\":\\"u3' in story
    assert story.count("kept") == 4 and "REMOVED" not in story and "written to" in story


def test_why_names_the_kept_twin_of_a_duplicate_and_their_similarity(data: Path) -> None:
    first, second = record_id("s", "good-0"), record_id("s", "twin")
    removed, kept = (first, second) if second < first else (second, first)  # all else equal, the smaller id stays
    story = why.history(removed.hex(), str(data))
    expected = f"REMOVED: exact_duplicate of {kept.hex()}, similarity 1.0000, threshold 1  [dedupe]"
    assert any(expected in line for line in story)
    stays = "twin" if kept == second else "good-0"
    assert any(f"the kept one: source 's', locator '{stays}'" in line for line in story)


def test_why_names_the_rule_the_score_and_the_threshold(data: Path) -> None:
    story = why.history("short", str(data))
    assert any("REMOVED: min_chars, measured 9, threshold 30  [clean]" in line for line in story)
    assert not any(line.startswith("shard") for line in story)


def test_why_finds_a_dead_letter_by_its_place(data: Path) -> None:
    ledger = Dataset.open(str(data / "i")).table("ledger")
    story = why.history(ledger["id"][0].as_py().hex(), str(data))
    assert any("REJECTED: invalid_json" in line for line in story)


def test_why_says_so_when_nobody_knows_the_document(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert why.main(["ff" * 16, "--data", str(data)]) == 1
    assert "no dataset under" in capsys.readouterr().err
    assert why.main(["no-such-locator", "--data", str(data)]) == 1
    assert "no record with the locator or path 'no-such-locator'" in capsys.readouterr().err


def test_verify_accepts_what_was_written_and_names_the_shard_that_changed(data: Path, tmp_path: Path) -> None:
    for name in "icds":
        assert "as the manifest says" in verify.verify(str(data / name))
    copy = tmp_path / "copy"
    for path in (data / "c").rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(data / "c")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    victim = next((copy / "documents").glob("*.arrow"))
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(bytes(raw))
    with pytest.raises(SchemaError, match=victim.name):
        verify.verify(str(copy))


def test_report_counts_each_decision_once(data: Path, tmp_path: Path) -> None:
    assert report.main(["--data", str(data), "--output", str(tmp_path)]) == 0
    books = json.loads((tmp_path / "books.json").read_text())
    assert books["ingest"]["s"] == {"in": 9, "kept": 8, "rejected_invalid_json": 1}
    assert books["dedupe"]["s"] == {"in": 7, "kept": 6, "removed_exact_duplicate": 1}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["clean"] == {"in": 8, "kept": 7, "removed": 1, "rejected": 0}
    assert (tmp_path / "removals.csv").read_text().splitlines()[1:] == [
        "clean: min_chars,s,1", "dedupe: exact_duplicate,s,1", "ingest: invalid_json,s,1",
    ]  # fmt: skip
    assert (tmp_path / "clusters.csv").read_text() == "size,clusters\n2,1\n"
    assert sum(int(line.rsplit(",", 1)[1]) for line in (tmp_path / "lengths.csv").read_text().splitlines()[1:]) == 8


def test_every_command_of_the_console_script_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in command.COMMANDS:
        assert name in shown
        with pytest.raises(SystemExit) as stop:
            command.main([name, "--help"])
        assert stop.value.code == 0 and "usage" in capsys.readouterr().out


def test_an_unknown_command_is_an_error_that_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["dedup"]) == 2
    assert "unknown command 'dedup'" in capsys.readouterr().err


def test_verify_names_a_changed_card_a_missing_file_and_one_that_nobody_names(data: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        target = tmp_path / name
        shutil.copytree(data / "s", target)
        return target

    (copy("a") / "README.md").write_text("another card")
    (copy("b") / "dataset_dict.json").unlink()
    shutil.copy(next((copy("c") / "train").glob("*.arrow")), tmp_path / "c" / "train" / "extra.arrow")
    wrong = {"a": "README.md was changed", "b": "dataset_dict.json is missing", "c": "train/extra.arrow is not named"}
    for name, message in wrong.items():
        with pytest.raises(SchemaError, match=message):
            verify.verify(str(tmp_path / name))


def test_a_stage_does_not_replace_the_output_of_another(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (data / "d/_meta/manifest.json").read_bytes()
    assert clean.main(["--input", str(data / "i"), "--output", str(data / "d"), "--workers", "1"]) == 1
    assert "holds an output of dedupe" in capsys.readouterr().err
    assert (data / "d/_meta/manifest.json").read_bytes() == before


def test_a_run_that_can_read_nothing_fails_however_small_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text("{broken\n")
    assert ingest.main(["--input", str(tmp_path / "a.jsonl"), "--source", "s", "--output", str(tmp_path / "o")]) == 1
    assert "1 of 1 records could not be read" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_stage_that_is_given_the_wrong_directory_says_what_it_wants(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard.main(["--input", str(data / "d"), "--output", str(tmp_path / "o"), "--workers", "1"]) == 1
    assert "is an output of dedupe and has no documents/" in capsys.readouterr().err


def test_corpora_chooses_among_the_directories_of_earlier_runs(data: Path, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    shutil.copytree(data / "c", tmp_path / "clean/new")
    (tmp_path / "clean/stale").mkdir()
    shutil.copytree(data / "c", tmp_path / "clean/stale/nested")  # would collide if it were taken
    shutil.copytree(data / "c", tmp_path / "clean/old")
    params = tmp_path / "params.yaml"
    params.write_text("corpora: {new: {path: x}}\n")
    arguments = ["--input", str(tmp_path / "clean/*"), "--output", str(tmp_path / "d"), "--workers", "1"]
    assert dedupe.main(arguments) == 1  # two directories hold the same corpus
    assert dedupe.main([*arguments, "--corpora", str(params)]) == 0
    params.write_text("corpora: {new: {path: x}, missing: {path: y}}\n")
    assert dedupe.main([*arguments, "--corpora", str(params)]) == 1


def test_why_takes_the_path_of_a_file_and_lists_the_candidates_of_an_ambiguous_one(data: Path) -> None:
    with pytest.raises(SchemaError, match=r"8 records with the locator or path 'raw.jsonl'; give an id: [0-9a-f]{32} "):
        why.history("raw.jsonl", str(data))


def test_a_rerun_does_not_delete_what_a_person_put_into_the_directory(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "c", tmp_path / "c")
    (tmp_path / "c/notes.txt").write_text("mine")
    assert clean.main(["--input", str(data / "i"), "--output", str(tmp_path / "c"), "--workers", "1"]) == 1
    assert "holds notes.txt" in capsys.readouterr().err and (tmp_path / "c/notes.txt").read_text() == "mine"


def test_ingest_does_not_replace_or_read_its_own_output(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest.main(["--input", str(data / "i"), "--source", "s", "--output", str(data / "i")]) == 1
    assert "holds the input file" in capsys.readouterr().err


def test_a_source_of_which_nothing_is_left_stays_in_the_books(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "short"}))
    i, c, d = (str(tmp_path / name) for name in "icd")
    assert ingest.main(["--input", str(tmp_path / "a.jsonl"), "--source", "s", "--output", i, "--workers", "1"]) == 0
    assert clean.main(["--input", i, "--output", c, "--workers", "1"]) == 0
    assert dedupe.main(["--input", c, "--output", d, "--workers", "1"]) == 0
    assert Dataset.open(d).books["s"].records_in == 0
