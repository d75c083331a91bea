"""Show what became of images: a contact sheet of kept ones, of those each rule removed, of duplicates side by side.

gristmill sheet data/clean_images --duplicates data/dedupe_images --output reports/images
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core import files
from pipelines.core.cli import guarded, positive
from pipelines.core.dataset import Dataset
from pipelines.core.output import OutputError
from pipelines.core.plots import csv_bytes, json_bytes
from pipelines.core.shards import write_bytes
from pipelines.core.texts import beside
from pipelines.images_page import render
from pipelines.lsh.survey import key_bytes
from pipelines.sheet_read import Cluster, Copies, Reason, choose_clusters, places, read_copies, read_ledgers, walk
from pipelines.sheet_rows import (
    QUANTILES,
    Row,
    Tiles,
    book_rows,
    cluster_rows,
    kept_groups,
    label_rows,
    largest_sources,
    removal_rows,
    rule_groups,
    signal_rows,
    similarity_rows,
    size_rows,
    totals,
)
from schemas.base import SchemaError
from schemas.image import IMAGES, THUMBNAILS
from schemas.ledger import REJECTED, REMOVED
from schemas.manifest import MANIFEST_PATH

_COLUMNS = {
    "removals": ("reason", "images", "stage", "action"),
    "labels": ("label", "kept", "removed", "duplicates"),
    "sizes": ("size", "images", "kept"),
    "similarities": ("similarity", "images"),
}
_TITLES = (("least", "Least similar"), ("largest", "Largest"), ("hash", "Others"))


@dataclass(frozen=True)
class SheetConfig:
    """How much is on the page.

    samples: images of each source, and of each rule. nearest: images on each side of a rule's limit. clusters: clusters
    of duplicates, of at most `members` images each. most: images on the whole page; where that is too few, each group
    gets fewer, and the smallest groups none. An image has at most about 16 kB, so 1,000 of them 16 MB.
    """

    samples: int = 24
    nearest: int = 6
    clusters: int = 24
    members: int = 8
    most: int = 1000


@dataclass(frozen=True)
class Shares:
    """What fits on a page: samples of a group, images on a side of a limit, clusters, and how many groups of each kind.

    samples and nearest are of each source and each rule that is shown.
    """

    samples: int
    nearest: int
    clusters: int
    sources: int
    rules: int


def share_out(config: SheetConfig, sources: int, rules: int) -> Shares:
    """Divide the images of a page among sources and rules; duplicates get at most half of them, sources of the rest."""
    clusters = min(config.clusters, config.most // 2 // config.members)
    left = config.most - clusters * config.members
    rules_shown = min(rules, max(left - sources, left // 2))
    sources_shown = min(sources, left - rules_shown)
    each = left // max(1, rules_shown + sources_shown)
    nearest = min(config.nearest, each // 4)
    return Shares(min(config.samples, each - 2 * nearest), nearest, clusters, sources_shown, rules_shown)


# --- files ------------------------------------------------------------------------------------------------------------


def write(
    roots: Sequence[str],
    output: str,
    duplicates: Sequence[str] = (),
    against: Sequence[str] = (),
    ingest: Sequence[str] | None = None,
    config: SheetConfig | None = None,
) -> Row:
    """Write the contact sheet of outputs of clean; returns its totals.

    index.html holds its images itself; sizes.csv, labels.csv, removals.csv, similarities.csv and totals.json are for
    `dvc plots` and `dvc metrics`. duplicates: outputs of dedupe. against: outputs of clean that hold images kept
    elsewhere. ingest: outputs of ingest, to tell what it rejected; without it, those inputs of clean that lie beside
    `roots` or one level below that.
    """
    config = config or SheetConfig()
    clean = Dataset.open(*roots).require(IMAGES).require(THUMBNAILS)
    dedupe = [Dataset.open(*duplicates)] if duplicates else []
    decided = {sha256 for one in dedupe for manifest in one.manifests for sha256 in manifest.inputs}
    if dedupe and not decided & set(clean.sha256s):
        raise SchemaError(f"{files.redact(duplicates[0])} decided on none of the images; name the output made of them")
    others = [Dataset.open(*against).require(IMAGES).require(THUMBNAILS)] if against else []
    inputs = {sha256 for manifest in clean.manifests for sha256 in manifest.inputs}
    if ingest is None:
        earlier = [one for one in beside(clean, inputs) if one.has(IMAGES)]
    else:
        earlier = [Dataset.open(*ingest).require(IMAGES)]
    rules = {reason for books in clean.books.values() for reason in books.removed}
    shares = share_out(config, len(clean.books), len(rules))

    gone = read_ledgers([clean], shares.samples, shares.nearest)
    refused = [one for one in [*read_ledgers(earlier, config.samples, 0), *gone] if one.action == REJECTED]
    ruled = [one for one in gone if one.action == REMOVED]
    copies = read_copies(dedupe)
    clusters = choose_clusters(copies, shares.clusters, config.members)
    wanted = _wanted(ruled[: shares.rules], clusters, copies)
    found = walk([clean, *dedupe], wanted, ruled[: shares.rules], shares.samples, shares.nearest)
    sources = largest_sources(found)
    shown = {name: n for name, n in sources[: shares.sources]}
    wanted |= {one for name in shown for one in found.kept[name].ids()}
    wanted |= {one for choice in found.nearest.values() for one in choice.ids()}
    missing = wanted - set(found.places)
    where = {one: found.places[one] for one in wanted - missing} | places(others, missing)
    tiles = Tiles(where)

    numbers = totals(clean, found)
    counted = {
        "removals": removal_rows([*refused, *ruled, *read_ledgers(dedupe, 0, 0)]),
        "labels": label_rows(found),
        "sizes": size_rows(found),
        "similarities": similarity_rows(copies),
    }
    page = render(
        totals=[(name.replace("_", " "), n) for name, n in numbers.items()],
        kept=kept_groups(shown, found, tiles),
        more_sources=len(sources) - len(shown),
        rules=rule_groups(ruled[: shares.rules], found, tiles),
        more_rules=len(ruled[shares.rules :]),
        deduplicated=bool(dedupe),
        cluster_titles=_TITLES,
        clusters_of={name: cluster_rows(some, copies, tiles) for name, some in clusters.items()},
        rejected=[
            {"reason": r.reason, "stage": r.stage, "count": r.count, "rows": r.chosen.rows.to_pylist()} for r in refused
        ],
        books=book_rows([*earlier, clean, *dedupe]),
        signals=signal_rows(found.measured),
        measured=len(found.measured.rank),
        quantiles=[{0.0: "least", 1.0: "most"}.get(q, f"{q:.0%}") for q in QUANTILES],
        **counted,
    )
    outputs = {f"{name}.csv": csv_bytes(rows, _COLUMNS[name]) for name, rows in counted.items()}
    outputs |= {"totals.json": json_bytes(numbers), "index.html": page.encode()}
    for name, content in outputs.items():
        write_bytes(str(Path(output) / name), content)
    return numbers


def _wanted(ruled: Sequence[Reason], clusters: Mapping[str, Sequence[Cluster]], copies: Copies) -> set[bytes]:
    """Ids of the images that decisions name and the page shows."""
    found = {record for one in ruled for choice in (one.chosen, one.nearest) for record in choice.ids()}
    for star in (star for some in clusters.values() for one in some for star in one.stars):
        found |= {star.kept, *(key_bytes(copies.id[row]) for row in star.removed)}
    return found


def _refuse_dataset(output: str) -> None:
    """Raise OutputError where the report would be written into a dataset directory, or over a file."""
    if (Path(output) / MANIFEST_PATH).exists():
        raise OutputError(f"{output} is a dataset directory; name another --output for the report")
    if Path(output).exists() and not Path(output).is_dir():
        raise OutputError(f"{output} is a file; name a directory as --output")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gristmill sheet",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": "DIR_OR_GLOB", "default": []}
    number: dict[str, Any] = {"type": positive, "metavar": "N"}
    default = SheetConfig()
    parser.add_argument("clean", nargs="+", metavar="CLEAN_DIR", help="outputs of clean for images, or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the page and its data files go")
    parser.add_argument("--duplicates", help="output of dedupe", **several)
    parser.add_argument("--against", help="outputs of clean that hold images kept elsewhere", **several)
    ingest = "outputs of ingest, whose dead letters are told too (default: those beside CLEAN_DIR, or a level below)"
    parser.add_argument("--ingest", help=ingest, **{**several, "default": None})
    for name, text in (
        ("samples", "images of each source, and of each rule"),
        ("nearest", "images on each side of a rule's limit"),
        ("clusters", "clusters of duplicates"),
        ("members", "images of a cluster"),
        ("most", "images on the whole page"),
    ):
        value = getattr(default, name)
        parser.add_argument(f"--{name}", default=value, help=f"{text} (default: {value})", **number)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)

    def body() -> None:
        _refuse_dataset(args.output)
        config = SheetConfig(args.samples, args.nearest, args.clusters, args.members, args.most)
        found = write(args.clean, args.output, args.duplicates, args.against, args.ingest, config)
        print(", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.items()))
        print(f"contact sheet: {Path(args.output) / 'index.html'}")

    return guarded("sheet", body)


if __name__ == "__main__":
    sys.exit(main())
