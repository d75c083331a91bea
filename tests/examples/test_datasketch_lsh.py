"""The example for datasketch: a new text finds its twins in a stored index, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipelines import clean, dedupe, ingest
from pipelines.core.identity import record_id
from pipelines.text.minhash import MinHashConfig

pytest.importorskip("datasketch")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples/datasketch_lsh.py"
PAGE = [f"word{i}" for i in range(104)]
TEXTS = {
    "page": " ".join(PAGE),
    "edited": " ".join([*PAGE[:50], "other", *PAGE[51:]]),  # Jaccard 99/105: the chance to be missed is 1 in 10^12
    "unlike": " ".join(reversed(PAGE)),
    "poem": "寿客之名从此有。多谢风流，飞驭陪尊酒。持此一卮同劝后。愿花长在人长寿。",
    "signs": "?! -- !?",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("index")
    lines = [json.dumps({"id": name, "text": text}) for name, text in TEXTS.items()]
    (work / "raw.jsonl").write_text("\n".join(lines), encoding="utf-8")
    argv = ["--input", str(work / "raw.jsonl"), "--source", "s", "--id-field", "id", "--workers", "1"]
    assert ingest.main([*argv, "--output", str(work / "documents")]) == 0
    argv = ["--input", str(work / "documents"), "--output", str(work / "dedupe"), "--workers", "1"]
    assert dedupe.main([*argv, "--set", "minhash.bands=20", "--set", "minhash.rows=5", "--set", "shingle_size=3"]) == 0
    return work / "dedupe"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("datasketch_lsh", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_text_is_signed_as_the_index_signed_it(root: Path) -> None:
    module = example()
    minhash = {"bands": 20, "rows": 5, "seed": MinHashConfig().seed}
    _, known = module.build(root / "index", minhash)
    assert len(known) == len(TEXTS) - 1  # a text without words has no place in an LSH
    for name in ("page", "edited", "unlike", "poem"):
        named, stored = known[record_id("s", name).hex()]
        assert named == f"s: {name}"
        assert module.sign(TEXTS[name], minhash, 3).jaccard(stored) == 1.0


@pytest.mark.parametrize(("text", "twins"), [("page", ["page", "edited"]), ("poem", ["poem"])])
def test_the_example_prints_the_twins_and_nothing_else(root: Path, text: str, twins: list[str]) -> None:
    command = [sys.executable, str(SCRIPT), str(root), TEXTS[text]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=True)
    *found, summary = done.stdout.splitlines()
    assert [line.split()[2] for line in found] == twins
    assert found[0] == f"1.00  s: {text}  {record_id('s', text).hex()}"
    assert summary == f"{len(twins)} of 4 documents share a band with the text"


def test_what_is_no_index_of_texts_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(tmp_path / "raw/one.png")
    argv = ["--images", "--input", str(tmp_path / "raw"), "--source", "s", "--workers", "1"]
    assert ingest.main([*argv, "--output", str(tmp_path / "images")]) == 0
    for stage, inputs, output in ((clean, "images", "clean"), (dedupe, "clean", "dedupe")):
        argv = ["--input", str(tmp_path / inputs), "--output", str(tmp_path / output), "--workers", "1"]
        assert stage.main(argv) == 0
    with pytest.raises(SystemExit, match=r"dedupe/index/.*\.arrow holds no signatures of texts"):
        example().main(str(tmp_path / "dedupe"), "a text")
    with pytest.raises(SystemExit, match="raw is no output of dedupe"):
        example().main(str(tmp_path / "raw"), "a text")
