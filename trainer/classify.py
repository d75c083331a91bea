"""Labelled texts: reading tables of them, and measuring a classifier, as a whole and group by group."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
SLICES = ("source", "language", "lang")  # fields to report by wherever a table has them
BINS = 10  # of confidence, of equal width
SHOWN = 20  # groups of a field, on a terminal
MEASURES = ("precision", "recall", "f1")
GAPS = ("accuracy", "macro_f1", "calibration_error")

Record = Mapping[str, Any]


class TableError(ValueError):
    """A table, or a record of one, that cannot be used."""


@dataclass(frozen=True)
class Fields:
    """Names of a table's fields. 'metadata.topic' is `topic` of the object, or of the JSON text, in `metadata`."""

    text: str = "text"
    pair: str | None = None
    label: str = "label"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A labelled text or pair. place: file and line. groups: what it has in the fields to report by."""

    place: str
    text: str
    pair: str | None
    label: str
    id: str | None
    groups: dict[str, str]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return not (self.text.strip() or (self.pair or "").strip())


def read(name: str, fields: Fields) -> list[Example]:
    """Read a table: .csv, .tsv or .jsonl, also .gz or .zst, or a directory for datasets.load_from_disk, DIR:SPLIT.

    A text that is null is empty; fields to report by may be absent. TableError, which names file and record, where
    another field is missing, a text is no text, or a label neither text nor an integer.
    """
    found = []
    for place, record in _records(name):
        label = _field(record, fields.label, place)
        if not isinstance(label, (str, int)) or isinstance(label, bool) or label == "":
            raise TableError(f"{place}: label {label!r} is neither a text nor an integer")
        text, pair = (_field(record, each, place) if each else None for each in (fields.text, fields.pair))
        for each in (text, pair):
            if not isinstance(each, (str, NoneType)) or (each and not _encodes(each)):
                raise TableError(f"{place}: {each!r} is no text; name the fields with --text and --pair")
        groups = {each: _name(_field(record, each)) for each in fields.groups if _field(record, each) is not None}
        groups |= {each: _name(record[each]) for each in SLICES if each in record}
        number = None if record.get("id") is None else _name(record["id"])
        found.append(Example(place, text or "", (pair or "") if fields.pair else None, str(label), number, groups))
    if not found:
        raise TableError(f"{name} holds no records")
    return found


def _records(name: str) -> Iterator[tuple[str, Record]]:
    """Each record of a table, after the place where it stands."""
    path, split = Path(name), ""
    if not path.exists() and ":" in name:
        path, split = Path(name.rpartition(":")[0]), name.rpartition(":")[2]
    if path.is_dir():
        return _dataset(path, split)
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix not in (".gz", ".zst")), "")
    if kind not in TABLES:
        raise TableError(f"{name} is neither a directory nor one of {', '.join(TABLES)}, or these with .gz or .zst")
    stream: Any = pa.input_stream(name, compression="detect")
    return _lines(name, io.BufferedReader(stream)) if kind in TABLES[2:] else _separated(name, kind, stream)


def _lines(name: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise TableError(f"{name}, line {number}: no JSON: {error}") from error
            if not isinstance(record, dict):
                raise TableError(f"{name}, line {number}: no JSON object")
            yield f"{name}, line {number}", record


def _separated(name: str, kind: str, stream: Any) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(1 << 30)
    lines = io.TextIOWrapper(io.BufferedReader(stream), "utf-8-sig", newline="")
    reader = csv.DictReader(lines, restkey=None, delimiter="\t" if kind == ".tsv" else ",", strict=True)
    try:
        if len(set(head := reader.fieldnames or [])) < len(head):
            raise TableError(f"{name}, line 1: two columns have one name")
        for record in reader:
            if None in record or None in record.values():
                raise TableError(f"{name}, line {reader.line_num}: not as many fields as the first line")
            yield f"{name}, line {reader.line_num}", record
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{name}, at or after line {reader.line_num + 1}: {error}") from error


def _dataset(path: Path, split: str) -> Iterator[tuple[str, Record]]:
    try:
        import datasets  # seconds to import, and nothing else here needs it
    except ImportError as error:
        raise TableError(f"{path} is a directory, which the package `datasets` reads: install it") from error
    found = datasets.load_from_disk(str(path))
    splits = list(found) if isinstance(found, datasets.DatasetDict) else []
    if split not in (splits or [""]):
        advice = f"the splits {', '.join(splits)}: write {path}:{splits[0]}" if splits else f"no split {split!r}"
        raise TableError(f"{path} has {advice}")
    found = found[split] if split else found
    classes = {key: each.names for key, each in found.features.items() if isinstance(each, datasets.ClassLabel)}
    number = 0
    for table in found.with_format("arrow").iter(4096):
        for record in table.to_pylist():
            number += 1
            known = {key: names[record[key]] for key, names in classes.items() if record[key] not in (None, -1)}
            yield f"{path}, record {number}", record | dict.fromkeys(classes) | known


def _field(record: Record, name: str, place: str | None = None) -> Any:
    """A field of a record. Where it has none: TableError that names the place, or without one None."""
    if name in record:
        return record[name]
    head, _, rest = name.partition(".")
    inner = record.get(head) if rest else None
    if isinstance(inner, str):
        inner = next((value for _, value in _lines(f"{place}, field {head!r}", [inner.encode()])), None)
    if isinstance(inner, dict):
        return _field(inner, rest, place)
    if place is None:
        return None
    raise TableError(f"{place}: there is no field {name!r}; there are: {', '.join(record)}")


def _encodes(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else "" if value is None else str(value)


def label_names(examples: Sequence[Example]) -> list[str]:
    """Sort the labels that occur, integers by size; TableError unless there are at least two."""
    names = sorted({each.label for each in examples}, key=_natural)
    if len(names) < 2:
        raise TableError(f"{examples[0].place} and all others have label {names[0]!r}: a classifier needs two")
    return names


def number_labels(examples: Sequence[Example], names: Sequence[str]) -> np.ndarray:
    """Number labels by their place in `names`, int64 [n]; TableError where one is not among them."""
    known = {name: number for number, name in enumerate(names)}
    for each in examples:
        if each.label not in known:
            raise TableError(f"{each.place}: label {each.label!r} does not occur in training: {', '.join(names)[:200]}")
    return np.array([known[each.label] for each in examples], np.int64)


def score(log_probabilities: np.ndarray, actual: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Measure predictions: float64 [n, classes] in nats, int64 [n].

    Precision, recall and F1 of each class (0 where nothing is predicted or labelled so), their means over the classes
    that occur as label or prediction (macro), and over texts (micro: where each has one label, all are the accuracy).
    reliability: how sure the model is and how often it is right, in each bin of confidence that holds texts.
    calibration_error: their mean difference, weighed by texts (Guo et al. 2017, arXiv:1706.04599).
    """
    size, classes, predicted = len(actual), len(names), log_probabilities.argmax(1)
    hits = actual[actual == predicted]
    right, labelled, guessed = (np.bincount(each, minlength=classes) for each in (hits, actual, predicted))
    f1 = 2 * right / np.maximum(labelled + guessed, 1)
    values = (right / np.maximum(guessed, 1), right / np.maximum(labelled, 1), f1)
    occurs, accuracy = labelled + guessed > 0, float(right.sum() / size)
    confidence, bins = np.exp(log_probabilities.max(1)), []
    number = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    for each in np.unique(number).tolist():
        mine = number == each
        means = {"confidence": float(confidence[mine].mean()), "accuracy": float((predicted == actual)[mine].mean())}
        bins.append({"from": each / BINS, "to": (each + 1) / BINS, "examples": int(mine.sum()), **means})
    return {
        "examples": size,
        "accuracy": accuracy,
        "log_loss": float(-log_probabilities[np.arange(size), actual].mean()),
        "calibration_error": sum(abs(each["confidence"] - each["accuracy"]) * each["examples"] for each in bins) / size,
        "macro": {key: float(value[occurs].mean()) for key, value in zip(MEASURES, values, strict=True)},
        "micro": dict.fromkeys(MEASURES, accuracy),
        "classes": {
            name: {**dict(zip(MEASURES, map(float, row), strict=True)), "examples": int(count)}
            for name, count, *row in zip(names, labelled, *values, strict=True)
        },
        "reliability": bins,
    }


def report(folder: Path, facts: Mapping[str, Any], columns: Mapping[str, Any], groups: Mapping[str, Sequence[str]],
           log_probabilities: np.ndarray, actual: np.ndarray, names: Sequence[str], *, least: int,
           unit: str = "texts") -> None:  # fmt: skip
    """Write metrics.json (after `facts`), slices.json, confusion.csv and predictions.arrow, and print the measures.

    columns: what to say of each example beside label, prediction and probability. The others: as of `slices`.
    """
    labels, guesses = ([names[number] for number in each] for each in (actual, log_probabilities.argmax(1)))
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("actual", "predicted"), *zip(labels, guesses, strict=True)])
    sure = np.exp(log_probabilities.max(1))
    table = pa.table({**columns, "label": labels, "prediction": guesses, "probability": sure})
    with pa.ipc.new_file(str(folder / "predictions.arrow"), table.schema) as writer:
        writer.write_table(table)
    metrics = score(log_probabilities, actual, names)
    found = slices(groups, log_probabilities, actual, names, least)
    for name, value in (("slices.json", found), ("metrics.json", {**facts, **metrics})):
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(show(metrics, found, unit))


def length_class(tokens: int) -> str:
    """Name a text's class of length: 1–15, 16–31, 32–63, … tokens, specials included; 0: empty."""
    top = 16 << (tokens // 16).bit_length()
    return f"{top // 2 if top > 16 else 1}–{top - 1} tokens" if tokens else "empty"


def slices(groups: Mapping[str, Sequence[str]], log_probabilities: np.ndarray, actual: np.ndarray,
           names: Sequence[str], least: int) -> dict[str, Any]:  # fmt: skip
    """Measure each group of each field, and the gap between the best group and the worst.

    Groups of fewer than `least` texts are shown but do not count in a gap. accuracy_error: one standard error, to tell
    a gap from chance.
    """
    report: dict[str, Any] = {}
    for field, values in groups.items():
        column, found = np.array(values), {}
        for value in sorted(set(values), key=_natural):
            mine = column == value
            full = score(log_probabilities[mine], actual[mine], names)
            row = {key: full[key] for key in ("examples", "accuracy", "calibration_error")}
            error = (row["accuracy"] * (1 - row["accuracy"]) / row["examples"]) ** 0.5
            counts = row["examples"] >= least
            found[value] = row | {"accuracy_error": error, "macro_f1": full["macro"]["f1"], "counts": counts}
        counted = [value for value, row in found.items() if row["counts"]]
        gaps = {}
        for measure in GAPS if len(counted) > 1 else ():
            low, *_, high = sorted(counted, key=lambda value: found[value][measure])
            best, worst = (low, high) if measure == "calibration_error" else (high, low)
            gaps[measure] = {"gap": found[high][measure] - found[low][measure], "best": best, "worst": worst}
        report[field] = {"groups": found, "gaps": gaps}
    return report


def _natural(value: str) -> tuple[int, str]:
    digits = value.partition("–")[0]
    return int(digits) if digits.isdecimal() else -1, value


def show(metrics: Mapping[str, Any], report: Mapping[str, Any], unit: str = "texts") -> str:
    """Lay out metrics and slices for a terminal. unit: what the examples are."""

    def line(name: str, *cells: Any) -> str:
        texts = (f"{each:.4f}" if isinstance(each, float) else str(each) for each in cells)
        return f"  {name:<28}" + "".join(f"{each:>19}" for each in texts)

    rows = {**metrics["classes"], "macro": {**metrics["macro"], "examples": metrics["examples"]}}
    lines = [line("class", unit, *MEASURES)]
    lines += [line(name, row["examples"], *(row[key] for key in MEASURES)) for name, row in rows.items()]
    lines += [line(key, metrics[key]) for key in ("accuracy", "log_loss", "calibration_error")]
    for field, part in report.items():
        lines.append(line(f"by {field}", unit, *GAPS))
        for value, row in list(part["groups"].items())[:SHOWN]:
            cells = (
                row["examples"],
                f"{row['accuracy']:.4f} ± {row['accuracy_error']:.4f}",
                *(row[x] for x in GAPS[1:]),
            )
            lines.append(line(value or "(none)", *cells) + ("" if row["counts"] else "  too few for the gap"))
        if (more := len(part["groups"]) - SHOWN) > 0:
            lines.append(f"  … and {more:,} more in slices.json")
        if part["gaps"]:
            lines.append(line("gap", "", *(gap["gap"] for gap in part["gaps"].values())))
    return "\n".join(lines)
