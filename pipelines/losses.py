"""Lead a model's losses back to the data: which sources and documents are hard or easy for it; drop or reweigh them.

gristmill losses models/run/losses --documents 'data/clean/*' --clusters data/dedupe --min-tokens 20
gristmill losses train.arrow --documents 'data/clean/*' --per byte --drop hardest=0.02 --output data/losses
gristmill shard --input 'data/clean/*' --decisions data/losses data/dedupe --output data/shards

Nothing is decided without --output: it takes the decisions (ledger/) and the tables (CSV).
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipelines.core import files, ledger
from pipelines.core.cli import guarded, positive
from pipelines.core.config import ConfigError
from pipelines.core.dataset import DOCUMENTS, LEDGER_TABLE, Dataset, shard_path
from pipelines.core.plots import csv_bytes, json_bytes
from pipelines.core.runners import RunOptions
from pipelines.core.shards import write_bytes, write_shard
from pipelines.core.stage import Report, begin
from pipelines.core.summary import print_summary
from pipelines.core.texts import excerpt
from pipelines.losses_groups import (
    COLUMNS,
    EASY,
    HARD,
    Drop,
    Dropped,
    Groups,
    Joined,
    choose,
    per_byte,
    roll_up,
    weights,
)
from pipelines.losses_read import Found, locate, read_losses, take
from pipelines.lsh.survey import CLUSTERS
from schemas.ledger import LEDGER, REMOVED

STAGE = "losses"
_EXCERPT, _GROUPS = 100, 20  # characters of an excerpt; rows of a table that are printed
Tables = Sequence[tuple[Groups, list[dict[str, Any]]]]


@dataclass(frozen=True)
class LossesConfig:
    """What is read and what is decided.

    last: only each document's highest step counts. per: the score of a document, 'token' (nats a guessed token) or
    'byte' (see per_byte). min_tokens: documents of fewer guessed tokens are in the tables, but are neither listed nor
    dropped. drop: what is dropped, see Drop. each_source: shares are of each source by itself.
    """

    last: bool = False
    per: str = "token"
    min_tokens: int = 1
    drop: tuple[Drop, ...] = ()
    each_source: bool = False


# --- what people read -------------------------------------------------------------------------------------------------


def _width(text: str) -> int:
    """Places in a terminal: two for a Chinese character."""
    return len(text) + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


def _padded(text: str, width: int) -> str:
    line = excerpt(text, 40)
    return line + " " * (width - _width(line))


def table_lines(groups: Groups, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table for people: its first rows."""
    width = max(16, *(_width(excerpt(row["group"], 40)) for row in rows[:_GROUPS]))
    counts, numbers = COLUMNS[1:3], COLUMNS[3:]
    head = "".join(f"{name:>12}" for name in counts) + "".join(f"{name:>9}" for name in numbers)
    lines = ["", _padded(groups.by, width) + head]
    for row in rows[:_GROUPS]:
        values = "".join(f"{row[name]:>12,}" for name in counts) + "".join(f"{row[name]:>9.4f}" for name in numbers)
        lines.append(_padded(row["group"], width) + values)
    if len(rows) > _GROUPS:
        lines.append(f"… and {len(rows) - _GROUPS:,} more (--output writes all)")
    return lines


def listing(
    title: str, rows: np.ndarray, score: np.ndarray, joined: Joined, found: Found, documents: Dataset
) -> list[str]:
    """The documents `rows` with their scores, guessed tokens, ids, sources and excerpts, in that order."""
    texts = take(documents, found, rows, ["text"])["text"].to_pylist()
    source = found.groups[0]
    lines = ["", title, f"{'score':>9}{'tokens':>9}  id, source, text"]
    for i, text in zip(rows.tolist(), texts, strict=True):
        named = f"{joined.id[i].as_py().hex()}  {excerpt(source.names[source.code[i]], 40)}"
        lines += [f"{score[i]:>9.4f}{joined.tokens[i]:>9,}  {named}", f"{'':20}{excerpt(text, _EXCERPT)}"]
    return lines


# --- what is decided --------------------------------------------------------------------------------------------------


def write_decisions(
    output: str,
    config: LossesConfig,
    documents: Dataset,
    joined: Joined,
    score: np.ndarray,
    found: Found,
    gone: Dropped,
    tables: Tables,
) -> None:
    """Write a dataset directory: ledger/ with the documents that are dropped, and the tables as CSV and JSON."""
    order = np.lexsort([found.row[gone.row], found.shard[gone.row]])
    ends = np.searchsorted(found.shard[gone.row][order], np.arange(len(documents.keys())), side="right")
    reports = []
    with begin(STAGE, output, config, RunOptions(workers=1), [documents]) as stage:
        for key, mine in zip(documents.keys(), np.split(order, ends[:-1]), strict=True):
            rows = _ledger(documents, joined, score, found, Dropped(*(column[mine] for column in gone)))
            shard = write_shard(stage.root, shard_path(LEDGER_TABLE, key), LEDGER.schema, [rows])
            reports.append(Report(key, (shard,), ledger.count(found.books[key], [rows])))
        named = {re.sub("[^0-9A-Za-z_.]", "-", groups.by): table for groups, table in tables}
        contents = {f"by-{name}.csv": csv_bytes(table, COLUMNS) for name, table in named.items()}
        contents["tables.json"] = json_bytes(named)
        for name, content in contents.items():
            write_bytes(files.join(stage.root, name), content)
        facts = {"documents": len(joined.id), "tokens": int(joined.tokens.sum()), "loss": round(joined.mean, 6)}
        stage.commit(reports, inputs=[documents], facts={**facts, "extra_files": sorted(contents)})
    print_summary(stage, (f"gristmill shard --decisions {output} applies it",))


def _ledger(documents: Dataset, joined: Joined, score: np.ndarray, found: Found, dropped: Dropped) -> pa.RecordBatch:
    """Ledger rows of documents of one shard."""
    gone = take(documents, found, dropped.row, ["source", "locator"])
    columns = {
        "id": joined.id.take(pa.array(dropped.row)),
        "source": gone["source"],
        "stage": STAGE,
        "action": REMOVED,
        "reason": np.array([HARD, EASY])[dropped.reason].tolist(),
        "score": score[dropped.row],
        "threshold": dropped.threshold,
        "locator": gone["locator"],
    }
    return ledger.rows(columns, len(dropped.row))


def write_weights(path: str, by_source: Sequence[Mapping[str, Any]], rate: float) -> dict[str, float]:
    """Write the weights of sources as a section `shard` that `gristmill shard --config` reads; returns them."""
    found = weights(by_source, rate)
    about = f"# exp({rate:g} × (loss of the source - mean loss)), from 0.5 to 2; for shard.weights\n"
    text = yaml.safe_dump({"shard": {"weights": found}}, allow_unicode=True, sort_keys=True)
    write_bytes(path, (about + text).encode())
    return found


# --- the command ------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Run what the command line asks for, and print."""
    orders = (*args.drop, *args.drop_above, *args.drop_below)
    if orders and not args.output:
        raise ConfigError("--drop, --drop-above and --drop-below decide: name an --output for their decisions")
    config = LossesConfig(args.last, args.per, args.min_tokens, orders, args.each_source)
    documents = Dataset.open(*args.documents).require(DOCUMENTS)
    clusters = Dataset.open(*args.clusters).require(CLUSTERS) if args.clusters else None
    joined = read_losses(args.files, config.last)
    found = locate(joined, documents, clusters, args.by)
    source = found.groups[0]
    for order in orders:
        if order.source and order.source not in source.names:
            raise ConfigError(f"no losses of a source {order.source!r}; there are: {', '.join(sorted(source.names))}")
    tables = [(groups, roll_up(groups, joined.loss, joined.tokens)) for groups in found.groups]
    score = per_byte(joined, found.size) if config.per == "byte" else joined.loss
    enough = joined.tokens >= config.min_tokens
    print(f"{len(joined.id):,} documents, {joined.tokens.sum():,} guessed tokens, mean loss {joined.mean:.4f} nats")
    for groups, lines in tables:
        print("\n".join(table_lines(groups, lines)))
    rows = np.flatnonzero(enough)
    for name, sign in (("hardest", -1), ("easiest", 1)):  # ties by id
        shown = rows[np.argsort(sign * score[rows], kind="stable")][: args.top]
        title = f"{name} {len(shown)} of the {len(rows):,} documents with enough guessed tokens, by cost a {config.per}"
        print("\n".join(listing(title, shown, score, joined, found, documents)))
    if args.weights:
        print(f"\nweights of sources: {args.weights}")
        for name, weight in write_weights(args.weights, tables[0][1], args.weight_rate).items():
            print(f"  {_padded(name, 40)}{weight:>8.4f}")
    if args.output:
        print()
        dropped = choose(orders, score, source, enough & found.alive, config.each_source)
        write_decisions(args.output, config, documents, joined, score, found, dropped, tables)


def _share(raw: str) -> Drop:
    name, _, value = raw.rpartition("=")
    source, _, what = name.rpartition(":")
    if what not in ("hardest", "easiest") or not 0 < _number(value) < 1:
        raise argparse.ArgumentTypeError(f"expected [SOURCE:]hardest=SHARE or [SOURCE:]easiest=SHARE, got {raw!r}")
    return Drop(what, float(value), source)


def _limit(what: str, raw: str) -> Drop:
    source, _, value = raw.rpartition(":")
    if not 0 <= _number(value) < math.inf:
        raise argparse.ArgumentTypeError(f"expected [SOURCE:]SCORE, got {raw!r}")
    return Drop(what, float(value), source)


def _number(raw: str) -> float:
    try:
        return float(raw)
    except ValueError:
        return math.nan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gristmill losses",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, text: str, **options: Any) -> None:
        parser.add_argument(name, help=text, **options)

    several: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": "DIR_OR_GLOB"}
    again: dict[str, Any] = {"action": "append", "default": []}
    above, below = functools.partial(_limit, "above"), functools.partial(_limit, "below")
    add("files", "files of losses, or a training run's losses/ folder", nargs="+", metavar="FILES")
    add("--documents", "what the rows were made of: outputs with documents/, as clean's", required=True, **several)
    add("--clusters", "outputs of dedupe: a table by size of the cluster", default=[], **several)
    add("--by", "a table by a column of documents or signals, or by metadata.KEY; repeatable", metavar="NAME", **again)
    add("--last", "of each document, only the losses of its highest step count", action="store_true")
    add("--per", "score documents by nats a token, or by cost a byte over the mean's", choices=("token", "byte"),
        default="token")  # fmt: skip
    add("--min-tokens", "list and drop only documents with so many guessed ones", type=positive, default=1, metavar="N")
    add("--top", "documents to list of each kind (default: %(default)s)", type=positive, default=10, metavar="N")
    add("--drop", "[SOURCE:]hardest=SHARE or [SOURCE:]easiest=SHARE; repeatable", type=_share, metavar="SHARE", **again)
    add("--drop-above", "[SOURCE:]SCORE: drop what has a higher one; repeatable", type=above, metavar="SCORE", **again)
    add("--drop-below", "[SOURCE:]SCORE: drop what has a lower one; repeatable", type=below, metavar="SCORE", **again)
    add("--each-source", "take the shares of --drop of each source by itself", action="store_true")
    add("--output", "dataset directory for the decisions and the tables", metavar="DIR")
    add("--weights", "write weights of sources, for `gristmill shard --config`", metavar="FILE")
    add("--weight-rate", "weight = exp(rate × excess loss), from 0.5 to 2", type=float, default=1.0, metavar="RATE")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    return guarded(STAGE, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
