"""`gristmill duplicates`: every removal is counted once, beside the source that its kept record comes from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipelines import dedupe, duplicates, ingest
from pipelines.core.dataset import Dataset
from pipelines.core.identity import record_id

Decide = Callable[..., Path]
FILES = ["clusters.json", "index.html", "pairs.csv", "similarities.csv", "sizes.csv", "sources.csv", "totals.json"]
DOCUMENTS = [
    ("news-0", "news", "n1", "The kept page <script>alert('n1')</script> & more."),
    ("news-0", "news", "n2", "The kept page <script>alert('n1')</script> & more."),
    ("news-1", "news", "n3", "Alone."),
    ("wiki-0", "wiki", "w1", "今天天气很好，我们去公园散步。"),
    ("wiki-0", "wiki", "w2", "A copy\nof n1"),
    ("wiki-0", "wiki", "w3", "A copy of what an earlier run kept."),
]
REMOVED = [("n2", "n1", 1.0), ("w1", "n1", 0.29 / 0.4), ("w2", "n1", 0.99), ("w3", "gone", 0.7)]
CLUSTERS = [["n1", "n2", "w1", "w2"], ["w3", "gone"]]


@pytest.fixture
def root(tmp_path: Path, decided: Decide) -> Path:
    return decided(tmp_path, DOCUMENTS, REMOVED, CLUSTERS)


def written(root: Path, output: Path, *options: str) -> dict[str, bytes]:
    assert duplicates.main([str(root), "--output", str(output), *options]) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    return {path.name: path.read_bytes() for path in output.iterdir()}


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(content.decode().splitlines()))[1:]


def test_sizes_count_clusters_and_not_members(root: Path, tmp_path: Path) -> None:
    assert written(root, tmp_path / "r")["sizes.csv"] == b"size,clusters,records\n2,1,2\n3,0,0\n4,1,4\n"


def test_large_clusters_are_counted_up_to_powers_of_two(tmp_path: Path, decided: Decide) -> None:
    names = [f"d{i}" for i in range(9 + 8 + 5)]
    clusters = [names[:9], names[9:17], names[17:]]
    documents = [("s-0", "s", name, name) for name in names]
    files = written(decided(tmp_path, documents, [], clusters), tmp_path / "r")
    assert rows(files["sizes.csv"])[-2:] == [["5-8", "2", "13"], ["9-16", "1", "9"]]


def test_a_similarity_is_counted_in_the_bin_below_it_and_exact_copies_apart(root: Path, tmp_path: Path) -> None:
    found = rows(written(root, tmp_path / "r")["similarities.csv"])
    assert [row[0] for row in found] == [f"0.{n}" for n in range(70, 100)] + ["exact"]
    assert {name: n for name, n in found if n != "0"} == {"0.70": "1", "0.72": "1", "0.99": "1", "exact": "1"}


def test_ratios_that_binary_numbers_miss_are_in_their_own_bin(tmp_path: Path, decided: Decide) -> None:
    removed = [(f"d{n}", "d0", n / 100) for n in range(70, 100)]  # 0.57 * 100 is 56.99…, and so are some of these
    documents = [("s-0", "s", name, name) for name in ["d0", *(one[0] for one in removed)]]
    found = rows(written(decided(tmp_path, documents, removed, []), tmp_path / "r")["similarities.csv"])
    assert [row[1] for row in found] == ["1"] * 30 + ["0"]


def test_pairs_say_which_source_loses_to_which(root: Path, tmp_path: Path) -> None:
    lost = [str(sum(len(text) for _, _, name, text in DOCUMENTS if name in names)) for names in (["w1", "w2"], ["n2"])]
    assert rows(written(root, tmp_path / "r")["pairs.csv"]) == [
        ["wiki → news", "wiki", "news", "2", "0", "2", lost[0]],
        ["news → news", "news", "news", "1", "1", "0", lost[1]],
        ["wiki → (not found)", "wiki", "(not found)", "1", "0", "1", "35"],
    ]


@pytest.mark.parametrize("kind", ["dedupe", "clean"])
def test_what_dedupe_was_run_against_tells_the_source_of_what_it_kept(
    root: Path, tmp_path: Path, decided: Decide, kind: str
) -> None:
    """An output of dedupe with its index, or documents; named, or found beside by the sha256 in the manifest."""
    decided(tmp_path / "earlier", [("o-0", "other", "gone", "What an earlier run kept.")], [], [])
    named = written(root, tmp_path / "r1", "--against", str(tmp_path / "earlier" / kind))
    assert rows(named["pairs.csv"])[2][:4] == ["wiki → other", "wiki", "other", "1"]
    assert [row[0] for row in rows(named["sources.csv"])] == ["news", "wiki"]
    assert json.loads(named["totals.json"])["kept_elsewhere"] == 0
    cluster = json.loads(named["clusters.json"])[1]
    assert (cluster["sources"], cluster["against"], cluster["kept_locators"]) == ({"wiki": 1}, 1, ["gone"])
    stays = cluster["examples"][0]
    assert (stays["source"], stays["locator"], stays["excerpt"]) == ("other", "gone", "What an earlier run kept.")
    assert written(root, tmp_path / "r2")["pairs.csv"] != named["pairs.csv"]
    manifest = json.loads((root / "_meta/manifest.json").read_text())
    manifest["facts"]["against"] = Dataset.open(str(tmp_path / "earlier" / kind)).sha256s
    (root / "_meta/manifest.json").write_text(json.dumps(manifest))
    assert written(root, tmp_path / "r2") == named


def test_totals_by_source_balance(root: Path, tmp_path: Path) -> None:
    files = written(root, tmp_path / "r")
    length = {name: len(text) for _, _, name, text in DOCUMENTS}
    assert rows(files["sources.csv"]) == [
        ["news", "3", str(length["n1"] * 2 + 6), "1", "1", "0", str(length["n2"])],
        ["wiki", "3", str(length["w1"] + 12 + 35), "3", "0", "3", str(length["w1"] + 12 + 35)],
    ]
    assert json.loads(files["totals.json"]) == {
        "documents": 6, "characters": sum(length.values()), "removed": 4, "exact": 1, "near": 3,
        "removed_characters": length["n2"] + length["w1"] + 12 + 35, "across_sources": 2, "kept_elsewhere": 1,
        "clusters": 2, "largest_cluster": 4, "boilerplate_clusters": 0, "boilerplate_records": 0,
    }  # fmt: skip


def test_clusters_quote_the_kept_record_and_its_least_and_most_similar_copies(root: Path, tmp_path: Path) -> None:
    large, small = json.loads(written(root, tmp_path / "r")["clusters.json"])
    assert [large["size"], large["kept"], large["similarity"]] == [4, 1, [0.725, 1.0]]
    assert large["sources"] == {"news": 2, "wiki": 2} and large["kept_locators"] == ["n1"]
    assert [(one["locator"], one["action"], one["similarity"], one["excerpt"]) for one in large["examples"]] == [
        ("n1", "kept", None, DOCUMENTS[0][3]),
        ("w1", "removed", 0.725, DOCUMENTS[3][3]),
        ("n2", "removed", 1.0, DOCUMENTS[1][3]),
    ]
    assert large["examples"][0]["id"] == record_id("news", "n1").hex()
    assert (small["size"], small["kept"], small["kept_locators"]) == (2, 1, [])
    gone, copy = small["examples"]
    assert (gone["id"], gone["source"], gone["locator"]) == (record_id("other", "gone").hex(), "(not found)", None)
    assert (copy["locator"], copy["similarity"]) == ("w3", 0.7)


def test_without_the_documents_there_are_locators_and_no_excerpts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "clean/_meta/manifest.json").unlink()
    files = written(root, tmp_path / "r")
    assert b"The documents were not found" in files["index.html"]
    examples = json.loads(files["clusters.json"])[0]["examples"]
    assert [one["locator"] for one in examples] == ["n1", "w1", "n2"] and {one["excerpt"] for one in examples} == {None}


def test_documents_of_the_other_set_quote_the_kept_record_wherever_they_lie(
    root: Path, tmp_path: Path, decided: Decide
) -> None:
    """Its index says which document was kept; the documents may be named by either option, and the index be lost."""
    decided(tmp_path / "earlier", [("o-0", "other", "gone", "What an earlier run kept.")], [], [])
    far = tmp_path / "far/away/there"  # beside nothing that names it
    far.mkdir(parents=True)
    clean = str((tmp_path / "earlier/clean").rename(far / "clean"))
    index, own = str(tmp_path / "earlier/dedupe"), str(tmp_path / "clean")

    def kept(number: int, *options: str) -> tuple[Any, ...]:
        files = written(root, tmp_path / f"r{number}", *options)
        one = json.loads(files["clusters.json"])[1]["examples"][0]
        return one["source"], one["locator"], one["excerpt"]

    assert kept(1, "--against", index) == ("other", "gone", None)
    text = "What an earlier run kept."
    assert kept(2, "--against", index, "--documents", own, clean) == ("other", "gone", text)
    assert kept(3, "--against", index, clean) == ("other", "gone", text)
    assert kept(4, "--documents", own, clean) == ("other", "gone", text)
    assert kept(5, "--documents", own) == ("(not found)", None, None)


def test_an_exact_copy_of_a_record_of_the_other_set_has_no_content_of_its_own(tmp_path: Path) -> None:
    poem = "今日天氣很好，我們一起去公園散步，看見許多花開在路旁，孩子們在樹下玩耍。" * 3
    texts = {"old": [("o1", poem), ("o2", "Nothing like it.")], "new": [("n1", poem), ("n2", "Something else.")]}
    for name, records in texts.items():
        lines = [json.dumps({"id": one, "text": text}) for one, text in records]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        argv = ["--input", str(tmp_path / f"{name}.jsonl"), "--source", name, "--id-field", "id", "--workers", "1"]
        assert ingest.main([*argv, "--output", str(tmp_path / "in" / name)]) == 0
        argv = ["--input", str(tmp_path / "in" / name), "--output", str(tmp_path / f"dedupe-{name}"), "--workers", "1"]
        assert dedupe.main([*argv, *(["--against", str(tmp_path / "dedupe-old")] if name == "new" else [])]) == 0
    files = written(tmp_path / "dedupe-new", tmp_path / "r")
    (row,) = json.loads(files["clusters.json"])
    assert (row["size"], row["kept"], row["sources"], row["against"]) == (2, 1, {"new": 1}, 1)
    assert row["own"] == 0 and row["kept_locators"] == ["o1"]
    assert [(one["action"], one["locator"], one["excerpt"]) for one in row["examples"]] == [
        ("kept", "o1", poem),
        ("removed", "n1", poem),
    ]
    page = " ".join(files["index.html"].decode().split())
    assert "<bdi>new</bdi> 1 and 1 of --against" in page
    assert "0% of the members have a content of their own (measured without those of --against)." in page


class _Page(HTMLParser):
    """What a browser would load, and whether every element ends where it should."""

    VOID = ("meta", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_and_escapes_what_documents_hold(root: Path, tmp_path: Path) -> None:
    page = _Page()
    page.feed(written(root, tmp_path / "r")["index.html"].decode())
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "a"}
    assert not {name for _, attributes in page.tags for name in attributes} & {"src", "href", "onclick", "style"}
    assert DOCUMENTS[0][3] in page.text
    quotes = [attributes for tag, attributes in page.tags if tag == "blockquote"]
    assert [one["lang"] for one in quotes] == ["und", "zh", "und", "und"]
    widths = [int(attributes["width"]) for tag, attributes in page.tags if tag == "rect"]
    assert max(widths) == 1000 and len(widths) == 31 + 3 + 3


def test_the_report_does_not_depend_on_the_sharding(root: Path, tmp_path: Path, decided: Decide) -> None:
    resharded = [(f"x-{i % 2}", *row[1:]) for i, row in enumerate(reversed(DOCUMENTS))]
    other = decided(tmp_path / "other", resharded, REMOVED[::-1], CLUSTERS[::-1])
    assert written(other, tmp_path / "r2") == written(root, tmp_path / "r1")


def test_a_cluster_of_one_form_filled_in_anew_is_boilerplate(tmp_path: Path, decided: Decide) -> None:
    form = (
        "{0} is a village in the administrative district of Gmina Sokółka, within Sokółka County, Podlaskie, "
        "in north-eastern Poland, close to the border with Belarus. {0} has a population of {1} and lies by a river. "
    )
    villages = [f"Village{chr(65 + i)}" for i in range(8)]
    forms = [form.format(name, 100 + i) for i, name in enumerate(villages)]
    page = " ".join(f"word{i}" for i in range(300))
    documents = [
        *(("s-0", "s", name, text) for name, text in zip(villages, forms, strict=True)),
        *(("s-0", "s", f"copy{i}", page) for i in range(8)),  # long, and always the same: a page, no form
        *(("s-0", "s", f"poem{i}", "客之名从此有，多谢风流，飞驭陪尊酒。") for i in range(7)),  # short, and too few
    ]
    groups = [villages, [f"copy{i}" for i in range(8)], [f"poem{i}" for i in range(7)]]
    removed = [(name, group[0], 0.9) for group in groups for name in group[1:]]
    root = decided(tmp_path, documents, removed, groups)
    files = written(root, tmp_path / "r")
    kinds = {one["examples"][0]["locator"]: one["boilerplate"] for one in json.loads(files["clusters.json"])}
    assert kinds == {"VillageA": "short", "copy0": "", "poem0": ""}
    assert json.loads(files["totals.json"])["boilerplate_records"] == 8
    files = written(root, tmp_path / "r7", "--boilerplate", "7", "--top", "1")
    assert json.loads(files["totals.json"])["boilerplate_records"] == 15
    assert b"boilerplate: short" in files["index.html"] and len(json.loads(files["clusters.json"])) == 2
    assert b"<b>8</b> members" in files["index.html"] and b"5 more members are not shown." in files["index.html"]


def test_an_output_without_removals_makes_an_empty_report(tmp_path: Path, decided: Decide) -> None:
    files = written(decided(tmp_path, DOCUMENTS, [], []), tmp_path / "r")
    assert rows(files["pairs.csv"]) == [] and json.loads(files["clusters.json"]) == []
    assert b"Nothing was removed." in files["index.html"]


def test_what_is_no_output_of_dedupe_is_an_error_that_says_so(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert duplicates.main([str(tmp_path / "clean"), "--output", str(tmp_path / "r")]) == 1
    assert "has no index/" in capsys.readouterr().err
    assert duplicates.main([str(root), "--output", str(tmp_path / "r"), "--documents", str(root)]) == 1
    assert "has no documents/" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["dedupe", "clean", "notes.txt"])
def test_a_report_is_not_written_into_a_dataset_or_over_a_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert duplicates.main([str(root), "--output", str(tmp_path / output)]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / output} is a {'file' if output == 'notes.txt' else 'dataset directory'}; name a" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_real_duplicates_are_reported_as_the_books_say(
    tmp_path: Path, real_records: Callable[..., list[dict[str, Any]]]
) -> None:
    for source, count in (("wikipedia_zh", 300), ("documentation_versions", 1500)):
        lines = [json.dumps(record) for record in real_records(f"{source}.jsonl.zst", count)]
        (tmp_path / f"{source}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        argv = ["--input", str(tmp_path / f"{source}.jsonl"), "--source", source, "--id-field", "id", "--workers", "1"]
        assert ingest.main([*argv, "--output", str(tmp_path / "in" / source)]) == 0
    argv = ["--input", str(tmp_path / "in/*"), "--output", str(tmp_path / "dedupe"), "--workers", "1"]
    assert dedupe.main(argv) == 0
    files = written(tmp_path / "dedupe", tmp_path / "r")
    dataset = Dataset.open(str(tmp_path / "dedupe"))
    for name, documents, _, removed, exact, near, _ in rows(files["sources.csv"]):
        book = dataset.books[name]
        assert (int(documents), int(removed)) == (book.records_in, sum(book.removed.values()))
        assert {"exact_duplicate": int(exact), "near_duplicate": int(near)} == {
            "exact_duplicate": book.removed.get("exact_duplicate", 0),
            "near_duplicate": book.removed.get("near_duplicate", 0),
        }
    total = json.loads(files["totals.json"])
    assert total["removed"] > 50 and total["kept_elsewhere"] == 0
    assert sum(int(row[1]) for row in rows(files["similarities.csv"])) == total["removed"]
    assert sum(int(row[2]) for row in rows(files["sizes.csv"])) == len(dataset.table("clusters"))
    assert all(one["excerpt"] for row in json.loads(files["clusters.json"]) for one in row["examples"])
