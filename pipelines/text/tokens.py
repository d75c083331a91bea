"""Word tokens as the peers count them, in compiled code: what Gopher's, C4's and FineWeb's rules measure.

datatrove cuts words with spaCy's rules for English: at whitespace, then punctuation before and after a word, clitics
("do|n't", "it|'s"), and marks inside ("well|-|known"). `tokenize` follows those rules; where it differs is said in
docs/cleaning.md. A letter of a script without spaces between words (Han, Kana, Thai, …) is a token by itself.

Kernels work on code points (int32), so that lengths are characters, as they are in the peers.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from pipelines.text.punctuation import SYMBOLS, TERMINALS
from pipelines.text.shingles import fmix64
from pipelines.text.unicode import CODE_POINTS, SCRIPTS, Class, Flag, decode, tables

# What a character is to the tokenizer and to the rules: bits of the table `kinds`
SPACE, ALPHA, LOWER, UPPER, DIGIT = 1, 2, 4, 8, 16
PREFIX, SUFFIX, QUOTE, HYPHEN, ICON = 32, 64, 128, 256, 512
SYMBOL, PUNCTUATION, TERMINAL, SINGLE, LINE_END, CURRENCY = 1024, 2048, 4096, 8192, 16384, 32768

# What a token is: bits of `Tokens.flags`
HAS_ALPHA, HAS_WORD, IS_TERMINAL, IS_PUNCTUATION = 1, 2, 4, 8

# spaCy 3.8, lang/char_classes.py and lang/punctuation.py
_PUNCT = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_PREFIXES = "§%=—–" + _PUNCT + _QUOTES + _CURRENCY
_SUFFIXES = "—–" + _PUNCT + _QUOTES
_HYPHENS = "-–—~"
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ кг г мг"
)
# spaCy 3.8, lang/en/tokenizer_exceptions.py and BASE_EXCEPTIONS: what is one token although it has marks in it
_SPECIALS = (
    "a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. "
    "Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. "
    "Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. "
    "N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. "
    "a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü. "
    "and/or w/o C++ :) :-) :)) :-)) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( "
    "): )-: =( >:( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :3 =3 :> :-> :X :x :D "
    ":-D ;D =D xD XD <3 </3 ^_^ ^__^ -_- o_o o.o O.o O_o ¬_¬ (>_<) (-_-) <.< >.> v.v V.V"
)
_LINE_ENDS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"  # str.splitlines
_LONGEST_SPECIAL = 8

_DOT, _N, _T, _APOSTROPHE, _RIGHT_QUOTE = ord("."), ord("n"), ord("t"), ord("'"), ord("’")
_SLASH, _COLON, _AT, _PLUS, _QUESTION, _HASH = ord("/"), ord(":"), ord("@"), ord("+"), ord("?"), ord("#")


class Lexicon(NamedTuple):
    """What the kernels look up. kinds: uint16 per code point. specials, units: tables of uint64 hashes."""

    kinds: np.ndarray
    specials: np.ndarray
    units: np.ndarray


@functools.cache
def lexicon() -> Lexicon:
    """Make the tables of the tokenizer, read-only; once in a process."""
    known = tables()
    classes = known.classes
    kinds = np.zeros(CODE_POINTS, np.uint16)
    letters = (classes == Class.LETTER) | (classes == Class.CHARACTER)
    upper = letters & (known.flags & Flag.UPPER != 0)
    cased = letters & np.isin(known.scripts, _cased_scripts())
    bits: dict[int, np.ndarray | str] = {
        SPACE: classes == Class.SPACE,
        ALPHA: letters,
        UPPER: upper | (letters & ~cased),
        LOWER: letters & ~upper,
        ICON: (classes == Class.SYMBOL) & _may_be_icons(),
        PUNCTUATION: classes == Class.PUNCTUATION,
        SINGLE: classes == Class.CHARACTER,
        DIGIT: "0123456789",
        PREFIX: _PREFIXES,
        SUFFIX: _SUFFIXES,
        QUOTE: _QUOTES,
        HYPHEN: _HYPHENS,
        SYMBOL: SYMBOLS,
        TERMINAL: TERMINALS,
        LINE_END: _LINE_ENDS,
        CURRENCY: _CURRENCY,
    }
    for bit, which in bits.items():
        chosen = [ord(char) for char in which] if isinstance(which, str) else which
        kinds[chosen] |= np.uint16(bit)
    kinds[[ord(char) for char in "\x1c\x1d\x1e\x1f"]] |= np.uint16(SPACE)  # to str.split, not to Unicode
    kinds[[ord(char) for char in _CURRENCY]] &= np.uint16(0xFFFF ^ ICON)
    found = Lexicon(kinds, _hashes(_SPECIALS), _hashes(_UNITS))
    for table in found:
        table.flags.writeable = False
    return found


def _cased_scripts() -> list[int]:
    return [SCRIPTS.index(name) for name in ("latin", "greek", "cyrillic", "armenian", "georgian", "common", "other")]


def _may_be_icons() -> np.ndarray:
    """Where a symbol may be one of spaCy's icons (category So), and not of mathematics: bool per code point."""
    icons = np.ones(CODE_POINTS, np.bool_)
    for first, last in ((0, 0x2100), (0x2190, 0x2195), (0x2200, 0x2300), (0x27C0, 0x2800), (0x2900, 0x2B00)):
        icons[first:last] = False
    icons[[0xA6, 0xA9, 0xAE, 0xB0, 0x482]] = True  # ¦ © ® ° ҂
    return icons


def _hashes(words: str) -> np.ndarray:
    found = []
    for word in words.split():
        codes = np.array([ord(char) for char in word], np.int32)
        found.append(int(hash_codes(codes, 0, len(codes))))
    table = np.zeros(1 << (2 * len(found)).bit_length(), np.uint64)  # open addressing, 0 is free
    for value in found:
        slot = value % len(table)
        while table[slot]:
            slot = (slot + 1) % len(table)
        table[slot] = value
    return table


@numba.njit(nogil=True, cache=True)
def hash_codes(codes: np.ndarray, first: int, last: int) -> np.uint64:
    """Hash code points to 64 bits."""
    state = np.uint64(last - first)
    for i in range(first, last):
        state = (state ^ np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)  # Knuth 6.4
    return fmix64(state)


@numba.njit(nogil=True, cache=True)
def decode_text(data: np.ndarray, at: int, end: int, codes: np.ndarray) -> int:
    """Decode UTF-8 into code points; returns how many."""
    count = 0
    while at < end:
        if data[at] < 0x80:
            codes[count] = data[at]
            at += 1
        else:
            code, width = decode(data, at, end)
            codes[count] = code
            at += width
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _holds(table: np.ndarray, value: np.uint64) -> bool:
    mask = np.uint64(len(table) - 1)
    slot = value & mask
    while table[slot] != np.uint64(0) and table[slot] != value:
        slot = (slot + np.uint64(1)) & mask
    return bool(table[slot] == value)


@numba.njit(nogil=True, cache=True)
def _prefix(codes: np.ndarray, at: int, end: int, kinds: np.ndarray) -> int:
    """Characters that come off the front of codes[at:end], as one token; 0 where none do."""
    code = codes[at]
    if code == _DOT:
        run = 1
        while at + run < end and codes[at + run] == _DOT:
            run += 1
        return run if run > 1 else 0
    if kinds[code] & (PREFIX | ICON):
        return 1
    if code == _PLUS and not (at + 1 < end and kinds[codes[at + 1]] & DIGIT):
        return 1
    return 0


@numba.njit(nogil=True, cache=True)
def _suffix(codes: np.ndarray, at: int, end: int, kinds: np.ndarray, units: np.ndarray) -> int:
    """Characters that come off the end of codes[at:end], as one token; 0 where none do."""
    code = codes[end - 1]
    before = codes[end - 2] if end - 2 >= at else 0
    kind = kinds[before] if end - 2 >= at else 0
    if code == _DOT:
        run = 1
        while end - 1 - run >= at and codes[end - 1 - run] == _DOT:
            run += 1
        if run > 1:
            return run
        if kind & (DIGIT | LOWER | QUOTE | SUFFIX) or before == 0x25 or before == 0xB2 or before == 0x2D:  # % ² -
            return 1
        return 1 if kind & UPPER and end - 3 >= at and kinds[codes[end - 3]] & UPPER else 0
    if kinds[code] & (SUFFIX | ICON):
        return 1
    if (code == 0x73 or code == 0x53) and (before in (_APOSTROPHE, _RIGHT_QUOTE)):  # 's 'S
        return 2
    if kind & DIGIT and (code == _PLUS or kinds[code] & CURRENCY):
        return 1
    for width in range(1, 5):  # a unit after a digit
        if end - width - 1 < at:
            return 0
        if kinds[codes[end - width - 1]] & DIGIT:
            return width if _holds(units, hash_codes(codes, end - width, end)) else 0
    return 0


@numba.njit(nogil=True, cache=True)
def _is_special(codes: np.ndarray, at: int, end: int, known: np.ndarray) -> bool:
    return 2 <= end - at <= _LONGEST_SPECIAL and _holds(known, hash_codes(codes, at, end))


@numba.njit(nogil=True, cache=True)
def _is_url(codes: np.ndarray, at: int, end: int, kinds: np.ndarray) -> bool:
    """Whether codes[at:end] is an address: a scheme, or labels with dots between them and a lower-case last one."""
    host = at
    for i in range(at, end):
        if codes[i] == _COLON and i + 2 < end and codes[i + 1] == _SLASH and codes[i + 2] == _SLASH:
            host = i + 3 if i - at >= 2 else host
            break
        if codes[i] == _AT:
            host = i + 1
            break
        if codes[i] == _SLASH:
            break
    label, lower, dots = 0, True, 0
    for i in range(host, end):
        code = codes[i]
        if code in (_SLASH, _QUESTION, _HASH, _COLON):
            break
        if code == _DOT:
            if label == 0:
                return False
            dots += 1
            label, lower = 0, True
        elif kinds[code] & (ALPHA | DIGIT) or code >= 0xA1 or (label and (code == 0x2D or code == 0x5F)):  # - _
            label += 1
            lower &= kinds[code] & LOWER != 0
        else:
            return False
    return dots > 0 and label >= 2 and lower


@numba.njit(nogil=True, cache=True)
def _clitic(codes: np.ndarray, at: int, end: int, kinds: np.ndarray) -> int:
    """Length of the clitic that ends a word: n't, 're, 've, 'll, 'd, 'm, and the 'not' of 'cannot'; else 0."""
    size = end - at
    if size < 3 or not kinds[codes[at]] & ALPHA:
        return 0
    last, second, third = codes[end - 1], codes[end - 2], codes[end - 3]
    if last == _T and (second in (_APOSTROPHE, _RIGHT_QUOTE)) and third == _N and size > 3:
        return 3
    if second in (_APOSTROPHE, _RIGHT_QUOTE):
        return 2 if last == 0x64 or last == 0x6D else 0  # 'd 'm
    if (third in (_APOSTROPHE, _RIGHT_QUOTE)) and size > 3:
        pair = last + (second << 8)
        return 3 if pair == 0x7265 or pair == 0x7665 or pair == 0x6C6C else 0  # re ve ll
    if size == 6 and third == _N and second == 0x6F and last == _T and codes[at + 1] == 0x61 and codes[at + 2] == _N:
        return 3 if codes[at] == 0x63 or codes[at] == 0x43 else 0  # cannot
    return 0


@numba.njit(nogil=True, cache=True)
def _infix(codes: np.ndarray, i: int, at: int, end: int, kinds: np.ndarray) -> int:
    """Characters from codes[i] on that part the word codes[at:end] in two, as a token of their own; else 0."""
    code = codes[i]
    kind = kinds[code]
    if kind & (ALPHA | DIGIT):
        return 0
    before = kinds[codes[i - 1]] if i > at else 0
    after = kinds[codes[i + 1]] if i + 1 < end else 0
    if code == _DOT:
        run = 1
        while i + run < end and codes[i + run] == _DOT:
            run += 1
        if run > 1:
            return run
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if kind & ICON or code == 0x2026:  # …
        return 1
    if code == 0x2C:
        return 1 if before & ALPHA and after & ALPHA else 0
    operator = code == _PLUS or code == 0x2D or code == 0x2A or code == 0x5E  # + - * ^
    if operator and before & DIGIT and (after & DIGIT or (i + 1 < end and codes[i + 1] == 0x2D)):
        return 1
    if kind & HYPHEN and before & (ALPHA | DIGIT):
        run = 1
        while i + run < end and codes[i + run] == code:
            run += 1
        return run if run <= 3 and i + run < end and kinds[codes[i + run]] & ALPHA else 0
    if code in (_COLON, _SLASH) or 60 <= code <= 62:  # : / < = >
        return 1 if before & (ALPHA | DIGIT) and after & ALPHA else 0
    return 0


@numba.njit(nogil=True, cache=True)
def _word(codes, at, end, lexicon, starts, ends, count):  # type: ignore[no-untyped-def]
    """Cut one run without whitespace into tokens; returns how many there are by then."""
    kinds, specials, units = lexicon
    while at < end and not _is_special(codes, at, end, specials):
        width = _prefix(codes, at, end, kinds)
        if not width:
            break
        starts[count], ends[count] = at, at + width
        count += 1
        at += width
    stop = end
    while at < end and not _is_special(codes, at, end, specials):
        width = _suffix(codes, at, end, kinds, units)
        if not width:
            break
        end -= width
    if at < end:
        count = _middle(codes, at, end, lexicon, starts, ends, count)
    first = count
    while end < stop:  # the suffixes again, from the end, written backwards
        width = max(1, _suffix(codes, at, stop, kinds, units))
        starts[count], ends[count] = stop - width, stop
        count += 1
        stop -= width
    low, high = first, count - 1
    while low < high:
        starts[low], starts[high] = starts[high], starts[low]
        ends[low], ends[high] = ends[high], ends[low]
        low += 1
        high -= 1
    return count


@numba.njit(nogil=True, cache=True)
def _middle(codes, at, end, lexicon, starts, ends, count):  # type: ignore[no-untyped-def]
    """Cut what is left of a word between its prefixes and suffixes."""
    kinds, specials, _ = lexicon
    plain = True
    for i in range(at, end):
        plain &= kinds[codes[i]] & (ALPHA | DIGIT) != 0
    clitic = _clitic(codes, at, end, kinds) if not plain or end - at == 6 else 0
    whole = plain or _is_special(codes, at, end, specials) or _is_url(codes, at, end, kinds)
    if not clitic and not whole:
        for i in range(at, end):
            if i >= at:
                width = _infix(codes, i, at, end, kinds)
                if width:
                    if i > at:
                        starts[count], ends[count] = at, i
                        count += 1
                    starts[count], ends[count] = i, i + width
                    count += 1
                    at = i + width
    if at < end - clitic:
        starts[count], ends[count] = at, end - clitic
        count += 1
    if clitic:
        starts[count], ends[count] = end - clitic, end
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def tokenize(codes, first, last, lexicon, starts, ends):  # type: ignore[no-untyped-def]
    """Cut code points [first, last) into tokens: writes starts and ends, int32, returns how many (at most a character
    each)."""
    kinds = lexicon[0]
    count, at = int(0), int(first)
    while at < last:
        kind = kinds[codes[at]]
        if kind & SPACE:
            at += 1
        elif kind & SINGLE:
            starts[count], ends[count] = at, at + 1
            count += 1
            at += 1
        else:
            end = at
            seen = np.uint16(0)
            while end < last:
                kind = kinds[codes[end]]
                if not kind & (ALPHA | DIGIT) or kind & SINGLE:
                    break
                seen |= kind
                end += 1
            stop = end
            while stop < last and not kinds[codes[stop]] & (SPACE | SINGLE):
                stop += 1
            # most words are letters alone, or with one mark behind them that always comes off
            bare = stop == end or (stop == end + 1 and kinds[codes[end]] & SUFFIX)
            cannot = end - at == 6 and codes[at + 1] == 0x61 and codes[at + 2] == _N
            if bare and end > at and not cannot and not (seen & DIGIT and seen & ALPHA):  # 800m
                starts[count], ends[count] = at, end
                count += 1
                if stop > end:
                    starts[count], ends[count] = end, stop
                    count += 1
            else:
                count = _word(codes, at, stop, lexicon, starts, ends, count)
            at = stop
    return count


@numba.njit(nogil=True, cache=True)
def describe_tokens(codes, starts, ends, count, kinds, hashes, flags):  # type: ignore[no-untyped-def]
    """Hash every token (uint64) and say what it is (uint8): HAS_ALPHA, HAS_WORD (a character that is no symbol),
    IS_TERMINAL (one character that ends a sentence), IS_PUNCTUATION (punctuation throughout)."""
    for i in range(count):
        state, every, some = np.uint64(ends[i] - starts[i]), np.uint16(0xFFFF), np.uint16(0)
        symbols = True
        for j in range(starts[i], ends[i]):
            state = (state ^ np.uint64(codes[j])) * np.uint64(0x9E3779B97F4A7C15)
            kind = kinds[codes[j]]
            every &= kind
            some |= kind
            symbols &= kind & SYMBOL != 0
        hashes[i] = fmix64(state)
        flag = HAS_ALPHA if some & ALPHA else 0
        flag |= 0 if symbols else HAS_WORD
        flag |= IS_TERMINAL if every & TERMINAL and ends[i] - starts[i] == 1 else 0
        flag |= IS_PUNCTUATION if every & PUNCTUATION else 0
        flags[i] = flag


@numba.njit(nogil=True, cache=True)
def count_sentences(flags: np.ndarray, count: int) -> int:
    """Count sentences as spaCy's sentencizer does: a new one after a terminal, at what is no punctuation."""
    sentences, seen = min(count, 1), False
    for i in range(count):
        if seen and not flags[i] & (IS_TERMINAL | IS_PUNCTUATION):
            sentences += 1
            seen = False
        elif flags[i] & IS_TERMINAL:
            seen = True
    return sentences
