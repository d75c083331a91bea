"""`gristmill sheet`: every decision is shown by examples, and nothing that they hold is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import sheet
from pipelines.core.identity import record_id
from pipelines.core.shards import write_shard
from pipelines.images_page import against
from schemas.image import IMAGE, THUMBNAIL
from schemas.manifest import MANIFEST_PATH

from .sheets import (
    CORPUS,
    One,
    Page,
    batch,
    commit,
    image,
    options,
    png,
    rows,
    run,
    thumbnail,
    write,
)


def test_totals_account_for_every_image(folder: Path) -> None:
    assert json.loads(run(folder, *options(folder))["totals.json"]) == {
        "images": 11, "not_decoded": 2, "removed_by_rules": 2, "duplicates": 4, "kept": 3,
    }  # fmt: skip
    assert json.loads(run(folder)["totals.json"])["kept"] == 7  # without dedupe, nothing is a duplicate


def test_data_files_for_plots(folder: Path) -> None:
    files = run(folder, *options(folder))
    assert rows(files["removals.csv"]) == [
        ["near_duplicate", "3", "dedupe", "removed"],
        ["truncated", "2", "clean", "rejected"],
        ["min_sharpness", "2", "clean", "removed"],
        ["exact_duplicate", "1", "dedupe", "removed"],
    ]
    assert rows(files["labels.csv"]) == [["cat", "2", "2", "0"], ["狗", "1", "0", "2"], ["(none)", "0", "0", "2"]]
    assert rows(files["sizes.csv"]) == [
        ["1 × 4096-8191", "1", "0"],
        ["256-511 × 128-255", "3", "2"],
        ["256-511 × 256-511", "1", "1"],
        ["512-1023 × 256-511", "4", "0"],
    ]
    found = rows(files["similarities.csv"])
    assert found == [
        ["0.95", "1"],
        ["0.96", "1"],
        ["0.97", "0"],
        ["0.98", "0"],
        ["0.99", "0"],
        ["exact_duplicate", "1"],
    ]


def test_kept_images_stand_by_source_and_label(folder: Path) -> None:
    assert Page(run(folder, *options(folder))["index.html"]).sections["kept"] == [
        "kept|cat|320 × 240, 2.0 kB|cats/1.jpg|",
        "kept|cat|320 × 240, 2.0 kB|cats/2.jpg|",
        "kept|狗|一只黑色的狗在公园里跑|256 × 256, 2.0 kB|狗/一.jpg|",
    ]


def test_a_rule_shows_what_it_removed_and_both_sides_of_its_limit_by_score(folder: Path) -> None:
    page = Page(run(folder, *options(folder), "--nearest", "1")["index.html"])
    assert page.sections["rules"] == [
        "removed: 34, limit 34.25|cat|320 × 255, 2.0 kB|cats/4.jpg|",
        "kept: 34.5, limit 34.25|cat|320 × 240, 2.0 kB|cats/2.jpg|",
        "removed: 9.5, limit 34.25|cat|1 × 4096, 2.0 kB|cats/3.jpg|",
    ]


def test_a_score_is_told_apart_from_its_limit() -> None:
    assert against(2.99951, 3) == "2.9995, limit 3" and against(3, 3) == "3, limit 3"
    assert against(12_345.6, 12_000) == "12,346, limit 12,000" and against(-0.012345, 0.5) == "-0.01235, limit 0.5"


def test_locators_are_shown_without_the_hash_of_the_content(tmp_path: Path) -> None:
    page = Page(run(write(tmp_path, [One(f"猫/1.jpg#{'0a' * 16}#0"), One("http://x/#00")]))["index.html"])
    assert [line.split("|")[-2] for line in page.sections["kept"]] == ["http://x/#00", "猫/1.jpg"]


def test_a_cluster_shows_the_survivor_beside_its_copies_the_least_similar_first(folder: Path) -> None:
    page = Page(run(folder, *options(folder))["index.html"])
    assert page.sections["duplicates"] == [
        "kept|狗|一只黑色的狗在公园里跑|256 × 256, 2.0 kB|狗/一.jpg|",
        "removed: similarity 0.9500|狗|512 × 300, 2.0 kB|狗/二.jpg|",
        "removed: similarity 0.9667|狗|512 × 300, 2.0 kB|狗/三.jpg|",
        "removed: exact duplicate, similarity 1.0000|512 × 300, 2.0 kB|狗/四.jpg|",
        f"kept|{record_id('other', 'gone.jpg').hex()}|",
        "removed: near duplicate|512 × 300, 2.0 kB|old.jpg|",
    ]
    assert "4 members, 3 removed\n" in page.text and "none of the directories named" in page.text
    few = Page(run(folder, *options(folder), "--members", "3")["index.html"])
    assert "4 members, 3 removed (2 shown)" in few.text and len(few.sections["duplicates"]) == 5


def test_an_image_kept_elsewhere_is_shown_where_its_directory_is_named(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "eval", [One("gone.jpg", "other-0", label="test")])
    page = Page(run(folder, *options(folder), "--against", str(tmp_path / "eval/clean"))["index.html"])
    assert "kept|test|320 × 240, 2.0 kB|gone.jpg|" in page.sections["duplicates"]
    assert "none of the directories named" not in page.text


def test_dead_letters_are_listed_by_reason_without_an_image(folder: Path) -> None:
    text = " ".join(Page(run(folder)["index.html"]).text.split())
    assert "truncated (clean): 2 records" in text
    assert "cats/5.jpg the file ends early" in text and "狗/x.jpg again" in text


def test_dead_letters_of_ingest_are_found_beside_it(folder: Path, tmp_path: Path) -> None:
    read = write(tmp_path / "raw", CORPUS[:1], [("a-0", "cats/9.jpg", "too_large", "33 MB")], stage="ingest")
    manifest = json.loads((folder / "clean" / MANIFEST_PATH).read_text())
    assert "cats/9.jpg" not in Page(run(folder)["index.html"]).text
    manifest["inputs"] = [sheet.Dataset.open(str(read / "clean")).sha256s[0]]
    (folder / "clean" / MANIFEST_PATH).write_text(json.dumps(manifest))
    files = run(folder)
    assert run(folder, "--ingest", str(read / "clean")) == files
    assert "too_large (ingest): 1 records" in " ".join(Page(files["index.html"]).text.split())
    assert ["too_large", "1", "ingest", "rejected"] in rows(files["removals.csv"])


def test_the_page_does_not_depend_on_the_sharding(tmp_path: Path) -> None:
    many = [
        One(
            f"{i}.jpg",
            f"s-{i % 3}",
            png(value=i),
            label=str(i % 4),
            sharpness=i,
            copy=(f"{i - 1}.jpg", 0.9) if i % 7 == 1 else None,
            rule=("min_sharpness", float(i), 10.0) if i < 10 and i % 7 != 1 else None,
        )
        for i in range(120)
    ]
    other = [One(**{**one.__dict__, "shard": "s-0"}) for one in reversed(many)]
    small = ("--samples", "5", "--nearest", "2", "--clusters", "3", "--members", "3")
    first, second = write(tmp_path / "1", many), write(tmp_path / "2", other)
    assert run(first, *options(first), *small) == run(second, *options(second), *small)


def test_the_number_of_images_is_bounded(tmp_path: Path) -> None:
    many = [
        One(
            f"{s}/{i}",
            f"s{s}-0",
            rule=(f"min_r{s}", 1.0, 2.0) if i % 2 else None,
            copy=(f"{s}/0", 0.9) if i == 2 else None,
        )
        for s in range(6)
        for i in range(8)
    ]
    folder = write(tmp_path, many)
    for most in ("1", "2", "9", "40", "41"):
        page = Page(run(folder, *options(folder), "--most", most)["index.html"])
        assert 0 < sum(map(len, page.sections.values())) <= int(most)
    assert "5 more sources are not shown" in Page(run(folder, "--most", "2")["index.html"]).text


def test_shares_of_a_page() -> None:
    whole = sheet.SheetConfig()
    assert sheet.share_out(whole, 1, 3) == sheet.Shares(24, 6, 24, 1, 3)
    assert sheet.share_out(whole, 40, 10) == sheet.Shares(8, 4, 24, 40, 10)  # 808 images for 50 groups: 16 each
    assert sheet.share_out(whole, 5000, 3) == sheet.Shares(1, 0, 24, 805, 3)


@pytest.mark.parametrize(
    "given, said",
    [
        (["ingest"], "has no thumbnails/"),
        (["clean", "--duplicates", "elsewhere/dedupe"], "decided on none of the images"),
        (["nowhere"], "is not a dataset directory"),
    ],
)
def test_wrong_directories_get_one_clear_line(
    folder: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(folder / "ingest", "ingest", [("images/shard-0.arrow", batch(IMAGE, [image(CORPUS[0])]))], {}, [])
    write(folder / "elsewhere", [One("x", "z-0")])
    paths = [one if one.startswith("-") else str(folder / one) for one in given]
    assert sheet.main([*paths, "--output", str(folder / "report")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (folder / "report").exists()
    assert sheet.main([str(folder / "clean"), "--output", str(folder / "clean")]) == 1
    assert "is a dataset directory" in capsys.readouterr().err


def test_a_dedupe_that_found_nothing_is_shown_as_that(folder: Path) -> None:
    known = sheet.Dataset.open(str(folder / "clean"))
    commit(folder / "none", "dedupe", [], known.books, known.sha256s)
    argv = [str(folder / "clean"), "--duplicates", str(folder / "none"), "--output", str(folder / "report")]
    assert sheet.main(argv) == 0
    assert json.loads((folder / "report" / "totals.json").read_text())["duplicates"] == 0


def test_tables_that_are_not_row_for_row_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((folder / "clean" / MANIFEST_PATH).read_text())
    shard = next(one for one in manifest["shards"] if one["path"] == "thumbnails/shard-a-0.arrow")
    lines = [thumbnail(one) for one in CORPUS[3::-1]]
    found = write_shard(str(folder / "clean"), shard["path"], THUMBNAIL.schema, [batch(THUMBNAIL, lines)])
    shard |= {"bytes": found.bytes, "sha256": found.sha256, "row_hash": found.row_hash}
    (folder / "clean" / MANIFEST_PATH).write_text(json.dumps(manifest))
    assert sheet.main([str(folder / "clean"), "--output", str(folder / "report")]) == 1
    assert "the tables of shard a-0 are not row for row" in capsys.readouterr().err


def test_an_empty_corpus_makes_an_empty_page(tmp_path: Path) -> None:
    files = run(write(tmp_path, [], [("a-0", "x", "unsupported", "a web page")]))
    text = Page(files["index.html"]).text
    assert "No image was kept." in text and "No rule removed an image." in text
    assert json.loads(files["totals.json"])["not_decoded"] == 1


def test_a_folder_of_dataset_directories_is_told_with_what_to_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sheet.main([str(folder), "--output", str(folder / "report")]) != 0
    error = capsys.readouterr().err
    held = len([path for path in folder.iterdir() if (path / MANIFEST_PATH).exists()])
    assert f"It holds {held}: name one, such as {folder}/clean, or all of them: '{folder}/*'" in error
