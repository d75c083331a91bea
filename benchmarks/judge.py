"""Judge a deduplication by brute force: all similar pairs, what was removed wrongly, what was missed.

Nothing here is shared with the code that it judges: tokens come from a regular expression, and a shingle is the exact
tuple of its tokens, numbered and never hashed, so that no collision and no missed candidate can hide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import regex
from scipy import sparse

TOLERANCE = 1e-9  # of a similarity that the ledger calls exact
_BLOCK_PAIRS = 20_000_000  # shared shingles that one block of the product counts

_SCRIPTS = "".join(
    rf"\p{{Script={name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
# a letter of a script without spaces; signs that only such scripts share, like ー, count as theirs
_SHARED = r"[\p{Script=Common}&&\p{L}&&[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]]"
_SINGLE = rf"[[{_SCRIPTS}]&&[\p{{L}}\p{{Nl}}]]||{_SHARED}"
_PART = rf"[[\p{{L}}\p{{N}}]--[{_SINGLE}]]"
_TOKEN = regex.compile(rf"[{_SINGLE}]\p{{M}}*+|{_PART}[{_PART}\p{{M}}]*+", regex.VERSION1)
_FORMAT = regex.compile(r"[\p{Cf}\p{Variation_Selector}]", regex.VERSION1)
_FOLDED_ALONE = {0x1FD3: 0x390, 0x1FE3: 0x3B0, 0xFB05: 0xFB06}  # CaseFolding.txt, status S, where lower() says nothing


class _Fold(dict[int, int]):
    """The simple case folding of a code point: a mapping that fills itself."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        simple = next((folded for folded in (char.casefold(), char.lower()) if len(folded) == 1), char)
        self[code] = _FOLDED_ALONE.get(code, ord(simple))
        return self[code]


_FOLD = _Fold()


def tokens(text: str) -> list[str]:
    """Split a text into case-folded tokens: words, and single letters of scripts without spaces between words."""
    found: list[str] = _TOKEN.findall(text if text.isascii() else _FORMAT.sub("", text))
    return "\n".join(found).translate(_FOLD).split("\n") if found else []


def shingle_sets(texts: Iterable[str], size: int = 5) -> sparse.csr_array:
    """Make the incidence matrix of the true shingle sets: int32[texts, shingles] of 0 and 1, shingles numbered exactly.

    A text of fewer than `size` tokens has one shingle, of all of them; a text without tokens has none.
    """
    vocabulary: dict[str, int] = {}  # from 1: 0 fills up the shingle of a short text
    numbers = [
        np.array([vocabulary.setdefault(token, len(vocabulary) + 1) for token in tokens(text)], np.int64)
        for text in texts
    ]
    lengths = np.array([len(one) for one in numbers], np.int64)
    padded = [np.append(one, np.zeros(max(size - len(one), 0), np.int64)) if len(one) else one for one in numbers]
    flat = np.concatenate([*padded, np.zeros(size, np.int64)])
    rows = np.repeat(np.arange(len(numbers)), np.where(lengths, np.maximum(lengths, size), 0))
    first = np.flatnonzero(rows[size - 1 :] == rows[: max(len(rows) - size + 1, 0)])
    keys = flat[first]
    for step in range(1, size):  # the prefix of a shingle and its next token, numbered again: below 2^31 each
        keys = pa.array(keys * (len(vocabulary) + 1) + flat[first + step]).dictionary_encode().indices.to_numpy()
        keys = keys.astype(np.int64)
    shape = (len(numbers), int(keys.max(initial=-1)) + 1)
    sets = sparse.coo_array((np.ones(len(keys), np.int32), (rows[first], keys)), shape).tocsr()
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


@dataclass(frozen=True)
class Truth:
    """All similar pairs of a corpus.

    sets: incidence matrix of `shingle_sets`. left, right: int64, left < right, every pair whose Jaccard similarity is
    at least `floor`; similarity: float64 of them. order: int64, the records longest first, then by id.
    """

    sets: sparse.csr_array
    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray
    floor: float
    order: np.ndarray

    def measure(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Measure the Jaccard similarity of any pairs: float64; of two empty sets it is 0."""
        sizes = np.diff(self.sets.indptr).astype(np.int64)
        shared = np.asarray(self.sets[left].multiply(self.sets[right]).sum(axis=1)).reshape(-1)
        return shared / np.maximum(sizes[left] + sizes[right] - shared, 1)


def find_truth(ids: Sequence[bytes], texts: Sequence[str], size: int = 5, floor: float = 0.5) -> Truth:
    """Compare every record with every other and keep the pairs of Jaccard similarity `floor` > 0 or more."""
    sets = shingle_sets(texts, size)
    order = np.array(sorted(range(len(ids)), key=lambda i: (-len(texts[i]), ids[i])), np.int64)
    return Truth(sets, *_all_pairs(sets, floor), floor, order)


def _all_pairs(sets: sparse.csr_array, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the shared shingles of all pairs by a matrix product, some rows at a time."""
    sizes = np.diff(sets.indptr).astype(np.int64)
    holders = np.bincount(sets.indices, minlength=sets.shape[1])
    common = sets[:, np.flatnonzero(holders > 1)]  # a shingle of one record is shared with none
    work = np.cumsum(np.append(0, common @ holders[holders > 1]))
    transposed = common.T.tocsr()
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(work, work[start] + _BLOCK_PAIRS, side="right")) - 1)
        shared = (common[start:stop] @ transposed).tocoo()
        left, right = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        similarity = shared.data / (sizes[left] + sizes[right] - shared.data)
        chosen = (left < right) & (similarity >= floor)
        found.append((left[chosen], right[chosen], similarity[chosen]))
        start = stop
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    left, right, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return left, right, similarity


# --- recall -----------------------------------------------------------------------------------------------------------


def walk(count: int, order: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Keep, in this order, every record that is joined by no pair to one already kept: bool[count].

    order: the records that take part; the others are not kept.
    """
    ones = np.ones(2 * len(left), np.int8)
    pairs = sparse.coo_array((ones, (np.append(left, right), np.append(right, left))), (count, count)).tocsr()
    kept = np.zeros(count, bool)
    for i in order.tolist():
        kept[i] = not kept[pairs.indices[pairs.indptr[i] : pairs.indptr[i + 1]]].any()
    return kept


@dataclass(frozen=True)
class Recall:
    """found: removed records with a kept twin. missed: kept records that should have gone."""

    found: int
    missed: int

    @property
    def share(self) -> float:
        """found / (found + missed); 1 where there was nothing to find."""
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0


def recall(truth: Truth, kept: np.ndarray, threshold: float) -> Recall:
    """Measure what a deduplication found of what it should have found at a similarity of `threshold`.

    kept: bool[records]. With twins being two records of true similarity >= threshold:
    found(t) is the number of removed records that have a kept twin.
    missed(t) is the number of kept records that have to go so that no two kept records are twins: the kept records
    are taken longest first, then by id, as the stage does, and one that is a twin of a record already taken has to go
    (of a kept pair this is one record; of any group it is what a stage that compares every pair would have removed).
    recall(t) = found / (found + missed). ValueError where the threshold is below the floor of the truth.
    """
    if threshold < truth.floor:
        raise ValueError(f"the pairs below {truth.floor} are not known; got a threshold of {threshold}")
    at = truth.similarity >= threshold
    left, right = truth.left[at], truth.right[at]
    found = np.unique(np.append(left[~kept[left] & kept[right]], right[~kept[right] & kept[left]]))
    both = kept[left] & kept[right]
    staying = walk(len(kept), truth.order[kept[truth.order]], left[both], right[both])
    return Recall(len(found), int(kept.sum() - staying.sum()))


# --- the ledger -------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What the ledger claims, against the truth.

    exact: rows of equal content. near: near-duplicates of exact similarity. estimated: those whose similarity has an
    error. below: near rows whose true similarity is under the threshold, and lowest, the least of them. inexact: near
    rows whose similarity is not the true one, and furthest, the largest difference. estimated_below, estimated_lowest:
    of the estimated rows. sigmas: float64, their difference from the truth in standard errors. faults: sentences on
    everything that no error bound excuses.
    """

    exact: int = 0
    near: int = 0
    estimated: int = 0
    below: int = 0
    lowest: float = 1.0
    inexact: int = 0
    furthest: float = 0.0
    estimated_below: int = 0
    estimated_lowest: float = 1.0
    sigmas: np.ndarray = field(default_factory=lambda: np.empty(0))
    faults: list[str] = field(default_factory=list)


def examine(
    truth: Truth, ids: Sequence[bytes], texts: Sequence[str], rows: Sequence[dict[str, Any]], threshold: float
) -> tuple[np.ndarray, Findings]:
    """Compare every row of a ledger of removals with the truth: (bool[records] of what was kept, the findings)."""
    position = {one: i for i, one in enumerate(ids)}
    findings, kept = Findings(), np.ones(len(ids), bool)
    for row in rows:
        if row["id"] not in position or not kept[position[row["id"]]]:
            findings.faults.append(f"{row['locator']} is removed twice, or was never there")
        else:
            kept[position[row["id"]]] = False
    staying = {one for one, i in position.items() if kept[i]}
    named = [row for row in rows if row["id"] in position and row["kept_id"] in staying]
    if len(named) < len(rows):
        findings.faults.append(f"{len(rows) - len(named)} rows name a record that is not kept")
    left = np.array([position[row["id"]] for row in named], np.int64)
    right = np.array([position[row["kept_id"]] for row in named], np.int64)
    _weigh(findings, named, truth.measure(left, right), threshold)
    for row, i, j in zip(named, left.tolist(), right.tolist(), strict=True):
        if row["reason"] == "exact_duplicate" and (texts[i] != texts[j] or row["similarity"] != 1.0):
            findings.faults.append(f"{row['locator']} is called an exact duplicate of another text")
    return kept, findings


def _weigh(findings: Findings, rows: Sequence[dict[str, Any]], true: np.ndarray, threshold: float) -> None:
    equal = np.array([row["reason"] == "exact_duplicate" for row in rows], bool)
    said = np.array([row["similarity"] for row in rows], float)
    error = np.array([row["similarity_error"] for row in rows], float)
    near, estimated = ~equal & (error == 0), ~equal & (error > 0)
    findings.exact, findings.near, findings.estimated = int(equal.sum()), int(near.sum()), int(estimated.sum())
    findings.below, findings.lowest = int((true[near] < threshold).sum()), float(true[near].min(initial=1.0))
    apart = np.abs(said - true)
    findings.inexact = int((apart[near] > TOLERANCE).sum())
    findings.furthest = float(apart[near].max(initial=0.0))
    findings.estimated_below = int((true[estimated] < threshold).sum())
    findings.estimated_lowest = float(true[estimated].min(initial=1.0))
    findings.sigmas = apart[estimated] / error[estimated]
    if findings.below:
        findings.faults.append(f"{findings.below} removals below {threshold}, the lowest at {findings.lowest:.4f}")
    if low := int((said[~equal] < threshold).sum()):
        findings.faults.append(f"{low} rows say themselves that they are below {threshold}")
