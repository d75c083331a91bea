"""Where words begin, in any script: the marks that whole-word masking needs. Over the UTF-8 of a whole Arrow array.

Spaced scripts follow UAX 29 with these differences, made for masking: a space belongs to the word after it, a change of
script begins a word, underscores and other punctuation stand alone, and only ' ’ (between letters) and . , (between
digits) join. Han runs are cut by jieba's dictionary and its HMM (`rjieba`), after a map of Traditional to Simplified
characters, one to one, since the dictionary is Simplified: without it Traditional words are mostly guesses of the HMM.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import rjieba

from pipelines.text.unicode import SCRIPTS, Class, decode, tables, utf8

DATA_PATH = Path(__file__).parent / "data" / "han_simplified.npz"

_LETTER, _DIGIT, _MARK, _CHARACTER = int(Class.LETTER), int(Class.DIGIT), int(Class.MARK), int(Class.CHARACTER)
_SPACE, _FORMAT = int(Class.SPACE), int(Class.FORMAT)
_HAN, _KANA = SCRIPTS.index("han"), SCRIPTS.index("kana")
_SEPARATOR = ord("\n")  # between Han runs: no word of the dictionary crosses it
# What the previous character leaves open for the next one.
_NOTHING, _AFTER_SPACE, _WORD, _HIRAGANA, _KATAKANA, _HAN_RUN, _ALONE = range(7)


@functools.cache
def _simplified() -> np.ndarray:
    """Map every BMP code point to its Simplified form, or to itself: uint16[65536]."""
    table = np.arange(1 << 16, dtype=np.uint16)
    with np.load(DATA_PATH, allow_pickle=False) as data:
        table[data["traditional"]] = data["simplified"]
    return table


def word_starts(texts: pa.Array) -> np.ndarray:
    """Mark the bytes at which a word begins: bool, one per byte of the texts laid end to end.

    Every text begins with a word. The last of the spaces before a word begins it, so a token with a leading space and
    one without are marked alike. A document's marks depend on that document alone. Raises RuntimeError where the
    segmenter lost a character.
    """
    data, offsets = utf8(texts)
    data = data[offsets[0] : offsets[-1]]
    starts = np.zeros(len(data), np.bool_)
    han = np.empty(len(data) + len(data) // 3 + 1, np.uint8)
    positions = np.empty(len(data) // 3 * 2 + 1, np.int64)
    size, characters = _scan(data, offsets - offsets[0], tables().info, _simplified(), starts, han, positions)
    if characters:
        words = rjieba.cut(han[:size].tobytes().decode(), True)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        ends = np.cumsum(lengths)
        if ends[-1] != characters:
            raise RuntimeError(f"rjieba returned {ends[-1]} of {characters} characters")
        first = positions[ends - lengths]
        starts[first[first >= 0]] = True
    return starts


@numba.njit(nogil=True, cache=True, inline="always")
def _open(code: Any, entry: Any) -> int:
    """Say which run a base character that is not white space belongs to."""
    kind = entry & 15
    if kind in (_LETTER, _DIGIT):
        return _WORD
    if kind == _CHARACTER:
        script = entry >> 8
        if script == _HAN:
            return _HAN_RUN
        if script == _KANA:
            return _HIRAGANA if 0x3040 <= code < 0x30A0 else _KATAKANA
    return _ALONE


@numba.njit(nogil=True, cache=True)
def _scan(
    data: np.ndarray,
    offsets: np.ndarray,
    info: np.ndarray,
    simplified: np.ndarray,
    starts: np.ndarray,
    han: np.ndarray,
    positions: np.ndarray,
) -> tuple[int, int]:
    """Mark the starts of all words but those inside Han runs; copy the Han runs out, simplified and separated.

    positions: for each character of `han`, its byte in `data`, or -1 for a separator. Returns (bytes, characters).
    """
    size = characters = 0
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        state, script, previous, spaces = _NOTHING, np.int64(0), np.int64(-1), 0
        while at < end:
            code, width = decode(data, at, end)
            entry = np.int64(info[code])
            kind = entry & 15
            if kind == _SPACE:
                # A single space begins the next word. Of a longer run the first begins a word of spaces.
                spaces = spaces + 1 if code == 0x20 else 0
                last = at + 1 < end and _class_at(data, at + 1, end, info) != _SPACE
                starts[at] = code != previous or (code == 0x20 and last)
                state = _AFTER_SPACE if code == 0x20 and spaces == 1 else _NOTHING
                previous = code
                at += width
                continue
            spaces = 0
            if kind in (_MARK, _FORMAT) and previous >= 0 and state != _NOTHING:
                at += width  # part of the character before it
                continue
            run = _open(code, entry)
            if run == _HAN_RUN:
                if state != _HAN_RUN:
                    if characters:
                        han[size] = _SEPARATOR
                        positions[characters] = -1
                        size += 1
                        characters += 1
                    starts[at] = True
                positions[characters] = at
                characters += 1
                if width == 3:
                    plain = np.int64(simplified[code])
                    han[size] = 0xE0 | plain >> 12
                    han[size + 1] = 0x80 | (plain >> 6 & 0x3F)
                    han[size + 2] = 0x80 | (plain & 0x3F)
                else:
                    han[size : size + width] = data[at : at + width]
                size += width
            elif state == _AFTER_SPACE:
                pass  # the space began this word
            elif run == _WORD and state == _WORD:
                starts[at] = kind == _LETTER and script > 0 and entry >> 8 > 0 and entry >> 8 != script
            elif run == _ALONE and state == _ALONE:
                starts[at] = code != previous or kind == _CHARACTER
            elif (run == _KATAKANA or code == 0x30FC) and state in (_KATAKANA, _HIRAGANA):
                starts[at] = state == _HIRAGANA and code != 0x30FC  # ー prolongs either
                if code == 0x30FC:
                    run = state
            else:
                starts[at] = run != state
            if run == _WORD and kind == _LETTER and entry >> 8 > 0:
                script = entry >> 8
            elif run != _WORD:
                script = np.int64(0)
            if (
                run == _ALONE
                and state == _WORD
                and at + width < end
                and _joins(data, at, end, code, previous, width, info)
            ):
                starts[at] = False
                run = _WORD
            state = run
            previous = code
            at += width
    return size, characters


@numba.njit(nogil=True, cache=True)
def _joins(data: np.ndarray, at: int, end: int, code: Any, previous: Any, width: Any, info: np.ndarray) -> bool:
    """Say whether a punctuation mark joins what stands on both sides: don't, l’eau, 3.14, 1,000."""
    letters = code == 0x27 or code == 0x2019
    if not letters and code != 0x2E and code != 0x2C:
        return False
    wanted = _LETTER if letters else _DIGIT
    return (np.int64(info[previous]) & 15) == wanted and _class_at(data, at + width, end, info) == wanted


@numba.njit(nogil=True, cache=True)
def _class_at(data: np.ndarray, at: int, end: int, info: np.ndarray) -> int:
    return int(np.int64(info[decode(data, at, end)[0]]) & 15)
