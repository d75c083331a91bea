"""Measure a tokenizer: tokens per word, bytes per token, byte fallback and round trips, by source and by script."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.model_proto import BYTE
from pipelines.text.sentencepiece import Tokenizer, plain_spaces
from pipelines.text.unicode import SCRIPTS, decode, tables, utf8
from pipelines.text.words import word_starts
from schemas.packed import UNK_ID

Counts = dict[str, dict[str, int]]  # 'source/NAME' or 'script/NAME' → what is counted → how often


def measure(texts: pa.Array, sources: pa.Array, tokenizer: Tokenizer) -> Counts:
    """Count documents, bytes, words, tokens, byte tokens, unknown tokens and round trips of each source and script.

    A token or word belongs to the first script in it, "common" where it holds none.
    """
    plain = plain_spaces(texts)
    encoded = tokenizer.encode(plain)
    edges = tokenizer.byte_offsets(encoded)
    data, offsets = utf8(plain)
    data = data[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    starts = np.append(np.flatnonzero(word_starts(plain)), len(data))
    is_byte = np.array([piece.type == BYTE for piece in tokenizer.pieces])[encoded.ids]
    token_scripts, word_scripts = (span_scripts(data, spans, tables().info) for spans in (edges, starts))
    counts: Counts = {}
    for number, name in enumerate(SCRIPTS):
        mine = token_scripts == number
        if mine.any():
            counts[f"script/{name}"] = {
                "bytes": int(np.diff(edges)[mine].sum()),
                "words": int((word_scripts == number).sum()),
                "tokens": int(mine.sum()),
                "byte_tokens": int(is_byte[mine].sum()),
                "unknown": int((encoded.ids[mine] == UNK_ID).sum()),
            }
    words = np.searchsorted(starts[:-1], offsets)
    documents = zip(
        texts.to_pylist(),
        sources.to_pylist(),
        itertools.pairwise(encoded.offsets),
        itertools.pairwise(words),
        strict=True,
    )
    for text, source, (a, b), (first, last) in documents:
        ids = encoded.ids[a:b]
        one = {
            "documents": 1,
            "bytes": len(text.encode()),
            "words": int(last - first),
            "tokens": len(ids),
            "byte_tokens": int(is_byte[a:b].sum()),
            "unknown": int((ids == UNK_ID).sum()),
            "round_trips": int(tokenizer.decode(ids) == text),
        }
        counts = add([counts, {f"source/{source}": one}])
    return counts


@numba.njit(nogil=True, cache=True)
def span_scripts(data: np.ndarray, edges: np.ndarray, info: np.ndarray) -> np.ndarray:
    """The script of each span data[edges[j]:edges[j + 1]]: that of its first character with one, else 0 (common).

    A span within a character (a byte token) has that character's script.
    """
    out = np.zeros(len(edges) - 1, np.uint8)
    for j in range(len(edges) - 1):
        at = edges[j]
        while at > 0 and data[at] & 0xC0 == 0x80:
            at -= 1
        while at < edges[j + 1] and out[j] == 0:
            code, width = decode(data, at, len(data))
            out[j] = info[code] >> 8
            at += width
    return out


def rates(counts: Mapping[str, int]) -> dict[str, float]:
    """Turn counts into rates; a rate with nothing to divide by is left out.

    fertility: tokens per word. unknown_rate: [UNK] per token. byte_rate: byte-fallback tokens per token.
    round_trip_rate: documents that decode to themselves.
    """
    wanted = {
        "fertility": ("tokens", "words"),
        "bytes_per_token": ("bytes", "tokens"),
        "unknown_rate": ("unknown", "tokens"),
        "byte_rate": ("byte_tokens", "tokens"),
        "round_trip_rate": ("round_trips", "documents"),
    }
    return {name: counts[a] / counts[b] for name, (a, b) in wanted.items() if a in counts and counts.get(b)}


def add(parts: Iterable[Counts]) -> Counts:
    """Add counts, name by name."""
    total: Counts = {}
    for part in parts:
        for name, counts in part.items():
            mine = total.setdefault(name, {})
            for key, value in counts.items():
                mine[key] = mine.get(key, 0) + value
    return dict(sorted(total.items()))
