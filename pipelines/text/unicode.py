"""Tables of character properties, Unicode 18.0, the same on every Python; and UTF-8 decoding for compiled kernels.

Python's own `unicodedata` changes with the interpreter (13.0 in 3.10, 16.0 in 3.14); the output of a stage must not.
The tables come from `python -m pipelines.text.make_unicode`.
"""

from __future__ import annotations

import enum
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

CODE_POINTS = 0x110000
DATA_PATH = Path(__file__).parent / "data" / "unicode.npz"


class Class(enum.IntEnum):
    """What a character does in a text. CHARACTER: a letter of a script without spaces between words."""

    OTHER = 0  # unassigned, private use
    LETTER = 1  # general category L, but not CHARACTER
    DIGIT = 2  # N, but not CHARACTER
    MARK = 3  # M, but not a variation selector
    CHARACTER = 4  # L or Nl of Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar, and ー and its like
    PUNCTUATION = 5  # P
    SYMBOL = 6  # S
    SPACE = 7  # White_Space
    CONTROL = 8  # Cc, but not White_Space
    FORMAT = 9  # Cf and the variation selectors


class Flag(enum.IntFlag):
    """NFC, NFKC: the form may change a text with this character. NEW: not assigned in Unicode 13.0."""

    UPPER = 1
    NFC = 2
    NFKC = 4
    NEW = 8


SCRIPTS = (
    "common", "other", "latin", "greek", "cyrillic", "han", "kana", "hangul", "arabic", "hebrew", "devanagari",
    "bengali", "gurmukhi", "gujarati", "tamil", "telugu", "kannada", "malayalam", "sinhala", "thai", "lao", "khmer",
    "myanmar", "tibetan", "georgian", "armenian", "ethiopic", "bopomofo",
)  # fmt: skip


class Tables(NamedTuple):
    """One entry per code point. `info` packs the others for kernels: class | flags << 4 | script << 8."""

    version: str
    classes: np.ndarray  # uint8, of Class
    scripts: np.ndarray  # uint8, index in SCRIPTS; "common" holds Common, Inherited and Unknown
    flags: np.ndarray  # uint8, of Flag
    info: np.ndarray  # uint16
    fold: np.ndarray  # uint32, simple case folding (CaseFolding.txt, status C and S)


@functools.cache
def tables() -> Tables:
    """Load the tables, read-only; the first call takes some milliseconds, later ones nothing."""
    with np.load(DATA_PATH, allow_pickle=False) as data:
        lengths = np.diff(data["start"].astype(np.int64), append=CODE_POINTS)
        classes, scripts, flags = (np.repeat(data[name], lengths) for name in ("class", "script", "flags"))
        fold = np.arange(CODE_POINTS, dtype=np.uint32)
        fold[data["fold_from"]] = data["fold_to"]
        version = ".".join(map(str, data["version"]))
    info = classes.astype(np.uint16) | flags.astype(np.uint16) << 4 | scripts.astype(np.uint16) << 8
    loaded = Tables(version, classes, scripts, flags, info, fold)
    for table in loaded[1:]:
        table.flags.writeable = False  # type: ignore[attr-defined]
    return loaded


@numba.njit(nogil=True, cache=True, inline="always")
def decode(data: np.ndarray, at: int, end: int) -> Any:
    """Decode the UTF-8 character at data[at]: (code point, bytes), both int64.

    Valid UTF-8 is assumed, and no byte from `end` on is read: a character cut there is U+FFFD, one byte long.
    """
    first = np.int64(data[at])
    if first < 0x80:
        return first, np.int64(1)
    if first < 0xE0:
        if at + 1 < end:
            return (first & 0x1F) << 6 | (np.int64(data[at + 1]) & 0x3F), np.int64(2)
    elif first < 0xF0:
        if at + 2 < end:
            return (
                (first & 0xF) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | (np.int64(data[at + 2]) & 0x3F),
                np.int64(3),
            )
    elif at + 3 < end:
        high = (first & 7) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
        code = high | (np.int64(data[at + 2]) & 0x3F) << 6 | (np.int64(data[at + 3]) & 0x3F)
        return min(code, np.int64(CODE_POINTS - 1)), np.int64(4)
    return np.int64(0xFFFD), np.int64(1)


def utf8(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Show the UTF-8 of a string or large_string array, sliced or not, without a copy.

    Returns (data uint8, offsets int64 of length len + 1): text i is data[offsets[i]:offsets[i + 1]]. A null counts as
    ""; only a null with bytes behind it costs a copy. Raises TypeError for another type.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"expected an array of strings, not of {texts.type}")
    if not len(texts):
        return np.frombuffer(b"", np.uint8), np.zeros(1, np.int64)
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    _, offset_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offset_buffer, width, len(texts) + 1, texts.offset * np.dtype(width).itemsize)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.frombuffer(b"", np.uint8)
    data.flags.writeable = False  # always, so that a kernel is compiled once
    if texts.null_count:
        nulls = texts.is_null().to_numpy(zero_copy_only=False)
        if np.any(np.diff(offsets)[nulls]):
            return utf8(texts.fill_null(""))
    return data, offsets.astype(np.int64)
