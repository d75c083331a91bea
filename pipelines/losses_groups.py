"""What `gristmill losses` computes: losses joined by document, groups of documents, choices to drop, weights. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HARD, EASY = "hard_for_model", "easy_for_model"
QUANTILES = (0.1, 0.5, 0.9)
COLUMNS = ("group", "documents", "tokens", "loss", "p10", "p50", "p90")
_LENGTHS = 4 ** np.arange(3, 11)  # characters: 64, 256, … 1,048,576
_MOST = 2.0  # weight of a source, and one by the least


class Joined(NamedTuple):
    """One row for each document, by ascending id. id: binary[16]. loss: float64. tokens: int64. step: int64, latest."""

    id: pa.Array
    loss: np.ndarray
    tokens: np.ndarray
    step: np.ndarray

    @property
    def mean(self) -> float:
        """The mean over all tokens."""
        return float((self.loss * self.tokens).sum() / self.tokens.sum())


def partial(table: pa.Table, last: bool) -> pa.Table:
    """Add up losses by document (and step, for `last`): id, step, nats, tokens."""
    nats = pc.multiply(table["loss"].cast(pa.float64()), table["tokens"].cast(pa.float64()))
    sums = {"id": table["id"], "step": table["step"], "nats": nats, "tokens": table["tokens"].cast(pa.int64())}
    return _sums(pa.table(sums), last)


def _sums(table: pa.Table, last: bool) -> pa.Table:
    # One thread: floating-point sums must not depend on how the work was shared out.
    keys = ["id", "step"] if last else ["id"]
    wanted = [("nats", "sum"), ("tokens", "sum"), *([] if last else [("step", "max")])]
    names = {"nats_sum": "nats", "tokens_sum": "tokens", "step_max": "step"}
    found = table.group_by(keys, use_threads=False).aggregate(wanted)
    found = found.rename_columns([names.get(name, name) for name in found.column_names])
    return found.select(["id", "step", "nats", "tokens"])


def join(parts: Sequence[pa.Table], last: bool) -> Joined:
    """Join what `partial` made: a document's mean is over its guessed tokens, with `last` those of its last step."""
    table = _sums(pa.concat_tables(parts), last).sort_by([("id", "ascending"), ("step", "ascending")])
    if last:
        following = pc.not_equal(table["id"][:-1].combine_chunks(), table["id"][1:].combine_chunks())
        table = table.filter(pa.concat_arrays([following, pa.array([True])]))
    tokens = table["tokens"].to_numpy()
    steps = table["step"].to_numpy().astype(np.int64)
    return Joined(table["id"].combine_chunks(), table["nats"].to_numpy() / tokens, tokens, steps)


def per_byte(joined: Joined, sizes: np.ndarray) -> np.ndarray:
    """What a byte of each document costs, 1 being the mean: (loss · tokens / size) / (Σ loss · tokens / Σ size).

    sizes: int64, UTF-8 bytes. Right where all tokens had the same chance to be guessed, as in an evaluation. The loss a
    token does not tell damaged text: that falls into many short tokens, of which each is one of few and cheap.
    """
    nats = joined.loss * joined.tokens
    return nats / np.maximum(sizes, 1) / (nats.sum() / np.maximum(sizes, 1).sum())


@dataclass(frozen=True)
class Groups:
    """A way to group documents. code: int64 by document, position in names."""

    by: str
    names: list[str]
    code: np.ndarray


def size_groups(sizes: np.ndarray) -> Groups:
    """Group by the size of the cluster of near-duplicates: 1, 2, 3-4, 5-8, … sizes: int64, 1 where there is none."""
    code = np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    highest = int(code.max(initial=0))
    names = [f"{2 ** (i - 1) + 1}-{2**i}" if i > 1 else str(i + 1) for i in range(highest + 1)]
    return Groups("cluster size", names, code)


def length_groups(characters: np.ndarray) -> Groups:
    """Group by the characters of the text, in powers of four: 0-63, 64-255, …"""
    names = ["0-63", *(f"{low}-{4 * low - 1}" for low in _LENGTHS[:-1].tolist()), f"{_LENGTHS[-1]}+"]
    return Groups("characters", names, np.searchsorted(_LENGTHS, characters, side="right"))


def value_groups(by: str, values: pa.Array) -> Groups:
    """Group by the values of a column: words by themselves, numbers by the quarter of the documents they are in."""
    none = "(none)"
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        known = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(known, [0, 0.25, 0.5, 0.75, 1])) if len(known) else np.zeros(1)
        inner = edges[1:-1]
        ends = [edges[0], *inner, edges[-1]]
        names = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(ends)]
        quarter = np.searchsorted(inner, numbers, side="right")
        return Groups(by, [*names, none], np.where(np.isfinite(numbers), quarter, len(names)))
    coded = values.cast(pa.string()).fill_null(none).dictionary_encode()
    return Groups(by, coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64))


def roll_up(groups: Groups, loss: np.ndarray, tokens: np.ndarray) -> list[dict[str, Any]]:
    """Sum up each group that has documents: the group with the most tokens first, equal ones by name.

    Columns: group, documents, tokens, loss (mean over tokens), and the quantiles p10, p50, p90 of the documents' losses
    (linear between two documents, as numpy's).
    """
    count = np.bincount(groups.code, minlength=len(groups.names))
    size = np.bincount(groups.code, tokens, minlength=len(groups.names))
    nats = np.bincount(groups.code, loss * tokens, minlength=len(groups.names))
    ranked = loss[np.lexsort([loss, groups.code])]
    some = np.flatnonzero(count)
    columns = [np.array(groups.names)[some], count[some], size[some].astype(np.int64), nats[some] / size[some]]
    for share in QUANTILES:
        place = np.cumsum(count)[some] - count[some] + share * (count[some] - 1)
        low, part = np.floor(place).astype(np.int64), place % 1
        columns.append(ranked[low] * (1 - part) + ranked[np.minimum(low + 1, len(loss) - 1)] * part)
    values = [np.round(column, 6).tolist() if column.dtype == float else column.tolist() for column in columns]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*values, strict=True)]
    return sorted(rows, key=lambda row: (-row["tokens"], row["group"]))


@dataclass(frozen=True)
class Drop:
    """One order to drop documents.

    what: 'hardest', 'easiest' (value is a share of the documents), 'above' or 'below' (value is a score). source: the
    only one that it is about; '' is all of them.
    """

    what: str
    value: float
    source: str = ""

    @property
    def reason(self) -> str:
        """The code in the ledger."""
        return HARD if self.what in ("hardest", "above") else EASY


class Dropped(NamedTuple):
    """The documents to drop. row: int64, ascending, of `Joined`. reason: position in (HARD, EASY)."""

    row: np.ndarray
    reason: np.ndarray
    threshold: np.ndarray


def choose(
    orders: Sequence[Drop], score: np.ndarray, source: Groups, eligible: np.ndarray, each_source: bool
) -> Dropped:
    """Choose the documents to drop: the first order that names one decides its reason.

    A share of n eligible documents is floor(share × n) of them, ties by id; with `each_source` a share without a source
    is taken of each source by itself. The threshold of a share is the score of the last document that it drops.
    """
    reason, threshold = np.full(len(score), -1), np.full(len(score), np.nan)
    for order in orders:
        within = [[source.names.index(order.source)]] if order.source else [list(range(len(source.names)))]
        if each_source and not order.source:
            within = [[i] for i in range(len(source.names))]
        for members in within:
            rows = np.flatnonzero(eligible & np.isin(source.code, members))
            limit = order.value
            if order.what in ("hardest", "easiest"):
                signed = -score[rows] if order.what == "hardest" else score[rows]
                rows = rows[np.argsort(signed, kind="stable")[: math.floor(order.value * len(rows) + 1e-9)]]
                limit = float(score[rows[-1]]) if len(rows) else math.nan
            else:
                rows = rows[score[rows] > order.value if order.what == "above" else score[rows] < order.value]
            rows = rows[reason[rows] < 0]
            reason[rows], threshold[rows] = int(order.reason == EASY), limit
    row = np.flatnonzero(reason >= 0)
    return Dropped(row, reason[row], threshold[row])


def weights(by_source: Sequence[Mapping[str, Any]], rate: float) -> dict[str, float]:
    """Weigh sources by their excess loss: exp(rate × (loss of the source − loss of all)), clipped to 0.5 … 2.

    by_source: of `roll_up`. One step of the exponentiated update of DoReMi (Xie et al., NeurIPS 2023), with the mean
    over all tokens in place of the reference model's loss.
    """
    mean = sum(row["loss"] * row["tokens"] for row in by_source) / sum(row["tokens"] for row in by_source)
    most = math.log(_MOST)
    found = {row["group"]: min(most, max(-most, rate * (row["loss"] - mean))) for row in by_source}
    return {name: round(math.exp(found[name]), 4) for name in sorted(found)}
