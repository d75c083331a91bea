"""What stands on a contact sheet: rows of counts, and images with what is written below them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.core.dataset import Dataset
from pipelines.images_page import against, line, preview
from pipelines.lsh.survey import key_bytes
from pipelines.sheet_read import COPY, KEPT, RULED, Choice, Cluster, Copies, Place, Reason, Walk, take

Row = dict[str, Any]
QUANTILES = (0, 0.01, 0.1, 0.5, 0.9, 0.99, 1)
_BINS = 100  # of similarity, from 0 to 1
_NONE, _NEAR = "(none)", "near_duplicate"
_CONTENT = re.compile("#[0-9a-f]{32}#[0-9]+$")  # of a locator: content hash and occurrence, which tell a reader nothing
_NOTHING = {"uri": "", "tiny": False, "alpha": False}  # where there is no preview

# --- counts -----------------------------------------------------------------------------------------------------------


def totals(clean: Dataset, found: Walk) -> dict[str, int]:
    """The numbers that one compares from run to run, for `dvc metrics`."""
    status = Counter[int]()
    for (_, _, what), n in found.classes.items():
        status[what] += n
    books = clean.books.values()
    return {
        "images": sum(one.records_in for one in books),
        "not_decoded": sum(sum(one.rejected.values()) for one in books),
        "removed_by_rules": status[RULED],
        "duplicates": status[COPY],
        "kept": status[KEPT],
    }


def largest_sources(found: Walk) -> list[tuple[str, int]]:
    """The sources with kept images, and how many: the most first."""
    counts: Counter[str] = Counter()
    for (source, _, status), n in found.classes.items():
        counts[source] += n if status == KEPT else 0
    return [(source, n) for source, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n]


def size_rows(found: Walk) -> list[Row]:
    """Rows (size, images, kept) by powers of two of width and height, the narrow ones first."""

    def span(exponent: int) -> str:
        return f"{2**exponent}-{2 ** (exponent + 1) - 1}" if exponent else "1"

    return [
        {"size": f"{span(w)} × {span(h)}", "images": n, "kept": found.kept_shapes[w, h]}
        for (w, h), n in sorted(found.shapes.items())
    ]


def label_rows(found: Walk) -> list[Row]:
    """Rows (label, kept, removed, duplicates) of all sources, the most images first; empty where none has a label.

    Labels are shown by their first 240 characters, on one line.
    """
    counts: dict[str | None, list[int]] = {}
    for (_, label, status), n in found.classes.items():
        counts.setdefault(label, [0, 0, 0])[status] += n
    if set(counts) <= {None}:
        return []
    return [
        {"label": _NONE if label is None else line(label), "kept": n[KEPT], "removed": n[RULED], "duplicates": n[COPY]}
        for label, n in sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0] or _NONE))
    ]


def similarity_rows(copies: Copies) -> list[Row]:
    """Rows (similarity, images) of the removed: bins of 0.01 from the lowest, then each reason of equal content.

    A bin is named by its lower limit and holds what is below the next one; the last holds 1 too.
    """
    measured = np.array([name.startswith("near") for name in copies.reasons], bool)
    near = copies.similarity[measured[copies.reason]] if len(copies.id) else np.zeros(0)
    # 0.29 * 100 is 28.999…: the nearest 1e-9 tells which bin it is in
    bins = np.clip(np.floor(near[np.isfinite(near)] * _BINS + 1e-9).astype(np.int64), 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    rows = [
        {"similarity": f"{low / _BINS:.2f}", "images": int(counts[low])}
        for low in range(bins.min(initial=_BINS), _BINS)
    ]
    exact = Counter(copies.reasons[code] for code in copies.reason[~measured[copies.reason]].tolist())
    return rows + [{"similarity": name, "images": n} for name, n in sorted(exact.items())]


def removal_rows(reasons: Sequence[Reason]) -> list[Row]:
    """Rows (reason, images, stage, action), the most images first."""
    rows = [{"reason": r.reason, "images": r.count, "stage": r.stage, "action": r.action} for r in reasons]
    return sorted(rows, key=lambda row: (-int(row["images"]), row["stage"], row["action"], row["reason"]))


def book_rows(datasets: Iterable[Dataset]) -> list[Row]:
    """Rows (stage, source, in, kept, removed, rejected) of the books of directories."""
    rows = []
    for dataset in datasets:
        for source, books in dataset.books.items():
            gone = {"removed": sum(books.removed.values()), "rejected": sum(books.rejected.values())}
            row = {"stage": dataset.manifests[0].stage, "source": source, "in": books.records_in, "kept": books.kept}
            rows.append({**row, **gone})
    return rows


def signal_rows(measured: Choice) -> list[Row]:
    """Rows (signal, quantiles) of the rows of signals; a signal that no image has is left out."""
    rows = []
    for name in measured.rows.column_names:
        values = measured.rows[name].to_numpy() if name != "id" else np.zeros(0)
        values = values[np.isfinite(values)] if len(values) else values
        if len(values):
            rows.append({"signal": name, "quantiles": np.quantile(values, QUANTILES).tolist()})
    return rows


# --- images -----------------------------------------------------------------------------------------------------------


class Tiles:
    """The images of the page by id: what is written below each, and its `data:` URI."""

    def __init__(self, found: Mapping[bytes, Place]) -> None:
        self._known: dict[bytes, Row] = {}
        for image in take(found):
            shown = preview(image.pop("data"))
            size = f"{image['width']} × {image['height']}, {_bytes(image['bytes'])}"
            named = ": ".join(text for text in (image["label"], image["caption"]) if text)
            self._known[image["id"]] = {
                "label": image["label"],
                "caption": image["caption"],
                "locator": _CONTENT.sub("", image["locator"]),
                "source": image["source"],
                "size": size,
                **(shown._asdict() if shown else _NOTHING),
                "alt": named or f"image {_CONTENT.sub('', image['locator'])}",
                "missing": "This image cannot be shown.",
            }

    def tile(self, record: bytes, state: str, why: str = "", locator: str = "") -> Row:
        """Make one image of the page; a place holder where no dataset that was named holds it."""
        unknown: Row = {"label": None, "caption": None, "locator": locator or record.hex(), "source": "", "size": ""}
        unknown |= {**_NOTHING, "alt": "", "missing": "This image is in none of the directories named."}
        return {**self._known.get(record, unknown), "state": state, "why": why}


def _bytes(n: int) -> str:
    text = f"{n} bytes" if n < 1000 else f"{n / 1e3:.1f} kB" if n < 1e6 else f"{n / 1e6:.1f} MB"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _against(one: Mapping[str, Any]) -> str:
    """What a rule measured beside its limit."""
    if one["score"] is None or one["threshold"] is None:
        return ""
    return against(one["score"], one["threshold"])


def kept_groups(sources: Mapping[str, int], found: Walk, tiles: Tiles) -> list[Row]:
    """The kept images of sources (with their numbers of kept images); images of one label stand together."""
    groups = []
    for source, n in sources.items():
        shown = [tiles.tile(one, "kept") for one in found.kept[source].ids()]
        groups.append({"source": source, "count": n, "tiles": sorted(shown, key=_by_label)})
    return groups


def _by_label(tile: Row) -> tuple[bool, str, str]:
    return tile["label"] is None, tile["label"] or "", tile["locator"]


def rule_groups(reasons: Sequence[Reason], found: Walk, tiles: Tiles) -> list[Row]:
    """The images that each rule removed, by score, and those on both sides of its limit."""
    groups = []
    for one in reasons:
        nearest, kept = _rows(one.nearest), _rows(found.nearest[one.reason]) if one.reason in found.nearest else []
        limit = next(iter(one.thresholds), None)
        border = [(row["score"], tiles.tile(row["id"], "removed", _against(row), row["locator"])) for row in nearest]
        border += [(row["score"], tiles.tile(row["id"], "kept", _against({**row, "threshold": limit}))) for row in kept]
        near = {row["id"] for row in nearest}
        rest = [row for row in _rows(one.chosen) if row["id"] not in near]
        rest.sort(key=lambda row: (row["score"] is None, row["score"] or 0, row["id"]))
        groups.append(
            {
                "reason": one.reason,
                "count": one.count,
                "border": [tile for _, tile in sorted(border, key=lambda pair: pair[0])],
                "tiles": [tiles.tile(row["id"], "removed", _against(row), row["locator"]) for row in rest],
            }
        )
    return groups


def _rows(choice: Choice) -> list[Row]:
    return choice.rows.to_pylist()


def _similar(copies: Copies, row: int) -> str:
    """Why a copy was removed: its similarity, and the reason where that is not all that the reason says."""
    reason, similarity = copies.reasons[copies.reason[row]], copies.similarity[row]
    measured = [] if math.isnan(similarity) else [f"similarity {similarity:.4f}"]
    return ", ".join([*([] if measured and reason == _NEAR else [reason.replace("_", " ")]), *measured])


def cluster_rows(clusters: Iterable[Cluster], copies: Copies, tiles: Tiles) -> list[Row]:
    """The clusters that are shown: each kept image, then those that were removed in its favour."""
    rows = []
    for one in clusters:
        shown = []
        for star in one.stars:
            shown.append(tiles.tile(star.kept, "kept"))
            for row in star.removed:
                shown.append(tiles.tile(key_bytes(copies.id[row]), "removed", _similar(copies, row)))
        gone = sum(len(star.removed) for star in one.stars)
        rows.append({"cluster": one.id.hex(), "size": one.size, "removed": one.removed, "shown": gone, "tiles": shown})
    return rows
