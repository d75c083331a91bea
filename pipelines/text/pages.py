"""The signals of web pages, by group: each text is decoded and cut into tokens once, and every group measures that.

Groups: 'gopher' and 'fineweb' and 'c4' (pipelines.text.web), 'repetition' (pipelines.text.repetition).
"""

from __future__ import annotations

from collections.abc import Collection

import numba
import numpy as np
import pyarrow as pa

from pipelines.text import web
from pipelines.text.repetition import DOCS as REPETITION_DOCS
from pipelines.text.repetition import measure_repetition, table_size
from pipelines.text.tokens import decode_text, describe_tokens, lexicon, tokenize
from pipelines.text.unicode import utf8

GROUPS: dict[str, dict[str, str]] = {
    "gopher": web.GOPHER_DOCS,
    "repetition": REPETITION_DOCS,
    "fineweb": web.FINEWEB_DOCS,
    "c4": web.C4_DOCS,
}


def page_signals(texts: pa.Array, groups: Collection[str]) -> dict[str, np.ndarray]:
    """Measure the signals of some GROUPS on every text of a string or large_string array, a null as "".

    Returns name → float64[len], in the order of GROUPS. KeyError for an unknown group.
    """
    if unknown := set(groups) - set(GROUPS):
        raise KeyError(f"unknown group of signals: {', '.join(sorted(unknown))}")
    data, offsets = utf8(texts)
    names = [name for group, docs in GROUPS.items() if group in groups for name in docs]
    values = np.zeros((len(texts), len(names)), np.float64)
    if names:
        chosen = np.array([group in groups for group in GROUPS])
        _measure(data, offsets, tuple(lexicon()), web.stop_words(), web.PHRASES, chosen, values)
    return {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(names)}


@numba.njit(nogil=True, cache=True)
def _measure(data, offsets, lexicon, stops, phrases, chosen, values):  # type: ignore[no-untyped-def]
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes, line = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    starts, ends = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    hashes, flags = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint8)
    of_line = (
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.uint64),
        np.empty(longest + 1, np.uint8),
    )
    slots = table_size(longest + 1)
    scratch = (
        np.empty(slots, np.uint64),
        np.empty(slots, np.int32),
        np.empty(longest + 2, np.uint64),
        np.empty(longest + 2, np.uint64),
        np.empty(longest + 2, np.int64),
    )
    gopher, repetition, fineweb, c4 = chosen[0], chosen[1], chosen[2], chosen[3]
    for row in range(len(offsets) - 1):
        size = decode_text(data, offsets[row], offsets[row + 1], codes)
        out, at = values[row], 0
        count = tokenize(codes, int(0), size, lexicon, starts, ends)
        if gopher or repetition or c4:
            describe_tokens(codes, starts, ends, count, lexicon[0], hashes, flags)
        if gopher:
            web.measure_gopher(codes, size, lexicon[0], starts, ends, hashes, flags, count, stops, out[at:])
            at += 9
        if repetition:
            measure_repetition(codes, size, lexicon[0], starts, ends, hashes, count, scratch, out[at:])
            at += 13
        if fineweb:
            web.measure_fineweb(codes, size, lexicon[0], count, scratch[0], out[at:])
            at += 4
        if c4:
            web.measure_c4(codes, size, lexicon, phrases, (starts, flags), count, line, of_line, out[at:])
