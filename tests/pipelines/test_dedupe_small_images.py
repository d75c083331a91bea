"""Dedupe on small images: digits are alike without being copies, and only exact copies of them are removed."""

from pathlib import Path

import pytest

from pipelines import clean, dedupe, duplicates, ingest, near, sample_images
from pipelines.core.dataset import Dataset


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean output of 150 handwritten digits of three classes, and a copy of one of them."""
    pytest.importorskip("sklearn")
    work = tmp_path_factory.mktemp("digits")
    assert sample_images.main(["--output", str(work / "all")]) == 0
    for label in "017":
        (work / "raw" / label).mkdir(parents=True)
        for path in sorted((work / "all" / label).iterdir())[:50]:
            path.rename(work / "raw" / label / path.name)
    one = next(iter(sorted((work / "raw" / "0").iterdir())))
    (work / "raw" / "0" / "copy.png").write_bytes(one.read_bytes())
    argv = ["--images", "--input", str(work / "raw"), "--source", "digits", "--output", str(work / "ingest")]
    assert ingest.main([*argv, "--workers", "1"]) == 0
    argv = ["--input", str(work / "ingest"), "--output", str(work / "clean"), "--workers", "1"]
    assert clean.main(argv) == 0
    return work / "clean"


def run(digits: Path, output: Path, *options: str) -> Dataset:
    argv = ["--input", str(digits), "--output", str(output), "--workers", "1", *options]
    assert dedupe.main(argv) == 0
    return Dataset.open(str(output))


def test_small_images_have_exact_copies_only(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(digits, tmp_path / "d")
    assert found.books["digits"].removed == {"exact_duplicate": 1}
    assert "151 images have a side of less than 48 pixels: they have exact copies only" in capsys.readouterr().out


def test_what_is_about_texts_says_so_of_an_index_of_images(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(digits, tmp_path / "d")
    assert near.main(["some words", "--index", str(tmp_path / "d")]) == 1
    assert duplicates.main([str(tmp_path / "d"), "--output", str(tmp_path / "report")]) == 1
    assert capsys.readouterr().err.count("is about images: `gristmill sheet` shows its duplicates") == 2


def test_whoever_asks_for_near_copies_of_small_images_gets_them(digits: Path, tmp_path: Path) -> None:
    loose = ["--set", "images.min_side=0", "--set", "images.correlation=0.5", "--set", "images.local_change=2"]
    removed = run(digits, tmp_path / "d", *loose).books["digits"].removed
    assert removed["near_duplicate"] > 0
