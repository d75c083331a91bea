"""`gristmill sheet`: every decision is shown by examples, and nothing that they hold is believed."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines import sheet
from pipelines.core import ledger
from pipelines.core.identity import content_hash, record_id
from pipelines.core.shards import write_shard
from pipelines.images_page import against
from schemas.base import Record
from schemas.image import IMAGE, THUMBNAIL
from schemas.manifest import MANIFEST_PATH, Manifest
from schemas.signals import signals_record
from schemas.signature import CLUSTER

FILES = ["index.html", "labels.csv", "removals.csv", "similarities.csv", "sizes.csv", "totals.json"]
HOSTILE = "<script>alert('名')</script>\u202e\n\"><img src=x onerror=alert(1)>"


def png(width: int = 40, height: int = 40, value: int = 99, mode: str = "L", form: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode)).save(sink, form)
    return sink.getvalue()


@dataclass(frozen=True)
class One:
    """An image of a corpus made by hand, and what was decided on it: (reason, score, limit), or (kept, similarity)."""

    locator: str
    shard: str = "a-0"
    data: bytes = b""
    label: str | None = None
    caption: str | None = None
    size: tuple[int, int] = (320, 240)
    sharpness: float = 50.0
    rule: tuple[str, float | None, float | None] | None = None
    copy: tuple[str, float | None] | None = None
    reason: str = "near_duplicate"

    @property
    def source(self) -> str:
        return self.shard.partition("-")[0]

    @property
    def id(self) -> bytes:
        return record_id(self.source, self.locator)


def _batch(record: Record, rows: list[list[Any]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(record.fields)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, record.schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=record.schema)


def _commit(root: Path, stage: str, tables: list[tuple[str, pa.RecordBatch]], books: Any, inputs: list[str]) -> str:
    shards = [write_shard(str(root), path, batch.schema, [batch], rows_per_batch=2) for path, batch in tables]
    manifest = Manifest(stage, {}, {}, inputs, shards, books)
    (root / MANIFEST_PATH).parent.mkdir(parents=True)
    (root / MANIFEST_PATH).write_bytes(manifest.to_json())
    return manifest.sha256()


def _ledger(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    names = sorted({name for row in rows for name in row})
    return ledger.rows({name: [row.get(name) for row in rows] for name in names}, len(rows))


Lost = tuple[str, str, str, str]  # shard, locator, reason, detail


def write(folder: Path, images: Sequence[One], lost: Sequence[Lost] = (), stage: str = "clean") -> Path:
    """Write folder/clean and folder/dedupe as the stages do; returns the folder."""
    clean: list[tuple[str, pa.RecordBatch]] = []
    dedupe: list[tuple[str, pa.RecordBatch]] = []
    books, later = [], []
    groups: dict[bytes, set[bytes]] = {}
    ids = {one.locator: one.id for one in images}
    for one in images:
        if one.copy:
            kept = ids.get(one.copy[0], record_id("other", one.copy[0]))
            groups.setdefault(kept, {kept}).add(one.id)
    cluster = {member: (min(group), len(group)) for group in groups.values() for member in group}
    record = signals_record(("sharpness",))
    for shard in sorted({one.shard for one in images} | {row[0] for row in lost}):
        rows = sorted((one for one in images if one.shard == shard), key=lambda one: one.id)
        clean += [
            (f"images/shard-{shard}.arrow", _batch(IMAGE, [_image(one) for one in rows])),
            (f"thumbnails/shard-{shard}.arrow", _batch(THUMBNAIL, [_thumbnail(one) for one in rows])),
            (f"signals/shard-{shard}.arrow", _batch(record, [[one.id, one.sharpness] for one in rows])),
        ]
        source = shard.partition("-")[0]
        same = {"source": source, "stage": stage}
        gone = [
            {**same, "id": one.id, "action": "removed", "reason": one.rule[0], "score": one.rule[1],
             "threshold": one.rule[2], "locator": one.locator}
            for one in rows if one.rule
        ] + [
            {**same, "id": record_id(source, locator), "action": "rejected", "reason": reason, "locator": locator,
             "detail": detail}
            for where, locator, reason, detail in lost if where == shard
        ]  # fmt: skip
        copies = [
            {"source": source, "stage": "dedupe", "id": one.id, "action": "removed", "reason": one.reason,
             "locator": one.locator, "kept_id": ids.get(one.copy[0], record_id("other", one.copy[0])),
             "similarity": one.copy[1]}
            for one in rows if one.copy
        ]  # fmt: skip
        clean.append((f"ledger/shard-{shard}.arrow", _ledger(gone)))
        dedupe.append((f"ledger/shard-{shard}.arrow", _ledger(copies)))
        members = [[one.id, *cluster[one.id]] for one in rows if one.id in cluster]
        dedupe.append((f"clusters/shard-{shard}.arrow", _batch(CLUSTER, members)))
        books.append(ledger.count({source: len(rows) + sum(row[0] == shard for row in lost)}, [_ledger(gone)]))
        later.append(ledger.count({source: sum(not one.rule for one in rows)}, [_ledger(copies)]))
    known = _commit(folder / "clean", stage, clean, ledger.add(books), [])
    _commit(folder / "dedupe", "dedupe", dedupe, ledger.add(later), [known])
    return folder


def _image(one: One) -> list[Any]:
    data = one.data or png(value=len(one.locator))
    return [
        one.id, one.source, one.locator, one.locator, {"bytes": data, "path": "x.png"}, *one.size, one.label,
        one.caption, content_hash(data), bytes(32), None,
    ]  # fmt: skip


def _thumbnail(one: One) -> list[Any]:
    return [one.id, content_hash(one.locator.encode()), *one.size, 2048, bytes(4096)]


def run(folder: Path, *options: str) -> dict[str, bytes]:
    """Run the command on a folder of `write`; the files of the report."""
    output = folder / "report"
    assert sheet.main([str(folder / "clean"), "--output", str(output), *options]) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    return {path.name: path.read_bytes() for path in output.iterdir()}


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))[1:]


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the captions of its images by section."""

    VOID = ("meta", "rect", "img")

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.sections: dict[str, list[str]] = {}
        self.text = self.section = ""
        self.feed(content.decode())
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["aria-labelledby"] or ""
        if tag == "figcaption":
            self.sections.setdefault(self.section, []).append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.VOID or self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text += data
        if "figcaption" in self.stack and data.strip():
            self.sections[self.section][-1] += f"{data.strip()}|"

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.tags if name == tag]


CORPUS = [
    One("cats/1.jpg", label="cat", size=(320, 240)),
    One("cats/2.jpg", label="cat", size=(320, 240), sharpness=34.5),
    One("cats/3.jpg", label="cat", size=(1, 4096), sharpness=9.5, rule=("min_sharpness", 9.5, 34.25)),
    One("cats/4.jpg", label="cat", size=(320, 255), sharpness=34.0, rule=("min_sharpness", 34.0, 34.25)),
    One("狗/一.jpg", "b-0", label="狗", caption="一只黑色的狗在公园里跑", size=(256, 256)),
    One("狗/二.jpg", "b-0", label="狗", size=(512, 300), copy=("狗/一.jpg", 0.95)),
    One("狗/三.jpg", "b-1", label="狗", size=(512, 300), copy=("狗/一.jpg", 0.29 / 0.3)),
    One("狗/四.jpg", "b-1", size=(512, 300), copy=("狗/一.jpg", 1.0), reason="exact_duplicate"),
    One("old.jpg", "b-1", size=(512, 300), copy=("gone.jpg", None), reason="near_duplicate"),
]
LOST = [("a-0", "cats/5.jpg", "truncated", "the file ends early"), ("b-1", "狗/x.jpg", "truncated", "again")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, CORPUS, LOST)


def options(folder: Path, *more: str) -> tuple[str, ...]:
    return ("--duplicates", str(folder / "dedupe"), *more)


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


def test_the_page_loads_nothing_and_believes_nothing(tmp_path: Path) -> None:
    hostile = One(HOSTILE, label=HOSTILE, caption=HOSTILE, shard=f"{HOSTILE.replace('/', '')}-0")
    again = One(HOSTILE + "2", shard=hostile.shard, label=HOSTILE, rule=(f"min_{HOSTILE}", 1.0, 2.0))
    folder = write(tmp_path, [hostile, again], [(hostile.shard, HOSTILE, HOSTILE, HOSTILE)])
    page = Page(run(folder)["index.html"])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "audio", "video"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} and not names & {"style", "srcset", "action"}
    assert {attributes["href"][:1] for attributes in page.all("a")} == {"#"}
    assert all(re.fullmatch(r"data:image/webp;base64,[A-Za-z0-9+/=]+", one["src"]) for one in page.all("img"))
    policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert "\u202e" not in page.text and "<script>alert('名')</script>" in page.text
    assert page.all("img")[0]["alt"].startswith("<script>alert('名')</script>")


def test_no_text_turns_its_direction_is_a_formula_or_fills_the_page(tmp_path: Path) -> None:
    turned = "\u061c\u200e\u200f\u202e\u2066\u206a\u206f猫"
    texts = (turned, '=HYPERLINK("http://x")', "x" * 5000)
    files = run(write(tmp_path, [One(f"{turned}{i}.jpg", label=text, caption=text) for i, text in enumerate(texts)]))
    page = files["index.html"].decode()
    assert "猫" in page and not re.search("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]", page)
    assert "x" * 241 not in page
    labels = [row[0] for row in rows(files["labels.csv"])]
    assert labels == ['\'=HYPERLINK("http://x")', "x" * 240 + "…", "猫"]


def test_every_image_has_a_text_and_every_link_a_target(folder: Path) -> None:
    page = Page(run(folder, *options(folder))["index.html"])
    assert page.all("html") == [{"lang": "en"}] and all(one["alt"] for one in page.all("img"))
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {one["href"][1:] for one in page.all("a")} == targets
    assert {one["aria-labelledby"] for one in page.all("section")} == targets
    chinese = [
        attributes["lang"] for tag, attributes in page.tags if tag in ("b", "bdi", "span") and "lang" in attributes
    ]
    assert "zh" in chinese


def _shown(content: bytes) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(one["src"].partition(",")[2]))) for one in Page(content).all("img")]


def test_images_are_small_and_nothing_of_the_file_but_its_pixels_is_on_the_page(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8))
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[270] = "where I live"
    noise.save(sink, "JPEG", quality=95, exif=exif, icc_profile=b"icc " * 50, comment=b"a comment")
    content = run(write(tmp_path, [One("big", data=sink.getvalue())]))["index.html"]
    (found,) = _shown(content)
    assert (found.size, found.format, found.info.get("exif"), found.info.get("icc_profile")) == (
        (192, 144),
        "WEBP",
        None,
        None,
    )
    assert len(content) < 40_000


@pytest.mark.parametrize("form, mode", [("TIFF", "RGB"), ("BMP", "RGB"), ("GIF", "L"), ("PNG", "LA"), ("TIFF", "CMYK")])
def test_every_format_of_clean_is_shown(tmp_path: Path, form: str, mode: str) -> None:
    (found,) = _shown(run(write(tmp_path, [One("x", data=png(20, 10, 99, mode, form))]))["index.html"])
    assert found.size == (20, 10)
    pixel = np.asarray(found.convert("RGBA"))[5, 5].tolist()
    assert pixel == {"LA": [99, 99, 99, 99], "CMYK": [95, 95, 95, 255]}.get(mode, [99, 99, 99, 255])


def test_tiny_images_are_exact_and_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(sink, "PNG")
    content = run(write(tmp_path, [One("x", data=sink.getvalue())]))["index.html"]
    (found,) = _shown(content)
    assert np.asarray(found.convert("L")).tolist() == [[0, 128, 255]] and b'class="pic tiny"' in content


def test_an_image_that_cannot_be_decoded_leaves_a_note(tmp_path: Path) -> None:
    files = run(write(tmp_path, [One("x", data=b"no image"), One("y", data=png()[:60]), One("z")]))
    page = Page(files["index.html"])
    assert page.text.count("This image cannot be shown.") == 2 and len(page.all("img")) == 1


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
    _commit(folder / "ingest", "ingest", [("images/shard-0.arrow", _batch(IMAGE, [_image(CORPUS[0])]))], {}, [])
    write(folder / "elsewhere", [One("x", "z-0")])
    paths = [one if one.startswith("-") else str(folder / one) for one in given]
    assert sheet.main([*paths, "--output", str(folder / "report")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (folder / "report").exists()
    assert sheet.main([str(folder / "clean"), "--output", str(folder / "clean")]) == 1
    assert "is a dataset directory" in capsys.readouterr().err


def test_a_dedupe_that_found_nothing_is_shown_as_that(folder: Path) -> None:
    known = sheet.Dataset.open(str(folder / "clean"))
    _commit(folder / "none", "dedupe", [], known.books, known.sha256s)
    argv = [str(folder / "clean"), "--duplicates", str(folder / "none"), "--output", str(folder / "report")]
    assert sheet.main(argv) == 0
    assert json.loads((folder / "report" / "totals.json").read_text())["duplicates"] == 0


def test_tables_that_are_not_row_for_row_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((folder / "clean" / MANIFEST_PATH).read_text())
    shard = next(one for one in manifest["shards"] if one["path"] == "thumbnails/shard-a-0.arrow")
    lines = [_thumbnail(one) for one in CORPUS[3::-1]]
    found = write_shard(str(folder / "clean"), shard["path"], THUMBNAIL.schema, [_batch(THUMBNAIL, lines)])
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
