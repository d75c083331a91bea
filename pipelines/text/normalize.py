"""Normalisation of texts: mojibake, Unicode form, invisible characters, whitespace. What it decides, and why:

- Form: NFC by default, as of Unicode 13.0 on every Python. NFKC folds ligatures and widths, and with them the
  full-width punctuation of Chinese (，！), so it is an option. Curly quotes and full-width forms stay as they are.
- Removed: controls but tab and line feed; noncharacters; zero-width space, byte order mark, soft hyphen, word joiner
  and invisible operators; bidirectional marks and embeddings; interlinear annotation; language tags.
- ZWJ and ZWNJ stay where they change what is read: after a letter or mark of a script that joins (Arabic, Indic, …);
  ZWJ also in emoji; tag characters in flags such as that of Scotland. Variation selectors stay.
- Line ends (CR LF, CR, VT, FF, NEL, U+2028, U+2029) become LF; other spaces (no-break, thin, …) become U+0020.
- The ideographic space U+3000 becomes U+0020 inside a line. At its start it is the indent of Chinese typesetting, not
  of code: a line's indentation with one in it goes, so copies with and without it have equal content.
- Indentation of spaces and tabs stays, byte for byte (code, lists, poems); runs further right become one space, or
  their tabs where they hold some (each may be the border of an empty cell); whitespace at the end of a line goes, and
  so do blank lines beyond `max_newlines` and all whitespace around the text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.text import repair
from pipelines.text.unicode import CODE_POINTS, SCRIPTS, Class, Flag, decode, tables, utf8

Form = Literal["NFC", "NFKC", "none"]
_ROUNDS = 16


@dataclass(frozen=True)
class NormalizeConfig:
    """What `normalize` changes; see the module's text.

    form: "NFC", "NFKC" or "none". repair: mojibake, by ftfy. strip_control: remove controls and invisible characters.
    unify_spaces: one kind of line end and of space. collapse_whitespace: runs, ends of lines and blank lines, of which
    max_newlines - 1 may stand together.
    """

    form: Form = "NFC"
    repair: bool = True
    strip_control: bool = True
    unify_spaces: bool = True
    collapse_whitespace: bool = True
    max_newlines: int = 2

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown form or a limit below one newline."""
        if self.form not in get_args(Form):
            raise ValueError(f"form is one of {', '.join(get_args(Form))}; got {self.form!r}")
        if self.max_newlines < 1:
            raise ValueError(f"max_newlines is at least 1; got {self.max_newlines}")


def normalize(texts: pa.Array, config: NormalizeConfig = NormalizeConfig()) -> pa.Array:
    """Normalise every text of a string or large_string array: same type and length, nulls stay null.

    Idempotent: the steps are repeated on a text until they change nothing. The array itself comes back, uncopied, where
    no text needs a change.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if texts.null_count:
        valid = texts.is_valid()
        return pc.replace_with_mask(texts, valid, normalize(texts.drop_null(), config))
    result, changed = _round(texts, config)
    for _ in range(_ROUNDS):  # a changed text goes round again, nearly always to change no more
        if not changed.any():
            break
        mask = pa.array(changed)
        again, moved = _round(result.filter(mask), config)
        if moved.any():
            result = pc.replace_with_mask(result, mask, again)
        changed[changed] = moved
    return result


def _round(texts: pa.Array, config: NormalizeConfig) -> tuple[pa.Array, np.ndarray]:
    """Apply each step once: the texts and which of them changed, bool[len]."""
    data, offsets = utf8(texts)
    changed = np.zeros(len(texts), np.bool_)
    broken = repair.suspects(data, offsets) if config.repair else changed
    seen = _flags(data, offsets, tables().info)
    unsure = seen & _FORM_FLAGS[config.form] != 0
    rows = np.flatnonzero(broken | unsure)
    if len(rows):
        old = texts.take(pa.array(rows)).to_pylist()
        new = [
            _in_form(repair.repair(text) if broken[row] else text, config.form, bool(seen[row] & Flag.NEW))
            for row, text in zip(rows, old, strict=True)
        ]
        differs = [a != b for a, b in zip(old, new, strict=True)]
        if any(differs):
            changed[rows[differs]] = True
            fixed = pa.array([text for text, other in zip(new, differs, strict=True) if other], texts.type)
            texts = pc.replace_with_mask(texts, pa.array(changed), fixed)
            data, offsets = utf8(texts)
    actions = _actions(config.strip_control, config.unify_spaces)
    cleaned, ends, touched = _clean(
        data, offsets, actions, tables().info, _JOINING, config.collapse_whitespace, config.max_newlines
    )
    if touched.any():
        width = np.int32 if pa.types.is_string(texts.type) else np.int64
        buffers = [None, pa.py_buffer(ends.astype(width)), pa.py_buffer(cleaned[: ends[-1]].copy())]
        texts = pa.Array.from_buffers(texts.type, len(texts), buffers)
    return texts, changed | touched


_FORM_FLAGS = {"NFC": np.uint8(Flag.NFC), "NFKC": np.uint8(Flag.NFKC), "none": np.uint8(0)}


def _in_form(text: str, form: Form, may_be_new: bool) -> str:
    """Put a text in a normal form as of Unicode 13.0: what later versions assigned stays, whatever this Python knows.

    Unassigned characters neither decompose, reorder nor compose, so the stretches between them are independent.
    """
    if form == "none":
        return text
    if not may_be_new:
        return unicodedata.normalize(form, text)
    parts = _new_characters().split(text)
    return "".join(part if i % 2 else unicodedata.normalize(form, part) for i, part in enumerate(parts))


@functools.cache
def _new_characters() -> re.Pattern[str]:
    new = np.concatenate(([False], tables().flags & Flag.NEW != 0, [False]))
    edges = np.flatnonzero(new[1:] != new[:-1]).reshape(-1, 2)
    return re.compile("([" + "".join(f"\\U{first:08x}-\\U{last - 1:08x}" for first, last in edges) + "]+)")


_KEEP, _DROP, _TO_SPACE, _IDEOGRAPHIC, _TO_NEWLINE, _TAB, _JOINER, _NON_JOINER, _TAG = range(9)
_REMOVED = (
    "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0001"
    "\ufdd0-\ufdef" + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
)
_JOINING_SCRIPTS = (
    "other arabic devanagari bengali gurmukhi gujarati tamil telugu kannada malayalam sinhala khmer myanmar tibetan"
)
_JOINING = np.isin(np.arange(256), [SCRIPTS.index(name) for name in _JOINING_SCRIPTS.split()])
_LETTER, _MARK, _CHARACTER = int(Class.LETTER), int(Class.MARK), int(Class.CHARACTER)
_SYMBOL, _FORMAT = int(Class.SYMBOL), int(Class.FORMAT)
_BLACK_FLAG = 0x1F3F4
_PLAIN, _JOINS, _EMOJI, _FLAG = range(4)  # what stands before a joiner or a tag


@functools.cache
def _actions(strip_control: bool, unify_spaces: bool) -> np.ndarray:
    """Say for every code point what `_clean` does with it: uint8[CODE_POINTS]."""
    table = np.full(CODE_POINTS, _KEEP, np.uint8)
    classes = tables().classes
    if strip_control:
        table[classes == Class.CONTROL] = _DROP
        for match in re.finditer("(.)(?:-(.))?", _REMOVED, re.DOTALL):
            table[ord(match[1]) : ord(match[2] or match[1]) + 1] = _DROP
        table[0x200C], table[0x200D] = _NON_JOINER, _JOINER
        table[0xE0020:0xE0080] = _TAG
    if unify_spaces:
        table[classes == Class.SPACE] = _TO_SPACE
        table[[0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029]] = _TO_NEWLINE
        table[0x3000] = _IDEOGRAPHIC
    table[0x20], table[0x0A], table[0x09] = _TO_SPACE, _TO_NEWLINE, _TAB
    table.flags.writeable = False
    return table


@numba.njit(nogil=True, cache=True)
def _flags(data: np.ndarray, offsets: np.ndarray, info: np.ndarray) -> np.ndarray:
    """Combine the `Flag` bits of the characters beyond ASCII of every text: uint8[len(offsets) - 1]."""
    found = np.zeros(offsets.shape[0] - 1, np.uint8)
    for row in range(found.shape[0]):
        at, end, bits = offsets[row], offsets[row + 1], np.uint16(0)
        while at < end:
            if data[at] < 0x80:
                at += 1
                continue
            code, width = decode(data, at, end)
            bits |= info[code]
            at += width
        found[row] = (bits >> 4) & 15
    return found


@numba.njit(nogil=True, cache=True)
def _clean(
    data: np.ndarray,
    offsets: np.ndarray,
    actions: np.ndarray,
    info: np.ndarray,
    joining: np.ndarray,
    collapse: bool,
    max_newlines: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copy the texts without what goes: (bytes, offsets, which texts changed)."""
    rows = offsets.shape[0] - 1
    out = np.empty(offsets[rows] - offsets[0], np.uint8)
    ends, changed = np.zeros(rows + 1, np.int64), np.zeros(rows, np.bool_)
    for row in range(rows):
        first, last, start = offsets[row], offsets[row + 1], ends[row]
        stop = _clean_text(data, first, last, out, start, actions, info, joining, collapse, max_newlines)
        ends[row + 1] = stop
        if stop - start != last - first:
            changed[row] = True
        else:
            for i in range(last - first):
                if out[start + i] != data[first + i]:
                    changed[row] = True
                    break
    return out, ends, changed


@numba.njit(nogil=True, cache=True)
def _clean_text(
    data: np.ndarray,
    at: int,
    end: int,
    out: np.ndarray,
    start: int,
    actions: np.ndarray,
    info: np.ndarray,
    joining: np.ndarray,
    collapse: bool,
    max_newlines: int,
) -> int:
    """Write one cleaned text from out[start] on, never more bytes than were read; returns its end.

    Whitespace is written as it comes, from `blank` on, and cut back to what stays once the next character is known.
    """
    to, kept, blank = start, start, start  # next byte; end of the last visible character; start of the run of blanks
    newlines, tabs, ideographic, context = 0, 0, False, _PLAIN
    while at < end:
        if to == kept and to > start:  # inside a word, ASCII needs no look at a table
            run = at
            while at < end and 0x20 < data[at] < 0x7F:
                out[to] = data[at]
                at += 1
                to += 1
            if at > run:
                kept = blank = to
                context = _PLAIN
                continue
        code, width = decode(data, at, end)
        action = actions[code]
        if action >= _JOINER:
            stays = context != _PLAIN
            if action == _TAG:
                stays = context == _FLAG
            elif action == _NON_JOINER:
                stays = context == _JOINS
            action = np.uint8(_KEEP if stays else _DROP)
            if stays and code < 0xE0000:
                context = _PLAIN
        elif action == _KEEP:
            context = _context(code, info[code], joining, context)
        if action == _DROP:
            at += width
            continue
        if action == _KEEP:
            if collapse and to > kept:
                if kept == start:
                    to = start
                elif newlines:
                    to = blank if ideographic else to
                elif to - blank > 1:
                    if tabs == 0:
                        out[blank] = np.uint8(0x20)
                    for i in range(tabs):  # each of them may be the border of an empty cell
                        out[blank + i] = np.uint8(0x09)
                    to = blank + max(tabs, 1)
            for i in range(width):
                out[to] = data[at + i]
                to += 1
            kept = blank = to
            newlines, tabs, ideographic = 0, 0, False
        elif action == _TO_NEWLINE:
            if data[at] == 0x0D and at + 1 < end and data[at + 1] == 0x0A:
                at += 1  # CR LF is one line end
            context = _PLAIN
            newlines += 1
            if collapse:
                to = kept + min(newlines, max_newlines) - 1
            out[to] = np.uint8(0x0A)
            to += 1
            blank = to
            tabs, ideographic = 0, False
        else:
            context = _PLAIN
            tabs += 1 if action == _TAB else 0
            ideographic |= action == _IDEOGRAPHIC
            out[to] = np.uint8(0x09 if action == _TAB else 0x20)
            to += 1
        at += width
    return kept if collapse else to


@numba.njit(nogil=True, cache=True, inline="always")
def _context(code: int, facts: np.uint16, joining: np.ndarray, before: int) -> int:
    """Say what a visible character means to a joiner after it; marks and selectors leave it to their base."""
    kind = np.int64(facts) & 15
    if kind == _FORMAT or (kind == _MARK and np.int64(facts) >> 8 == 0):
        return before
    if code == _BLACK_FLAG:
        return _FLAG
    if kind == _SYMBOL and code >= 0x80:
        return _EMOJI
    if (kind == _LETTER or kind == _MARK or kind == _CHARACTER) and joining[np.int64(facts) >> 8]:  # noqa: SIM109
        return _JOINS
    return _PLAIN
