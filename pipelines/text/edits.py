"""Edits: lines, and parts of lines, that go out of a text, as C4's and RefinedWeb's rules say; compiled.

C4: Raffel et al. 2020, section 2.2, with the additions of c4_utils.py (TensorFlow Datasets), as datatrove 0.10.1 does
in c4_filters.py. RefinedWeb: Penedo et al. 2023, appendix G.2, with the expressions of DCLM
(baselines/mappers/filters); its patterns have counterparts in Chinese here.
"""

from __future__ import annotations

from collections.abc import Collection

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.text.entities import unescape_whole
from pipelines.text.tokens import ALPHA, DIGIT, LOWER, SINGLE, SPACE, UPPER, decode_text, lexicon
from pipelines.text.unicode import utf8
from pipelines.text.web import DROP, PHRASES, c4_line, next_line, strip

DOCS = {"removed_word_ratio": "words in what refinedweb_lines took out / words before"}
EDITS = ("html_entities", "c4_lines", "refinedweb_lines")
_NEWLINE = 10
_FEW_WORDS = 10  # RefinedWeb: only so short a line is searched for patterns

# What a counter counts: "3 likes", "1.2K views", "12条评论"
_COUNTED = (
    "likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes", "downloads",
    "views", "followers", "赞", "个赞", "點讚", "条评论", "評論", "评论", "次浏览", "次观看", "次阅读", "人关注",
    "转发", "收藏",
)  # fmt: skip
_AT_START = ("sign-in", "sign in", "log in", "登录", "登錄", "注册")
_AT_END = ("read more...", "read more", "阅读更多", "閱讀更多", "查看更多", "展开全文", "展開全文")
_ANYWHERE = ("items in cart", "件商品在购物车")


def _phrases(words: tuple[str, ...]) -> np.ndarray:
    table = np.zeros((len(words), max(map(len, words)) + 1), np.int32)
    for i, word in enumerate(words):
        table[i, : len(word)] = [ord(char) for char in word]
    return table


_PATTERNS = _phrases(_COUNTED), _phrases(_AT_START), _phrases(_AT_END), _phrases(_ANYWHERE)


def edit(texts: pa.Array, names: Collection[str]) -> tuple[pa.Array, dict[str, np.ndarray]]:
    """Make the line edits among `names`: (texts, the signals of DOCS that they measure: name → float64[n])."""
    measured = {}
    if "c4_lines" in names:
        texts = c4_lines(texts)
    if "refinedweb_lines" in names:
        texts, measured["removed_word_ratio"] = refinedweb_lines(texts)
    return texts, measured


def html_entities(texts: pa.Array) -> pa.Array:
    """Replace whole character references of HTML (&amp; &#20013; &nbsp;) by what they stand for, once."""
    marked = np.flatnonzero(pc.match_substring_regex(texts.fill_null(""), r"&#?\w+;").to_numpy(zero_copy_only=False))
    if not len(marked):
        return texts
    changed = pa.array([unescape_whole(text) for text in texts.take(marked).to_pylist()], texts.type)
    mask = np.zeros(len(texts), np.bool_)
    mask[marked] = True
    return pc.replace_with_mask(texts, mask, changed)


def c4_lines(texts: pa.Array) -> pa.Array:
    """Keep the lines that C4's rules keep, without citation marks and whitespace around them, joined by '\\n'.

    Dropped: a line without a full stop, question or exclamation mark or quotation mark at its end, of fewer than three
    words, with a word of more than 1,000 characters, or with 'javascript' or a phrase of cookie notices. What ends a
    sentence in another script counts too (。！？」), and a letter of a script without spaces is a word.
    """
    data, offsets = utf8(texts)
    out, ends = _c4(data, offsets, lexicon().kinds, PHRASES)
    return _array(out, ends, texts)


def refinedweb_lines(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Drop lines that are no prose, and patterns at the borders of short ones: (texts, share of the words that went).

    Dropped: a line mainly in capitals, of digits only, of one word, or a counter ("3 likes"). Where a line is not of
    spaced words, its characters are counted in place of words. The paper drops a page that loses more than 5 %.
    """
    data, offsets = utf8(texts)
    out, ends, shares = _refinedweb(data, offsets, lexicon().kinds, _PATTERNS)
    return _array(out, ends, texts), shares


def _array(out: np.ndarray, ends: np.ndarray, texts: pa.Array) -> pa.Array:
    large = pa.Array.from_buffers(
        pa.large_string(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]].copy())]
    )
    return large.cast(texts.type)


@numba.njit(nogil=True, cache=True)
def encode_text(codes, first, last, out, at):  # type: ignore[no-untyped-def]
    """Write codes[first:last] as UTF-8 from out[at] on; returns the end."""
    for i in range(first, last):
        code = codes[i]
        if code < 0x80:
            out[at] = code
            at += 1
        elif code < 0x800:
            out[at], out[at + 1] = 0xC0 | code >> 6, 0x80 | (code & 0x3F)
            at += 2
        elif code < 0x10000:
            out[at], out[at + 1], out[at + 2] = 0xE0 | code >> 12, 0x80 | (code >> 6 & 0x3F), 0x80 | (code & 0x3F)
            at += 3
        else:
            out[at], out[at + 1] = 0xF0 | code >> 18, 0x80 | (code >> 12 & 0x3F)
            out[at + 2], out[at + 3] = 0x80 | (code >> 6 & 0x3F), 0x80 | (code & 0x3F)
            at += 4
    return at


@numba.njit(nogil=True, cache=True)
def _c4(data, offsets, kinds, phrases):  # type: ignore[no-untyped-def]
    rows, longest = len(offsets) - 1, 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes, line = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    out, ends = np.empty(offsets[rows] - offsets[0], np.uint8), np.zeros(rows + 1, np.int64)
    for row in range(rows):
        size = decode_text(data, offsets[row], offsets[row + 1], codes)
        to, at = ends[row], int(0)
        while at < size:
            end, after = next_line(codes, at, size, kinds)
            first, last = strip(codes, at, end, kinds)
            width, found = c4_line(codes, first, last, kinds, phrases, line, True)
            if not found & DROP:
                if to > ends[row]:
                    out[to] = _NEWLINE
                    to += 1
                to = encode_text(line, int(0), width, out, to)
            at = after
        ends[row + 1] = to
    return out, ends


@numba.njit(nogil=True, cache=True)
def _lower(code: int) -> int:
    return code + 32 if 0x41 <= code <= 0x5A else code


@numba.njit(nogil=True, cache=True)
def _matches(codes, at, last, phrases):  # type: ignore[no-untyped-def]
    """Length of the longest phrase that codes[at:last] begins with, ASCII case aside; 0 where it begins with none."""
    longest = 0
    for k in range(len(phrases)):
        width = 0
        while phrases[k, width] and at + width < last and _lower(codes[at + width]) == phrases[k, width]:
            width += 1
        if phrases[k, width] == 0:
            longest = max(longest, width)
    return longest


@numba.njit(nogil=True, cache=True)
def _words(codes, first, last, kinds):  # type: ignore[no-untyped-def]
    """Count words: runs without whitespace, and every letter of a script without spaces."""
    count, inside = 0, False
    for i in range(first, last):
        kind = kinds[codes[i]]
        if kind & SINGLE:
            count += 1
            inside = False
        elif kind & SPACE:
            inside = False
        elif not inside:
            count += 1
            inside = True
    return count


@numba.njit(nogil=True, cache=True)
def _is_counter(codes, first, last, kinds, counted):  # type: ignore[no-untyped-def]
    """Whether a line is a number and what it counts, with marks around: "3 likes", "(1.2K views)", "12条评论"."""
    at = first
    while at < last and not kinds[codes[at]] & (ALPHA | DIGIT):
        at += 1
    start = at
    while at < last and (kinds[codes[at]] & DIGIT or codes[at] == 0x2C or codes[at] == 0x2E):  # , .
        at += 1
    if at == start:
        return False
    lower = _lower(codes[at]) if at < last else 0
    if (lower == 0x6B or lower == 0x6D or lower == 0x62) and at + 1 < last and kinds[codes[at + 1]] & SPACE:  # k m b
        at += 1
    while at < last and kinds[codes[at]] & SPACE:
        at += 1
    width = _matches(codes, at, last, counted)
    for i in range(at + width, last):
        if kinds[codes[i]] & (ALPHA | DIGIT):
            return False
    return width > 0


@numba.njit(nogil=True, cache=True)
def _is_no_prose(codes, first, last, words, kinds, counted):  # type: ignore[no-untyped-def]
    letters, upper, digits, others = 0, 0, 0, 0
    for i in range(first, last):
        kind = kinds[codes[i]]
        if kind & ALPHA:
            letters += 1
            upper += kind & UPPER != 0 and kind & LOWER == 0  # letters without case have both
        elif kind & DIGIT:
            digits += 1
        elif not kind & SPACE:
            others += 1
    if words <= 1 or 2 * upper > last - first:
        return True
    if digits and not letters and not others:
        return True
    return _is_counter(codes, first, last, kinds, counted)


@numba.njit(nogil=True, cache=True)
def _refinedweb(data, offsets, kinds, patterns):  # type: ignore[no-untyped-def]
    counted, at_start, at_end, anywhere = patterns
    rows, longest = len(offsets) - 1, 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes = np.empty(longest + 1, np.int32)
    out, ends = np.empty(offsets[rows] - offsets[0], np.uint8), np.zeros(rows + 1, np.int64)
    shares = np.zeros(rows, np.float64)
    for row in range(rows):
        size = decode_text(data, offsets[row], offsets[row + 1], codes)
        to, at, total, gone, written = ends[row], int(0), 0, 0, False
        while at <= size:
            end = at
            while end < size and codes[end] != _NEWLINE:
                end += 1
            first, last = strip(codes, at, end, kinds)
            words = _words(codes, first, last, kinds)
            total += words
            keep = True
            if first < last and _is_no_prose(codes, first, last, words, kinds, counted):
                keep, gone = False, gone + words
            elif first < last and words <= _FEW_WORDS:
                first, last = _cut(codes, first, last, kinds, at_start, at_end, anywhere)
                left = _words(codes, first, last, kinds)
                gone += words - left
                keep = left > 0
                if keep and left == words:
                    first, last = at, end
            else:
                first, last = at, end
            if keep:
                if written:
                    out[to] = _NEWLINE
                    to += 1
                to = encode_text(codes, first, last, out, to)
                written = True
            at = end + 1
        ends[row + 1] = to
        shares[row] = gone / total if total else 0.0
    return out, ends, shares


@numba.njit(nogil=True, cache=True)
def _cut(codes, first, last, kinds, at_start, at_end, anywhere):  # type: ignore[no-untyped-def]
    """Bounds of a short line without the patterns at its beginning and end; none of it where one stands anywhere."""
    first += _matches(codes, first, last, at_start)
    for i in range(first, last):
        width = _matches(codes, i, last, at_end)
        if width and i + width == last:
            last = i
            break
    for i in range(first, last):
        if _matches(codes, i, last, anywhere):
            return first, first
    return strip(codes, first, last, kinds)
