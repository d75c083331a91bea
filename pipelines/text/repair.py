"""Repair of mojibake (UTF-8 that was read in another encoding) by ftfy, on the few texts that can need it.

ftfy is slow (some MB/s), so a compiled screen marks the texts in which it could change anything: a C1 control, an
escape character, one of Œ œ Ã Â, or two neighbours that occur in its heuristic for mojibake
(`ftfy.badness.BADNESS_RE`). The screen marks too much and never too little; a test holds it against ftfy itself.
"""

from __future__ import annotations

import functools
import re

import ftfy
import numba
import numpy as np
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES

from pipelines.text.unicode import CODE_POINTS, decode

# Encodings, C1 controls, terminal escapes and surrogates only. Curly quotes, ligatures, full-width forms (Chinese
# punctuation!) and HTML entities are content; line ends, controls and the normal form are `normalize`'s own business.
OPTIONS = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=True,
    fix_encoding=True,
    restore_byte_a0=True,
    replace_lossy_sequences=True,
    decode_inconsistent_utf8=True,
    fix_c1_controls=True,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=True,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)

# Kinds of characters in the heuristic. CERTAIN marks a text alone, HOT beside any other of these, the rest in PAIRS.
_NONE, _COMMON, _OPENING, _CLOSING, _LETTER, _SHORT, _LOWER, _UPPER, _HOT, _CERTAIN = range(10)
_PAIRS = np.zeros((10, 10), np.bool_)
_PAIRS[_COMMON:, _HOT] = _PAIRS[_HOT, _COMMON:] = True
for _first, _second in (
    (_LETTER, _UPPER),
    (_SHORT, _UPPER),
    (_SHORT, _OPENING),
    (_SHORT, _CLOSING),
    (_LOWER, _UPPER),
    (_LOWER, _OPENING),
    (_LOWER, _CLOSING),
    (_UPPER, _OPENING),
    (_UPPER, _CLOSING),
    (_CLOSING, _LOWER),
    (_CLOSING, _UPPER),
):
    _PAIRS[_first, _second] = True
# categories of ftfy that are not HOT
_KINDS = {
    "common": _COMMON,
    "start_punctuation": _OPENING,
    "end_punctuation": _CLOSING,
    "lower_common": _LETTER,
    "upper_common": _LETTER,
    "kaomoji": _LOWER,
    "lower_accented": _LOWER,
    "upper_accented": _UPPER,
}
_SHORT_SEQUENCES = "ВГРСΒΓΞΟ"  # letters that the heuristic takes together with a quotation mark
_HOT_LITERALS = "ÎÐØÙ°Ђ‚"  # named in it one by one, beside characters that are harmless elsewhere
_CERTAIN_LITERALS = "\x1bŒœÃÂ"  # enough for it beside an ASCII character


def repair(text: str) -> str:
    """Repair the mojibake in one text, line by line, with OPTIONS."""
    return ftfy.fix_text(text, OPTIONS)


@functools.cache
def kinds() -> np.ndarray:
    """Classify every code point for `is_suspect`, from the tables of the installed ftfy: uint8[CODE_POINTS]."""
    table = np.full(CODE_POINTS, _NONE, np.uint8)
    table[[ord(char) for char in BADNESS_RE.pattern if ord(char) >= 0x80]] = _HOT
    every = "".join(map(chr, [*range(0x80, 0xD800), *range(0xE000, 0x10000)]))
    for name in (*_KINDS, *(name for name in MOJIBAKE_CATEGORIES if name not in _KINDS)):
        members = re.findall(f"[{MOJIBAKE_CATEGORIES[name]}]", every)
        table[[ord(char) for char in members]] = _KINDS.get(name, _HOT)
    for literals, kind in ((_SHORT_SEQUENCES, _SHORT), (_HOT_LITERALS, _HOT), (_CERTAIN_LITERALS, _CERTAIN)):
        table[[ord(char) for char in literals]] = kind
    table[0x80:0xA0] = _CERTAIN  # C1 controls
    table.flags.writeable = False
    return table


def suspects(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mark the texts that ftfy could change: bool[len(offsets) - 1]; data, offsets: as `unicode.utf8` gives them."""
    return _suspects(data, offsets, kinds(), _PAIRS)


@numba.njit(nogil=True, cache=True)
def _suspects(data: np.ndarray, offsets: np.ndarray, kinds: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    marked = np.zeros(offsets.shape[0] - 1, np.bool_)
    for row in range(marked.shape[0]):
        at, end = offsets[row], offsets[row + 1]
        before = np.uint8(_NONE)
        while at < end:
            if data[at] < 0x80 and data[at] != 0x1B:
                before = np.uint8(_NONE)
                at += 1
                continue
            code, width = decode(data, at, end)
            at += width
            kind = kinds[code]
            if kind == _CERTAIN or pairs[before, kind]:
                marked[row] = True
                break
            before = kind
    return marked
