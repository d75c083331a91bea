"""Lines as 64-bit hashes of their normal form, and texts without some of their lines. Over whole Arrow arrays.

A line is what stands between line feeds; one without a visible character is blank, and only separates. The normal form
is CCNet's (Wenzek et al. 2020, section 3.1): case folded, every digit 0, punctuation removed; control and format
characters go too, and whitespace between what is left is one space, or none beside a letter of a script without spaces
(总 则 is 总则). Accents and symbols stay.

A unit is a run of `span` consecutive lines: 1 gives CCNet's lines, 3 the spans of C4 (Raffel et al. 2020, section 2.2).
It counts where its letters weigh enough, by one scale for all scripts: see WEIGHTS. Digits weigh nothing, so lines of
dates and numbers alone, which all look alike once digits are 0, are nobody's repetition.

`normalized_line`, `letters` and `unit_hash` are the definition, in plain Python; `find_lines` gives the same, fast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.text.shingles import fmix64
from pipelines.text.unicode import SCRIPTS, Class, decode, tables, utf8

# Latin letters that one letter of a script stands for: the letters of the English Universal Declaration of Human Rights
# are 3.4 times those of the Chinese one, 2.6 times those of the Korean, 2.3 times those of the Japanese (kana and Han
# together), and 0.8 to 1.7 times those in alphabets and abugidas (measured on the package that docs/language.md names).
WEIGHTS = np.array([{"han": 3, "kana": 2, "hangul": 3}.get(name, 1) for name in SCRIPTS], np.int64)

_SEED, _CHARACTER, _LINE = 0x243F6A8885A308D3, 0x9E3779B97F4A7C15, 0x5851F42D4C957F2D  # as in pipelines.text.shingles
_MASK = (1 << 64) - 1
_NEWLINE, _SPACE_CODE, _ZERO, _TAB = 0x0A, 0x20, 0x30, 0x09
_BACKTICK, _TILDE = 0x60, 0x7E
_PIPES = (0x7C, 0x2502, 0xFF5C)  # | │ ｜
_DROPPED = (Class.PUNCTUATION, Class.CONTROL, Class.FORMAT)
_LETTER, _DIGIT, _CHARACTER_CLASS = int(Class.LETTER), int(Class.DIGIT), int(Class.CHARACTER)
_SPACE, _PUNCTUATION, _CONTROL, _FORMAT = int(Class.SPACE), *(int(kind) for kind in _DROPPED)


@dataclass(frozen=True)
class UnitConfig:
    """What is compared.

    span: lines in a unit. min_letters: weight of letters from which on a unit counts, a Han letter or a Hangul syllable
    weighing 3, a kana 2. protect_code: lines between fences (``` or ~~~), and lines indented by a tab or four spaces,
    are left alone. protect_tables: so are lines that begin with | │ or ｜ or hold two tabs between other characters.
    """

    span: int = 1
    min_letters: int = 12
    protect_code: bool = False
    protect_tables: bool = False

    def __post_init__(self) -> None:
        """Check the limits."""
        for name in ("span", "min_letters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; got {getattr(self, name)}")


class Lines(NamedTuple):
    """The lines of an array of texts that are not blank, in order, one entry each.

    hashes: uint64, of the unit that begins with the line. counted: bool, whether there is one that counts. letters:
    int64, weight of the line's own. starts, ends: int64, its bytes in the array's data, line feed not included.
    offsets: int64[len(texts) + 1], the lines of text i are offsets[i]:offsets[i + 1].
    """

    hashes: np.ndarray
    counted: np.ndarray
    letters: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray


def normalized_line(line: str) -> str:
    """Put a line into its normal form."""
    classes, fold = tables().classes, tables().fold
    out, blank, alone = "", False, True  # alone: no space may stand before the next character
    for char in line:
        kind = classes[ord(char)]
        if kind == Class.SPACE:
            blank = True
        elif kind not in _DROPPED:
            single = kind == Class.CHARACTER
            out += " " if blank and not alone and not single else ""
            out += "0" if kind == Class.DIGIT else chr(fold[ord(char)])
            blank, alone = False, single
    return out


def letters(line: str) -> int:
    """Weigh the letters of a line."""
    loaded = tables()
    codes = (ord(char) for char in line)
    return sum(int(WEIGHTS[loaded.scripts[c]]) for c in codes if loaded.classes[c] in (Class.LETTER, Class.CHARACTER))


def unit_hash(lines: Sequence[str]) -> int:
    """Hash a unit, given as its lines, to 64 bits."""
    total = 0
    for line in lines:
        state = _SEED
        for char in normalized_line(line):
            state = (state ^ ord(char)) * _CHARACTER & _MASK
        total = (total * _LINE + int(fmix64(np.uint64(state)))) & _MASK
    return int(fmix64(np.uint64(total)))


def find_lines(texts: pa.Array, config: UnitConfig = UnitConfig()) -> Lines:
    """Find and hash the lines of every text of a string or large_string array; a null has none."""
    data, offsets = utf8(texts)
    normal = _normal()
    most = _count_newlines(data, offsets)
    hashes, protected = np.empty(most, np.uint64), np.empty(most, np.bool_)
    weights, starts, ends = (np.empty(most, np.int64) for _ in range(3))
    borders = np.zeros(len(offsets), np.int64)
    found = _find(data, offsets, normal, tables().info, tables().fold, WEIGHTS, hashes, weights, protected, starts,
                  ends, borders, config.protect_code, config.protect_tables)  # fmt: skip
    counted = np.empty(found, np.bool_)
    hashes, weights = hashes[:found], weights[:found]
    _join(hashes, weights, protected, borders, counted, config.span, config.min_letters)
    return Lines(hashes, counted, weights, starts[:found], ends[:found], borders)


def drop_lines(texts: pa.Array, lines: Lines, gone: np.ndarray) -> pa.Array:
    """Take lines out of texts: gone, bool, one for each of `lines`, which `find_lines` found in these texts.

    Between two lines that stay remains the longest run of line feeds that stood between them; what stood before the
    first or after the last line stays if that line, or one after it, does. A text of which no line goes is unchanged.
    """
    changed = _any(gone, lines.offsets)
    if not changed.any():
        return texts
    data, offsets = utf8(texts)
    rows = np.flatnonzero(changed)
    out = np.empty(int((offsets[rows + 1] - offsets[rows]).sum()), np.uint8)
    new = _drop(data, offsets, rows, lines.starts, lines.ends, lines.offsets, gone, out)
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    buffers = [None, pa.py_buffer(new.astype(width)), pa.py_buffer(out[: new[-1]])]
    return pc.replace_with_mask(texts, pa.array(changed), pa.Array.from_buffers(texts.type, len(rows), buffers))


def widen(gone: np.ndarray, lines: Lines, span: int) -> np.ndarray:
    """Turn units that go, bool at the line that each begins with, into lines that go: bool of the same length."""
    if span == 1:
        return gone
    wide = gone.copy()
    for step in range(1, span):  # a unit lies inside its text, so no mark crosses into the next one
        wide[step:] |= gone[:-step]
    return wide


def letters_left(lines: Lines, gone: np.ndarray) -> np.ndarray:
    """Weigh the letters in the lines that stay: int64, one for each text."""
    left = np.concatenate(([0], np.cumsum(np.where(gone, 0, lines.letters))))
    return left[lines.offsets[1:]] - left[lines.offsets[:-1]]


def unit_text(texts: pa.Array, lines: Lines, line: int, span: int) -> str:
    """Return the text of the unit that begins with entry `line` of the lines of these texts."""
    data, _ = utf8(texts)
    return data[lines.starts[line] : lines.ends[line + span - 1]].tobytes().decode()


@functools.cache
def _normal() -> np.ndarray:
    """What ASCII turns into: uint8[128], a space for whitespace, 0 for what is removed."""
    classes, fold = tables().classes[:128], tables().fold[:128]
    table = fold.astype(np.uint8)
    table[classes == Class.DIGIT] = _ZERO
    table[classes == Class.SPACE] = _SPACE_CODE
    table[np.isin(classes, _DROPPED)] = 0
    table.flags.writeable = False
    return table


@numba.njit(nogil=True, cache=True)
def _count_newlines(data: np.ndarray, offsets: np.ndarray) -> int:
    count = offsets.shape[0] - 1
    for at in range(offsets[0], offsets[-1]):
        count += data[at] == _NEWLINE
    return count


@numba.njit(nogil=True, cache=True)
def _find(  # type: ignore[no-untyped-def]
    data, offsets, normal, info, fold, weights, hashes, letters, protected, starts, ends, borders, code, tables
):
    found = 0
    for row in range(offsets.shape[0] - 1):
        at, end, fence = offsets[row], offsets[row + 1], 0
        while at < end:
            mark, indented = _code_marks(data, at, end)
            starts[found] = at
            at, visible, state, weight, table = _hash_line(data, at, end, normal, info, fold, weights)
            if not visible:
                continue
            ends[found] = at - 1 if data[at - 1] == _NEWLINE else at
            in_code = fence != 0 or mark != 0 or indented
            if mark != 0:
                fence = mark if fence == 0 else 0 if fence == mark else fence
            protected[found] = (code and in_code) or (tables and table)
            hashes[found], letters[found] = fmix64(state), weight
            found += 1
        borders[row + 1] = found
    return found


@numba.njit(nogil=True, cache=True)
def _code_marks(data: np.ndarray, at: int, end: int) -> Any:
    """Look at the first characters of a line: (fence character or 0; whether the line is indented as code)."""
    indent = 0
    while at < end and data[at] == _SPACE_CODE:
        at += 1
        indent += 1
    if indent >= 4 or (at < end and data[at] == _TAB):
        return 0, True
    fence = at + 2 < end and (data[at] == _BACKTICK or data[at] == _TILDE)
    if fence and data[at] == data[at + 1] and data[at] == data[at + 2]:
        return np.int64(data[at]), False
    return 0, False


@numba.njit(nogil=True, cache=True)
def _hash_line(
    data: np.ndarray, at: int, end: int, normal: np.ndarray, info: np.ndarray, fold: np.ndarray, weights: np.ndarray
) -> Any:
    """Read a line: (what follows it, whether it is visible, hash state, weight of its letters, whether in a table)."""
    state, weight, visible, blank, alone = np.uint64(_SEED), np.int64(0), False, False, True
    table, tabs, pending_tabs = False, 0, 0
    while at < end:
        byte = data[at]
        if byte < 0x80:
            at += 1
            if byte == _NEWLINE:
                break
            char = normal[byte]
            if char == _SPACE_CODE:
                blank = True
                pending_tabs += byte == _TAB
                continue
            if not visible:
                table, visible = byte == 0x7C, True
            elif pending_tabs:
                tabs += pending_tabs
            pending_tabs = 0
            if char == 0:
                continue
            if blank and not alone:
                state = (state ^ np.uint64(_SPACE_CODE)) * np.uint64(_CHARACTER)
            blank, alone = False, False
            state = (state ^ np.uint64(char)) * np.uint64(_CHARACTER)
            weight += 0x61 <= char <= 0x7A
            continue
        code, width = decode(data, at, end)
        at += width
        facts = np.int64(info[code])
        kind = facts & 15
        if kind == _SPACE:
            blank = True
            continue
        if not visible:
            table, visible = code in _PIPES, True
        elif pending_tabs:
            tabs += pending_tabs
        pending_tabs = 0
        if kind in (_PUNCTUATION, _CONTROL, _FORMAT):
            continue
        single = kind == _CHARACTER_CLASS
        if blank and not alone and not single:
            state = (state ^ np.uint64(_SPACE_CODE)) * np.uint64(_CHARACTER)
        blank, alone = False, single
        char_out = np.uint64(_ZERO) if kind == _DIGIT else np.uint64(fold[code])
        state = (state ^ char_out) * np.uint64(_CHARACTER)
        if kind in (_LETTER, _CHARACTER_CLASS):
            weight += weights[facts >> 8]
    return at, visible, state, weight, table or tabs >= 2


@numba.njit(nogil=True, cache=True)
def _join(  # type: ignore[no-untyped-def]
    hashes, letters, protected, borders, counted, span, min_letters
):
    """Make line hashes those of the units that begin there, in place, and say which of these count."""
    for row in range(borders.shape[0] - 1):
        first, last = borders[row], borders[row + 1]
        for i in range(first, last):  # forwards: a unit reads lines from its own on, which are not yet overwritten
            counted[i] = False
            if i + span > last:
                continue
            total, weight, free = np.uint64(0), np.int64(0), True
            for j in range(i, i + span):
                total = total * np.uint64(_LINE) + hashes[j]
                weight += letters[j]
                free &= not protected[j]
            hashes[i] = fmix64(total)
            counted[i] = free and weight >= min_letters


@numba.njit(nogil=True, cache=True)
def _any(gone: np.ndarray, borders: np.ndarray) -> np.ndarray:
    found = np.zeros(borders.shape[0] - 1, np.bool_)
    for row in range(found.shape[0]):
        for i in range(borders[row], borders[row + 1]):
            if gone[i]:
                found[row] = True
                break
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def _put(data: np.ndarray, first: int, last: int, out: np.ndarray, to: int) -> int:
    for at in range(first, last):
        out[to] = data[at]
        to += 1
    return to


@numba.njit(nogil=True, cache=True)
def _newlines(data: np.ndarray, first: int, last: int) -> int:
    count = 0
    for at in range(first, last):
        count += data[at] == _NEWLINE
    return count


@numba.njit(nogil=True, cache=True)
def _drop(  # type: ignore[no-untyped-def]
    data, offsets, rows, starts, ends, borders, gone, out
):
    """Write the texts of `rows` without the lines that go; returns their offsets in `out`."""
    new = np.zeros(rows.shape[0] + 1, np.int64)
    to = 0
    for n in range(rows.shape[0]):
        row = rows[n]
        previous, kept, lost = offsets[row], False, False
        best_first, best_last, best = previous, previous, -1
        for i in range(borders[row], borders[row + 1]):
            count = _newlines(data, previous, starts[i])
            if count > best:
                best_first, best_last, best = previous, starts[i], count
            previous = ends[i]
            if gone[i]:
                lost = True
                continue
            if kept or not lost:
                to = _put(data, best_first, best_last, out, to)
            to = _put(data, starts[i], ends[i], out, to)
            kept, best = True, -1
        if kept:
            to = _put(data, previous, offsets[row + 1], out, to)
        new[n + 1] = to
    return new
