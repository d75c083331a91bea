"""What the rules of Gopher, FineWeb and C4 measure of a web page, in compiled code.

Gopher quality: Rae et al. 2021, appendix A.1.1; FineWeb: Penedo et al. 2024, section 3.5; C4: Raffel et al. 2020,
section 2.2, and c4_utils.py of TensorFlow Datasets. Counted as datatrove 0.10.1 does.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from pipelines.text.repetition import table_size
from pipelines.text.tokens import (
    HAS_ALPHA,
    HAS_WORD,
    LINE_END,
    QUOTE,
    SINGLE,
    SPACE,
    TERMINAL,
    count_sentences,
    describe_tokens,
    hash_codes,
    tokenize,
)

GOPHER_DOCS = {
    "gopher_words": "tokens that are no symbols",
    "gopher_mean_word_length": "characters per token that is no symbol; NaN without one",
    "gopher_hash_ratio": "'#' / tokens; NaN without a token, as the next three",
    "gopher_ellipsis_ratio": "'...' and '…' / tokens",
    "gopher_alpha_ratio": "tokens with a letter / tokens",
    "gopher_bullet_ratio": "lines that begin with '•' or '-' / lines, blank ones included",
    "gopher_end_ellipsis_ratio": "lines that end with '...' or '…' / lines, blank ones included",
    "gopher_stop_words": "how many of the, be, to, of, and, that, have, with occur",
    "chinese_stop_words": "how many of the most frequent Chinese function words of one character occur",
}
FINEWEB_DOCS = {
    "line_punct_ratio": "lines that end a sentence / lines that are not blank",
    "short_line_ratio": "lines of at most 30 characters / lines that are not blank",
    "line_char_dup_ratio": "characters in lines that repeat an earlier one / characters but line feeds",
    "newline_ratio": "line feeds / tokens; NaN without a token",
}
C4_DOCS = {
    "c4_sentences": "sentences in the lines that C4's rules keep",
    "c4_lines": "lines that C4's rules keep",
    "c4_lorem_ipsum": "1 where a line that could be kept holds 'lorem ipsum'",
    "c4_curly_bracket": "1 where a line that could be kept holds '{'",
    "c4_third_longest_line": "characters in the third longest line; 0 with fewer than three",
}

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher, appendix A.1.1
# The function words among the most frequent characters of Modern Chinese (Jun Da, Chinese text computing, 2004), in
# Simplified and Traditional; 之 其 而 以 于 for written and older texts
CHINESE_STOP_WORDS = (
    "的",
    "一",
    "是",
    "不",
    "了",
    "在",
    "有",
    "和",
    "为為",
    "与與",
    "之",
    "其",
    "而",
    "以",
    "于於",
    "这這",
)

_NEWLINE, _DOT, _ELLIPSIS, _HASH, _BULLET, _DASH, _RETURN = 10, 0x2E, 0x2026, 0x23, 0x2022, 0x2D, 13
_SHORT_LINE = 30
_LONGEST_WORD, _FEWEST_WORDS = 1000, 3
_OPEN_CURLY, _OPEN, _CLOSE = ord("{"), ord("["), ord("]")
DROP, LOREM, CURLY = 1, 2, 4


def _codes(text: str) -> np.ndarray:
    return np.array([ord(char) for char in text], np.int32)


@functools.cache
def stop_words() -> tuple[np.ndarray, np.ndarray]:
    """A hash table of the stop words, uint64, and the number that each counts as: English from 0, Chinese from 32."""
    numbers = {word: i for i, word in enumerate(ENGLISH_STOP_WORDS)}
    numbers |= {form: 32 + i for i, forms in enumerate(CHINESE_STOP_WORDS) for form in forms}
    table, counted = np.zeros(256, np.uint64), np.zeros(256, np.int64)
    for word, number in numbers.items():
        value = int(hash_codes(_codes(word), 0, len(word)))
        slot = value % len(table)
        while table[slot]:
            slot = (slot + 1) % len(table)
        table[slot], counted[slot] = value, number
    return table, counted


# C4: page 7 of the paper, and c4_utils.py: what marks a line as no text
_NO_TEXT = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LOREM = _codes("lorem ipsum")
PHRASES = np.zeros((len(_NO_TEXT), 16), np.int32)
for _i, _phrase in enumerate(_NO_TEXT):
    PHRASES[_i, : len(_phrase)] = _codes(_phrase)
_EDIT, _CITATION = _codes("edit]"), _codes("citation needed]")


@numba.njit(nogil=True, cache=True)
def _ends_with_ellipsis(codes: np.ndarray, first: int, last: int) -> bool:
    if last > first and codes[last - 1] == _ELLIPSIS:
        return True
    return last - first >= 3 and codes[last - 1] == _DOT and codes[last - 2] == _DOT and codes[last - 3] == _DOT


@numba.njit(nogil=True, cache=True)
def next_line(codes: np.ndarray, at: int, size: int, kinds: np.ndarray) -> tuple[int, int]:
    """End of the line at `at`, and the beginning of the next one, as str.splitlines has them."""
    end = at
    while end < size and not kinds[codes[end]] & LINE_END:
        end += 1
    after = end + 1
    if after < size and codes[end] == _RETURN and codes[after] == _NEWLINE:
        after += 1
    return end, after


@numba.njit(nogil=True, cache=True)
def strip(codes: np.ndarray, first: int, last: int, kinds: np.ndarray) -> tuple[int, int]:
    """Bounds of codes[first:last] without the whitespace around it."""
    while first < last and kinds[codes[first]] & SPACE:
        first += 1
    while last > first and kinds[codes[last - 1]] & SPACE:
        last -= 1
    return first, last


@numba.njit(nogil=True, cache=True)
def measure_gopher(codes, size, kinds, starts, ends, hashes, flags, count, stops, out):  # type: ignore[no-untyped-def]
    """Measure the signals of GOPHER_DOCS, in that order, into out: float64[9]."""
    words, chars, alpha, seen = 0, 0, 0, np.uint64(0)
    table, numbers = stops
    for i in range(count):
        if flags[i] & HAS_WORD:
            words += 1
            chars += ends[i] - starts[i]
        alpha += flags[i] & HAS_ALPHA
        if ends[i] - starts[i] <= 4:
            slot = hashes[i] & np.uint64(len(table) - 1)
            while table[slot] != np.uint64(0) and table[slot] != hashes[i]:
                slot = (slot + np.uint64(1)) & np.uint64(len(table) - 1)
            if table[slot] == hashes[i]:
                seen |= np.uint64(1) << np.uint64(numbers[slot])
    marks, dots, ellipses, i = 0, 0, 0, 0
    while i < size:
        marks += codes[i] == _HASH
        ellipses += codes[i] == _ELLIPSIS
        dots = dots + 1 if codes[i] == _DOT else 0
        if dots == 3:
            ellipses += 1
            dots = 0
        i += 1
    lines, bullets, trailing, at = 0, 0, 0, int(0)
    while at < size:
        end, after = next_line(codes, at, size, kinds)
        first, last = strip(codes, at, end, kinds)
        lines += 1
        bullets += first < last and (codes[first] == _BULLET or codes[first] == _DASH)
        trailing += _ends_with_ellipsis(codes, first, last)
        at = after
    out[0] = words
    out[1] = chars / words if words else np.nan
    out[2] = marks / count if count else np.nan
    out[3] = ellipses / count if count else np.nan
    out[4] = alpha / count if count else np.nan
    out[5] = bullets / max(lines, 1)
    out[6] = trailing / max(lines, 1)
    out[7] = _bits(seen & np.uint64(0xFFFFFFFF))
    out[8] = _bits(seen >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _bits(value: np.uint64) -> int:
    count = 0
    while value:
        value &= value - np.uint64(1)
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def measure_fineweb(codes, size, kinds, count, table, out):  # type: ignore[no-untyped-def]
    """Measure the signals of FINEWEB_DOCS, in that order, into out: float64[4]; count: tokens of the text."""
    lines, closed, short, repeated, at, feeds = 0, 0, 0, 0, 0, 0
    for i in range(size):
        feeds += codes[i] == _NEWLINE
    slots = table_size(feeds + 1)
    table[:slots] = np.uint64(0)
    mask = np.uint64(slots - 1)
    while at <= size:
        end, visible = at, False
        while end < size and codes[end] != _NEWLINE:
            visible |= kinds[codes[end]] & SPACE == 0
            end += 1
        if visible:
            lines += 1
            closed += kinds[codes[end - 1]] & TERMINAL != 0
            short += end - at <= _SHORT_LINE
            value = max(hash_codes(codes, at, end), np.uint64(1))
            slot = value & mask
            while table[slot] != np.uint64(0) and table[slot] != value:
                slot = (slot + np.uint64(1)) & mask
            repeated += end - at if table[slot] == value else 0
            table[slot] = value
        at = end + 1
    out[0], out[1] = closed / max(lines, 1), short / max(lines, 1)
    out[2] = repeated / max(size - feeds, 1)
    out[3] = feeds / count if count else np.nan


@numba.njit(nogil=True, cache=True)
def _lower(code: int) -> int:
    return code + 32 if 0x41 <= code <= 0x5A else code


@numba.njit(nogil=True, cache=True)
def _holds(codes: np.ndarray, size: int, at: int, phrase: np.ndarray) -> bool:
    """Whether codes[at:size] begins with a phrase, ASCII case aside; it ends at its first 0."""
    for j in range(len(phrase)):
        if phrase[j] == 0:
            return True
        if at + j >= size or _lower(codes[at + j]) != phrase[j]:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _citation(codes: np.ndarray, at: int, last: int) -> int:
    """Length of the citation mark at codes[at], a '[': [12], [], [edit], [citation needed]; 0 where it is none."""
    end = at + 1
    while end < last and 0x30 <= codes[end] <= 0x39:
        end += 1
    if end < last and codes[end] == _CLOSE:
        return end + 1 - at
    for phrase in (_EDIT, _CITATION):
        same = at + len(phrase) < last
        for j in range(len(phrase)):
            same = same and codes[at + 1 + j] == phrase[j]
        if same:
            return len(phrase) + 1
    return 0


@numba.njit(nogil=True, cache=True)
def c4_line(codes, first, last, kinds, phrases, line, every_script=False):  # type: ignore[no-untyped-def]
    """Ask C4's rules about one line, without the whitespace around it: (its length, what was found).

    Writes the line without citation marks to `line`. every_script: 。！？ and what else ends a sentence in any script
    counts, and a letter of a script without spaces is a word; else as C4 has it, for English. Found: bits of DROP,
    LOREM and CURLY; the last two are about the page, and of lines that no rule before them drops.
    """
    words, width, longest = 0, 0, 0
    for i in range(first, last):
        if kinds[codes[i]] & SPACE:
            width = 0
        else:
            words += width == 0 or (every_script and kinds[codes[i]] & SINGLE != 0)
            width += 1
            longest = max(longest, width)
    if longest > _LONGEST_WORD:
        return 0, DROP
    size, at = 0, first
    while at < last:
        skipped = _citation(codes, at, last) if codes[at] == _OPEN else 0
        if skipped:
            at += skipped
        else:
            line[size] = codes[at]
            size += 1
            at += 1
    if size == 0 or words < _FEWEST_WORDS:
        return size, DROP
    end = line[size - 1]
    dots = size >= 3 and end == _DOT and line[size - 2] == _DOT and line[size - 3] == _DOT
    closed = end == _DOT or end == 0x3F or end == 0x21 or end == 0x22 or end == 0x27  # ? ! " '
    if every_script:
        closed |= kinds[end] & TERMINAL != 0 or (kinds[end] & QUOTE != 0 and end >= 0x80)
    if dots or not closed:
        return size, DROP
    return size, _c4_phrases(line, size, phrases)


@numba.njit(nogil=True, cache=True)
def _c4_phrases(line: np.ndarray, size: int, phrases: np.ndarray) -> int:
    """What the phrases in a line say, in the order in which C4 asks."""
    lorem, script, curly, policy = False, False, False, False
    for i in range(size):
        if line[i] == _OPEN_CURLY:
            curly = True
        if i + 1 == size or line[i] >= 0x80:
            continue
        pair = _lower(line[i]) << 8 | _lower(line[i + 1])  # few places need a closer look
        if pair == 0x6C6F:  # lo
            lorem |= _holds(line, size, i, _LOREM)
        elif pair == 0x6A61:  # ja
            script |= _holds(line, size, i, phrases[0])
        elif pair == 0x7465 or pair == 0x7072 or pair == 0x636F or pair == 0x7573:  # te pr co us
            for k in range(1, len(phrases)):
                policy |= _holds(line, size, i, phrases[k])
    found = DROP if script or policy else 0
    found |= LOREM if lorem else 0
    return found | (CURLY if curly and not script else 0)


@numba.njit(nogil=True, cache=True)
def measure_c4(codes, size, lexicon, phrases, tokens, count, line, scratch, out):  # type: ignore[no-untyped-def]
    """Measure the signals of C4_DOCS, in that order, into out: float64[5].

    tokens: (starts, flags) of the text, `count` of them. line: int32 scratch of size. scratch: (starts, ends, hashes,
    flags), for the tokens of a line that has lost its citation marks.
    """
    starts, ends, hashes, flags = scratch
    kinds = lexicon[0]
    sentences, lines, lorem, curly, at, token = 0, 0, 0, 0, int(0), 0
    while at < size:
        end, after = next_line(codes, at, size, kinds)
        first, last = strip(codes, at, end, kinds)
        width, found = c4_line(codes, first, last, kinds, phrases, line)
        if not found & DROP:
            lines += 1
            if width == last - first:
                while token < count and tokens[0][token] < first:
                    token += 1
                begin = token
                while token < count and tokens[0][token] < last:
                    token += 1
                sentences += count_sentences(tokens[1][begin:token], token - begin)
            else:
                cut = tokenize(line, int(0), width, lexicon, starts, ends)
                describe_tokens(line, starts, ends, cut, kinds, hashes, flags)
                sentences += count_sentences(flags, cut)
        lorem |= found & LOREM
        curly |= found & CURLY
        at = after
    out[0], out[1], out[2], out[3] = sentences, lines, lorem != 0, curly != 0
    out[4] = _third_longest(codes, size)


@numba.njit(nogil=True, cache=True)
def _third_longest(codes: np.ndarray, size: int) -> int:
    one, two, three, at = 0, 0, 0, 0
    while at <= size:
        end = at
        while end < size and codes[end] != _NEWLINE:
            end += 1
        width = end - at
        if width > one:
            one, two, three = width, one, two
        elif width > two:
            two, three = width, two
        elif width > three:
            three = width
        at = end + 1
    return three
