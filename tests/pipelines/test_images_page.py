"""The page of the contact sheet: it loads nothing, believes nothing, and shows only pixels."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .sheets import (
    HOSTILE,
    One,
    Page,
    options,
    png,
    rows,
    run,
    write,
)


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
