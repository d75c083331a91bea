"""Try rules on measured signals: what each would remove alone, and in order, with examples. Nothing is written.

profile, filters, language.keep, language.min_confidence (of images: those under `images`) and ceilings count; other
settings change what is measured, and only clean does that.

gristmill rules data/clean/wiki --config params.yaml --set filters.min_words=50 --examples 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines.clean_config import CleanConfig
from pipelines.clean_images import Images
from pipelines.clean_texts import Texts
from pipelines.core import files
from pipelines.core.cli import guarded
from pipelines.core.config import load
from pipelines.core.dataset import Dataset
from pipelines.core.kinds import IMAGE_KIND, TEXT, kind_of
from pipelines.core.stage import BooksError, check_ceilings
from pipelines.core.texts import excerpt
from pipelines.text.rules import Rule, decide
from schemas.base import SchemaError
from schemas.manifest import Books
from schemas.signals import SIGNALS

_EXCERPT = 100


@dataclass
class Tally:
    """What one rule does. alone, first: records that it breaks, and those of them that no rule before it breaks.

    sources: of `first`, by source. examples: (score, locator, excerpt) of the first ones.
    """

    rule: Rule
    alone: int = 0
    first: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    examples: list[tuple[float, str, str]] = field(default_factory=list)


def check_signals(dataset: Dataset, cleaner: Texts | Images) -> None:
    """Raise SchemaError where a rule needs a signal that was not measured."""
    for root, manifest in zip(dataset.roots, dataset.manifests, strict=True):
        one = Dataset((root,), (manifest,))
        names = one.open_shard(SIGNALS, one.keys(SIGNALS)[0]).schema.names[1:]
        have = cleaner.derived({name: np.zeros(0) for name in names})
        if missing := [rule for rule in cleaner.rules if rule.signal not in have]:
            raise SchemaError(
                f"{missing[0].name} needs the signal {missing[0].signal!r}, which was not measured in "
                f"{files.redact(root)}; run clean with a profile, a filter or `measure` that asks for it"
            )


def tally(dataset: Dataset, cleaner: Texts | Images, examples: int) -> tuple[list[Tally], dict[str, int]]:
    """Ask the rules of every record; returns a tally of each, and the records of each source."""
    asked, kind = cleaner.rules, cleaner.kind
    found, seen = [Tally(rule) for rule in asked], dict[str, int]()
    for key in dataset.keys(SIGNALS):
        table = dataset.table(SIGNALS, key)
        measured = cleaner.derived({name: table[name].to_numpy() for name in table.column_names[1:]})
        sources = dataset.table(kind.table, key, ["source"])["source"].to_numpy(zero_copy_only=False)
        for source, count in zip(*np.unique(sources, return_counts=True), strict=True):
            seen[str(source)] = seen.get(str(source), 0) + int(count)
        decided = decide(measured, asked)
        for index, one in enumerate(found):
            rows = np.flatnonzero(decided.rule == index)
            one.alone += int(one.rule.breaks(measured[one.rule.signal]).sum())
            one.first += len(rows)
            for source, count in zip(*np.unique(sources[rows], return_counts=True), strict=True):
                one.sources[str(source)] = one.sources.get(str(source), 0) + int(count)
            wanted = rows[: examples - len(one.examples)]
            if len(wanted):
                text = "text" if kind == TEXT else "caption"
                shown = dataset.table(kind.table, key, ["locator", text]).take(wanted).to_pylist()
                for row, score in zip(shown, decided.score[wanted].tolist(), strict=True):
                    one.examples.append((score, row["locator"], excerpt(row[text] or "", _EXCERPT)))
    return found, seen


def lines(found: Sequence[Tally], seen: dict[str, int], config: CleanConfig, noun: str) -> list[str]:
    """The report: a line a rule, its sources where there are several, its examples, and a ceiling that is passed."""
    total = sum(seen.values())
    told = [f"{total:,} {noun}", f"{'rule':<34}{'limit':>12}{'alone':>10}{'in order':>10}{'share':>8}"]
    for one in found:
        share = one.first / total if total else 0.0
        told.append(f"{one.rule.name:<34}{one.rule.limit:>12g}{one.alone:>10,}{one.first:>10,}{share:>8.2%}")
        if len(seen) > 1 and one.first:
            told.append("    " + ", ".join(f"{s}: {n:,} ({n / seen[s]:.2%})" for s, n in sorted(one.sources.items())))
        told += [f"    {score:<10.4g} {locator}  {text}" for score, locator, text in one.examples]
    gone = sum(one.first for one in found)
    kept = f"{total - gone:,} of {total:,} {noun} are kept" + (f" ({1 - gone / total:.2%})" if total else "")
    removed = {source: {one.rule.name: one.sources.get(source, 0) for one in found} for source in seen}
    books = {source: Books(seen[source], seen[source] - sum(by.values()), by) for source, by in removed.items()}
    try:
        check_ceilings(books, config.ceilings)
    except BooksError as error:
        return [*told, kept, f"a ceiling would be passed: {error}"]
    return [*told, kept]


def run(inputs: Sequence[str], config: CleanConfig, examples: int) -> list[str]:
    """Try the rules of a configuration on outputs of clean; returns the lines of the report."""
    dataset = Dataset.open(*inputs).require(SIGNALS)
    kind = kind_of(dataset)
    cleaner = Images(config.images) if kind == IMAGE_KIND else Texts(config)
    check_signals(dataset, cleaner)
    return lines(*tally(dataset, cleaner, examples), config, kind.noun)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="gristmill rules",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="DIR", help="outputs of clean")
    parser.add_argument("--config", metavar="params.yaml", help="YAML file with a section 'clean'")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as clean takes it; repeatable")
    parser.add_argument("--examples", type=int, default=0, metavar="N", help="records to show for each rule")
    args = parser.parse_args(argv)

    def body() -> None:
        config = load(CleanConfig, "clean", args.config, args.set)
        print("\n".join(run(args.input, config, args.examples)))

    return guarded("rules", body)


if __name__ == "__main__":
    sys.exit(main())
