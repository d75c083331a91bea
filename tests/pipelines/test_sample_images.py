"""The sample images: the real digits, the same bytes every time, and their licence beside them."""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import sample_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn", reason="scikit-learn (gristmill[sample]) holds the digits")
    root = tmp_path_factory.mktemp("images") / "raw"
    assert sample_images.main(["--output", str(root)]) == 0
    return root


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_every_digit_is_in_the_folder_of_its_class(folder: Path) -> None:
    found = names(folder)
    assert found.pop() == "README.md" and found[0] == "0/0000.png" and len(found) == 1797
    counts = Counter(name.partition("/")[0] for name in found)
    assert [counts[str(digit)] for digit in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pixels_are_those_of_scikit_learn_stretched_to_white(folder: Path) -> None:
    with Image.open(folder / "0/0000.png") as image:
        assert (image.mode, image.size, image.info) == ("L", (8, 8), {})
        pixels = np.asarray(image)
    # the first digit of the data set, a 0; its second row counts 0 0 13 15 10 15 5 0
    assert pixels[1].tolist() == [0, 0, 207, 239, 159, 239, 80, 0]
    images, classes = sample_images.digits()
    assert (images[0][1].tolist(), classes[0]) == ([0, 0, 13, 15, 10, 15, 5, 0], 0)
    with Image.open(folder / f"{classes[1796]}/1796.png") as image:
        assert np.array_equal(np.rint(np.asarray(image) / 255 * 16), images[1796])


def test_the_bytes_are_the_same_everywhere(folder: Path) -> None:
    """Of another zlib, Pillow or scikit-learn too: else DVC would run every stage again."""
    digest = hashlib.sha256()
    for name in names(folder):
        digest.update(name.encode() + (folder / name).read_bytes())
    assert digest.hexdigest() == "48d03dd1151b7ee20c8a6ae54166d6cf73a0939dadcceb39b9945ceb4afc9225"


def test_the_licence_lies_beside_the_images(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Alpaydin" in card and "CC BY 4.0" in card and "10.24432/C50P49" in card


def test_writing_again_mends_the_folder_and_leaves_no_other_file(folder: Path) -> None:
    before = names(folder)
    (folder / "0/0000.png").write_bytes(b"")
    (folder / "1/0001.png").unlink()
    assert sample_images.main(["--output", str(folder)]) == 0
    assert names(folder) == before and (folder / "0/0000.png").stat().st_size == 140
    assert [path.name for path in folder.parent.iterdir()] == ["raw"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn (gristmill[sample]) holds the digits")
    (tmp_path / "0").mkdir()
    (tmp_path / "0/mine.png").write_bytes(b"mine")
    assert sample_images.main(["--output", str(tmp_path)]) == 1
    assert "holds 0/mine.png, which is no sample image" in capsys.readouterr().err
    assert sample_images.main(["--output", str(tmp_path / "0/mine.png")]) == 1
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "0/mine.png").read_bytes() == b"mine"


def test_without_scikit_learn_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert sample_images.main(["--output", str(tmp_path / "raw")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'gristmill[sample]'" in error
    assert not (tmp_path / "raw").exists()
