"""Signals: measured properties of a text, from which rules decide. Two compiled passes over the UTF-8 bytes.

Words are counted by the script: where words stand between spaces, a word is a run without whitespace that holds a
letter or a digit; a letter of Han, Hiragana, Katakana, Thai, Lao, Khmer or Myanmar is a word by itself and ends the run
before it, as the punctuation of Chinese and Japanese does (。，「」). So "GDP增长6%" is 4 words: GDP, 增, 长, 6%.

A line is what stands between line feeds, without the whitespace around it; blank lines are no lines.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from pipelines.text.repetition import table_size
from pipelines.text.shingles import fmix64
from pipelines.text.unicode import SCRIPTS, Class, Flag, decode, tables, utf8

DOCS = {
    "chars": "characters (code points)",
    "bytes": "bytes of UTF-8",
    "words": "words, counted by the script",
    "mean_word_length": "letters, digits and marks per space-delimited word; NaN where less than half the words are",
    "spaced_word_ratio": "space-delimited words / words",
    "letter_ratio": "letters and marks of any script, Han included / characters that are not whitespace",
    "digit_ratio": "digits and other numbers / characters that are not whitespace",
    "punct_ratio": "punctuation / characters that are not whitespace",
    "han_ratio": "Han letters / letters",
    "latin_ratio": "Latin letters / letters",
    "upper_ratio": "upper-case and title-case letters / letters",
    "whitespace_ratio": "whitespace / characters",
    "replacement_ratio": "U+FFFD, what broken decoding leaves / characters",
    "symbol_ratio": "the larger of hashtags ('#' before a letter or digit) and of ellipses ('…', '……', '...') / words",
    "longest_run": "length of the longest run of one character that is not whitespace",
    "lines": "lines that are not blank",
    "mean_line_chars": "characters per line",
    "bullet_line_ratio": "lines that begin with a bullet / lines",
    "ellipsis_line_ratio": "lines that end with '…' or '...' / lines",
    "terminal_punct_line_ratio": "lines that end a sentence, quotation marks allowed / lines",
    "duplicate_line_ratio": "characters in lines that repeat an earlier one / characters in lines",
}
SIGNALS: tuple[str, ...] = tuple(DOCS)

# Gopher's and datatrove's • and -, and what else Markdown, word processors and Chinese and Japanese pages use
BULLETS = "-*+•‣⁃⁌⁍∙◦●○◆◇■□▪▫▶►▸–·・※★☆✓✔➢➤"
# C4 takes . ! ? and closing quotation marks; the others end sentences in Chinese, Japanese, Indic, Arabic, Ethiopic, …
TERMINALS = ".!?\"'”’…。！？．｡」』〉》।॥؟۔።፧།။៕‼⁇⁈⁉"

_LETTER, _DIGIT, _MARK, _SPACE = int(Class.LETTER), int(Class.DIGIT), int(Class.MARK), int(Class.SPACE)
_CHARACTER, _PUNCTUATION, _UPPER = int(Class.CHARACTER), int(Class.PUNCTUATION), int(Flag.UPPER) << 4
_HAN, _LATIN = SCRIPTS.index("han"), SCRIPTS.index("latin")
_NEWLINE, _DOT, _ELLIPSIS, _HASH, _REPLACEMENT = 0x0A, 0x2E, 0x2026, 0x23, 0xFFFD
_CJK_PUNCTUATION = 0x3000  # first of the blocks whose punctuation stands between words without a space
_BULLET, _TERMINAL = 1, 2
_EDGE_LIMIT = 0x10000
_EDGES = np.zeros(_EDGE_LIMIT, np.uint8)  # what a character means at the edge of a line
_EDGES[[ord(char) for char in BULLETS]] |= _BULLET
_EDGES[[ord(char) for char in TERMINALS]] |= _TERMINAL


def signals(texts: pa.Array) -> dict[str, np.ndarray]:
    """Measure every text of a string or large_string array: SIGNALS → float64[len], a null as "".

    DOCS says what each signal is. Ratios lie in 0…1 (symbol_ratio may exceed 1); where nothing is to divide by, 0.
    """
    data, offsets = utf8(texts)
    values = np.zeros((len(SIGNALS), len(texts)), np.float64)
    _signals(data, offsets, tables().info, _EDGES, values)
    return dict(zip(SIGNALS, values, strict=True))


@numba.njit(nogil=True, cache=True)
def _signals(data: np.ndarray, offsets: np.ndarray, info: np.ndarray, edges: np.ndarray, values: np.ndarray) -> None:
    longest = 0
    for row in range(offsets.shape[0] - 1):
        longest = max(longest, _count_lines(data, offsets[row], offsets[row + 1]))
    hashes, lengths = np.empty(longest, np.uint64), np.empty(longest, np.int64)
    table = np.empty(table_size(longest), np.uint64)
    for row in range(offsets.shape[0] - 1):
        first, last = offsets[row], offsets[row + 1]
        of_text = _measure_characters(data, first, last, info)
        of_lines = _measure_lines(data, first, last, info, edges, hashes, lengths, table)
        for i in range(len(of_text)):
            values[i, row] = of_text[i]
        for i in range(len(of_lines)):
            values[len(of_text) + i, row] = of_lines[i]


@numba.njit(nogil=True, cache=True, inline="always")
def _per(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _measure_characters(data: np.ndarray, at: int, end: int, info: np.ndarray) -> tuple[float, ...]:
    """Measure the signals from "chars" to "longest_run"."""
    size = end - at
    kinds = np.zeros(16, np.int64)
    chars, han, latin, upper, replaced, hashtags, ellipses = 0, 0, 0, 0, 0, 0, 0
    spaced, in_words, in_word = 0, 0, False
    previous, run, longest = np.int64(-1), 0, 0
    while at < end:
        code, width = decode(data, at, end)
        at += width
        facts = np.int64(info[code])
        kind, script = facts & 15, facts >> 8
        chars += 1
        kinds[kind] += 1
        after_hash = previous == _HASH
        run = run + 1 if code == previous else 1
        previous = code
        if kind == _LETTER or kind == _DIGIT:  # noqa: SIM109
            if not in_word:
                spaced += 1
                in_word = True
            in_words += 1
            hashtags += after_hash
        elif kind == _MARK:
            in_words += in_word
        elif kind == _SPACE:
            in_word = False
            continue
        elif kind == _CHARACTER or (code >= _CJK_PUNCTUATION and kind == _PUNCTUATION):
            in_word = False
            hashtags += after_hash and kind == _CHARACTER
        longest = max(longest, run)
        if kind == _LETTER or kind == _CHARACTER:  # noqa: SIM109
            han += script == _HAN
            latin += script == _LATIN
            upper += facts & _UPPER != 0
        else:
            ellipses += (code == _ELLIPSIS and run == 1) or (code == _DOT and run == 3)
            replaced += code == _REPLACEMENT
    letters = kinds[_LETTER] + kinds[_CHARACTER]
    words = spaced + kinds[_CHARACTER]
    visible = float(chars - kinds[_SPACE])
    return (
        float(chars),
        float(size),
        float(words),
        in_words / spaced if spaced and 2 * spaced >= words else np.nan,
        _per(spaced, words),
        _per(letters + kinds[_MARK], visible),
        _per(kinds[_DIGIT], visible),
        _per(kinds[_PUNCTUATION], visible),
        _per(han, letters),
        _per(latin, letters),
        _per(upper, letters),
        _per(kinds[_SPACE], chars),
        _per(replaced, chars),
        _per(max(hashtags, ellipses), words),
        float(longest),
    )


@numba.njit(nogil=True, cache=True)
def _measure_lines(
    data: np.ndarray,
    at: int,
    end: int,
    info: np.ndarray,
    edges: np.ndarray,
    hashes: np.ndarray,
    lengths: np.ndarray,
    table: np.ndarray,
) -> tuple[float, ...]:
    """Measure the signals from "lines" on. hashes, lengths and table: scratch for the lines of the longest text."""
    lines, bullets, trailing, terminals, line_chars = 0, 0, 0, 0, 0
    while at < end:
        state = kept = np.uint64(0)  # hash of the line so far, and up to its last visible character; widths likewise
        width_all, width_kept, dots, last = 0, 0, 0, 0
        while at < end:
            code, width = decode(data, at, end)
            at += width
            if code == _NEWLINE:
                break
            blank = np.int64(info[code]) & 15 == _SPACE
            if blank and not width_kept:
                continue
            if not width_kept:
                bullets += code < _EDGE_LIMIT and edges[code] & _BULLET != 0
            state = (state ^ np.uint64(code)) * np.uint64(0x9E3779B97F4A7C15)
            width_all += 1
            if not blank:
                dots = dots + 1 if code == _DOT and last == _DOT and width_all == width_kept + 1 else 1
                kept, width_kept, last = state, width_all, code
        if width_kept:
            trailing += last == _ELLIPSIS or (last == _DOT and dots >= 3)
            terminals += last < _EDGE_LIMIT and edges[last] & _TERMINAL != 0
            hashes[lines], lengths[lines] = fmix64(kept), width_kept
            line_chars += width_kept
            lines += 1
    repeated = _repeated(hashes[:lines], lengths, table[: table_size(lines)])
    return (
        float(lines),
        _per(line_chars, lines),
        _per(bullets, lines),
        _per(trailing, lines),
        _per(terminals, lines),
        _per(repeated, line_chars),
    )


@numba.njit(nogil=True, cache=True)
def _count_lines(data: np.ndarray, at: int, end: int) -> int:
    count = 1
    for i in range(at, end):
        count += data[i] == _NEWLINE
    return count


@numba.njit(nogil=True, cache=True)
def _repeated(hashes: np.ndarray, lengths: np.ndarray, table: np.ndarray) -> int:
    """Sum the lengths of the lines whose 64-bit hash an earlier line has; table: scratch, open addressing."""
    table[:] = np.uint64(0)
    mask = np.uint64(table.shape[0] - 1)
    total = 0
    for i in range(hashes.shape[0]):
        value = max(hashes[i], np.uint64(1))  # 0 marks a free slot
        slot = value & mask
        while table[slot] != np.uint64(0) and table[slot] != value:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] == value:
            total += lengths[i]
        table[slot] = value
    return total
