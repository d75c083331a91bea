"""Dedupe on images by their captions: only where it is asked for, by Jaccard, in Chinese as in English."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipelines import dedupe
from pipelines.text.shingles import shingles
from schemas.fingerprint import fingerprint_record
from schemas.manifest import Books

from .image_corpus import Picture, cleaned, decisions, photo, picture, run, told

JOIN = ["--set", "images.captions.join=true"]
EVERY = ["--set", "minhash.bands=32", "--set", "minhash.rows=1"]  # a pair at 0.5 is no candidate once in 2^64
ENGLISH = "a brown dog runs after a red ball on the beach in the evening"
CHINESE = "傍晚的海滩上一只棕色的狗追着一个红色的球奔跑"


def captioned(locator: str, seed: int, caption: str | None, source: str = "s", size: int = 0) -> Picture:
    """A photograph unlike all others; later ones are smaller, so that the first of a caption stays."""
    return picture(locator, photo(seed, (160 - size, 120 - size)), source=source)._replace(caption=caption)


@cache
def shingle_set(caption: str) -> set[str]:
    return set(shingles(caption, 3))


def jaccard(a: str, b: str) -> float:
    one, two = shingle_set(a), shingle_set(b)
    return len(one & two) / len(one | two)


def test_captions_count_only_where_it_is_asked_for_and_the_similarity_is_theirs(tmp_path: Path) -> None:
    pairs = {"en": (ENGLISH, ENGLISH + " sun"), "zh": (CHINESE, CHINESE + "着")}
    made = [
        captioned(f"{name}-{i}", 10 * number + i, caption, size=i)
        for number, (name, both) in enumerate(pairs.items())
        for i, caption in enumerate(both)
    ]
    clean = cleaned(tmp_path / "c", {"a": made[::2], "b": made[1::2]})
    assert decisions(run(tmp_path / "off", clean)) == {}
    dataset = run(tmp_path / "on", clean, options=JOIN)
    expected = {f"{name}-1": (f"{name}-0", "near_caption", jaccard(*both), 0.9) for name, both in pairs.items()}
    assert decisions(dataset) == expected and all(similarity < 1 for *_, similarity, _ in expected.values())
    fingerprint_record(11, 112).validate(dataset.table("index"))
    assert dataset.books["s"] == Books(4, 2, {"near_caption": 2})


def test_looks_go_before_captions_and_short_or_no_captions_take_no_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photo(1)
    made = [
        picture("large", image)._replace(caption="something else altogether about another thing"),
        picture("copy", image.resize((150, 112)))._replace(caption=ENGLISH),
        captioned("caption", 2, ENGLISH),
        *(captioned(f"short-{i}", 20 + i, "a red dog") for i in range(2)),
        *(captioned(f"none-{i}", 30 + i, None) for i in range(2)),
        *(captioned(f"empty-{i}", 40 + i, "") for i in range(2)),
    ]
    found = decisions(run(tmp_path / "d", cleaned(tmp_path / "c", {"a": made}), options=JOIN))
    assert set(found) == {"copy"} and found["copy"][:2] == ("large", "near_duplicate")
    assert "3 captions take part" in capsys.readouterr().out


def test_who_goes_by_a_caption_does_not_take_along_copies_of_other_captions(tmp_path: Path) -> None:
    image = picture("a", photo(2, (150, 110)))
    made = [
        captioned("bus", 1, ENGLISH),
        image._replace(data=image.data + b"\0\0", caption=ENGLISH),
        image._replace(locator="b", data=image.data + b"\0", caption="the tower at night above the roofs of Paris"),
        image._replace(locator="c", caption=CHINESE),
    ]
    found = decisions(run(tmp_path / "d", cleaned(tmp_path / "c", {"a": made}), options=JOIN))
    assert found == {"a": ("bus", "near_caption", 1.0, 0.9), "c": ("b", "exact_pixels", 1.0, 1.0)}


def test_flat_and_small_images_are_found_by_their_captions(tmp_path: Path) -> None:
    tiny = photo(1).resize((20, 20))
    made = [picture(f"{i}", tiny.rotate(i), 90 - i)._replace(caption=ENGLISH) for i in range(3)]
    found = decisions(run(tmp_path / "d", cleaned(tmp_path / "c", {"a": made}), options=JOIN))
    assert len(found) == 2 and {reason for _, reason, *_ in found.values()} == {"near_caption"}


def sentences(count: int) -> list[str]:
    """Captions that share much: each is one of eight with words or characters exchanged."""
    rng, words = random.Random(5), [*ENGLISH.split(), "cat", "lake", "sky", "child", "park"]
    bases = [rng.choices(words, k=12) for _ in range(4)] + [list(rng.sample(CHINESE, 14)) for _ in range(4)]
    made = []
    for _ in range(count):
        base = list(rng.choice(bases))
        for _ in range(rng.randrange(3)):
            base[rng.randrange(len(base))] = rng.choice(words) if len(base) == 12 else rng.choice(CHINESE)
        made.append((" " if len(base) == 12 else "").join(base))
    return made


def brute_force(made: list[Picture], rows: dict[str, dict[str, Any]], threshold: float) -> dict[str, tuple[str, float]]:
    """In the order of the survivor policy, each goes for the kept one of the most similar caption."""
    order = sorted(made, key=lambda one: (-one.image.width * one.image.height, -len(one.data), rows[one.locator]["id"]))
    kept: list[Picture] = []
    removed = {}
    for one in order:
        assert one.caption is not None
        twins = [(jaccard(one.caption, other.caption or ""), -i) for i, other in enumerate(kept)]
        value, place = max(twins, default=(0.0, 0))
        if value >= threshold:
            removed[one.locator] = kept[-place].locator, value
        else:
            kept.append(one)
    return removed


@pytest.mark.parametrize("cap", [2_000, 3])
def test_decisions_equal_brute_force_and_do_not_depend_on_the_shards(tmp_path: Path, cap: int) -> None:
    made = [captioned(f"{i}", i, caption, size=i % 7) for i, caption in enumerate(sentences(120))]
    options = [*JOIN, *EVERY, "--set", "images.captions.threshold=0.5", "--set", f"images.bucket_cap={cap}"]
    first = run(tmp_path / "1", cleaned(tmp_path / "c1", {"a": made}), options=options)
    if cap == 2_000:
        rows = {row["locator"]: row for row in first.table("index").select(["id", "locator"]).to_pylist()}
        expected = brute_force(made, rows, 0.5)
        assert {one: (kept, value) for one, (kept, _, value, _) in decisions(first).items()} == expected
        assert 60 < len(expected) < 118
    split = cleaned(tmp_path / "c2", {f"k{i}": made[i::4] for i in range(4)})
    second = run(tmp_path / "2", split, options=[*options, "--memory", "16M"])
    assert told(first) == told(second)
    third = run(tmp_path / "3", split, options=[*options, "--mode", "processes", "--workers", "2"])
    assert [one.sha256 for one in third.manifests[0].shards] == [one.sha256 for one in second.manifests[0].shards]


def test_one_caption_of_thousands_is_one_cluster_and_takes_little(tmp_path: Path) -> None:
    image = photo(0).resize((50, 50))
    made = [Picture(f"{i}", image, f"{i}".encode(), caption=ENGLISH) for i in range(3_000)]
    made = [one._replace(image=image.point(lambda v, i=i: v ^ i % 256)) for i, one in enumerate(made)]
    dataset = run(
        tmp_path / "d", cleaned(tmp_path / "c", {"a": made}, 900), options=[*JOIN, "--set", "images.flat=128"]
    )
    assert dataset.books["s"].kept == 1 and dataset.manifests[0].facts["captions_compared"] == 28 * 2_999


def test_captions_of_an_index_are_compared_with_and_must_be_signed_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = cleaned(tmp_path / "old", {"o": [captioned("o", 1, CHINESE, "old", 60)]})
    new = cleaned(tmp_path / "new", {"n": [captioned("n", 2, CHINESE, "new"), captioned("m", 3, ENGLISH, "new")]})
    run(tmp_path / "index", old, options=JOIN)
    options = ["--against", str(tmp_path / "index"), "--set", "within=false", *JOIN]
    dataset = run(tmp_path / "d", new, options=options)
    assert [(row["locator"], row["reason"], row["similarity"]) for row in dataset.table("ledger").to_pylist()] == [
        ("n", "near_caption", 1.0)
    ]
    argv = ["--input", str(new), "--output", str(tmp_path / "e"), "--workers", "1", *options]
    for other in (["--set", "images.captions.shingle_size=2"], ["--set", "images.captions.join=false"]):
        assert dedupe.main([*argv, *other]) == 1
        assert "was signed with" in capsys.readouterr().err


def test_captions_without_near_duplicates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--input", str(tmp_path), "--output", str(tmp_path / "d"), *JOIN, "--set", "near=false"]
    assert dedupe.main(argv) == 1
    assert "it does nothing with near=false" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["threshold=0", "threshold=1.5", "shingle_size=0", "least_shingles=0"])
def test_settings_that_mean_nothing_are_refused(
    tmp_path: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--input", str(tmp_path), "--output", str(tmp_path / "d"), "--set", f"images.captions.{setting}"]
    assert dedupe.main(argv) == 1
    assert f"captions.{setting.split('=')[0]} is" in capsys.readouterr().err
