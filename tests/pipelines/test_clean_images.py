"""Clean on images: what is no image is a dead letter, tables stay row for row, and only the pixels leave the stage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import clean, ingest, rules, shard, verify, why
from pipelines.core.dataset import Dataset
from schemas.base import SchemaError
from schemas.image import IMAGE, THUMBNAIL

CATS, DOGS = 6, 5
ONE = ["--workers", "1"]
GPS = "37.4219999"


def photo(seed: int, size: tuple[int, int] = (96, 64), quality: int = 90, **options: object) -> bytes:
    """A JPEG of smooth random shapes: it has contrast, and two of them are not alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=quality, **options)
    return sink.getvalue()


def with_position(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = GPS  # ImageDescription
    exif[0x0112] = 6  # Orientation: turn by 90°
    return photo(seed, exif=exif)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    blank = io.BytesIO()
    Image.new("L", (50, 40), 128).save(blank, "PNG")
    given = {f"猫/{i}.jpg": photo(i) for i in range(CATS)} | {f"dog/{i}.jpg": photo(100 + i) for i in range(DOGS)}
    given |= {"dog/turned.jpg": with_position(7), "dog/blank.png": blank.getvalue()}
    given |= {"dog/cut.jpg": photo(8)[:-400], "猫/page.jpg": b"<!DOCTYPE html><html></html>", "dog/empty.jpg": b""}
    for name, data in given.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def ingested(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("data") / "ingest"
    argv = ["--images", "--input", str(raw), "--source", "pets", "--output", str(output), *ONE]
    assert ingest.main([*argv, "--set", "shard_bytes=4000", "--set", "read.batch_bytes=4000"]) == 0
    return output


ALLOW = ["--set", "images.max_rejected=1"]


def run(source: Path, output: Path, *options: str) -> Dataset:
    assert clean.main(["--input", str(source), "--output", str(output), *ALLOW, *ONE, *options]) == 0
    return Dataset.open(str(output))


@pytest.fixture(scope="module")
def cleaned(ingested: Path) -> Dataset:
    settings = ("images.process.resize=center_crop", "images.process.size=32", "images.process.encoding=jpeg")
    return run(ingested, ingested.parent / "clean", *(part for one in settings for part in ("--set", one)))


def test_what_is_no_image_is_a_dead_letter_and_a_blank_one_is_removed_by_a_rule(cleaned: Dataset) -> None:
    books = cleaned.books["pets"]
    total = CATS + DOGS + 5
    assert (books.records_in, books.kept, books.removed) == (total, CATS + DOGS + 1, {"min_contrast": 1})
    rows = {row["locator"].split("#")[0]: row for row in cleaned.table("ledger").to_pylist()}
    reasons = {name: (row["action"], row["reason"]) for name, row in rows.items()}
    assert reasons == {
        "dog/blank.png": ("removed", "min_contrast"),
        "dog/cut.jpg": ("rejected", "truncated"),
        "dog/empty.jpg": ("rejected", "unsupported"),
        "猫/page.jpg": ("rejected", "unsupported"),
    }
    assert all(
        row["stage"] == "clean" and (row["score"] is None) == (row["action"] == "rejected") for row in rows.values()
    )


def test_images_thumbnails_and_signals_hold_the_same_images_row_for_row(cleaned: Dataset) -> None:
    assert len(cleaned.keys("images")) > 2
    for key in cleaned.keys("images"):
        images, small, signals = (cleaned.table(table, key) for table in ("images", "thumbnails", "signals"))
        IMAGE.validate(images)
        THUMBNAIL.validate(small)
        assert images["id"] == small["id"] == signals["id"]
        assert small["width"].to_pylist() == [int(width) for width in signals["width"].to_pylist()]


def test_the_output_has_the_size_that_was_asked_and_the_hashes_of_what_was_read(
    cleaned: Dataset, ingested: Path
) -> None:
    before = {row["id"]: row for row in Dataset.open(str(ingested)).table("images").to_pylist()}
    for row in cleaned.table("images").to_pylist():
        with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
            assert picture.format == "JPEG" and picture.size == (row["width"], row["height"]) == (32, 32)
        for name in ("source", "locator", "path", "label", "content_hash", "sha256"):
            assert row[name] == before[row["id"]][name]
        assert row["image"]["path"] == before[row["id"]]["image"]["path"]
    assert set(cleaned.table("images")["label"].to_pylist()) == {"猫", "dog"}


def test_a_turned_photo_is_upright_and_its_position_is_gone(raw: Path, ingested: Path, tmp_path: Path) -> None:
    found = run(ingested, tmp_path / "keep")
    assert GPS.encode() in (raw / "dog" / "turned.jpg").read_bytes()
    rows = [row for row in found.table("images").to_pylist() if row["locator"].startswith("dog/turned.jpg")]
    assert (rows[0]["width"], rows[0]["height"]) == (64, 96)
    assert GPS.encode() not in rows[0]["image"]["bytes"]


def test_an_image_that_needs_no_change_keeps_its_compressed_data(raw: Path, ingested: Path, tmp_path: Path) -> None:
    rows = run(ingested, tmp_path / "keep").table("images").to_pylist()
    kept = next(row for row in rows if row["locator"].startswith("猫/0.jpg"))["image"]["bytes"]
    with Image.open(io.BytesIO(kept)) as ours, Image.open(raw / "猫" / "0.jpg") as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert len(kept) <= (raw / "猫" / "0.jpg").stat().st_size


def test_other_limits_decide_anew_on_the_same_signals_and_give_the_bytes_of_a_whole_run(
    ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(ingested, tmp_path / "d")
    limits = ["--set", "images.filters.max_aspect=1.4", "--set", "images.filters.min_contrast=null", "--materialize"]
    whole = run(ingested, tmp_path / "e", *limits)
    monkeypatch.setattr(clean, "clean_shard", None)  # nothing is decoded again
    again = run(ingested, tmp_path / "d", *limits)
    assert again.sha256s == whole.sha256s != first.sha256s
    assert again.books["pets"].removed == {"max_aspect": CATS + DOGS + 1}
    assert len(again.table("surviving")) == 1


def test_another_size_is_a_whole_run(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ingested, tmp_path / "d")
    monkeypatch.setattr(clean, "decide_shard", None)
    run(ingested, tmp_path / "d", "--set", "images.process.resize=border")


@pytest.mark.parametrize("how", [["--workers", "2"], ["--workers", "2", "--mode", "processes"]])
def test_more_workers_give_the_same_bytes(how: list[str], ingested: Path, tmp_path: Path) -> None:
    one = run(ingested, tmp_path / "one")
    assert clean.main(["--input", str(ingested), "--output", str(tmp_path / "two"), *ALLOW, *how]) == 0
    assert Dataset.open(str(tmp_path / "two")).sha256s == one.sha256s


def test_captions_are_kept_by_their_language(tmp_path: Path) -> None:
    rows = [("0.jpg", "一只猫睡在窗台上，外面下着雨"), ("1.jpg", "A cat sleeps on the window sill in the rain")]
    lines = [json.dumps({"file_name": name, "caption": text}, ensure_ascii=False) for name, text in rows]
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(photo(i))
    (tmp_path / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")
    argv = ["--images", "--input", str(tmp_path / "list.jsonl"), "--source", "s", "--output", str(tmp_path / "i"), *ONE]
    assert ingest.main(argv) == 0
    found = run(tmp_path / "i", tmp_path / "c", "--set", "images.language.keep=[zh]")
    assert found.table("signals")["caption_language"].to_pylist() == ["zh", "en"]
    assert found.table("ledger")["reason"].to_pylist() == ["min_caption_language_fit"]


def test_a_score_that_no_image_has_is_an_error(
    ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "images.scores=[nsfw]", "--set", "images.filters.max_nsfw=0.5"]
    assert clean.main(["--input", str(ingested), "--output", str(tmp_path / "d"), *ALLOW, *ONE, *settings]) == 1
    assert "scores names 'nsfw', which no images have" in capsys.readouterr().err


def test_a_source_of_which_nothing_is_left_is_named(
    ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ingested, tmp_path / "d", "--set", "images.profile=[datacomp]")
    assert "nothing is left of 'pets'" in capsys.readouterr().out


def test_too_many_dead_letters_fail_the_run(ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "images.max_rejected=0.1", "--set", "images.rejected_floor=0"]
    assert clean.main(["--input", str(ingested), "--output", str(tmp_path / "d"), *ONE, *settings]) == 1
    said = capsys.readouterr().err
    assert "3 of 16 records could not be read (truncated: 1, unsupported: 2)" in said
    assert not (tmp_path / "d" / "_meta" / "manifest.json").exists()


def test_verify_passes_and_finds_a_byte_that_was_changed(cleaned: Dataset) -> None:
    assert "as the manifest says" in verify.verify(cleaned.roots[0])
    path = Path(cleaned.roots[0]) / cleaned.of("thumbnails")[0].path
    sound = path.read_bytes()
    path.write_bytes(sound.replace(sound[2000:2016], bytes(16), 1))
    try:
        with pytest.raises(SchemaError, match="is damaged"):
            verify.verify(cleaned.roots[0])
    finally:
        path.write_bytes(sound)


def test_rules_are_tried_on_what_was_measured(cleaned: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*cleaned.roots, "--set", "images.filters.min_short_side=50", "--examples", "1"]
    assert rules.main(argv) == 0
    said = capsys.readouterr().out
    assert f"{CATS + DOGS + 2} images" in said and "dog/blank.png" in said
    assert f"{CATS + DOGS + 1} of {CATS + DOGS + 2} images are kept" in said


def test_why_tells_the_history_of_an_image_and_of_a_dead_letter(
    cleaned: Dataset, ingested: Path, tmp_path: Path
) -> None:
    root = ingested.parent
    assert shard.main(["--input", *cleaned.roots, "--output", str(root / "shards"), *ONE]) == 0
    cat = "\n".join(why.history(_locator(cleaned, "猫/1.jpg"), str(root)))
    assert 'label "猫"' in cat and "decoded: 96 × 64" in cat and "written to" in cat and "32 × 32" in cat
    assert "REMOVED: min_contrast, measured 0, threshold 2" in "\n".join(why.history("dog/blank.png", str(root)))
    assert "REJECTED: truncated" in "\n".join(why.history("dog/cut.jpg", str(root)))


def test_why_finds_a_member_of_an_archive_by_its_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for i in range(2):
            member = tarfile.TarInfo(f"cats/{i}.jpg")
            member.size = len(photo(i))
            archive.addfile(member, io.BytesIO(photo(i)))
    argv = ["--images", "--input", str(tmp_path / "photos.tar"), "--source", "s", "--output", str(tmp_path / "i"), *ONE]
    assert ingest.main(argv) == 0
    assert "locator 'photos.tar#cats/1.jpg'" in "\n".join(why.history("cats/1.jpg", str(tmp_path)))


def _locator(dataset: Dataset, path: str) -> str:
    return next(one for one in dataset.table("images")["locator"].to_pylist() if one.startswith(path))


def test_texts_and_images_are_not_prepared_together(
    ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "words " * 40}))
    argv = ["--input", str(tmp_path / "t.jsonl"), "--source", "t", "--output", str(tmp_path / "t"), *ONE]
    assert ingest.main(argv) == 0
    assert clean.main(["--input", str(ingested), str(tmp_path / "t"), "--output", str(tmp_path / "d"), *ONE]) == 1
    assert "prepare texts and images apart" in capsys.readouterr().err
