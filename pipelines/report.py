"""Gather what all stages say of themselves: books, metrics and plots for DVC, and a summary for people.

python -m pipelines.report --data data --evaluation reports/evaluation.json --output reports
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.cli import guarded
from pipelines.core.config import corpora_of
from pipelines.core.dataset import DOCUMENTS, Dataset
from pipelines.core.history import datasets_under
from pipelines.core.plots import csv_bytes, json_bytes
from pipelines.core.shards import write_bytes
from pipelines.core.summary import books_table, size_lines
from schemas.manifest import Books

_LENGTH_BINS = 2.0 ** np.arange(4, 21)  # characters: 16, 32, … 1,048,576


def metrics(datasets: Sequence[Dataset], tokenizer: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers that one compares from run to run, for `dvc metrics`: a few for each stage, over all sources."""
    result: dict[str, dict[str, float]] = {}
    for dataset in datasets:
        manifest = dataset.manifests[0]
        if manifest.stage == "tokenizer":
            continue
        stage = result.setdefault(manifest.stage, dict.fromkeys(("in", "kept", "removed", "rejected"), 0))
        for one in manifest.books.values():
            stage["in"] += one.records_in
            stage["kept"] += one.kept
            stage["removed"] += sum(one.removed.values())
            stage["rejected"] += sum(one.rejected.values())
        for name in ("fill", "tokens"):
            if name in manifest.facts:
                stage[name] = manifest.facts[name]
    result["tokenizer"] = {
        name: tokenizer[name] for name in ("fertility", "bytes_per_token", "unknown_rate") if name in tokenizer
    }
    return result


def books(datasets: Sequence[Dataset]) -> dict[str, dict[str, dict[str, int]]]:
    """The books of every stage and source: in, kept, and removed and rejected by reason."""
    result: dict[str, dict[str, dict[str, int]]] = {}
    for dataset in datasets:
        manifest = dataset.manifests[0]
        for source, one in manifest.books.items():
            result.setdefault(manifest.stage, {})[source] = _flat(one)
    return result


def _flat(one: Books) -> dict[str, int]:
    removed = {f"removed_{reason}": count for reason, count in one.removed.items()}
    rejected = {f"rejected_{reason}": count for reason, count in one.rejected.items()}
    return {"in": one.records_in, "kept": one.kept, **removed, **rejected}


def removal_rows(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Rows (stage, reason, source, records) of what was removed or rejected, each decision once."""
    rows = []
    for dataset in datasets:
        manifest = dataset.manifests[0]
        for source, one in manifest.books.items():
            for reason, count in {**one.removed, **one.rejected}.items():
                if manifest.stage != "shard" or reason == "sampled_out":  # shard's books repeat dedupe's removals
                    rows.append({"reason": f"{manifest.stage}: {reason}", "source": source, "records": count})
    return sorted(rows, key=lambda row: (row["reason"], row["source"]))


def length_rows(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Rows (characters, documents) of a histogram over powers of two, from the signals of clean."""
    counts = np.zeros(len(_LENGTH_BINS) + 1, np.int64)
    for dataset in datasets:
        for key in dataset.keys("signals") if dataset.has(DOCUMENTS) else ():
            for batch in dataset.batches("signals", key, ["chars"]):
                bins = np.searchsorted(_LENGTH_BINS, batch.column("chars").to_numpy(), side="right")
                counts += np.bincount(bins, minlength=len(counts))
    labels = ["<16", *(f"{int(low):,}+" for low in _LENGTH_BINS)]
    return [{"characters": label, "documents": int(n)} for label, n in zip(labels, counts, strict=True) if n]


def cluster_rows(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Rows (size, clusters) of a histogram of the sizes of duplicate clusters."""
    members: Counter[int] = Counter()
    for dataset in datasets:
        for key in dataset.keys("clusters"):
            for batch in dataset.batches("clusters", key, ["cluster_size"]):
                members.update(batch.column("cluster_size").to_pylist())
    return [{"size": size, "clusters": count // size} for size, count in sorted(members.items())]


def summary(datasets: Sequence[Dataset], tokenizer: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """The summary for people: books, sizes and places of every stage, then tokenizer, packing and model."""
    lines = []
    for dataset in datasets:
        manifest = dataset.manifests[0]
        lines += [f"{manifest.stage}  {dataset.roots[0]}", books_table(manifest.books)]
        lines += [f"  {line}" for line in size_lines(manifest)]
        for key in ("fill", "tokens"):
            if key in manifest.facts:
                lines.append(f"  {key}: {manifest.facts[key]:,}")
    lines += [f"tokenizer  {name}: {_number(value)}" for name, value in _numbers(tokenizer).items() if "." not in name]
    lines += [f"model  {name}: {_number(value)}" for name, value in _numbers(evaluation).items() if "." not in name]
    return "\n".join(lines) + "\n"


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = value
    return found


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _read_json(path: str | None) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def write(data: str, tokenizer: str | None, evaluation: str | None, output: str, corpora: Sequence[str] = ()) -> str:
    """Write metrics.json, books.json, the plots' CSV files and summary.txt into `output`; returns the summary.

    corpora: names of the corpora whose ingest and clean directories count; all of them where it is empty.
    """
    datasets = [dataset for dataset in datasets_under(data) if _counts(dataset, corpora)]
    text = summary(datasets, _read_json(tokenizer), _read_json(evaluation))
    outputs = {
        "metrics.json": json_bytes(metrics(datasets, _read_json(tokenizer))),
        "books.json": json_bytes(books(datasets)),
        "removals.csv": csv_bytes(removal_rows(datasets), ["reason", "source", "records"]),
        "lengths.csv": csv_bytes(length_rows(datasets), ["characters", "documents"]),
        "clusters.csv": csv_bytes(cluster_rows(datasets), ["size", "clusters"]),
        "summary.txt": text.encode(),
    }
    for name, content in outputs.items():
        write_bytes(str(Path(output) / name), content)
    return text


def _counts(dataset: Dataset, corpora: Sequence[str]) -> bool:
    one_corpus = dataset.manifests[0].stage in ("ingest", "clean")
    return not (corpora and one_corpus) or dataset.roots[0].rsplit("/", 1)[-1] in corpora


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="gristmill report",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="data", metavar="DIR", help="folder that holds the stages' outputs")
    parser.add_argument("--tokenizer-report", metavar="FILE", help="report.json of the tokenizer")
    parser.add_argument("--evaluation", metavar="FILE", help="metrics that `gristmill evaluate` wrote")
    parser.add_argument("--corpora", metavar="params.yaml", help="count only the corpora that this file names")
    parser.add_argument("--output", default="reports", metavar="DIR")
    args = parser.parse_args(argv)

    def body() -> None:
        corpora = corpora_of(args.corpora) if args.corpora else ()
        print(write(args.data, args.tokenizer_report, args.evaluation, args.output, corpora), end="")

    return guarded("report", body)


if __name__ == "__main__":
    sys.exit(main())
