"""Dedupe on images: what is removed names a kept copy, what is a copy is found, and flat images never cluster."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from pipelines import dedupe
from pipelines.core.config import to_dict
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id
from pipelines.images.compare import NOT_SIMILAR, compare
from pipelines.images.hashing import difference_hashes
from pipelines.images.views import read_only, wholes
from pipelines.lsh import image_pairs
from pipelines.lsh.config import DedupeConfig, ImageDedupeConfig
from pipelines.lsh.image_pairs import limits_of
from pipelines.lsh.image_verdicts import are_candidates
from pipelines.lsh.images import views_of
from pipelines.lsh.methods import IMAGE_METHOD
from schemas.fingerprint import fingerprint_record
from schemas.image import IMAGE
from schemas.manifest import MANIFEST_PATH, Books, Manifest

from .image_corpus import Picture, cleaned, decisions, photo, picture, run, told

CONFIG = DedupeConfig()
VIEWS = views_of(CONFIG.images)


def watermarked(image: Image.Image) -> Image.Image:
    marked = image.copy()
    marked.paste((255, 255, 255), (90, 84, 152, 110))
    return marked


def copies(seed: int) -> list[Picture]:
    """An image and eight copies; the original has the most pixels."""
    image = photo(seed)
    small, name = image.resize((120, 90)), f"图{seed}"
    made = {
        "q30": small,
        "half": image.resize((80, 60)),
        "blur": small.filter(ImageFilter.GaussianBlur(1)),
        "grey": small.convert("L").convert("RGB"),
        "bright": ImageEnhance.Brightness(small).enhance(1.3),
        "crop": image.crop((8, 6, 152, 114)),
        "mark": watermarked(image).resize((120, 90)),
    }
    return [
        picture(name, image),
        *(picture(f"{name}/{kind}", one, 30 if kind == "q30" else 90) for kind, one in made.items()),
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty families of copies in three shards, and forty images of their own."""
    families = [one for seed in range(30) for one in copies(seed)]
    others = [picture(f"single-{seed}", photo(1000 + seed)) for seed in range(40)]
    every = families + others
    return cleaned(tmp_path_factory.mktemp("images") / "clean", {f"0000{i}-000": every[i::3] for i in range(3)})


def test_copies_are_found_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    dataset = run(tmp_path / "d", corpus, options=["--materialize"])
    found = decisions(dataset)
    expected = {one.locator for seed in range(30) for one in copies(seed)[1:]}
    assert set(found) == expected
    assert all(locator.split("/")[0] == kept for locator, (kept, *_) in found.items()), "the largest stays"
    assert all(similarity >= threshold for *_, similarity, threshold in found.values())
    reasons = {reason: threshold for _, reason, _, threshold in found.values()}
    assert reasons == {"near_duplicate": 0.95, "near_duplicate_covered": 1 - 24 / 256}
    assert {
        locator.split("/")[1] for locator, (_, reason, *_) in found.items() if reason == "near_duplicate_covered"
    } == {"mark"}
    assert dataset.books["s"] == Books(280, 70, {"near_duplicate": 180, "near_duplicate_covered": 30})
    surviving = dataset.table("surviving")
    IMAGE.validate(surviving)
    assert len(surviving) == 70 and expected.isdisjoint(surviving["locator"].to_pylist())
    clusters = dataset.table("clusters").to_pylist()
    assert {row["cluster_size"] for row in clusters} == {8} and len(clusters) == 240
    fingerprint_record(len(VIEWS)).validate(dataset.table("index"))


def test_decisions_equal_a_comparison_of_all_pairs_by_the_same_rule(corpus: Path, tmp_path: Path) -> None:
    options = ["--set", "images.candidate_distance=20", "--set", "images.correlation=0.6"]  # some real choices to make
    dataset = run(tmp_path / "d", corpus, options=options)
    rows = dataset.table("index").to_pylist()
    images = read_only(np.array([np.frombuffer(row["thumbnail"], np.uint8) for row in rows]))
    hashes = read_only(difference_hashes(images, VIEWS))
    assert hashes.tolist() == [row["hashes"] for row in rows]
    config = DedupeConfig(images=ImageDedupeConfig(candidate_distance=20, correlation=0.6))
    fine = np.array([row["fine_hash"] for row in rows], np.uint64)
    data = (images, fine, *image_pairs.coarse_views(images, VIEWS))
    near: dict[int, dict[int, float]] = defaultdict(dict)
    for a, b in itertools.combinations(range(len(rows)), 2):
        found, value = compare(a, b, data, VIEWS, limits_of(config))
        if found != NOT_SIMILAR and are_candidates(hashes[a], hashes[b], wholes(VIEWS), 20):
            near[a][b] = near[b][a] = value
    order = sorted(
        range(len(rows)), key=lambda i: (-rows[i]["width"] * rows[i]["height"], -rows[i]["bytes"], rows[i]["id"])
    )
    kept: list[int] = []
    expected: dict[str, tuple[str, float]] = {}
    for i in order:
        twins = [(-near[i][j], order.index(j), j) for j in kept if j in near[i]]
        if twins:
            value, _, twin = min(twins)
            expected[rows[i]["locator"]] = rows[twin]["locator"], -value
        else:
            kept.append(i)
    assert {locator: (twin, value) for locator, (twin, _, value, _) in decisions(dataset).items()} == expected


def test_any_split_and_any_memory_decide_the_same(corpus: Path, tmp_path: Path) -> None:
    every = [one for seed in range(30) for one in copies(seed)] + [
        picture(f"single-{seed}", photo(1000 + seed)) for seed in range(40)
    ]
    first = run(tmp_path / "a", corpus)
    one = run(tmp_path / "b", cleaned(tmp_path / "one", {"x": every[::-1]}), options=["--memory", "16M"])
    assert told(first) == told(one)
    again = run(tmp_path / "c", corpus, options=["--mode", "processes"])
    assert [s.sha256 for s in again.manifests[0].shards] == [s.sha256 for s in first.manifests[0].shards]


def test_a_capped_bucket_is_reported_and_decides_the_same_in_any_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photo(1)
    family = [picture(f"{i}", image.resize((150 - i, 112 - i)), 80) for i in range(12)]
    options = ["--set", "images.bucket_cap=2"]
    first = run(tmp_path / "a", cleaned(tmp_path / "1", {"x": family}), options=options)
    assert "comparisons that the cap left out 0" not in capsys.readouterr().out
    assert first.manifests[0].facts["hot_buckets"] > 0
    second = run(tmp_path / "b", cleaned(tmp_path / "2", {f"k{i}": family[i::4] for i in range(4)}), options=options)
    assert told(first) == told(second)


def test_the_same_bytes_and_the_same_pixels_are_exact(tmp_path: Path) -> None:
    image, other = photo(1), Image.new("RGB", (60, 60), "red")
    png, flat = io.BytesIO(), io.BytesIO()
    base = picture("jpeg", image)
    base.image.save(png, "PNG")
    other.save(flat, "PNG")
    made = [
        base,
        base._replace(locator="z-same-bytes"),
        base._replace(locator="pixels", data=png.getvalue()),
        Picture("flat", other, flat.getvalue()),
        Picture("flat-again", other, flat.getvalue()),
    ]
    found = decisions(run(tmp_path / "d", cleaned(tmp_path / "c", {"a": made[:2], "b": made[2:]})))
    assert found["jpeg"] == ("pixels", "exact_pixels", 1.0, 1.0), "the larger file stays"
    assert found["z-same-bytes"] == ("pixels", "exact_pixels", 1.0, 1.0)
    flats = {"flat", "flat-again"} & set(found)
    assert len(flats) == 1 and found[flats.pop()][1:] == ("exact_duplicate", 1.0, 1.0) and len(found) == 3
    near = run(tmp_path / "n", tmp_path / "c", options=["--set", "near=false"])
    assert decisions(near) == found


def test_a_thousand_flat_images_never_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    made = []
    for i in range(1000):
        pixels = np.full((64, 64, 3), i % 250, np.uint8)
        pixels[rng.integers(0, 64, 30), rng.integers(0, 64, 30)] += 5
        image = Image.fromarray(pixels)
        made.append(Picture(f"{i}", image, image.tobytes()[:99] + str(i).encode()))
    dataset = run(tmp_path / "d", cleaned(tmp_path / "c", {"a": made}, 900))
    assert dataset.books["s"] == Books(1000, 1000) and not dataset.has("clusters")
    assert "1,000 images are flat" in capsys.readouterr().out


def test_source_priority_comes_before_size(tmp_path: Path) -> None:
    image = photo(3)
    small = [picture("small", image.resize((100, 75)), source="trusted")]
    large = [picture("large", image, source="web")]
    inputs = cleaned(tmp_path / "a", {"t-0": small}), cleaned(tmp_path / "b", {"w-0": large})
    assert set(decisions(run(tmp_path / "d", *inputs))) == {"small"}
    found = decisions(run(tmp_path / "e", *inputs, options=["--set", "sources=[trusted]"]))
    assert set(found) == {"large"} and found["large"][0] == "small"


# --- compared with others ---------------------------------------------------------------------------------------------


def test_training_images_near_to_an_evaluation_set_go_whatever_their_size(tmp_path: Path) -> None:
    training = [one for seed in range(4) for one in copies(seed)[:2]]
    evaluation = [picture(f"test-{seed}", photo(seed).resize((64, 48)), source="test") for seed in (0, 1, 9)]
    train, test = cleaned(tmp_path / "train", {"a": training}), cleaned(tmp_path / "test", {"t": evaluation})
    options = ["--against", str(test), "--set", "within=false"]
    dataset = run(tmp_path / "d", train, options=options)
    names = {record_id("test", one.locator): one.locator for one in evaluation}
    rows = dataset.table("ledger").to_pylist()
    assert {row["locator"]: names[row["kept_id"]] for row in rows} == {
        "图0": "test-0",
        "图0/q30": "test-0",
        "图1": "test-1",
        "图1/q30": "test-1",
    }
    indexed = run(tmp_path / "old", test)
    for table in ("images", "thumbnails"):  # the index alone must do
        for path in (tmp_path / "test" / table).iterdir():
            path.unlink()
    again = run(tmp_path / "e", train, options=["--against", indexed.roots[0], "--set", "within=false"])
    assert told(again) == told(dataset)


def test_an_index_of_other_views_or_of_texts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (cleaned(tmp_path / name, {name: [picture(name, photo(i))]}) for i, name in enumerate("ab"))
    run(tmp_path / "old", one)
    argv = ["--input", str(two), "--output", str(tmp_path / "x"), "--against", str(tmp_path / "old"), "--workers", "1"]
    assert dedupe.main([*argv, "--set", "images.corners=true"]) == 1
    assert "was signed with" in capsys.readouterr().err
    assert dedupe.main([*argv[:-4], "--against", str(one), "--input", str(one)]) == 1
    assert "would be removed for themselves" in capsys.readouterr().err


def test_without_thumbnails_it_says_which_stage_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = cleaned(tmp_path / "c", {"a": [picture("a", photo(1))]})
    manifest = Dataset.open(str(root)).manifests[0]
    shards = [shard for shard in manifest.shards if shard.table == "images"]
    (root / MANIFEST_PATH).write_bytes(Manifest("ingest", {}, {}, [], shards, manifest.books).to_json())
    assert dedupe.main(["--input", str(root), "--output", str(tmp_path / "d"), "--workers", "1"]) == 1
    assert "has no thumbnails/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("images.crops=[0.3]", "crops are shares above 0 and below 0.25"),
        ("images.crops=[0.1,0.1]", "each another"),
        ("images.correlation=0", "images.correlation is a similarity above 0"),
        ("images.candidate_distance=50", "images.candidate_distance is from 0 to 48 bits"),
        ("images.bucket_cap=0", "images.bucket_cap is at least 1"),
        ("images.survivor=[length]", "unknown survivor policy 'length'; known: source, pixels, bytes"),
        ("images.nonsense=1", "unknown key 'images.nonsense'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    argv = ["--input", str(tmp_path), "--output", str(tmp_path / "d"), "--set", setting]
    assert dedupe.main(argv) != 0
    assert message in capsys.readouterr().err


def test_cropped_corners_and_turned_copies_are_found_where_asked_for(tmp_path: Path) -> None:
    image = photo(5)
    made = [picture("a", image)]
    made += [
        picture("corner", image.crop((0, 0, 144, 108))),
        picture("turned", image.transpose(Image.Transpose.ROTATE_90)),
    ]
    root = cleaned(tmp_path / "c", {"a": made})
    assert decisions(run(tmp_path / "d", root)) == {}
    options = ["--set", "images.corners=true", "--set", "images.orientations=true"]
    assert set(decisions(run(tmp_path / "e", root, options=options))) == {"corner", "turned"}


def test_an_index_that_was_made_before_an_option_existed_was_made_without_it() -> None:
    config = to_dict(replace(CONFIG, images=replace(CONFIG.images, flips=0)))
    older = {**config, "images": {"crops": config["images"]["crops"]}}
    assert IMAGE_METHOD.signing(older) == IMAGE_METHOD.signing(config)
    wider = to_dict(replace(CONFIG, images=replace(CONFIG.images, sides=True)))
    assert IMAGE_METHOD.signing(wider) != IMAGE_METHOD.signing(config)
