"""Show what dedupe found: sizes of clusters, similarities, which sources overlap, the largest clusters with excerpts.

gristmill duplicates data/dedupe --documents 'data/clean/*' --output reports/duplicates
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.cli import guarded, positive
from pipelines.core.dataset import DOCUMENTS, Dataset, expand
from pipelines.core.output import OutputError
from pipelines.core.plots import csv_bytes, json_bytes
from pipelines.core.shards import write_bytes
from pipelines.core.texts import beside, document_sets, excerpt, gather, kin
from pipelines.duplicates_page import render
from pipelines.lsh.survey import INDEX, Boilerplate, Facts, Survey, find, key_bytes, measure, survey, table_of
from schemas.manifest import MANIFEST_PATH

Row = dict[str, Any]
_BINS = 100  # of similarity, from 0 to 1
_LOCATORS = 10  # of a cluster's kept records that are listed
_ELSEWHERE = "(not found)"
_NOT_HERE = -1
_PAIR_COLUMNS = ("pair", "removed_source", "kept_source", "records", "exact", "near", "characters")
_SOURCE_COLUMNS = ("source", "documents", "characters", "removed", "exact", "near", "removed_characters")


def size_rows(found: Survey) -> list[Row]:
    """Rows (size, clusters, records) of the histogram of cluster sizes: 2, 3, 4, then up to each power of two."""
    limits = [2, 3, 4]
    while limits[-1] < found.size.max(initial=0):
        limits.append(2 * limits[-1])
    bins = np.searchsorted(limits, found.size)
    clusters, records = np.bincount(bins, minlength=len(limits)), np.bincount(bins, found.size, len(limits))
    lows = [limit if limit <= 4 else limit // 2 + 1 for limit in limits]
    labels = [f"{low}" if low == high else f"{low}-{high}" for low, high in zip(lows, limits, strict=True)]
    return [
        {"size": label, "clusters": int(n), "records": int(members)}
        for label, n, members in zip(labels, clusters, records, strict=True)
    ]


def similarity_rows(found: Survey, threshold: float) -> list[Row]:
    """Rows (similarity, records) of the removed: bins of 0.01 from the threshold, then 'exact' (equal content).

    A bin is named by its lower limit and holds what is below the next one; the last holds 1 too (equal shingles).
    """
    near = found.removals.similarity[~found.removals.exact]
    # 0.29 * 100 is 28.999…: a similarity is a ratio of whole numbers, and the nearest 1e-9 tells which bin it is in
    bins = np.minimum(np.floor(near * _BINS + 1e-9).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    first = min(math.floor(threshold * _BINS + 1e-9), _BINS - 1, int(bins.min(initial=_BINS)))
    rows = [{"similarity": f"{low / _BINS:.2f}", "records": int(counts[low])} for low in range(first, _BINS)]
    return [*rows, {"similarity": "exact", "records": int(found.removals.exact.sum())}]


def pair_rows(found: Survey) -> list[Row]:
    """Rows (pair, removed_source, kept_source, records, exact, near, characters), the most records first."""
    removals, names = found.removals, [*found.names, _ELSEWHERE]
    kept = np.where(removals.kept_source < 0, len(found.names), removals.kept_source)
    pairs, position = np.unique(removals.source.astype(np.int64) * len(names) + kept, return_inverse=True)
    counts = np.bincount(position, minlength=len(pairs))
    exact = np.bincount(position, removals.exact, len(pairs))
    characters = np.bincount(position, removals.length, len(pairs))
    rows = []
    for pair, records, same, lost in zip(pairs.tolist(), counts, exact, characters, strict=True):
        gone, stays = names[pair // len(names)], names[pair % len(names)]
        numbers = {"records": int(records), "exact": int(same), "near": int(records - same), "characters": int(lost)}
        rows.append({"pair": f"{gone} → {stays}", "removed_source": gone, "kept_source": stays, **numbers})
    return sorted(rows, key=lambda row: (-row["records"], row["removed_source"], row["kept_source"]))


def source_rows(found: Survey) -> list[Row]:
    """Rows of totals by source: documents and characters compared, and those removed as exact and as near copies."""
    removals, count = found.removals, len(found.names)
    exact = np.bincount(removals.source[removals.exact], minlength=count)
    removed = np.bincount(removals.source, minlength=count)
    lost = np.bincount(removals.source, removals.length, count)
    rows = [
        {
            "source": name,
            "documents": int(found.documents[i]),
            "characters": int(found.characters[i]),
            "removed": int(removed[i]),
            "exact": int(exact[i]),
            "near": int(removed[i] - exact[i]),
            "removed_characters": int(lost[i]),
        }
        for i, name in enumerate(found.names)
        if found.documents[i]  # a source of another index alone is none of this run's
    ]
    return sorted(rows, key=lambda row: row["source"])


def totals(found: Survey, facts: Sequence[Facts]) -> dict[str, float]:
    """The numbers that one compares from run to run, for `dvc metrics`."""
    removals = found.removals
    boiler = [int(found.size[one.cluster]) for one in facts if one.kind]
    return {
        "documents": int(found.documents.sum()),
        "characters": int(found.characters.sum()),
        "removed": len(removals.id),
        "removed_characters": int(removals.length.sum()),
        "exact": int(removals.exact.sum()),
        "near": int((~removals.exact).sum()),
        "across_sources": int(((removals.source != removals.kept_source) & (removals.kept_source >= 0)).sum()),
        "kept_elsewhere": int((removals.kept_source < 0).sum()),
        "clusters": len(found.size),
        "largest_cluster": int(found.size.max(initial=0)),
        "boilerplate_clusters": len(boiler),
        "boilerplate_records": sum(boiler),
    }


# --- the clusters that are shown --------------------------------------------------------------------------------------


def cluster_rows(
    dedupe: Dataset,
    found: Survey,
    shown: Iterable[Facts],
    documents: Sequence[Dataset],
    others: Sequence[Dataset] = (),
    given: Sequence[Dataset] = (),
) -> list[Row]:
    """Describe clusters: what was measured, the kept records' locators, and excerpts where `documents` hold the text.

    Excerpts are of the kept record that most removed ones name, and of two removed in its favour: the least and the
    most similar one. others: those of the survey; where a kept record stands in one of them, its text is looked for
    there, beside that one, and in `given`.
    """
    shown = list(shown)
    told = [_told(found, one) for one in shown]
    listed = [_listed(one, examples) for one, examples in zip(shown, told, strict=True)]
    elsewhere = [_kept_outside(found, one) for one in shown]
    locators, content = _read(dedupe, found, _distinct(listed, np.int64), documents)
    told_there = [found.removals.kept_id[[r for i, r in examples if i == _NOT_HERE]] for examples in told]
    more, there = _read_outside(
        found, _distinct([*(ids[:_LOCATORS] for ids in elsewhere), *told_there], "S16"), others, given
    )
    locators, content = locators | more, content | there
    rows = []
    for one, examples, away in zip(shown, told, elsewhere, strict=True):
        kept = [*found.members.id[one.members][one.kept][:_LOCATORS], *away[:_LOCATORS]]
        known = [locators[key_bytes(key)] for key in kept if key_bytes(key) in locators]
        sources = np.bincount(found.members.source[one.members], minlength=len(found.names))
        counted = sorted((-int(n), name) for n, name in zip(sources, found.names, strict=True) if n)
        rows.append(
            {
                "cluster": key_bytes(found.cluster_id[one.cluster]).hex(),
                "size": int(found.size[one.cluster]),
                "kept": int(found.size[one.cluster] - (~one.kept).sum()),  # also those of another index
                "against": int(found.size[one.cluster] - len(one.kept)),
                "sources": {name: -n for n, name in counted},
                "similarity": None if math.isnan(one.similarity[0]) else [round(s, 6) for s in one.similarity],
                "median_characters": one.length,
                "median_shingles": one.shingles,
                "core": round(one.core, 6),
                "own": round(one.own, 6),
                "boilerplate": one.kind,
                "kept_locators": known[:_LOCATORS],
                "examples": [_example(found, i, removal, locators, content) for i, removal in examples],
            }
        )
    return rows


def _told(found: Survey, one: Facts) -> list[tuple[int, int]]:
    """Members to quote, the kept one first, each with its position among the removals (-1 where it is kept).

    For a kept record that this index does not hold: _NOT_HERE, and the position of a removal that names it.
    """
    members, removals = found.members, found.removals
    gone = find(removals.id, members.id[one.members])
    rows = np.flatnonzero(gone >= 0)
    if not len(rows):
        return [(one.members.start, -1)] if len(gone) else []
    keys, votes = np.unique(removals.kept_id[gone[rows]], return_counts=True)
    favourite = keys[np.argmax(votes)]
    rows = rows[removals.kept_id[gone[rows]] == favourite]
    rows = rows[np.argsort(removals.similarity[gone[rows]], kind="stable")]  # members are sorted by id: ties are too
    stays = np.flatnonzero(members.id[one.members] == favourite)
    quoted = [(one.members.start + i, int(gone[i])) for i in [*stays, *rows[[0, -1][: len(rows)]]]]
    return quoted if len(stays) else [(_NOT_HERE, int(gone[rows[0]])), *quoted]


def _kept_outside(found: Survey, one: Facts) -> np.ndarray:
    """Ids of the records outside this index that removed members name: S16, sorted."""
    ids = found.members.id[one.members]
    gone = find(found.removals.id, ids)
    return np.setdiff1d(found.removals.kept_id[gone[gone >= 0]], ids)


def _distinct(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, kind), *parts]))


def _listed(one: Facts, examples: Sequence[tuple[int, int]]) -> np.ndarray:
    kept = np.arange(one.members.start, one.members.stop)[one.kept][:_LOCATORS]
    return np.concatenate([kept, np.array([i for i, _ in examples if i != _NOT_HERE], np.int64)])


def _read(
    dedupe: Dataset, found: Survey, wanted: np.ndarray, documents: Sequence[Dataset]
) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Locators and texts, by id, of the members `wanted`."""
    return gather(dedupe, INDEX, found.members.shard[wanted], found.members.row[wanted], documents)


def _read_outside(
    found: Survey, wanted: np.ndarray, others: Sequence[Dataset], given: Sequence[Dataset]
) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Locators and texts, by id, of the kept records `wanted` (ids) that stand in one of the others."""
    at = find(found.outside.id, wanted)
    at = at[at >= 0]
    locators: dict[bytes, str] = {}
    content: dict[bytes, str] = {}
    for number in np.unique(found.outside.other[at]).tolist():
        other, here = others[number], at[found.outside.other[at] == number]
        places = found.outside.shard[here], found.outside.row[here]
        known, held = gather(other, table_of(other), *places, kin(other, given))
        locators, content = locators | known, content | held
    return locators, content


def _example(
    found: Survey, member: int, removal: int, locators: Mapping[bytes, str], content: Mapping[bytes, str]
) -> Row:
    if member == _NOT_HERE:
        record, source = key_bytes(found.removals.kept_id[removal]), found.removals.kept_source[removal]
        removal = -1
    else:
        record, source = key_bytes(found.members.id[member]), found.members.source[member]
    text = content.get(record)
    return {
        "id": record.hex(),
        "source": _ELSEWHERE if source < 0 else found.names[source],
        "locator": locators.get(record),
        "action": "kept" if removal < 0 else "removed",
        "similarity": None if removal < 0 else round(float(found.removals.similarity[removal]), 6),
        "similarity_error": None if removal < 0 else round(float(found.removals.error[removal]), 6),
        "excerpt": None if text is None else excerpt(text),
    }


# --- files ------------------------------------------------------------------------------------------------------------


def write(
    root: str,
    output: str,
    documents: Sequence[str] | None = None,
    against: Sequence[str] | None = None,
    top: int = 20,
    rule: Boilerplate | None = None,
) -> Row:
    """Write the report of one output of dedupe; returns its totals.

    sizes.csv, similarities.csv, pairs.csv, sources.csv and totals.json are for `dvc plots` and `dvc metrics`;
    clusters.json and index.html show the `top` largest clusters and the `top` largest that are boilerplate. documents,
    see `document_sets`; against: what dedupe was run --against, without it those of them that lie beside `root`.
    """
    dedupe, rule = Dataset.open(root), rule or Boilerplate()
    others, given = _others(dedupe, documents, against)
    found = survey(dedupe, others, top, rule.members)
    config = dedupe.manifests[0].config
    facts = measure(dedupe, found, rule)
    largest, boilerplate = facts[:top], [one for one in facts if one.kind][:top]
    shown = {one.cluster: one for one in [*largest, *boilerplate]}
    texts_in = document_sets(dedupe, documents)
    clusters = cluster_rows(dedupe, found, shown.values(), texts_in, others, given)
    sizes, similarities = size_rows(found), similarity_rows(found, config["threshold"])
    pairs, sources, numbers = pair_rows(found), source_rows(found), totals(found, facts)
    page = {
        "config": config,
        "rule": rule,
        "top": top,
        "has_text": bool(texts_in),
        "clusters": clusters[: len(largest)],
    }
    plates = [row for row in clusters if row["boilerplate"]]
    outputs = {
        "sizes.csv": csv_bytes(sizes, ["size", "clusters", "records"]),
        "similarities.csv": csv_bytes(similarities, ["similarity", "records"]),
        "pairs.csv": csv_bytes(pairs, _PAIR_COLUMNS),
        "sources.csv": csv_bytes(sources, _SOURCE_COLUMNS),
        "totals.json": json_bytes(numbers),
        "clusters.json": json_bytes(clusters),
        "index.html": render(
            **page,
            boilerplate=plates,
            totals=numbers,
            sizes=sizes,
            similarities=similarities,
            pairs=pairs,
            sources=sources,
        ).encode(),
    }
    for name, content in outputs.items():
        write_bytes(str(Path(output) / name), content)
    return numbers


def _others(
    dedupe: Dataset, documents: Sequence[str] | None, against: Sequence[str] | None
) -> tuple[list[Dataset], list[Dataset]]:
    """What may hold records kept elsewhere, and all named documents: theirs may be among them."""
    if against is None:
        others = beside(dedupe, set(dedupe.manifests[0].facts.get("against", ())))
    else:
        others = [Dataset.open(one) for one in expand(against)]
    named = [Dataset.open(one).require(DOCUMENTS) for one in expand(documents or ())]
    inputs = {sha256 for one in [dedupe, *others] for manifest in one.manifests for sha256 in manifest.inputs}
    known = inputs.union(*(one.sha256s for one in others))
    # documents that nothing names as its input: the kept record may stand there where its index is found no more
    strays = [one for one in named if not set(one.sha256s) & known]
    return [*others, *strays], [*named, *(one for one in others if one.has(DOCUMENTS))]


def _refuse_dataset(output: str) -> None:
    """Raise OutputError where the report would be written into a dataset directory, or over a file."""
    if (Path(output) / MANIFEST_PATH).exists():
        raise OutputError(f"{output} is a dataset directory; name another --output for the report")
    if Path(output).exists() and not Path(output).is_dir():
        raise OutputError(f"{output} is a file; name a directory as --output")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="gristmill duplicates",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dedupe", metavar="DEDUPE_DIR", help="an output of dedupe")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the report goes")
    parser.add_argument(
        "--documents",
        action="extend",
        nargs="+",
        metavar="DIR_OR_GLOB",
        help="dedupe's inputs, also those of --against, to quote (default: those beside DEDUPE_DIR, or a level below)",
    )
    parser.add_argument(
        "--against",
        action="extend",
        nargs="+",
        metavar="DIR_OR_GLOB",
        help="what dedupe was run --against, to tell of records kept there (default: as for --documents)",
    )
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="clusters to show (default: %(default)s)")
    parser.add_argument(
        "--boilerplate",
        type=positive,
        default=Boilerplate.members,
        metavar="N",
        help="least members of a cluster that may be boilerplate (default: %(default)s)",
    )
    args = parser.parse_args(argv)

    def body() -> None:
        _refuse_dataset(args.output)
        rule = Boilerplate(members=args.boilerplate)
        found = write(args.dedupe, args.output, args.documents, args.against, args.top, rule)
        print(
            f"{found['removed']:,} of {found['documents']:,} records removed ({found['exact']:,} exact, "
            f"{found['near']:,} near; {found['across_sources']:,} for a record of another source), "
            f"{found['clusters']:,} clusters, the largest of {found['largest_cluster']:,}"
        )
        print(f"boilerplate: {found['boilerplate_clusters']:,} clusters of {found['boilerplate_records']:,} records")
        print(f"report: {Path(args.output) / 'index.html'}")

    return guarded("duplicates", body)


if __name__ == "__main__":
    sys.exit(main())
